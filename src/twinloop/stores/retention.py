"""What is older than it is to be kept goes, a segment at a time; its minutes may stay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.stores.footers import brief
from twinloop.stores.segments import Segment, list_segments

__all__ = ["Retention", "outdated"]

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


def outdated(directory: Path, retention: Retention, now_ns: int) -> list[Segment]:
    """Segments all of whose rows are too old; never the newest of samples, which says how far the store is.

    Raises:
        FileNotFoundError: a segment is gone since it was listed.
        ValueError: a footer cannot be read.
    """
    before = now_ns - retention.keep_ns
    listing = list_segments(directory)
    kinds = ("samples", *_WITH_SAMPLES, *(() if retention.minutes else ("minutes",)))
    found = [segment for kind in kinds for segment in listing.of(kind)]
    newest = listing.of("samples")[-1:]
    return [segment for segment in found if segment not in newest and brief(segment).time_max < before]
