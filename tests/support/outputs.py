"""Outputs of a small plant with hostile tag names, and an output log to deliver them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from twinloop.batch import Batch
from twinloop.records import Outputs
from twinloop.status import GOOD, Reason

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND
HOSTILE = [
    "R\"1.te'mp",
    "R1,2.a;b",
    "R1.line\nbreak",
    "Rö1.température °C",
    "R1.'; DROP TABLE x;--",
    "R1.%s{}$1",
    "R1.back\\slash\\",
    "SELECT",
    "time",
    "R1.%0A\t`",
]
NAMES = ["R101.temperature", "R101.pressure", *HOSTILE]
UNITS = ["degC", "bar", *("m" for _ in HOSTILE)]
Row = tuple[int, float, float] | tuple[int, float, float, int, int]


def batch(rows: Sequence[Row]) -> Batch:
    """Rows of (tag, seconds after T0, value[, status, reasons]); late ones arrive an hour later."""
    full = [(*row, GOOD, 0)[:5] for row in rows]
    tag, at, value, status, reasons = zip(*full, strict=True) if full else ([],) * 5
    when = [T0 + round(each * SECOND) for each in at]
    return Batch.of(
        tag=tag,
        time=when,
        value=value,
        status=status,
        reasons=reasons,
        arrival=[at + 3600 * SECOND * bool(r & Reason.LATE) for at, r in zip(when, reasons, strict=True)],
        estimate=value,
        estimate_std=[0.5] * len(full),
        rate=[0.0] * len(full),
    )


def samples(offset: int, *rows: Row) -> tuple[int, Outputs]:
    return offset, Outputs(offset, T0, batch(rows).buffers())


def seconds(table: pa.Table) -> list[float]:
    times: list[int] = table["time"].cast(pa.int64()).to_pylist()
    return [(each - T0) / SECOND for each in times]


def values(table: pa.Table) -> list[float | None]:
    made: list[float | None] = table["value"].to_pylist()
    return made


@dataclass
class OutputLog:
    """A durable output log, as far as a store's readers see one."""

    entries: list[tuple[int, Outputs]] = field(default_factory=list)
    trimmed: int = -1

    def after(self, offset: int) -> list[tuple[int, Outputs]]:
        return [entry for entry in self.entries if entry[0] > offset]

    def trim(self, covered: int) -> None:
        """Let go of what the store has sealed, as the loop does."""
        self.trimmed = max(self.trimmed, covered)
        self.entries = self.after(covered)

    @property
    def next(self) -> int:
        """The offset of the next entry."""
        return 1 + (self.entries[-1][0] if self.entries else self.trimmed)
