"""Windows put together of two kinds: what the server works out by itself, and what has to go by rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.stores.influx.stored import APART_NS
from twinloop.stores.store import WINDOW_SCHEMA

__all__ = ["Cut", "Window", "by_time", "table_of"]

I64 = npt.NDArray[np.int64]


class Window(msgspec.Struct, array_like=True):
    """One window as the server answers it; of some questions without figures."""

    time: int
    count: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


class Cut:
    """Who works out which windows of [low, high); all inner edges are edges of windows.

    Only windows that rows held here fall into go by rows, and those between two that are close: a row that
    comes late makes no other window slower.

    Attributes:
        existing, own: parts for the server: of somebody else's points, and of its own, of which only
            those count that are not among `by_rows`.
        by_rows: parts to be worked out here, from rows; ascending.
    """

    def __init__(self, every_ns: int, span: tuple[int, int], began: int | None, times: I64) -> None:
        self.every_ns = every_ns
        low, high = span

        def edge(time: int, *, up: bool) -> int:
            down = time - time % every_ns
            return min(max(down + every_ns if up and down < time else down, low), high)

        foreign = low if began is None else edge(began, up=False)
        begin = low if began is None else edge(began, up=True)
        times = times[(times >= begin) & (times < high)]
        held = [(edge(first, up=False), edge(last + 1, up=True)) for first, last in _runs(times, every_ns)]
        held = [(max(first, begin), last) for first, last in held]
        end = high
        if held and held[0][0] == begin:
            begin = held[0][1]
        if held and held[-1][1] == high:
            end = held[-1][0]
        both_kinds = [(foreign, edge(began, up=True))] if began is not None else []
        self.existing = (low, foreign)
        self.own = (begin, end)
        self.by_rows = [each for each in (*both_kinds, *held) if each[0] < each[1]]
        self._low = low

    def by_row(self, time: I64) -> npt.NDArray[np.bool_]:
        """Which times lie in parts that are worked out here."""
        if not self.by_rows:
            return np.zeros(len(time), bool)
        first, last = np.array(self.by_rows, np.int64).T
        at = np.searchsorted(first, time, "right") - 1
        inside: npt.NDArray[np.bool_] = (at >= 0) & (time < last[np.maximum(at, 0)])
        return inside

    def left(self, windows: Sequence[Window]) -> list[Window]:
        """The windows that are the server's."""
        begins = np.array([max(each.time, self._low) for each in windows], np.int64)
        return list(itertools.compress(windows, ~self.by_row(begins)))


def _runs(times: I64, every_ns: int) -> list[tuple[int, int]]:
    """The first and last times of rows whose windows are close to each other."""
    if not len(times):
        return []
    times = np.unique(times)
    apart = np.flatnonzero(np.diff(times // every_ns) > 1 + APART_NS // every_ns) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(times, apart)]


def by_time(every_ns: int) -> str:
    """The clause that makes windows."""
    return f"GROUP BY time({every_ns}ns) fill(none)"


def table_of(total: Sequence[Window], figures: Sequence[Window], good: Sequence[Window] | None) -> pa.Table:
    """Windows by `WINDOW_SCHEMA`.

    Args:
        total: how many rows there are, asked for last.
        figures: mean, lowest and highest.
        good: how many are Good; None for all.
    """
    told = {each.time: (each.mean, each.low, each.high) for each in figures}
    of_good = None if good is None else {each.time: each.count for each in good}
    rows = []
    for each in sorted(total, key=lambda one: one.time):
        share = 1.0 if of_good is None else min(of_good.get(each.time, 0) / each.count, 1.0)
        rows.append((each.time, *told.get(each.time, _NONE), each.count, share))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(WINDOW_SCHEMA)
    made = [pa.array(column, field.type) for column, field in zip(columns, WINDOW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(made, schema=WINDOW_SCHEMA)


_NONE: Final = (None, None, None)
