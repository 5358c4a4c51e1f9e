"""What a crash left is removed, what is damaged set aside, and what the output log still has comes again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from twinloop.durable import sync_directory
from twinloop.stores.footers import brief, is_damage, read_segment
from twinloop.stores.latest import latest_path, remove_old
from twinloop.stores.minutes import parts_of
from twinloop.stores.rows import SCHEMAS
from twinloop.stores.segments import DAMAGED, Segment, list_segments, write_segment
from twinloop.stores.writing import TEMPORARY

__all__ = ["NEVER", "Damage", "clear", "remove", "set_aside", "tidy"]

logger = logging.getLogger("twinloop.store")

NEVER: Final = 2**63 - 1
"""As an offset: the output log has nothing that could come again."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A segment that could not be read and was set aside.

    Attributes:
        kind, first, last: what it answered for, output-log offsets both included.
        path: where the file lies now.
        recovered: whether nothing is lost: the segments it was merged from were still there, it could be made
            anew, or `covered` went back, so that the output log delivers the range again.
    """

    kind: str
    first: int
    last: int
    path: Path
    recovered: bool


def clear(directory: Path) -> None:
    """Remove what crashes and merges left behind. Raises OSError."""
    for path in directory.glob(f"*{TEMPORARY}"):
        path.unlink()
    listing = list_segments(directory)
    remove(directory, [*listing.superseded, *listing.uncommitted])
    remove_old(directory, [latest_path(directory, listing.covered)])


def remove(directory: Path, segments: Sequence[Segment]) -> None:
    """Remove segments, also where some are gone already. Raises OSError."""
    for segment in segments:
        segment.path.unlink(missing_ok=True)
    if segments:
        sync_directory(directory)


def tidy(directory: Path, redeliverable_from: int) -> list[Damage]:
    """Set damaged segments aside: footers of all are looked at, and pages of what could come again."""
    damage: list[Damage] = []
    while (damaged := _first_damaged(directory, redeliverable_from)) is not None:
        damage.append(set_aside(damaged, redeliverable_from))
    return damage


def _first_damaged(directory: Path, redeliverable_from: int) -> Segment | None:
    for segment in list_segments(directory).live:
        try:
            brief(segment)
            if segment.first >= redeliverable_from:
                read_segment(segment)
        except (OSError, ValueError, pa.ArrowException) as error:
            if not is_damage(error):
                raise
            return segment
    return None


def set_aside(segment: Segment, redeliverable_from: int) -> Damage:
    """Rename a damaged segment; whatever it was merged from and is still there takes its place.

    Minutes are made of samples again. Else the output log delivers the range again, if it can, and all that
    came after. Else an empty stand-in keeps answering for samples, so that the loss stays where it is and is
    not taken for work to do.
    """
    aside = segment.path.with_name(segment.path.name + DAMAGED)
    segment.path.rename(aside)
    sync_directory(segment.directory)
    recovered = _is_held(segment) or _is_made_anew(segment)
    if not recovered and segment.first >= redeliverable_from:
        listing = list_segments(segment.directory)
        remove(segment.directory, [each for each in listing.of("samples") if each.last >= segment.first])
        recovered = True
    if not recovered and segment.kind == "samples":
        write_segment(segment, SCHEMAS["samples"].empty_table(), lost=True)
    fate = "they are delivered again or held elsewhere" if recovered else "their rows are missing"
    logger.error("%s: damaged, set aside; offsets %d to %d: %s", aside, segment.first, segment.last, fate)
    return Damage(segment.kind, segment.first, segment.last, aside, recovered)


def _is_held(segment: Segment) -> bool:
    """Whether the segments a damaged one was merged from are all there."""
    parts = [each for each in list_segments(segment.directory).of(segment.kind) if segment.contains(each)]
    return sum(each.last - each.first + 1 for each in parts) == segment.last - segment.first + 1


def _is_made_anew(segment: Segment) -> bool:
    """Whether a segment of minutes could be made of the samples of its range; others cannot."""
    if segment.kind != "minutes":
        return False
    for samples in _between(segment):
        try:
            table = read_segment(samples)
        except (OSError, ValueError, pa.ArrowException):
            return False
        minutes = Segment(samples.first, samples.last, "minutes", segment.directory)
        write_segment(minutes, parts_of(table), level=brief(samples).level)
    return True


def _between(segment: Segment) -> Iterator[Segment]:
    for samples in list_segments(segment.directory).of("samples"):
        if segment.first <= samples.first and samples.last <= segment.last:
            yield samples
