"""A tag's samples and the windows asked for, as OPC UA Part 13 (OPC 10000-13, v1.05) looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twinloop.errors import QueryError
from twinloop.status import StatusCode, severity

__all__ = [
    "F64",
    "I64",
    "NO_DATA",
    "SUB_NORMAL",
    "U32",
    "Bool",
    "Configuration",
    "Points",
    "Result",
    "Rows",
    "Windows",
    "reduced",
    "span",
]

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

NO_DATA: Final = np.uint32(StatusCode.BAD_NO_DATA)
SUB_NORMAL: Final = np.uint32(StatusCode.UNCERTAIN_DATA_SUB_NORMAL)
_CODE: Final = np.uint32(0xFFFF_0000)


@dataclass(frozen=True, slots=True)
class Configuration:
    """How windows are worked out (4.2.1.2); the defaults are the standard's.

    Attributes:
        treat_uncertain_as_bad: Uncertain samples are passed over like Bad ones.
        percent_data_good: from this share of Good data on a result is Good.
        percent_data_bad: from this share of Bad data on it is Bad.
        use_sloped_extrapolation: beyond the newest sample the last slope goes on; else the last value.
        stepped: between two samples the earlier holds; else a straight line joins them.
        resolution_ns: how long the newest sample counts by itself (5.4.2.4).

    Raises:
        QueryError: the percentages are none, or leave data that is Good and Bad at once.
    """

    treat_uncertain_as_bad: bool = True
    percent_data_good: float = 100.0
    percent_data_bad: float = 100.0
    use_sloped_extrapolation: bool = False
    stepped: bool = False
    resolution_ns: int = 1

    def __post_init__(self) -> None:
        for name in ("percent_data_good", "percent_data_bad"):
            if not 0 <= getattr(self, name) <= 100:
                raise QueryError(f"{name} must lie between 0 and 100, not {getattr(self, name):g}")
        if self.percent_data_good + self.percent_data_bad < 100:
            raise QueryError("percent_data_good and percent_data_bad must make 100 at least (4.2.1.2)")


class Result(NamedTuple):
    """One aggregate over some windows: values, NaN for none, and status codes with the historian's bits."""

    value: F64
    status: U32


class Rows(NamedTuple):
    """A tag's samples as columns: time in ns, strictly ascending; values, NaN for none; UA status codes."""

    time: I64
    value: F64
    status: U32

    @classmethod
    def none(cls) -> Rows:
        """No samples."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint32))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows one after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Points:
    """A tag's samples; what says that there is no data is no sample, what has no value is Bad.

    Args:
        rows: the samples.
        configuration: whether Uncertain counts as Bad.
    """

    def __init__(self, rows: Rows, configuration: Configuration) -> None:
        time, value, status = rows
        there = (status & _CODE) != NO_DATA
        if not there.all():
            time, value, status = time[there], value[there], status[there]
        self.time, self.value, self.status = time, value, status
        level = np.minimum(severity(status), 2)
        level[~np.isfinite(value)] = 2
        self.good: Bool = level == 0
        self.uncertain: Bool = level == 1
        self.usable: Bool = self.good if configuration.treat_uncertain_as_bad else level < 2
        self.bad: Bool = ~self.usable
        n = len(time)
        at = np.arange(n)
        # The nearest usable sample at or before each, -1 for none; and at or after each, n for none.
        self.before = np.maximum.accumulate(np.where(self.usable, at, -1)) if n else at
        self.after = np.minimum.accumulate(np.where(self.usable, at, n)[::-1])[::-1] if n else at

    def __len__(self) -> int:
        return len(self.time)

    def last_at(self, at: I64) -> I64:
        """The index of the newest sample at or before each time; -1 for none."""
        return np.searchsorted(self.time, at, "right") - 1

    def is_at(self, index: I64, at: I64) -> Bool:
        """Whether the sample lies at that very time."""
        if not len(self):
            return np.zeros(len(at), bool)
        found: Bool = (index >= 0) & (self.time[np.maximum(index, 0)] == at)
        return found

    def next_usable(self, index: I64) -> I64:
        """The first usable sample after each index; `len` for none."""
        n = len(self)
        following = np.minimum(index + 1, max(n - 1, 0))
        return np.where(index + 1 < n, self.after[following], n) if n else np.zeros(len(index), np.int64)

    def previous_usable(self, index: I64) -> I64:
        """The last usable sample at or before each index; -1 for none."""
        if not len(self):
            return np.full(len(index), -1)
        return np.where(index >= 0, self.before[np.maximum(index, 0)], -1)


class Windows:
    """Adjoining windows [start, end), and where the data begins and ends among them.

    Args:
        edges: ns, strictly ascending; window i is [edges[i], edges[i + 1]).
        points: the tag's samples, with some before and after the windows where there are any.
        configuration: the resolution.
        whole_ns: how wide a complete window is; narrower ones are Partial.
    """

    def __init__(
        self, edges: I64, points: Points, configuration: Configuration, whole_ns: int | None = None
    ) -> None:
        self.edges = edges
        self.start, self.end = edges[:-1], edges[1:]
        n = len(self.start)
        self.width = span(self.start, self.end)
        self.first_row = np.searchsorted(points.time, self.start)
        self.end_row = np.searchsorted(points.time, self.end)
        cut = self.width < whole_ns if whole_ns is not None else np.zeros(n, bool)
        # Without any sample all windows lie beyond the end of the data.
        first, last = (points.time[0], points.time[-1]) if len(points) else (edges[0], edges[0] - 1)
        # 5.3.3.2: the windows that overlap the beginning and the end of the data, or are cut short.
        self.begins: Bool = cut | ((self.start < first) & (self.end > first))
        ends = (self.start <= last) & (self.end > last)
        ends &= span(np.maximum(self.start, last), self.end) > configuration.resolution_ns
        self.partial: Bool = self.begins | ends
        self.outside: Bool = (self.end <= first) | (self.start > last)
        self.tail = min(int(last) + configuration.resolution_ns, 2**63 - 1)

    def __len__(self) -> int:
        return len(self.start)


def span(start: npt.NDArray[np.int64] | np.int64, end: npt.NDArray[np.int64] | np.int64) -> F64:
    """The ns from each start to its end, which is not before it, exact before they are rounded to a float."""
    with np.errstate(over="ignore"):
        return np.asarray(np.uint64(end) - np.uint64(start)).astype(np.float64)


def reduced(operation: np.ufunc, column: npt.NDArray[np.generic], windows: Windows, empty: float) -> F64:
    """The operation over each window's rows of a column; `empty` for windows without rows."""
    made = np.full(len(windows), empty)
    filled = windows.end_row > windows.first_row
    if filled.any():
        rows = column[: windows.end_row[-1]]
        made[filled] = operation.reduceat(rows, windows.first_row[filled], dtype=np.float64)
    return made
