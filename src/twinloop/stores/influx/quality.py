"""Good, Uncertain and Bad samples of every tag, counted by InfluxDB, and what it has not been sent yet.

Only the plant's own points count, not the series of somebody else that `existing` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from twinloop.status import BAD, UNCERTAIN
from twinloop.stores.influx.client import Client
from twinloop.stores.influx.influxql import between, where
from twinloop.stores.quality import Grid
from twinloop.stores.rows import first_stored

__all__ = ["count_points", "count_unsent"]

_Count = tuple[int, int]
_LIMITS: Final = {
    "count": [],
    "good": [f'"status" < {UNCERTAIN}'],
    "uncertain": [f'"status" >= {UNCERTAIN}', f'"status" < {BAD}'],
}


def count_points(client: Client, source: str, plant: str, index: Mapping[str, int], grid: Grid) -> None:
    """Count the points of a measurement.

    Args:
        client: where they are.
        source: the measurement, quoted.
        plant: whose.
        index: tags' indices by their names there.
        grid: where they are counted.

    Raises:
        StoreBusy, QueryError: as `Client.ask`.
    """
    span = between(grid.low, grid.high)
    group = f'GROUP BY time({grid.every_ns}ns), "tag" fill(none)'
    statements = [
        f'SELECT count("status") FROM {source}{where({"plant": plant}, [*span, *limits])} {group}'
        for limits in _LIMITS.values()
    ]
    for name, found in zip(_LIMITS, client.ask(statements, _Count), strict=True):
        for series in found:
            tag = index.get(series.tags.get("tag", ""))
            if tag is not None and series.values:
                time, number = np.array(series.values, np.int64).T
                grid.add(grid.cells(np.full(len(time), tag), time), **{name: number})


def count_unsent(
    client: Client,
    source: str,
    plant: str,
    index: Mapping[str, int],
    grid: Grid,
    *,
    rows: pa.Table,
    covered: int,
) -> None:
    """Count rows of the output log after `covered` that InfluxDB does not have, as `count_points`."""
    if not len(rows):
        return
    rows = first_stored(rows)
    tag, time, status = (rows[name].to_numpy() for name in ("tag", "time", "status"))
    span = between(int(time.min()), int(time.max()) + 1)
    clause = where({"plant": plant}, [*span, f'"offset" > {covered}'])
    [found] = client.ask([f'SELECT "offset" FROM {source}{clause} GROUP BY "tag"'], _Count)
    sent = np.zeros(len(rows), bool)
    for series in found:
        of_tag = tag == index.get(series.tags.get("tag", ""), -1)
        sent[of_tag] |= np.isin(time[of_tag], [at for at, _ in series.values])
    severity = status[~sent] >> np.uint32(30)
    one = np.ones(len(severity), np.int64)
    cells = grid.cells(tag[~sent], time[~sent])
    grid.add(cells, count=one, good=one * (severity == 0), uncertain=one * (severity == 1))
