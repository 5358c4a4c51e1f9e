"""What a plant's store has already of rows that are to come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.batch import NO_TIME
from twinloop.config.models import PlantConfig
from twinloop.errors import QueryError
from twinloop.history import open_queries
from twinloop.stores.queries import LocalQueries

__all__ = ["Already", "Standing"]

_HOUR_NS: Final = 3_600 * 1_000_000_000
_APART_NS: Final = _HOUR_NS
"""Rows further apart are asked for one by one: to read what lies in between may cost more than to ask."""
_AT_ONCE_NS: Final = 24 * _HOUR_NS
_MOST_ROWS: Final = 200_000
"""At once too, where a day of a tag has more."""

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Standing(NamedTuple):
    """Of some times: whether the store has a row of each, and that row's value."""

    there: npt.NDArray[np.bool_]
    value: F64


class Already:
    """Looks up times of tags in the store, opened when it is first asked.

    What is read at once is bounded, whatever a tag has between two rows that are far apart.

    Args:
        config: the plant file.
    """

    def __init__(self, config: PlantConfig) -> None:
        self._config = config
        self._queries: LocalQueries | None = None
        self._newest: dict[str, int] | None = None

    def newest(self, name: str) -> int:
        """The time of a tag's newest row when the first question was asked; before all time without one.

        Raises:
            QueryError, LogError: the store cannot be read.
        """
        if self._newest is None:
            queries = self._asked()
            rows = queries.latest(()) if queries else None
            times = rows["time"].cast(pa.int64()).to_pylist() if rows else []
            self._newest = dict(zip(rows["tag"].to_pylist() if rows else [], times, strict=True))
        return self._newest.get(name, NO_TIME)

    def standing(self, name: str, time: I64) -> Standing:
        """What the store has at some times of a tag, which ascend and may repeat.

        Raises:
            QueryError, LogError: the store cannot be read.
        """
        found = Standing(np.zeros(len(time), bool), np.full(len(time), np.nan))
        queries = self._asked()
        if queries is None:
            return found
        for first, last in _clusters(time):
            for stored_time, stored in _read(queries, name, time[first:last]):
                place = np.minimum(np.searchsorted(stored_time, time[first:last]), len(stored_time) - 1)
                at = np.flatnonzero(stored_time[place] == time[first:last])
                found.there[first + at] = True
                found.value[first + at] = stored[place[at]]
        return found

    def close(self) -> None:
        """Let go of the store; the next question sees what it has by then."""
        if self._queries is not None:
            self._queries.close()
        self._queries = None

    def _asked(self) -> LocalQueries | None:
        """The store's answers; None of a plant that has no data yet."""
        if self._queries is None:
            with suppress(QueryError):
                self._queries = open_queries(self._config)
        return self._queries


def _clusters(time: I64) -> Iterator[tuple[int, int]]:
    """Where to cut ascending times so that no two neighbours of a piece are far apart."""
    if len(time):
        cuts = (np.flatnonzero(np.diff(time) > _APART_NS) + 1).tolist()
        yield from zip([0, *cuts], [*cuts, len(time)], strict=True)


def _read(queries: LocalQueries, name: str, time: I64) -> Iterator[tuple[I64, F64]]:
    """A tag's times and values around some times, so many at once; never none."""
    at = 0
    while at < len(time):
        low = int(time[at])
        high = min(low + _AT_ONCE_NS, int(time[-1]) + 1)
        try:
            rows = queries.points(name, low, high, most=_MOST_ROWS)
        except QueryError:
            if name in queries.latest(())["tag"].to_pylist():
                raise
            return  # a tag the twin that runs does not know yet
        # An answer that is short may still not be all: a store may leave rows out after counting them.
        known = high - 1
        if len(rows):
            stored_time = rows["time"].to_numpy()
            yield stored_time, rows["value"].to_numpy()
            known = stored_time[-1]
        at = int(np.searchsorted(time, known, "right"))
