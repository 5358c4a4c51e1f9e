"""Aggregates of the samples within a window, each counting once (OPC 10000-13, 5.4.3)."""

from __future__ import annotations

import numpy as np

from twinloop.aggregates.points import (
    F64,
    I64,
    NO_DATA,
    SUB_NORMAL,
    U32,
    Bool,
    Configuration,
    Points,
    Result,
    Windows,
    reduced,
)
from twinloop.status import BAD, CALCULATED, MULTIPLE_VALUES

__all__ = ["average", "count", "delta", "end", "extreme", "spread", "start", "verdict", "worst_quality"]

_CALCULATED = np.uint32(CALCULATED)
_MULTIPLE = np.uint32(MULTIPLE_VALUES)


def average(points: Points, windows: Windows, configuration: Configuration) -> Result:
    """Average (5.4.3.5): the mean of the Good samples; status by the share of values. Never Partial."""
    good = _counted(points.good, windows)
    total = reduced(np.add, np.where(points.good, points.value, 0.0), windows, 0.0)
    status = _by_values(points, windows, configuration) | _CALCULATED
    value = total / np.maximum(good, 1.0)
    return Result(value, np.where(good > 0, status, NO_DATA))


def count(points: Points, windows: Windows, configuration: Configuration) -> Result:
    """Count (5.4.3.21): how many samples are Good, 0 where none is; status by the share of values."""
    status = _by_values(points, windows, configuration) | _CALCULATED
    return Result(_counted(points.good, windows), np.where(windows.outside, NO_DATA, status))


def extreme(points: Points, windows: Windows, *, lowest: bool) -> Result:
    """Minimum, Maximum (5.4.3.10, 5.4.3.11): of the Good samples; Uncertain where others might have been it.

    At the very start of the window it is that raw sample; else it is Calculated. MultipleValues where
    several Good samples have it.
    """
    value = _extreme(points, windows, points.good, lowest=lowest)
    doubtful = _doubtful(points, windows, value, lowest=lowest)
    of_row = np.repeat(value, windows.end_row - windows.first_row)
    rows = slice(windows.first_row[0], windows.end_row[-1])
    same = np.zeros(len(points), bool)
    same[rows] = points.good[rows] & (points.value[rows] == of_row)
    several = _counted(same, windows) > 1
    at_start = np.zeros(len(windows), bool)
    filled = windows.end_row > windows.first_row
    first = windows.first_row[filled]
    at_start[filled] = same[first] & (points.time[first] == windows.start[filled])
    status = np.where(doubtful, SUB_NORMAL, np.uint32(0))
    status = status | np.where(doubtful | ~at_start, _CALCULATED, np.uint32(0))
    status = status | np.where(several, _MULTIPLE, np.uint32(0))
    return Result(value, np.where(np.isfinite(value), status, NO_DATA))


def spread(points: Points, windows: Windows) -> Result:
    """Range (5.4.3.14): the largest minus the smallest Good sample."""
    low = _extreme(points, windows, points.good, lowest=True)
    high = _extreme(points, windows, points.good, lowest=False)
    doubtful = _doubtful(points, windows, low, lowest=True) | _doubtful(points, windows, high, lowest=False)
    with np.errstate(over="ignore"):
        return _calculated(high - low, doubtful, np.isfinite(low))


def delta(points: Points, windows: Windows) -> Result:
    """Delta (5.4.3.27): the last minus the first Good sample; Uncertain where others come before or after."""
    n = len(points)
    at = np.arange(n, dtype=np.float64)
    first = reduced(np.minimum, np.where(points.good, at, np.inf), windows, np.inf)
    last = reduced(np.maximum, np.where(points.good, at, -np.inf), windows, -np.inf)
    known = np.isfinite(first)
    value = np.full(len(windows), np.nan)
    with np.errstate(over="ignore"):
        value[known] = points.value[last[known].astype(int)] - points.value[first[known].astype(int)]
    doubtful = (first > windows.first_row) | (last < windows.end_row - 1)
    return _calculated(value, doubtful, known)


