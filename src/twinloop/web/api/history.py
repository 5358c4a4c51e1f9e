"""What the store has: samples, fills, windows, events, snapshots, predictions, quality, dead letters."""

from __future__ import annotations

import time
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import Query
from starlette.responses import Response

from twinloop.aggregates import AGGREGATES, Configuration, named
from twinloop.aggregates.asking import ask_aggregates
from twinloop.errors import QueryError
from twinloop.records import EventKind
from twinloop.stores.paging import Where
from twinloop.stores.queries import LocalQueries
from twinloop.web.api.answering import Found, Page, Paged
from twinloop.web.api.desk import AssetFilter, Desk, Every, Moment, TagName, nanoseconds
from twinloop.web.api.problems import Problem

__all__ = ["MOST_SAMPLES", "MOST_WINDOWS", "History"]

MOST_WINDOWS: Final = 100_000
"""Of one answer, before it is cut into pages."""
MOST_SAMPLES: Final = 5_000_000
"""Samples that windows narrower than a minute, or aggregates, are worked out from at once."""
_MINUTE_NS: Final = 60 * 10**9
_HOUR_NS: Final = 60 * _MINUTE_NS
_SHORT_NS: Final = 20 * _MINUTE_NS
"""So short a time holds no more, unless a tag gives thousands of samples a second."""
_PREDICTIONS: Final = pa.schema(
    [
        ("time", pa.timestamp("ns", tz="UTC")), ("asset", pa.string()), ("output", pa.string()),
        ("unit", pa.string()), ("horizon_s", pa.float64()), ("due", pa.timestamp("ns", tz="UTC")),
        ("now", pa.float64()), ("value", pa.float64()), ("persistence", pa.float64()),
    ]
)  # fmt: skip

Aggregates = Annotated[
    list[str] | None,
    Query(alias="aggregate", description=f"by OPC UA Part 13; of {', '.join(AGGREGATES)}"),
]
Widened = Annotated[bool, Query(description="Uncertain values count for mean, min and max, too")]
Kind = Annotated[EventKind | None, Query(description="of this kind only")]
Output = Annotated[str | None, Query(max_length=100, description="of this output of the model only")]
Settled = Annotated[bool, Query(description="also those that became samples by `twinloop refeed`")]


