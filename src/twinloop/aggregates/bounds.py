"""Bounding values (OPC 10000-13, 3.1.7 to 3.1.9): what a tag was at a time that need not have a sample."""

from __future__ import annotations

import numpy as np

from twinloop.aggregates.points import (
    F64,
    I64,
    NO_DATA,
    SUB_NORMAL,
    Bool,
    Configuration,
    Points,
    Result,
    span,
)
from twinloop.status import INTERPOLATED

__all__ = ["interpolated_bounds", "line", "simple_bounds"]


def interpolated_bounds(points: Points, at: I64, configuration: Configuration, *, stepped: bool) -> Result:
    """Interpolated Bounding Values (3.1.8): from the nearest usable samples, however far away.

    A usable sample at the time itself is the value, with its own status. Good only where no unusable sample
    was passed over and only Good ones were used; beyond the newest sample always Uncertain.
    """
    index = points.last_at(at)
    value, status = np.full(len(at), np.nan), np.full(len(at), NO_DATA)
    before, after = points.previous_usable(index), points.next_usable(index)
    known = before >= 0
    if not known.any():
        return Result(value, status)
    index, before, after, at = index[known], before[known], after[known], at[known]
    raw = points.is_at(before, at)
    ahead = after < len(points)
    if stepped:
        found = points.value[before]
        doubtful = points.uncertain[before] | (index > before) | (index == len(points) - 1)
    else:
        found = _sloped(points, at, before, np.where(ahead, after, before), configuration)
        nearest = np.where(ahead, after, before)
        skipped = ~ahead | (after - before > 1)
        doubtful = skipped | points.uncertain[before] | points.uncertain[nearest]
    made = np.where(doubtful, SUB_NORMAL, np.uint32(0)) | np.uint32(INTERPOLATED)
    value[known] = np.where(raw, points.value[before], found)
    status[known] = np.where(raw, points.status[before], made)
    return Result(value, status)


def _sloped(points: Points, at: I64, before: I64, after: I64, configuration: Configuration) -> F64:
    """On the line between two samples; where there is no second one, extrapolated from the first."""
    if configuration.use_sloped_extrapolation:
        earlier = points.previous_usable(before - 1)
        onward = (after == before) & (earlier >= 0)
        return line(points, at, np.where(onward, earlier, before), after)
    return line(points, at, before, after)


def simple_bounds(points: Points, at: I64, *, stepped: bool) -> Result:
    """Simple Bounding Values (3.1.9): from the samples right before and after, or none."""
    index = points.last_at(at)
    value, status = np.full(len(at), np.nan), np.full(len(at), NO_DATA)
    known = (index >= 0) & (points.is_at(index, at) | (index < len(points) - 1))
    if known.any():
        known[known] = points.usable[index[known]]
    if not known.any():
        return Result(value, status)
    index, at = index[known], at[known]
    raw = points.is_at(index, at)
    after = np.minimum(index + 1, len(points) - 1)
    joined = points.usable[after] & ~raw if not stepped else np.zeros(len(at), bool)
    doubtful = points.uncertain[index] | (joined & points.uncertain[after])
    if not stepped:
        doubtful |= points.bad[after]
    made = np.where(doubtful, SUB_NORMAL, np.uint32(0)) | np.uint32(INTERPOLATED)
    value[known] = line(points, at, index, np.where(joined, after, index))
    status[known] = np.where(raw, points.status[index], made)
    return Result(value, status)


def line(points: Points, at: I64, first: I64, second: I64) -> F64:
    """Where the line through two samples is at a time; the first's value where both are the same one."""
    v0, v1 = points.value[first], points.value[second]
    level: Bool = (first == second) | (v0 == v1)
    t0 = points.time[first]
    whole = np.where(level, 1.0, span(t0, np.where(level, t0, points.time[second])))
    share = np.where(level, 0.0, span(np.minimum(t0, at), at) / whole)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(level, v0, v0 * (1.0 - share) + v1 * share)