def start(points: Points, windows: Windows) -> Result:
    """Start (5.4.3.25): the earliest sample, whatever its status, which is the result's."""
    return _sample(points, windows, windows.first_row)


def end(points: Points, windows: Windows) -> Result:
    """End (5.4.3.26): the latest sample, whatever its status, which is the result's."""
    return _sample(points, windows, windows.end_row - 1)


def worst_quality(points: Points, windows: Windows) -> Result:
    """WorstQuality (5.4.3.35): the status, as a number, of the first of the worst samples.

    MultipleValues where there are several of that severity. TreatUncertainAsBad plays no part.
    """
    level = np.where(points.good, 0, np.where(points.uncertain, 1, 2))
    worst = reduced(np.maximum, level, windows, -1.0)
    rows = slice(windows.first_row[0], windows.end_row[-1])
    same = np.zeros(len(points), bool)
    same[rows] = level[rows] == np.repeat(worst, windows.end_row - windows.first_row)
    at = reduced(np.minimum, np.where(same, np.arange(len(points)), np.inf), windows, np.inf)
    known = np.isfinite(at)
    value = np.full(len(windows), np.nan)
    found = at[known].astype(int)
    code = points.status[found]
    # What has no value is Bad, whatever its source called it.
    value[known] = np.where(level[found] == np.minimum(code >> 30, 2), code, BAD)
    several = np.where(_counted(same, windows) > 1, _MULTIPLE, np.uint32(0))
    return Result(value, np.where(known, _CALCULATED | several, NO_DATA))


def verdict(bad: F64, good: F64, whole: F64, configuration: Configuration) -> U32:
    """Good, Uncertain or Bad by the shares of Bad and Good data (5.4.3.2.1); Bad is looked at first."""
    is_bad = (bad > 0) & (100.0 * bad >= configuration.percent_data_bad * whole)
    is_good = 100.0 * good >= configuration.percent_data_good * whole
    return np.where(is_bad, np.uint32(BAD), np.where(is_good, np.uint32(0), SUB_NORMAL))


def _by_values(points: Points, windows: Windows, configuration: Configuration) -> U32:
    rows = (windows.end_row - windows.first_row).astype(np.float64)
    return verdict(_counted(points.bad, windows), _counted(points.usable, windows), rows, configuration)


def _counted(mask: Bool, windows: Windows) -> F64:
    return reduced(np.add, mask, windows, 0.0)


def _extreme(points: Points, windows: Windows, among: Bool, *, lowest: bool) -> F64:
    """The lowest or highest of some samples; NaN where there is none."""
    operation, nothing = (np.minimum, np.inf) if lowest else (np.maximum, -np.inf)
    found = reduced(operation, np.where(among, points.value, nothing), windows, nothing)
    return np.where(np.isfinite(found), found, np.nan)


def _doubtful(points: Points, windows: Windows, found: F64, *, lowest: bool) -> Bool:
    """Whether Bad samples were passed over, or an Uncertain one lies beyond the extreme."""
    beyond = _extreme(points, windows, points.uncertain & points.usable, lowest=lowest)
    further = beyond < found if lowest else beyond > found
    return (_counted(points.bad, windows) > 0) | further


def _calculated(value: F64, doubtful: Bool, known: Bool) -> Result:
    status = np.where(doubtful, SUB_NORMAL, np.uint32(0)) | _CALCULATED
    return Result(value, np.where(known, status, NO_DATA))


def _sample(points: Points, windows: Windows, row: I64) -> Result:
    filled = windows.end_row > windows.first_row
    value, status = np.full(len(windows), np.nan), np.full(len(windows), NO_DATA)
    value[filled], status[filled] = points.value[row[filled]], points.status[row[filled]]
    return Result(value, status)
