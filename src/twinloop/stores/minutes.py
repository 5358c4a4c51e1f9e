"""Rollups: what each minute of a tag holds, so that a day of windows need not read a day of samples.

A minute of one segment is a part: its count, extremes and mean, and its first and last time. Parts whose
times do not overlap add up; where they do, two samples may have one time and only the first stored counts, so
the samples themselves are asked. Means carry what a float64 loses, and sums are exact, so that a mean has the
same digits whether its samples were summed at once or in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.stores.rows import MINUTES_SCHEMA
from twinloop.stores.store import WINDOW_SCHEMA

__all__ = ["MINUTE_NS", "contested", "part_columns", "parts_of", "starts_of", "windows_of"]

MINUTE_NS: Final = 60_000_000_000
_FIRST: Final = np.int64(-(2**63))

_NO_PARTS: Final = MINUTES_SCHEMA.empty_table()
_UPPER: Final = ~((1 << 26) - 1)
"""Of a float64's bits: sign, exponent and the upper half of the digits."""

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Wide = npt.NDArray[np.longdouble]


def parts_of(rows: pa.Table, every_ns: int = MINUTE_NS) -> pa.Table:
    """One part for each tag and window of samples sorted by (tag, time), by `MINUTES_SCHEMA`.

    Args:
        rows: columns `tag time value status`, free of duplicates.
        every_ns: width of the windows, aligned to the epoch.
    """
    if not len(rows):
        return _NO_PARTS
    tag, time, status = (rows[name].to_numpy() for name in ("tag", "time", "status"))
    value = rows["value"].to_numpy()  # null is NaN
    window = starts_of(time, every_ns)
    begins = np.flatnonzero(np.append(True, (tag[1:] != tag[:-1]) | (window[1:] != window[:-1])))
    ends = np.append(begins[1:], len(rows))
    severity = status >> np.uint32(30)
    made = {
        "tag": tag[begins],
        "time": window[begins],
        "first": time[begins],
        "last": time[ends - 1],
        "count": (ends - begins).astype(np.int32),
        "good": np.add.reduceat((severity == 0).astype(np.int32), begins),
    }
    for name, worst in (("good", 0), ("uncertain", 1)):
        made |= _figures(name, value, (severity == worst) & ~np.isnan(value), begins)
    arrays = [_nullable(made[field.name], field) for field in MINUTES_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=MINUTES_SCHEMA)


def starts_of(time: I64, every_ns: int) -> I64:
    """Starts of the windows that times lie in; of the first of all, which is cut, the first time there is."""
    into = time % every_ns
    starts = time - into
    cut = time < _FIRST + every_ns
    if cut.any():
        starts[cut] = np.where(time[cut] < _FIRST + into[cut], _FIRST, starts[cut])
    return starts


def _nullable(column: npt.NDArray[np.generic], field: pa.Field) -> pa.Array:
    if not field.nullable:
        return pa.array(column, field.type)
    return pa.array(column, field.type, mask=np.isnan(column))


def _figures(name: str, value: F64, used: Mask, begins: I64) -> dict[str, npt.NDArray[np.generic]]:
    """Number, mean, its rest, lowest and highest of the values used; NaN where there are none."""
    number = np.add.reduceat(used.astype(np.int32), begins)
    none = number == 0
    if none.all():  # of most plants nothing is Uncertain, and what follows takes its time
        nothing = np.full(len(begins), np.nan)
        return {f"{name}_n": number} | {f"{name}_{key}": nothing for key in ("min", "max", "mean", "rest")}
    low, high = value, value
    if not used.all():
        low, high = np.where(used, value, np.inf), np.where(used, value, -np.inf)
        value = np.where(used, value, 0.0)
    upper, lower = (np.add.reduceat(half, begins, dtype=np.longdouble) for half in _halves(value))
    n = np.maximum(number, 1).astype(np.longdouble)
    mean = ((upper + lower) / n).astype(np.float64)
    mean_upper, mean_lower = _split(mean)
    rest = ((upper - n * mean_upper) + (lower - n * mean_lower)) / n
    low, high = np.minimum.reduceat(low, begins), np.maximum.reduceat(high, begins)
    figures = {"min": low, "max": high, "mean": mean, "rest": rest.astype(np.float64)}
    made = {f"{name}_{key}": np.where(none, np.nan, column) for key, column in figures.items()}
    return made | {f"{name}_n": number}


