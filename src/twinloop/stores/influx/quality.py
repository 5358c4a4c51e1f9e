"""Good, Uncertain and Bad samples of every tag, counted by InfluxDB, and what it has not been sent yet.

Only the plant's own points count, not the series of somebody else that `existing` names. A row of the output
log counts where InfluxDB has no point of its tag and time: neither its own, nor one stored before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.status import BAD, UNCERTAIN
from twinloop.stores.influx.client import Client
from twinloop.stores.influx.influxql import between, where
from twinloop.stores.influx.stored import STATEMENTS, clusters_of
from twinloop.stores.minutes import MINUTE_NS
from twinloop.stores.quality import Grid
from twinloop.stores.rows import first_stored

__all__ = ["Points", "count_all"]

I64 = npt.NDArray[np.int64]
_Count = tuple[int, int]
_LIMITS: Final = {
    "good": [f'"status" < {UNCERTAIN}'],
    "uncertain": [f'"status" >= {UNCERTAIN}', f'"status" < {BAD}'],
    "count": [],
}
"""All are counted last: points that come meanwhile are then Bad, rather than more than there are."""


@dataclass(frozen=True, slots=True)
class Points:
    """Where a plant's samples are.

    Attributes:
        client: the server.
        source: the measurement, quoted.
        plant: whose.
        names: tags' names there, by index.
    """

    client: Client
    source: str
    plant: str
    names: Sequence[str]


def count_all(points: Points, grid: Grid, unsealed: pa.Table) -> None:
    """Count points, and the rows of the output log that are not among them.

    All is asked before anything is counted, so that an error leaves the grid as it was.

    Args:
        points: where they are.
        grid: where they are counted.
        unsealed: rows with `tag`, `time` and `status`.

    Raises:
        StoreBusy, QueryError: as `Client.ask`.
    """
    rows = first_stored(unsealed)
    index = {name: at for at, name in enumerate(points.names)}
    lacking = rows.filter(pa.array(~_there(points, index, rows)))
    found = list(_counted(points, index, grid))
    for name, tag, time, number in found:
        grid.add(grid.cells(tag, time), **{name: number})
    severity = lacking["status"].to_numpy() >> np.uint32(30)
    one = np.ones(len(severity), np.int64)
    cells = grid.cells(lacking["tag"].to_numpy(), lacking["time"].to_numpy())
    grid.add(cells, count=one, good=one * (severity == 0), uncertain=one * (severity == 1))


def _counted(points: Points, index: Mapping[str, int], grid: Grid) -> Iterator[tuple[str, I64, I64, I64]]:
    """What is counted, the tag by index, windows' starts and how many, in one request."""
    span = between(grid.low, grid.high)
    group = f'GROUP BY time({grid.every_ns}ns), "tag" fill(none)'
    statements = [
        f'SELECT count("status") FROM {points.source}'
        f"{where({'plant': points.plant}, [*span, *limits])} {group}"
        for limits in _LIMITS.values()
    ]
    for name, found in zip(_LIMITS, points.client.ask(statements, _Count), strict=True):
        for series in found:
            tag = index.get(series.tags.get("tag", ""))
            if tag is not None and series.values:
                time, number = np.array(series.values, np.int64).T
                yield name, np.full(len(time), tag), time, number


def _there(points: Points, index: Mapping[str, int], rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows, sorted by (tag, time), have a point at their place."""
    tag, time = rows["tag"].to_numpy().astype(np.int64), rows["time"].to_numpy()
    there = np.zeros(len(rows), bool)
    spans = _looked_up(tag, time, len(points.names))
    for first in range(0, len(spans), STATEMENTS):
        statements = []
        for one, low, high in spans[first : first + STATEMENTS]:
            tags = {"plant": points.plant} | ({} if one is None else {"tag": points.names[one]})
            clause = where(tags, between(low, high + 1))
            statements.append(f'SELECT "offset" FROM {points.source}{clause} GROUP BY "tag"')
        for series in itertools.chain.from_iterable(points.client.ask(statements, _Count)):
            at = index.get(series.tags.get("tag", ""), -1)
            begin, end = np.searchsorted(tag, [at, at + 1])
            there[begin:end] |= np.isin(time[begin:end], [when for when, _ in series.values])
    return there


def _looked_up(tag: I64, time: I64, tags: int) -> list[tuple[int | None, int, int]]:
    """What to ask for: a tag, or None for all, and its first and last time.

    Minutes that most tags have rows of, such as the newest one, are asked for of all tags at once; others, of
    rows that came late, tag by tag, so that no answer holds what nobody asked for.
    """
    minute = time // MINUTE_NS
    each = np.unique(np.stack([minute, tag]), axis=1)[0]
    minutes, of_tags = np.unique(each, return_counts=True)
    wide = minutes[2 * of_tags >= tags]
    runs = np.split(wide, np.flatnonzero(np.diff(wide) > 1) + 1) if len(wide) else []
    asked: list[tuple[int | None, int, int]] = []
    for run in runs:
        inside = time[(minute >= run[0]) & (minute <= run[-1])]
        asked.append((None, int(inside.min()), int(inside.max())))
    narrow = np.flatnonzero(~np.isin(minute, wide))
    for begin, end in clusters_of(tag[narrow], time[narrow]) if len(narrow) else []:
        at = narrow[begin:end]
        asked.append((int(tag[at[0]]), int(time[at[0]]), int(time[at[-1]])))
    return asked
