"""What a store promises: outputs in, idempotent and durable; three questions answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from twinloop.records import Outputs

__all__ = ["RANGE_SCHEMA", "WINDOW_SCHEMA", "Queries", "Store"]

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
        """The newest output-log offset that is in the store for good; -1 for none."""
        ...

    def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        """Take outputs with their output-log offsets; durable when it returns.

        Entries at or below `covered` are skipped, so delivering again changes nothing.

        Raises:
            StoreBusy: not now; deliver the same entries again later.
        """
        ...

    def close(self) -> None:
        """Release files and connections; everything written stays."""
        ...


class Queries(Protocol):
    """What users ask. Times are ns since epoch UTC; `start` is included, `end` is not."""

    def latest(self, tags: Sequence[str]) -> pa.Table:
        """The newest sample of each tag (all when `tags` is empty), by `RANGE_SCHEMA`."""
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
        """
        ...
