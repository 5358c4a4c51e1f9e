"""What is older than it is to be kept goes, a segment at a time; its minutes may stay.

An empty stand-in takes the place of samples, so that there are no holes among the offsets answered for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.durable import sync_directory
from twinloop.stores.footers import brief
from twinloop.stores.rows import SCHEMAS
from twinloop.stores.segments import Listing, Segment, list_segments, write_segment

__all__ = ["Retention", "let_go"]

_WITH_SAMPLES: Final = ("fills", "snapshots", "dead")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long samples are kept, and what stays of them.

    Attributes:
        keep_ns: samples, fills, snapshots and dead letters go when they are older; events stay.
        minutes: whether the minutes stay.
    """

    keep_ns: int
    minutes: bool = True


def let_go(
    directory: Path, retention: Retention, now_ns: int, make_minutes: Callable[[Segment], None]
) -> int:
    """Let go of what is too old; how many segments that were.

    Should this host's clock be ahead, the newest sample's time counts in its place.

    Args:
        directory: the store's.
        retention: the rule.
        now_ns: this host's clock.
        make_minutes: makes the minutes of a segment of samples that has none.

    Raises:
        DamagedError: a segment cannot be read.
        OSError: the disk would not take it.
    """
    listing = list_segments(directory)
    samples = [segment for segment in listing.of("samples") if brief(segment).rows]
    if not samples:
        return 0
    before = min(now_ns, max(brief(segment).time_max for segment in samples)) - retention.keep_ns
    old = [segment for segment in samples[:-1] if brief(segment).time_max < before]
    rolled = {(each.first, each.last) for each in listing.of("minutes")}
    for segment in old:
        if retention.minutes and (segment.first, segment.last) not in rolled:
            make_minutes(segment)
        empty = SCHEMAS["samples"].empty_table()
        write_segment(segment, empty, level=brief(segment).level, gone=True)
    beside = _beside(listing, retention, before)
    for segment in beside:
        segment.path.unlink(missing_ok=True)
    if beside:
        sync_directory(directory)
    return len(old) + len(beside)


def _beside(listing: Listing, retention: Retention, before: int) -> list[Segment]:
    """Old segments of other kinds; first those they have superseded, which would take their place."""
    kinds = (*_WITH_SAMPLES, *(() if retention.minutes else ("minutes",)))
    old = [each for kind in kinds for each in listing.of(kind) if brief(each).time_max < before]
    return [
        each for each in listing.superseded if any(one.contains(each) for one in old if one.kind == each.kind)
    ] + old
