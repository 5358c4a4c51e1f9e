"""What a store promises: outputs in, idempotent, durable up to `covered`; three questions answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from twinloop.records import Outputs

__all__ = ["RANGE_SCHEMA", "WINDOW_SCHEMA", "Follower", "Queries", "Store"]

_TIME = pa.timestamp("ns", tz="UTC")

RANGE_SCHEMA = pa.schema(
    [
        ("tag", pa.string()),
        ("time", _TIME),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("status", pa.uint32()),
        ("reasons", pa.uint32()),
        ("estimate", pa.float64()),
        ("estimate_std", pa.float64()),
    ]
)
"""Columns of `latest` and `range`; status and reasons as codes, made words where they are printed."""

WINDOW_SCHEMA = pa.schema(
    [
        ("time", _TIME),
        ("mean", pa.float64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("count", pa.int64()),
        ("good_fraction", pa.float64()),
    ]
)
"""Columns of `window`."""


class Store(Protocol):
    """Where history goes. Its methods block; the loop calls them on a worker thread, one at a time."""

    @property
    def covered(self) -> int:
        """The newest output-log offset that is in the store for good; -1 for none.

        The output log keeps every entry after it, and after a restart delivers them again: `covered` may
        then be lower than what `write` took before.
        """
        ...

    def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        """Take durable entries of the output log, in ascending order of offset.

        A store may gather entries before it makes them durable itself; `covered` says how far that has
        come. Entries taken before are skipped, so delivering again changes nothing.

        Raises:
            StoreBusy: not now; deliver the same entries again later.
        """
        ...

    def seal(self) -> None:
        """Make what was taken durable now, so that `covered` reaches it: the output log needs the room.

        Raises:
            StoreBusy: it cannot at present; what was taken stays taken.
        """
        ...

    def close(self) -> None:
        """Make everything taken durable, and release files and connections.

        Raises:
            StoreBusy: it could not; what is after `covered` stays in the output log.
        """
        ...


class Follower(Protocol):
    """What keeps the newest values up to date while a store lags; its methods block."""

    def begin(self, covered: int) -> int | None:
        """Take up what is known; returns the output-log offset it covers, at least the store's `covered`.

        None where that cannot be said now: ask again.
        """
        ...

    def add(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        """Take up the entries that follow, in ascending order of offset."""
        ...

    def save(self, covered: int) -> None:
        """Keep what is known up to an offset for those who ask."""
        ...


class Queries(Protocol):
    """What users ask. Times are ns since epoch UTC; `start` is included, `end` is not; None is no bound.

    Every method raises QueryError for a tag that is not known, naming the nearest one.
    """

    def latest(self, tags: Sequence[str]) -> pa.Table:
        """The newest sample of each tag (all when `tags` is empty), by `RANGE_SCHEMA`.

        The status of a tag that has fallen silent since is lowered, with reason STALE.
        """
        ...

    def range(self, tag: str, start: int | None, end: int | None) -> pa.Table:
        """Every sample of a tag in [start, end), ascending time, by `RANGE_SCHEMA`."""
        ...

    def window(
        self,
        tag: str,
        every_ns: int,
        start: int | None,
        end: int | None,
        *,
        uncertain_as_good: bool = False,
    ) -> pa.Table:
        """Mean, min, max, count and good fraction over epoch-aligned windows, by `WINDOW_SCHEMA`.

        Windows without samples are left out; mean, min and max are null where no sample is Good.
        `uncertain_as_good` widens mean, min and max only; good_fraction stays Good / count.
        """
        ...