class History:
    """Endpoints that ask the store.

    Args:
        desk: where they ask.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def _queries(self) -> LocalQueries:
        return self._desk.twin.queries

    def range(self, page: Paged, tag: TagName, start: Moment = None, end: Moment = None) -> Response:
        """Every sample received of a tag in [start, end), as `twinloop query range`."""
        self._desk.index(tag)
        low, high = self._desk.span(start, end)

        def read(at: int | None, skip: int, limit: int) -> Found:
            return Found(self._queries.range(tag, at, high, most=skip + limit + 1))

        return page.by_time(read, low, high)

    def fills(self, page: Paged, tag: TagName, start: Moment = None, end: Moment = None) -> Response:
        """What stood in for a tag's bad or missing values in [start, end)."""
        self._desk.index(tag)
        low, high = self._desk.span(start, end)

        def read(at: int | None, skip: int, limit: int) -> Found:
            return Found(self._queries.fills(tag, at, high, most=skip + limit + 1))

        return page.by_time(read, low, high)

    def window(
        self,
        page: Paged,
        tag: TagName,
        *,
        every: Every = "1m",
        start: Moment = None,
        end: Moment = None,
        uncertain_as_good: Widened = False,
        aggregate: Aggregates = None,
    ) -> Response:
        """Windows of a tag, as `twinloop query window`; with `aggregate` by OPC UA Part 13."""
        index = self._desk.index(tag)
        low, high = self._desk.span(start, end)
        every_ns = nanoseconds("every", every)
        names = _aggregates(aggregate)
        by_samples = bool(names) or every_ns % _MINUTE_NS != 0
        self._refuse_too_many(tag, every_ns, low, high, by_samples=by_samples, of_all=bool(names))
        if not names:
            table = self._queries.window(tag, every_ns, low, high, uncertain_as_good=uncertain_as_good)
        else:
            known = self._desk.twin.table[index]
            rules = Configuration(
                treat_uncertain_as_bad=not uncertain_as_good,
                stepped=known is not None and not known.analogue,
            )
            table = ask_aggregates(self._queries, tag, every_ns, low, high, names=names, configuration=rules)
        return page.in_order(table, start=low, end=high)

    def _refuse_too_many(
        self, tag: str, every_ns: int, low: int | None, high: int | None, *, by_samples: bool, of_all: bool
    ) -> None:
        """Return where windows can be worked out at once.

        Args:
            tag, every_ns, low, high: the windows.
            by_samples: whether samples are read for them, and not minutes alone.
            of_all: whether those without samples have a row, too.

        Raises:
            Problem: 400, there are too many of them, or too many samples in them.
        """
        until = time.time_ns() if high is None else high
        if low is not None and 0 < until - low <= min(_SHORT_NS, every_ns * MOST_WINDOWS):
            return
        hours = self._queries.window(tag, _HOUR_NS, low, high)
        if not len(hours) and (low is None or not of_all):
            return
        times, count = hours["time"].cast(pa.int64()).to_numpy(), int(pc.sum(hours["count"]).as_py() or 0)
        first = int(times[0]) if low is None else low
        last = until if high is not None or not len(times) else max(until, int(times[-1]) + _HOUR_NS)
        windows = (last - first) // every_ns
        if by_samples and count > MOST_SAMPLES:
            text = f"{count:,} samples would be read for it, and {MOST_SAMPLES:,} are read at most"
            raise Problem(400, f"{text}: ask for a shorter time, or for windows of whole minutes")
        if (windows if of_all else min(windows, count)) > MOST_WINDOWS:
            text = f"{windows:,} windows are too many, {MOST_WINDOWS:,} the most"
            raise Problem(400, f"{text}: ask for wider ones, or for a shorter time")

    def quality(self, page: Paged, every: Every = "1m", start: Moment = None, end: Moment = None) -> Response:
        """How many samples of every tag were Good, Uncertain and Bad; by default the last hour by minutes.

        Windows are whole minutes or more of them, and whole: start and end are widened to their edges.
        """
        every_ns = nanoseconds("every", every)
        low, high = self._desk.span(start, end)
        high = time.time_ns() if high is None else high
        low = high - _HOUR_NS if low is None else low
        if low >= high:
            raise Problem(400, f"the start ({start}) is not before now")
        if (high - low) // every_ns > MOST_WINDOWS:
            raise Problem(
                400, f"more than {MOST_WINDOWS:,} windows: ask for wider ones, or for a shorter time"
            )
        table = self._queries.quality(every_ns, low, high)
        names = pa.array(self._desk.twin.table.names, pa.string())
        ranks = pc.index_in(table["tag"], value_set=names).cast(pa.int64()).to_numpy()
        return page.in_order(table, ranks, start=low, end=high)

    def events(
        self,
        page: Paged,
        start: Moment = None,
        end: Moment = None,
        asset: AssetFilter = None,
        kind: Kind = None,
    ) -> Response:
        """What happened in [start, end): of all, or of an asset and its tags."""
        if asset is not None:
            self._desk.asset(asset)

        def where(rows: pa.Table) -> npt.NDArray[np.bool_]:
            wanted = np.ones(len(rows), bool)
            if kind is not None:
                wanted &= pc.equal(rows["kind"], str(kind)).to_numpy()
            if asset is not None:
                of_tag = pc.starts_with(rows["subject"], f"{asset}.").to_numpy()
                wanted &= of_tag | pc.equal(rows["subject"], asset).to_numpy()
            return wanted

        return self._told(page, "events", start, end, where)

    def snapshots(
        self, page: Paged, asset: AssetFilter = None, start: Moment = None, end: Moment = None
    ) -> Response:
        """The twin's states and predictions in [start, end)."""
        return self._told(page, "snapshots", start, end, self._of_asset(asset))

    def predictions(
        self,
        page: Paged,
        asset: AssetFilter = None,
        output: Output = None,
        start: Moment = None,
        end: Moment = None,
    ) -> Response:
        """Predictions made in [start, end), a row for each; `due` is when each is to be judged."""
        low, high = self._desk.span(start, end)
        of_asset = self._of_asset(asset)

        def where(rows: pa.Table) -> npt.NDArray[np.bool_]:
            parents, _ = _flat(rows["predictions"], output)
            has_any: npt.NDArray[np.bool_] = np.isin(np.arange(len(rows)), parents)
            return has_any & of_asset(rows)

        def read(at: int | None, skip: int, limit: int) -> Found:
            rows, more = self._queries.page("snapshots", at, high, skip + limit + 1, where)
            return Found(_predicted(rows, output), more)

        return page.by_time(read, low, high)

    def dead(
        self,
        page: Paged,
        start: Moment = None,
        end: Moment = None,
        settled: Settled = False,  # noqa: FBT002 - a key of the query string
    ) -> Response:
        """Dead letters that arrived in [start, end), with their bytes: text, or `base64:` and their code."""
        return self._told(page, "dead", start, end, None, settled=settled)

    def dead_summary(
        self,
        page: Paged,
        start: Moment = None,
        end: Moment = None,
        settled: Settled = False,  # noqa: FBT002 - a key of the query string
    ) -> Response:
        """Dead letters of [start, end) counted by source, origin and reason, the most frequent first."""
        low, high = self._desk.span(start, end)
        return page.whole(self._queries.dead_summary(low, high, settled=settled), start=low, end=high)

    def _told(
        self,
        page: Page,
        kind: str,
        start: str | None,
        end: str | None,
        where: Where | None,
        *,
        settled: bool = False,
    ) -> Response:
        low, high = self._desk.span(start, end)

        def read(at: int | None, skip: int, limit: int) -> Found:
            return Found(*self._queries.page(kind, at, high, skip + limit + 1, where, settled=settled))

        return page.by_time(read, low, high)

    def _of_asset(self, asset: str | None) -> Where:
        """Which rows are of an asset; of all where none is named."""
        if asset is None:
            return lambda rows: np.ones(len(rows), bool)
        if asset not in self._queries.assets:
            self._desk.asset(asset)

        def where(rows: pa.Table) -> npt.NDArray[np.bool_]:
            found: npt.NDArray[np.bool_] = pc.equal(rows["asset"], asset).to_numpy()
            return found

        return where


