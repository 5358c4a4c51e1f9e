"""What a crash left is removed, what is damaged set aside, and what the output log still has comes again."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from twinloop.durable import sync_directory
from twinloop.stores.footers import brief, identity, is_damage, read_segment, verify
from twinloop.stores.latest import latest_path, remove_old
from twinloop.stores.merging import make_minutes
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
                verify(segment)
        except (OSError, ValueError, pa.ArrowException) as error:
            if not is_damage(error):
                raise
            return segment
    return None


def set_aside(segment: Segment, redeliverable_from: int) -> Damage:
    """Rename a damaged segment; whatever it was merged from and is still there takes its place.

    Minutes are made of samples again. Else the output log delivers the range again, if it can, and all that
    came after. Else empty stand-ins keep answering for samples, so that the loss stays where it is and is
    not taken for work to do. The damaged file goes last: a kill meanwhile leaves it to be found again.
    """
    aside = segment.path.with_name(segment.path.name + DAMAGED)
    _keep_as(aside, segment)
    damaged = identity(segment)
    recovered = not _holes(segment) if segment.kind != "minutes" else _make_minutes(segment)
    recovered = recovered or _rewind(segment, redeliverable_from)
    if not recovered and segment.kind == "samples":
        for first, last in _holes(segment):
            lost = Segment(first, last, "samples", segment.directory)
            write_segment(lost, SCHEMAS["samples"].empty_table(), lost=True)
    with contextlib.suppress(FileNotFoundError):
        if identity(segment) == damaged:  # else another took its name
            segment.path.unlink()
    sync_directory(segment.directory)
    fate = "they are delivered again or held elsewhere" if recovered else "their rows are missing"
    logger.error("%s: damaged, set aside; offsets %d to %d: %s", aside, segment.first, segment.last, fate)
    return Damage(segment.kind, segment.first, segment.last, aside, recovered)


def _keep_as(aside: Path, segment: Segment) -> None:
    """Give a file a second name that stays when the first goes to another file."""
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(segment.path)
    except OSError:  # not every file system has such names
        shutil.copy2(segment.path, aside)


def _holes(segment: Segment) -> list[tuple[int, int]]:
    """The offsets of a damaged segment that nothing it was merged from answers for."""
    parts = [
        each
        for each in list_segments(segment.directory, [segment]).of(segment.kind)
        if segment.contains(each)
    ]
    holes, expected = [], segment.first
    for part in parts:
        if part.first > expected:
            holes.append((expected, part.first - 1))
        expected = part.last + 1
    return holes if expected > segment.last else [*holes, (expected, segment.last)]


def _make_minutes(segment: Segment) -> bool:
    """Whether minutes could be made of all the samples of their range."""
    samples = [
        each
        for each in list_segments(segment.directory).of("samples")
        if segment.first <= each.first and each.last <= segment.last
    ]
    if sum(each.last - each.first + 1 for each in samples) != segment.last - segment.first + 1:
        return False
    try:
        if any(brief(each).gone or brief(each).lost for each in samples):
            return False
        for each in samples:
            make_minutes(each)
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def _rewind(segment: Segment, redeliverable_from: int) -> bool:
    """Whether the output log can deliver again from a damaged segment on; what came after is removed then.

    The newest goes first, so that what is left at any moment answers for all offsets up to its end.
    """
    listing = list_segments(segment.directory)
    there = sorted({*listing.live, *listing.superseded, *listing.uncommitted} - {segment})
    first = segment.first
    while reaching := [
        each.first for each in there if each.first < first <= each.last and not _has_offsets(each)
    ]:
        first = min(reaching)
    if first < redeliverable_from:
        return False
    try:
        for each in there:
            if each.first < first <= each.last:
                _keep_before(each, first)
    except (OSError, ValueError, pa.ArrowException) as error:
        if not is_damage(error):
            raise
        return False  # damaged, too: what it has cannot be told from what comes again
    for each in sorted(there, key=lambda each: (each.last, each.kind == "samples"), reverse=True):
        if each.last >= first:
            each.path.unlink(missing_ok=True)
            sync_directory(segment.directory)
    return True


def _has_offsets(segment: Segment) -> bool:
    """Whether a segment can be cut at an offset; samples are not, they say how far the store is."""
    return segment.kind != "samples" and "offset" in SCHEMAS[segment.kind].names


def _keep_before(segment: Segment, end: int) -> None:
    """The rows of a segment before an offset, in a segment of their own."""
    rows = read_segment(segment)
    rows = rows.filter(pc.less(rows["offset"], end))
    if len(rows):
        write_segment(Segment(segment.first, end - 1, segment.kind, segment.directory), rows)
