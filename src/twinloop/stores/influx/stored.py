"""Of two points of a tag with one time the first stored wins; InfluxDB by itself would keep the last.

A row can only meet an older point where its time is not beyond everything its tag has in InfluxDB. The newest
times are asked for once and then kept; rows that are not beyond them are looked up before they are sent.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.errors import QueryError
from twinloop.stores.influx.client import Client, Denied, MissingError
from twinloop.stores.influx.influxql import EARLIEST_NS, LATEST_NS, identifier, where
from twinloop.stores.influx.lines import encoded

__all__ = ["APART_NS", "STATEMENTS", "FirstStored", "clusters_of"]

_log = logging.getLogger("twinloop.store")

I64 = npt.NDArray[np.int64]
APART_NS: Final = 10_000_000_000
"""Rows further apart are looked up one by one, so that no answer holds what nobody asked for."""
STATEMENTS: Final = 25
"""So many are asked at once."""
_Offset = tuple[int, int]


class FirstStored:
    """Leaves out rows whose place is taken by a point stored before, also by themselves.

    Args:
        client: where the points are.
        measurement, plant: which.
        names: full tag names by index.
    """

    def __init__(self, client: Client, measurement: str, plant: str, names: Sequence[str]) -> None:
        self._client = client
        self._measurement = identifier(measurement)
        self._plant = plant
        self._names = [encoded(name) for name in names]
        self._newest: I64 | None = None
        self._told = False

    def fresh(self, rows: pa.Table) -> pa.Table:
        """The rows, sorted by (tag, time), that are to be sent; all of them where the server cannot be asked.

        It cannot, either, by a login that may write and not read.

        Raises:
            StoreBusy: it cannot be asked now, or would take nothing.
        """
        if not len(rows) or not self._client.server().answers:
            return rows
        try:
            return self._left(rows)
        except Denied as error:
            self._client.look()  # raises where the login may not write, either
            self._tell(error)
        except QueryError as error:
            self._tell(error)
        return rows

    def _tell(self, error: Exception) -> None:
        if not self._told:
            _log.warning("store: of samples with one time the last one sent will stand: %s", error)
        self._told = True

    def _left(self, rows: pa.Table) -> pa.Table:
        """The rows without those whose place is taken."""
        tag, time, offset = (rows[name].to_numpy() for name in ("tag", "time", "offset"))
        may_meet = np.flatnonzero(time <= self._times()[tag])
        if not len(may_meet):
            return rows
        keep = np.ones(len(rows), bool)
        clusters = clusters_of(tag[may_meet], time[may_meet])
        for first in range(0, len(clusters), STATEMENTS):
            part = clusters[first : first + STATEMENTS]
            spans = [may_meet[a:b] for a, b in part]
            statements = [self._look_up(int(tag[at[0]]), int(time[at[0]]), int(time[at[-1]])) for at in spans]
            for at, found in zip(spans, self._ask(statements), strict=True):
                keep[at] = ~_taken(time[at], offset[at], found)
        return rows.filter(pa.array(keep))

    def sent(self, rows: pa.Table) -> None:
        """Note what InfluxDB has taken."""
        if self._newest is not None and len(rows):
            np.maximum.at(self._newest, rows["tag"].to_numpy(), rows["time"].to_numpy())

    def _times(self) -> I64:
        """The newest time of each tag, by index; before all time where there is none."""
        if self._newest is None:
            newest = np.full(len(self._names), np.iinfo(np.int64).min, np.int64)
            index = {name: at for at, name in enumerate(self._names)}
            own = where({"plant": self._plant})
            statement = f'SELECT last("offset") FROM {self._measurement}{own} GROUP BY "tag"'
            try:
                [found] = self._client.ask([statement], _Offset)
            except MissingError:
                if self._client.server().major == 2:  # the bucket may be there, and not its mapping
                    raise
                found = []
            for series in found:
                at = index.get(series.tags.get("tag", ""))
                if at is not None and series.values:
                    newest[at] = max(time for time, _ in series.values)
            self._newest = newest
        return self._newest

    def _look_up(self, tag: int, first: int, last: int) -> str:
        low, high = (min(max(each, EARLIEST_NS), LATEST_NS) for each in (first, last))
        series = {"plant": self._plant, "tag": self._names[tag]}
        clause = where(series, [f"time >= {low}", f"time <= {high}"])
        return f'SELECT "offset" FROM {self._measurement}{clause}'

    def _ask(self, statements: list[str]) -> Iterator[list[_Offset]]:
        for found in self._client.ask(statements, _Offset):
            yield [row for series in found for row in series.values]


def clusters_of(tag: I64, time: I64) -> list[tuple[int, int]]:
    """Where to cut rows sorted by (tag, time): one tag each, no two neighbours far apart."""
    cut = (tag[1:] != tag[:-1]) | (time[1:] - time[:-1] > APART_NS)
    edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(tag)]
    return list(itertools.pairwise(edges))


def _taken(time: I64, offset: I64, found: list[_Offset]) -> npt.NDArray[np.bool_]:
    """Which rows have a point at their time that was stored no later."""
    if not found:
        return np.zeros(len(time), bool)
    there = np.array(sorted(found), np.int64)
    at = np.minimum(np.searchsorted(there[:, 0], time), len(there) - 1)  # of one time the lowest offset
    taken: npt.NDArray[np.bool_] = (there[at, 0] == time) & (there[at, 1] <= offset)
    return taken
