"""Dead letters counted: how many from where and why, without holding them all."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["SUMMARY_SCHEMA", "Tally"]

_TIME: Final = pa.timestamp("ns", tz="UTC")
_BY: Final = ["source", "origin", "reason"]

SUMMARY_SCHEMA: Final = pa.schema(
    [
        ("source", pa.string()),
        ("origin", pa.string()),
        ("reason", pa.string()),
        ("count", pa.int64()),
        ("first", _TIME),
        ("last", _TIME),
        ("detail", pa.string()),
    ]
)
"""Columns of a summary of dead letters; `detail` is the newest letter's."""


class Tally:
    """Counts dead letters by source, origin and reason, a part at a time."""

    def __init__(self) -> None:
        self._rows = SUMMARY_SCHEMA.empty_table()

    def add(self, letters: pa.Table) -> None:
        """Count some letters: rows with `time source origin reason detail`."""
        ones = pa.repeat(pa.scalar(1, pa.int64()), len(letters))
        made = {"count": ones, "first": letters["time"], "last": letters["time"]}
        columns = [made[name] if name in made else letters[name] for name in SUMMARY_SCHEMA.names]
        fresh = pa.Table.from_arrays(columns, schema=SUMMARY_SCHEMA)
        rows = pa.concat_tables([self._rows, fresh]).sort_by("last")
        grouped = rows.group_by(_BY, use_threads=False).aggregate(
            [("count", "sum"), ("first", "min"), ("last", "max"), ("detail", "last")]
        )
        named = grouped.rename_columns(
            {"count_sum": "count", "first_min": "first", "last_max": "last", "detail_last": "detail"}
        )
        self._rows = named.select(SUMMARY_SCHEMA.names)

    def table(self) -> pa.Table:
        """One row for each, the most frequent first."""
        order = pc.sort_indices(
            self._rows, sort_keys=[("count", "descending"), *((name, "ascending") for name in _BY)]
        )
        return self._rows.take(order).cast(SUMMARY_SCHEMA)