def _aggregates(given: list[str] | None) -> list[str]:
    """Names of aggregates, each by itself or several joined by commas. Raises Problem (422)."""
    names = [name for each in given or () for name in each.split(",") if name.strip()]
    try:
        return named(names) if names else []
    except QueryError as error:
        raise Problem(422, str(error), errors=[{"where": "aggregate", "detail": str(error)}]) from error


def _flat(predictions: pa.ChunkedArray, output: str | None) -> tuple[npt.NDArray[np.int64], pa.StructArray]:
    """All predictions of some snapshots in a row, and the snapshot each is of."""
    lists = predictions.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    parents, flat = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    if output is None:
        return parents, flat
    picked = pc.equal(pc.struct_field(flat, "output"), output)
    return parents[picked.to_numpy(zero_copy_only=False)], flat.filter(picked)


def _predicted(rows: pa.Table, output: str | None) -> pa.Table:
    """A row for each prediction of some snapshots."""
    if not len(rows):
        return _PREDICTIONS.empty_table()
    parents, flat = _flat(rows["predictions"], output)
    of = rows.take(pa.array(parents))
    time_ns, horizon_s = of["time"].cast(pa.int64()).to_numpy(), of["horizon_s"].to_numpy()
    made = {name: of[name] for name in ("time", "asset", "horizon_s")}
    made["due"] = pa.array(time_ns + np.rint(horizon_s * 1e9).astype(np.int64)).cast(
        _PREDICTIONS.field("due").type
    )
    made |= {name: pc.struct_field(flat, name) for name in ("output", "unit", "now", "value", "persistence")}
    return pa.Table.from_arrays([made[name] for name in _PREDICTIONS.names], schema=_PREDICTIONS)