def _split(values: F64) -> tuple[Wide, Wide]:
    upper, lower = _halves(values)
    return upper.astype(np.longdouble), lower.astype(np.longdouble)


def _halves(values: F64) -> tuple[F64, F64]:
    """Values as two halves of 27 bits: a billion of like size add up in 64 bits without rounding."""
    upper = (np.ascontiguousarray(values).view(np.int64) & _UPPER).view(np.float64)
    return upper, values - upper


def contested(parts: pa.Table) -> I64:
    """Starts of windows in which times of two parts overlap, of parts of one tag sorted by (time, first)."""
    time, first, last = (parts[name].to_numpy() for name in ("time", "first", "last"))
    if len(time) < 2:
        return np.empty(0, np.int64)
    reach = np.maximum.accumulate(last)  # windows ascend, so those before reach into none after
    overlaps = (time[1:] == time[:-1]) & (first[1:] <= reach[:-1])
    return np.unique(time[1:][overlaps])


def part_columns(*, uncertain_as_good: bool) -> list[str]:
    """What `windows_of` asks of parts, by `MINUTES_SCHEMA`."""
    names = MINUTES_SCHEMA.names
    return [name for name in names if uncertain_as_good or not name.startswith("uncertain_")]


def windows_of(parts: pa.Table, every_ns: int, *, uncertain_as_good: bool) -> pa.Table:
    """Parts of one tag, sorted by time and not overlapping, as windows by `WINDOW_SCHEMA`."""
    if not len(parts):
        return WINDOW_SCHEMA.empty_table()
    time = parts["time"].to_numpy()
    window = starts_of(time, every_ns)
    begins = np.flatnonzero(np.append(True, window[1:] != window[:-1]))
    names = ("good", "uncertain") if uncertain_as_good else ("good",)
    count, good = (_number(parts, name, begins) for name in ("count", "good"))
    number = sum(_number(parts, f"{name}_n", begins) for name in names)
    upper, lower = (
        sum(halves) for halves in zip(*(_total(parts, name, begins) for name in names), strict=True)
    )
    none = number == 0
    mean = ((upper + lower) / np.maximum(number, 1)).astype(np.float64)
    low = _extreme(parts, [f"{name}_min" for name in names], begins, np.fmin)
    high = _extreme(parts, [f"{name}_max" for name in names], begins, np.fmax)
    columns = [
        pa.array(window[begins]).cast(WINDOW_SCHEMA.field("time").type),
        *(pa.array(each, mask=none) for each in (mean, low, high)),
        pa.array(count),
        pa.array(good / count),
    ]
    return pa.Table.from_arrays(columns, schema=WINDOW_SCHEMA)


def _number(parts: pa.Table, name: str, begins: I64) -> I64:
    made: I64 = np.add.reduceat(parts[name].to_numpy().astype(np.int64), begins)
    return made


def _total(parts: pa.Table, name: str, begins: I64) -> tuple[Wide, Wide]:
    """The sum of the values, as two halves."""
    n, mean, rest = (parts[f"{name}_{each}"].to_numpy() for each in ("n", "mean", "rest"))
    upper, lower = _split(np.where(n == 0, 0.0, mean))
    lower = lower + np.where(n == 0, 0.0, rest)
    return np.add.reduceat(n * upper, begins), np.add.reduceat(n * lower, begins)


def _extreme(parts: pa.Table, names: Sequence[str], begins: I64, pick: np.ufunc) -> F64:
    made: F64 = pick.reduce([pick.reduceat(parts[name].to_numpy(), begins) for name in names])
    return made
