"""Aggregates put to a store: the samples of the windows, and those around them that bound them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from twinloop.aggregates import Configuration, Result, Rows, aggregate, named
from twinloop.aggregates.points import I64, Bool, Points
from twinloop.errors import QueryError
from twinloop.stores.store import Queries

__all__ = ["aggregate_schema", "ask_aggregates"]

_TIME: Final = pa.timestamp("ns", tz="UTC")
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_HOUR_NS: Final = 3_600 * 1_000_000_000
_DAY_NS: Final = 24 * _HOUR_NS
_MONTH_NS: Final = 30 * _DAY_NS
_LEVELS: Final = (_MONTH_NS, _HOUR_NS)
_LOOK_NS: Final = 60 * 1_000_000_000
_FEW_ROWS: Final = 100_000
_MANY_ROWS: Final = 1_000_000
_MOST_WINDOWS: Final = 10_000_000
_ENOUGH: Final = 2  # usable samples on a side: a slope takes two
_TYPES: Final = {"count": pa.int64(), "worst_quality": pa.uint32()}


def ask_aggregates(
    queries: Queries,
    tag: str,
    every_ns: int,
    start: int | None,
    end: int | None,
    *,
    names: Iterable[str],
    configuration: Configuration,
) -> pa.Table:
    """Aggregates of a tag over epoch-aligned windows, by `aggregate_schema`.

    There is a row for each window of [start, end), also for those without samples: its status says what it
    is. An open end is the tag's first or last sample; windows before the first one are left out. A window
    that [start, end) cuts is Partial, and `time` is where the part of it begins.

    Raises:
        QueryError: the tag or a name is not known, `every_ns` is not positive, or the windows are too many.
    """
    chosen = named(names)
    if every_ns <= 0:
        raise QueryError(f"a window must be longer than nothing, not {every_ns} ns")
    store = _Store(queries, tag, max(every_ns, _LOOK_NS), configuration)
    bounds = store.bounds(start, end, every_ns)
    if bounds is None:
        return _table([], chosen)
    low, high = bounds
    if (high - low) // every_ns > _MOST_WINDOWS:
        raise QueryError(f"more than {_MOST_WINDOWS:,} windows: ask for wider ones, or for a shorter time")
    parts = []
    for edges in _edges(store, low, high, every_ns):
        rows = store.around(int(edges[0]), int(edges[-1]))
        parts.append((edges[:-1], aggregate(rows, edges, chosen, configuration, whole_ns=every_ns)))
    return _table(parts, chosen)


def aggregate_schema(names: Sequence[str]) -> pa.Schema:
    """`time`, and of each aggregate its value and its status code; no value is null."""
    fields: list[tuple[str, pa.DataType]] = [("time", _TIME)]
    for name in names:
        fields += [(name, _TYPES.get(name, pa.float64())), (f"{name}_status", pa.uint32())]
    return pa.schema(fields)


class _Store:
    """One tag's samples in a store, as they are needed.

    Attributes:
        read: how many rows the last reading of windows gave.
    """

    def __init__(self, queries: Queries, tag: str, look_ns: int, configuration: Configuration) -> None:
        self._queries = queries
        self._tag = tag
        self._look_ns = look_ns
        self._configuration = configuration
        self.read = 0

    def bounds(self, start: int | None, end: int | None, every_ns: int) -> tuple[int, int] | None:
        """Where the windows begin and end; None where there is none.

        That is where it was asked for, or, where it was left open, around the first and the last sample;
        what lies before the first sample ever is left out.
        """
        ends = self._ends(_LOWEST if start is None else start, _HIGHEST if end is None else end)
        first, last = (each // every_ns * every_ns for each in ends or (_HIGHEST, _LOWEST))
        if start is not None and (first <= start or self._is_known_before(start)):
            first = start
        elif ends is None:
            return None
        if end is None:
            return (first, min(last + every_ns, _HIGHEST)) if ends else None
        return first, end

    def around(self, low: int, high: int) -> Rows:
        """The samples of [low, high), and before and after them those that bound them."""
        inside = self._range(low, high)
        self.read = len(inside.time)
        before = self._searched(low, backward=True)
        return Rows.joined([before, inside, self._searched(high, backward=False)])

    def _is_known_before(self, at: int) -> bool:
        return len(self._searched(at, backward=True).time) > 0

    def _range(self, low: int, high: int) -> Rows:
        rows = self._queries.range(self._tag, *_open(low, high))
        value = rows["value"].to_numpy()
        time, status = rows["time"].cast(pa.int64()).to_numpy(), rows["status"].to_numpy()
        return Rows(time, value, status)

    def _searched(self, at: int, *, backward: bool) -> Rows:
        """The samples next to a time, as far as two that are usable, or as there are any.

        A short look is enough as a rule. Else it goes by hours that have samples, and of those that have no
        usable one only the nearest is read: that there are such samples in between is all that matters.
        """
        near = max(at - self._look_ns, _LOWEST) if backward else min(at + self._look_ns, _HIGHEST)
        parts = [self._range(min(near, at), max(near, at))]
        far = (_LOWEST, near) if backward else (near, _HIGHEST)
        for low, high in self._hours(*far, backward=backward, found=parts):
            parts.append(self._range(low, high))
            if not len(parts[-1].time):
                break  # its samples are gone and only its figures are left: so are those further away
        return Rows.joined(parts[::-1] if backward else parts)

    def _hours(
        self, low: int, high: int, *, backward: bool, found: list[Rows], level: int = 0
    ) -> Iterator[tuple[int, int]]:
        """The hours of [low, high) to be read, nearest first, until enough is found."""
        if self._is_enough(found):
            return
        every = _LEVELS[level]
        times, usable = self._windows(every, low, high)
        nearest_first = slice(None, None, -1) if backward else slice(None)
        for time, use in zip(times[nearest_first].tolist(), usable[nearest_first].tolist(), strict=True):
            if not use and any(len(rows.time) for rows in found):
                continue
            begin, end = max(low, time), min(high, time + every)
            if level + 1 < len(_LEVELS):
                yield from self._hours(begin, end, backward=backward, found=found, level=level + 1)
            else:
                yield begin, end
            if self._is_enough(found):
                return

    def _is_enough(self, found: Sequence[Rows]) -> bool:
        return sum(int(Points(rows, self._configuration).usable.sum()) for rows in found) >= _ENOUGH

    def _ends(self, low: int, high: int) -> tuple[int, int] | None:
        """The first and the last sample's time in [low, high).

        Of old hours a store may have kept figures and no samples.
        """
        hours = self._windows(_HOUR_NS, low, high)[0].tolist()

        def samples(hour: int) -> I64:
            return self._range(max(low, hour), min(high, hour + _HOUR_NS)).time

        if not hours or not len(finish := samples(hours[-1])):
            return None
        first = 0 if len(samples(hours[0])) else bisect_left(hours, 1, key=lambda hour: len(samples(hour)))
        return int(samples(hours[first])[0]), int(finish[-1])

    def _windows(self, every_ns: int, low: int, high: int) -> tuple[I64, Bool]:
        """The windows with samples, and whether any of those is usable."""
        widened = not self._configuration.treat_uncertain_as_bad
        rows = self._queries.window(self._tag, every_ns, *_open(low, high), uncertain_as_good=widened)
        usable = rows["mean"].is_valid().to_numpy()
        return rows["time"].cast(pa.int64()).to_numpy(), usable


def _open(low: int, high: int) -> tuple[int | None, int | None]:
    """Both ends as a store takes them: as far out as there is any is open."""
    return (None if low == _LOWEST else low, None if high == _HIGHEST else high)


def _edges(store: _Store, low: int, high: int, every_ns: int) -> Iterator[I64]:
    """The edges of the windows, some thousand rows of the store at a time."""
    step = _DAY_NS
    while low < high:
        stop = min(high, (low // every_ns + max(1, step // every_ns)) * every_ns)
        within = np.arange((low // every_ns + 1) * every_ns, stop, every_ns, dtype=np.int64)
        yield np.concatenate([np.array([low]), within, np.array([stop])])
        low = stop
        if store.read < _FEW_ROWS:
            step *= 2
        elif store.read > _MANY_ROWS:
            step = max(step // 2, every_ns)


def _table(parts: Sequence[tuple[I64, dict[str, Result]]], names: Sequence[str]) -> pa.Table:
    schema = aggregate_schema(names)
    time = np.concatenate([np.empty(0, np.int64), *(begins for begins, _ in parts)])
    columns: list[pa.Array] = [pa.array(time)]
    for name in names:
        value = np.concatenate([[], *(results[name].value for _, results in parts)])
        status = np.concatenate([np.empty(0, np.uint32), *(results[name].status for _, results in parts)])
        columns += [pa.array(value, mask=np.isnan(value)), pa.array(status)]
    cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(cast, schema=schema)
