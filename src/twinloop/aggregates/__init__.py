"""Windows by OPC UA Part 13 (OPC 10000-13, v1.05): pure, over the columns of one tag.

Names are the standard's in lower case with underscores: TimeAverage2 is `time_average2`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from twinloop.aggregates import timed, values
from twinloop.aggregates.bounds import interpolated_bounds, simple_bounds
from twinloop.aggregates.points import I64, NO_DATA, Configuration, Points, Result, Rows, Windows
from twinloop.errors import QueryError
from twinloop.status import BAD, CALCULATED, PARTIAL

__all__ = ["AGGREGATES", "Configuration", "Result", "Rows", "aggregate", "named"]


def aggregate(
    rows: Rows,
    edges: I64,
    names: Iterable[str],
    configuration: Configuration | None = None,
    *,
    whole_ns: int | None = None,
) -> dict[str, Result]:
    """Some aggregates over adjoining windows; a value is a finite number or NaN, which is Bad.

    Which samples of other windows are given changes nothing, as long as those are among them that bound
    the windows: the last before and the first after, and the nearest usable ones.

    Args:
        rows: the tag's samples.
        edges: ns, strictly ascending; window i is [edges[i], edges[i + 1]).
        names: of `AGGREGATES`.
        configuration: the standard's defaults where not given.
        whole_ns: how wide a complete window is: narrower ones are Partial.

    Raises:
        QueryError: a name is not known.
    """
    configuration = configuration or Configuration()
    points = Points(rows, configuration)
    windows = Windows(edges, points, configuration, whole_ns)
    return {name: _settled(AGGREGATES[name], points, windows, configuration) for name in named(names)}


def named(names: Iterable[str]) -> list[str]:
    """Names as `AGGREGATES` has them, each once; `TimeAverage` is taken for `time_average`.

    Raises:
        QueryError: a name is not known.
    """
    plain = {name.replace("_", ""): name for name in AGGREGATES}
    found: dict[str, None] = {}
    for name in names:
        key = name.strip().replace("_", "").replace("-", "").lower()
        if key not in plain:
            near = difflib.get_close_matches(key, plain, 1)
            hint = f"; did you mean {plain[near[0]]}?" if near else f"; there are {', '.join(AGGREGATES)}"
            raise QueryError(f"no aggregate {name!r}{hint}")
        found[plain[key]] = None
    if not found:
        raise QueryError(f"no aggregate named; there are {', '.join(AGGREGATES)}")
    return list(found)


@dataclass(frozen=True, slots=True)
class _Aggregate:
    """How one aggregate is worked out.

    Attributes:
        of: the values and statuses.
        begins, ends: whether a window in which the data begins or ends, or that is cut short, is Partial.
        keeps: a Bad result has its value, too; else there is none.
        always: a window without a result is said to be Partial, too.
    """

    of: Callable[[Points, Windows, Configuration], Result]
    begins: bool = True
    ends: bool = True
    keeps: bool = False
    always: bool = False


def _settled(each: _Aggregate, points: Points, windows: Windows, configuration: Configuration) -> Result:
    """A result with the Partial bit, and nothing in it that is no number."""
    value, status = each.of(points, windows, configuration)
    if each.begins:
        partial = windows.partial if each.ends else windows.begins
        told = partial & ((status != NO_DATA) | (each.always & ~windows.outside))
        status = np.where(told, status | np.uint32(PARTIAL), status)
    broken = ~np.isfinite(value)
    status = np.where(broken & (status >> 30 < 2), np.uint32(BAD), status)
    if not each.keeps:
        broken |= status >> 30 >= 2
    return Result(np.where(broken, np.nan, value), status.astype(np.uint32))


def _interpolative(points: Points, windows: Windows, configuration: Configuration) -> Result:
    """Interpolative (5.4.3.4): the Interpolated Bounding Value at the start of each window."""
    return interpolated_bounds(points, windows.start, configuration, stepped=configuration.stepped)


def _start_bound(points: Points, windows: Windows, configuration: Configuration) -> Result:
    """StartBound (5.4.3.28): the Simple Bounding Value at the start of each window."""
    return simple_bounds(points, windows.start, stepped=configuration.stepped)


def _end_bound(points: Points, windows: Windows, configuration: Configuration) -> Result:
    """EndBound (5.4.3.29): the Simple Bounding Value at the end of each window, always Calculated."""
    value, status = simple_bounds(points, windows.end, stepped=configuration.stepped)
    known = status >> 30 < 2
    bare = status & np.uint32(0xFFFF_0000)
    return Result(value, np.where(known, bare | np.uint32(CALCULATED), NO_DATA))


AGGREGATES: Final[Mapping[str, _Aggregate]] = {
    "interpolative": _Aggregate(_interpolative, begins=False),
    "average": _Aggregate(values.average, begins=False),
    "time_average": _Aggregate(partial(timed.time_average, total=False), ends=False),
    "time_average2": _Aggregate(partial(timed.time_average2, total=False)),
    "total": _Aggregate(partial(timed.time_average, total=True), ends=False),
    "total2": _Aggregate(partial(timed.time_average2, total=True)),
    "minimum": _Aggregate(lambda points, windows, _: values.extreme(points, windows, lowest=True)),
    "maximum": _Aggregate(lambda points, windows, _: values.extreme(points, windows, lowest=False)),
    "range": _Aggregate(lambda points, windows, _: values.spread(points, windows)),
    "count": _Aggregate(values.count, keeps=True),
    "start": _Aggregate(lambda points, windows, _: values.start(points, windows), keeps=True),
    "end": _Aggregate(lambda points, windows, _: values.end(points, windows), keeps=True),
    "delta": _Aggregate(lambda points, windows, _: values.delta(points, windows)),
    "start_bound": _Aggregate(_start_bound, always=True),
    "end_bound": _Aggregate(_end_bound, always=True),
    "duration_good": _Aggregate(partial(timed.duration, good=True)),
    "duration_bad": _Aggregate(partial(timed.duration, good=False)),
    "percent_good": _Aggregate(partial(timed.percent, good=True)),
    "percent_bad": _Aggregate(partial(timed.percent, good=False)),
    "worst_quality": _Aggregate(lambda points, windows, _: values.worst_quality(points, windows)),
}
"""What can be asked for, by name."""
