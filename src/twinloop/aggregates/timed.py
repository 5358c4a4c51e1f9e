"""Aggregates by time (OPC 10000-13, 5.4.3): windows divided into regions at their samples and edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinloop.aggregates.bounds import interpolated_bounds, line, simple_bounds
from twinloop.aggregates.points import (
    F64,
    I64,
    NO_DATA,
    SUB_NORMAL,
    Bool,
    Configuration,
    Points,
    Result,
    Windows,
    span,
)
from twinloop.aggregates.values import verdict
from twinloop.status import CALCULATED

__all__ = ["Regions", "duration", "percent", "time_average", "time_average2"]

_CALCULATED = np.uint32(CALCULATED)
_SECOND_NS = 1e9
_MILLISECOND_NS = 1e6


@dataclass(frozen=True, slots=True)
class Regions:
    """The pieces of the windows between one sample or edge and the next, in ascending time.

    Attributes:
        start, end: ns.
        length: ns.
        row: the newest sample at or before the start; -1 for none.
        first: the first region of each window.
        gone: whether it lies after the newest sample has had its time.
    """

    start: I64
    end: I64
    length: F64
    row: I64
    first: I64
    gone: Bool

    @classmethod
    def of(cls, points: Points, windows: Windows) -> Regions:
        """The regions of some windows."""
        inside = points.time[windows.first_row[0] : windows.end_row[-1]]
        cuts = [windows.edges, inside]
        if len(points) and windows.edges[0] < windows.tail < windows.edges[-1]:
            cuts.append(np.array([windows.tail]))
        at = np.sort(np.concatenate(cuts), kind="stable")  # two sorted runs: nearly for nothing
        at = at[np.append(True, at[1:] != at[:-1])]
        start, end = at[:-1], at[1:]
        first = np.searchsorted(start, windows.start)
        return cls(start, end, span(start, end), points.last_at(start), first, start >= windows.tail)

    def summed(self, column: F64, where: Bool) -> F64:
        """The column added up over each window's regions that count."""
        return np.add.reduceat(np.where(where, column, 0.0), self.first)


def time_average(points: Points, windows: Windows, configuration: Configuration, *, total: bool) -> Result:
    """TimeAverage, Total (5.4.3.6, 5.4.3.8): by straight lines between the usable samples, stepped or not.

    With Interpolated Bounding Values: Good where no unusable sample was passed over and only Good ones were
    used, else Uncertain, also beyond the newest sample. The mean is over the time since the first sample;
    a total is the area over that time, in units times seconds.
    """
    regions = Regions.of(points, windows)
    at = np.append(regions.start, regions.end[-1:])
    value, _ = interpolated_bounds(points, at, configuration, stepped=False)
    known = np.isfinite(value[:-1])
    before, after = points.previous_usable(regions.row), points.next_usable(regions.row)
    sound = known & (after - before == 1) & (after < len(points))
    sound[sound] = points.good[before[sound]] & points.good[after[sound]]
    area = regions.length * (0.5 * value[:-1] + 0.5 * value[1:])
    covered = regions.summed(regions.length, known)
    doubtful = regions.summed(regions.length, ~sound) > 0
    made = _mean(regions.summed(np.where(known, area, 0.0), known), covered, total=total)
    verdicts = np.where(doubtful, SUB_NORMAL, np.uint32(0)) | _CALCULATED
    return Result(made, np.where(covered > 0, verdicts, NO_DATA))


def time_average2(points: Points, windows: Windows, configuration: Configuration, *, total: bool) -> Result:
    """TimeAverage2, Total2 (5.4.3.7, 5.4.3.9): stepped or sloped by the tag, over what is not Bad.

    With Simple Bounding Values: a region is Bad from an unusable sample on, and beyond the newest one. The
    status is that of the shares of time; where Uncertain data was used it is never Good.
    """
    regions = Regions.of(points, windows)
    known = (regions.row >= 0) & ~regions.gone
    known[known] = points.usable[regions.row[known]]
    row = np.maximum(regions.row, 0)
    following = np.minimum(row + 1, max(len(points) - 1, 0))
    if not known.any():
        return _nothing(windows)
    joined = known & points.usable[following] & (following > row) & (not configuration.stepped)
    doubtful = known & points.uncertain[row] | joined & points.uncertain[following]
    if not configuration.stepped:
        doubtful |= known & (following > row) & points.bad[following]
    second = np.where(joined, following, row)
    middle = 0.5 * line(points, regions.start, row, second) + 0.5 * line(points, regions.end, row, second)
    covered = regions.summed(regions.length, known)
    unsure = regions.summed(regions.length, doubtful)
    made = _mean(regions.summed(np.where(known, regions.length * middle, 0.0), known), covered, total=total)
    good = covered - unsure if configuration.treat_uncertain_as_bad else covered
    status = verdict(windows.width - covered, good, windows.width, configuration)
    status = np.where((status == 0) & (unsure > 0), SUB_NORMAL, status) | _CALCULATED
    return Result(made, np.where((covered > 0) & ~windows.outside, status, NO_DATA))


def duration(points: Points, windows: Windows, configuration: Configuration, *, good: bool) -> Result:
    """DurationGood, DurationBad (5.4.3.31, 5.4.3.32): milliseconds for which the tag was so.

    A region is what the sample is that it begins with. One that begins with the window is Good where its
    Simple Bounding Value is, and Bad where the sample before it is, or where there is none (Annex A.29).
    """
    regions = Regions.of(points, windows)
    row = np.maximum(regions.row, 0)
    if not len(points):
        return _nothing(windows)
    if good:
        _, bound = simple_bounds(points, regions.start, stepped=configuration.stepped)
        so = points.good[row] & (points.is_at(regions.row, regions.start) | (bound >> 30 == 0))
        so &= regions.row >= 0
    else:
        so = points.bad[row] | (regions.row < 0)
    value = regions.summed(regions.length, so & ~regions.gone) / _MILLISECOND_NS
    return Result(value, np.where(windows.outside, NO_DATA, _CALCULATED))


def percent(points: Points, windows: Windows, configuration: Configuration, *, good: bool) -> Result:
    """PercentGood, PercentBad (5.4.3.33, 5.4.3.34): the duration as a share of the window.

    Of the window in which the data ends, of the time until then.
    """
    value, status = duration(points, windows, configuration, good=good)
    ended = (windows.start < windows.tail) & (windows.tail < windows.end)
    width = np.where(ended, span(windows.start, np.maximum(windows.start, windows.tail)), windows.width)
    return Result(100.0 * value * _MILLISECOND_NS / np.where(width > 0, width, 1.0), status)


def _mean(area: F64, covered: F64, *, total: bool) -> F64:
    return area / _SECOND_NS if total else area / np.where(covered > 0, covered, 1.0)


def _nothing(windows: Windows) -> Result:
    n = len(windows)
    return Result(np.full(n, np.nan), np.full(n, NO_DATA))
