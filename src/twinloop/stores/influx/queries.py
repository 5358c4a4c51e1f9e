"""Answers from InfluxDB, the same as the embedded store's; also in another process while `run` writes.

InfluxDB has every row that the journal covers, and perhaps some that the output log still holds: (tag, time)
says which are the same. Windows that no row of the log reaches
into are worked out by the server, the others here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.errors import QueryError
from twinloop.status import BAD, UNCERTAIN
from twinloop.stores.influx.client import Client, MissingError
from twinloop.stores.influx.influxql import between, identifier, where
from twinloop.stores.influx.lines import encoded
from twinloop.stores.influx.options import Existing, InfluxOptions
from twinloop.stores.influx.quality import Points, count_all
from twinloop.stores.minutes import parts_of, windows_of
from twinloop.stores.quality import Grid, count_minutes
from twinloop.stores.queries import POINT_COLUMNS, RANGE_COLUMNS, LocalQueries
from twinloop.stores.reading import bounds
from twinloop.stores.rest import Beyond
from twinloop.stores.rows import SAMPLE_SCHEMA, Entry, first_stored
from twinloop.stores.segments import Listing
from twinloop.stores.store import WINDOW_SCHEMA
from twinloop.stores.windows import WINDOW_COLUMNS

__all__ = ["InfluxQueries"]

_NUMBER: Final = float | None
_TYPES: Final[dict[str, Any]] = {
    "value": _NUMBER, "estimate": _NUMBER, "estimate_std": _NUMBER,
    "status": int | None, "reasons": int | None, "arrival_ms": int | None, "offset": int | None,
}  # fmt: skip
"""Fields of a point, as JSON gives them; a point of somebody else may lack any."""
_Window = tuple[int, int, float | None, float | None, float | None]
_Count = tuple[int, int]
_FOREIGN: Final = -1
"""The offset of rows that somebody else wrote: before all others."""


class InfluxQueries(LocalQueries):
    """`Queries` over InfluxDB, a journal's directory and the outputs not yet sealed.

    Whatever has to ask the server raises StoreBusy where it cannot be reached.

    Args:
        options: the server.
        directory, names, units, unsealed, active, ahead, settled: of the journal, see `LocalQueries`.

    Raises:
        ConfigError: the extra is not installed, or a certificate cannot be used.
    """

    def __init__(
        self,
        options: InfluxOptions,
        directory: Path,
        names: Sequence[str],
        units: Sequence[str],
        unsealed: Callable[[int], Iterable[Entry]],
        *,
        active: Sequence[bool] | None = None,
        ahead: Path | None = None,
        settled: Callable[[pa.Table], npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        super().__init__(directory, names, units, unsealed, active=active, ahead=ahead, settled=settled)
        self._client = Client(options)
        self._options = options
        self._names_there = [encoded(name) for name in names]

    def range(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        """Every sample of a tag in [start, end), one row each, ascending time, by `RANGE_SCHEMA`.

        With `most`, only the first so many.

        Raises:
            QueryError: the tag is not known.
            StoreBusy: InfluxDB does not answer now.
        """
        rows = self._picked("samples", tag, start, end, RANGE_COLUMNS, most=most)
        before = self._existing_rows(tag, self._began(tag), bounds(start, end), RANGE_COLUMNS, most=most)
        return self._named(pa.concat_tables([before, rows]).slice(0, most))

    def points(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        """The bare numbers of `range`: `time` (ns since epoch UTC) and `value`, and no more of it is read.

        Raises:
            QueryError: the tag is not known.
            StoreBusy: InfluxDB does not answer now.
        """
        rows = self._picked("samples", tag, start, end, POINT_COLUMNS, most=most)
        before = self._existing_rows(tag, self._began(tag), bounds(start, end), POINT_COLUMNS, most=most)
        return pa.concat_tables([before, rows]).slice(0, most).select(["time", "value"])

    def window(
        self,
        tag: str,
        every_ns: int,
        start: int | None,
        end: int | None,
        *,
        uncertain_as_good: bool = False,
    ) -> pa.Table:
        """As the embedded store's windows; a mean may differ from its in the last digits.

        Raises:
            QueryError: the tag is not known, or `every_ns` is not positive.
            StoreBusy: InfluxDB does not answer now.
        """
        if every_ns <= 0:
            raise QueryError(f"a window must be longer than nothing, not {every_ns} ns")
        index = self._tag(tag)
        span = bounds(start, end)
        began = self._began(tag)

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            here = [
                *super(InfluxQueries, self)._sealed(listing, "samples", index, span, WINDOW_COLUMNS),
                *beyond.of_tag("samples", index, *span, WINDOW_COLUMNS),
            ]
            cut = _Cut(every_ns, span, began, _first_time(here))
            there = self._by_server(listing, cut, tag, BAD if uncertain_as_good else UNCERTAIN)
            rows = [each for part in cut.by_rows for each in self._rows_of(listing, tag, index, part, began)]
            rows += [_within(each, part) for each in here for part in cut.by_rows]
            samples = first_stored(pa.concat_tables([_EMPTY.select(WINDOW_COLUMNS), *rows]))
            parts = parts_of(samples, every_ns)
            own = windows_of(parts, every_ns, uncertain_as_good=uncertain_as_good)
            return pa.concat_tables([*there, own]).sort_by("time")

        return self._asker.ask(ask)

    def _count(self, grid: Grid, listing: Listing, beyond: Beyond) -> None:
        """Count what the journal has from the time before it was one, points, and what was not sent yet."""
        rows = beyond.of_all("samples", grid.low, grid.high, WINDOW_COLUMNS)
        count_minutes(grid, listing, _EMPTY.select(WINDOW_COLUMNS))
        unsealed = pa.concat_tables([_EMPTY.select(WINDOW_COLUMNS), *rows])
        points = Points(self._client, self._own("samples"), self._options.plant, self._names_there)
        try:
            count_all(points, grid, unsealed)
        except MissingError:
            if listing.covered >= 0:
                raise
            count_minutes(grid, listing, unsealed)

    def close(self) -> None:
        """Let go of connections and memory."""
        self._client.close()
        super().close()

    def _sealed(
        self,
        listing: Listing,
        kind: str,
        tag: int,
        span: tuple[int, int],
        columns: list[str],
        *,
        most: int | None = None,
    ) -> list[pa.Table]:
        """What the journal has from the time before it was one, and InfluxDB's points."""
        found = super()._sealed(listing, kind, tag, span, columns, most=most)
        return [*found, self._points(listing, kind, tag, span, columns, most=most)]

    def _points(
        self,
        listing: Listing,
        kind: str,
        tag: int,
        span: tuple[int, int],
        columns: list[str],
        *,
        most: int | None = None,
    ) -> pa.Table:
        fields = [name for name in columns if name in _TYPES]
        told = ", ".join(identifier(name) for name in fields)
        statement = f"SELECT {told} FROM {self._own(kind)}{where(self._series(tag), between(*span))}"
        statement += "" if most is None else f" LIMIT {most}"
        row: Any = tuple.__class_getitem__((int, *(_TYPES[name] for name in fields)))
        made = [_table(tag, fields, [], columns)]
        try:
            for _, series in self._client.pieces([statement], row):
                made.append(_table(tag, fields, series.values, columns))
        except MissingError:
            if listing.covered >= 0:
                raise
        return pa.concat_tables(made)

    def _asked(self, listing: Listing | None, statements: list[str], row: Any, bucket: str = "") -> list[Any]:
        """The rows of each statement, of all its series; none before anything was written at all."""
        try:
            found = self._client.ask(statements, row, bucket)
        except MissingError:
            if bucket or (listing is not None and listing.covered >= 0):
                raise
            return [[] for _ in statements]
        return [[row for series in each for row in series.values] for each in found]

    def _own(self, kind: str) -> str:
        return identifier(self._options.measurement_of(kind))

    def _series(self, tag: int) -> dict[str, str]:
        return {"plant": self._options.plant, "tag": self._names_there[tag]}

    def _began(self, name: str) -> int | None:
        """The time of a tag's first own row, where somebody else's rows come before it; None for nowhere."""
        index = self._tag(name)
        if name not in self._options.existing:
            return None
        statement = f'SELECT first("offset") FROM {self._own("samples")}{where(self._series(index))}'
        [found] = self._asked(None, [statement], _Count)
        first = min((time for time, _ in found), default=None)
        earlier = self._picked("samples", name, None, first, WINDOW_COLUMNS)
        if len(earlier):
            return int(earlier["time"][0].as_py())
        return bounds(None, None)[1] if first is None else first

    def _existing_rows(
        self,
        name: str,
        began: int | None,
        span: tuple[int, int],
        columns: list[str],
        *,
        most: int | None = None,
    ) -> pa.Table:
        """Somebody else's rows of [low, high) before a tag's own: Good, without estimate."""
        low, high = span[0], min(span[1], span[1] if began is None else began)
        if began is None or low >= high:
            return _EMPTY.select(columns)
        series = self._options.existing[name]
        statement = f"SELECT {identifier(series.field)} FROM {_source(series, (low, high))}"
        statement += "" if most is None else f" LIMIT {most}"
        [found] = self._asked(None, [statement], tuple[int, float | bool | str | None], series.bucket)
        rows = [
            (time, float(value), 0, 0, None, None, 0, _FOREIGN)
            for time, value in found
            if isinstance(value, float | int)
        ]
        fields = ["value", "status", "reasons", "estimate", "estimate_std", "arrival_ms", "offset"]
        return first_stored(_table(self._tag(name), fields, rows, columns))

    def _rows_of(
        self, listing: Listing, name: str, tag: int, span: tuple[int, int], began: int | None
    ) -> list[pa.Table]:
        """A tag's rows of [low, high) that are not here: somebody else's, and InfluxDB's own."""
        return [
            self._existing_rows(name, began, span, WINDOW_COLUMNS),
            self._points(listing, "samples", tag, span, WINDOW_COLUMNS),
        ]

    def _by_server(self, listing: Listing, cut: _Cut, name: str, limit: int) -> list[pa.Table]:
        """The windows that the server works out by itself; statuses below the limit count."""
        made = []
        if cut.existing[0] < cut.existing[1]:
            made.append(self._existing_grouped(cut, name))
        if cut.own[0] < cut.own[1]:
            made.append(self._own_grouped(listing, cut, self._series(self._tag(name)), limit))
        return made

    def _existing_grouped(self, cut: _Cut, name: str) -> pa.Table:
        """Windows over somebody else's points, all of them Good."""
        series = self._options.existing[name]
        value = identifier(series.field)
        told = f"count({value}), mean({value}), min({value}), max({value})"
        statement = f"SELECT {told} FROM {_source(series, cut.existing)} {_group(cut.every_ns)}"
        try:
            [found] = self._asked(None, [statement], _Window, series.bucket)
        except MissingError:
            raise
        except QueryError:  # of truth values, for one, there is no mean
            rows = self._existing_rows(name, cut.existing[1], cut.existing, WINDOW_COLUMNS)
            return windows_of(parts_of(rows, cut.every_ns), cut.every_ns, uncertain_as_good=False)
        return _windows({time: count for time, count, *_ in found}, found, None)

    def _own_grouped(self, listing: Listing, cut: _Cut, series: dict[str, str], limit: int) -> pa.Table:
        """Windows over own points: those with a status below the limit for numbers, all for the count."""
        source = self._own("samples")
        every = where(series, between(*cut.own))
        usable, good = (f'{every} AND "status" < {each}' for each in (limit, UNCERTAIN))
        group = _group(cut.every_ns)
        numbers = 'count("status"), mean("value"), min("value"), max("value")'
        counts = [f'SELECT count("status") FROM {source}{each} {group}' for each in (every, good)]
        total, of_good = self._asked(listing, counts, _Count)
        [found] = self._asked(listing, [f"SELECT {numbers} FROM {source}{usable} {group}"], _Window)
        return _windows(dict(total), found, dict(of_good))


class _Cut:
    """Who works out which part of [low, high), the inner edges on the edges of windows.

    Attributes:
        existing, own: parts for the server: of somebody else's points, and of its own.
        by_rows: parts to be worked out here, from rows.
    """

    def __init__(
        self, every_ns: int, span: tuple[int, int], began: int | None, first_here: int | None
    ) -> None:
        self.every_ns = every_ns
        low, high = span

        def edge(time: int, *, up: bool) -> int:
            down = time - time % every_ns
            return min(max(down + every_ns if up and down < time else down, low), high)

        foreign = low if began is None else edge(began, up=False)
        begin = low if began is None else edge(began, up=True)
        end = max(begin, high if first_here is None else edge(first_here, up=False))
        self.existing = (low, foreign)
        self.own = (begin, end)
        self.by_rows = [each for each in ((foreign, begin), (end, high)) if each[0] < each[1]]


_EMPTY: Final = SAMPLE_SCHEMA.empty_table()


def _source(series: Existing, span: tuple[int, int]) -> str:
    return f"{identifier(series.measurement)}{where(series.tags, between(*span))}"


def _group(every_ns: int) -> str:
    return f"GROUP BY time({every_ns}ns) fill(none)"


def _table(tag: int, fields: list[str], rows: list[tuple[Any, ...]], columns: list[str]) -> pa.Table:
    """Rows of (time, *fields) by some columns of `SAMPLE_SCHEMA`; what lacks a needed field is left out."""
    needed = [at + 1 for at, name in enumerate(fields) if not SAMPLE_SCHEMA.field(name).nullable]
    whole = [row for row in rows if all(row[at] is not None for at in needed)] if needed else rows
    by_name = dict(zip(("time", *fields), zip(*whole, strict=True), strict=True)) if whole else {}
    made = []
    for name in columns:
        field = SAMPLE_SCHEMA.field(name)
        if name == "tag":
            made.append(pa.array(np.full(len(whole), tag, np.int32)))
        else:
            made.append(pa.array(by_name.get(name, [None] * len(whole)), field.type))
    schema = pa.schema([SAMPLE_SCHEMA.field(name) for name in columns])
    return pa.Table.from_arrays(made, schema=schema)


def _windows(total: dict[int, int], found: list[_Window], good: dict[int, int] | None) -> pa.Table:
    """Windows by `WINDOW_SCHEMA`; `good` counts the Good rows of each, None for all."""
    numbers = {time: (mean, low, high) for time, _, mean, low, high in found}
    rows = []
    for time in sorted(total):
        share = 1.0 if good is None else good.get(time, 0) / total[time]
        rows.append((time, *numbers.get(time, (None, None, None)), total[time], share))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(WINDOW_SCHEMA)
    made = [pa.array(column, field.type) for column, field in zip(columns, WINDOW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(made, schema=WINDOW_SCHEMA)


def _first_time(parts: Sequence[pa.Table]) -> int | None:
    return min((int(part["time"].to_numpy().min()) for part in parts if len(part)), default=None)


def _within(rows: pa.Table, span: tuple[int, int]) -> pa.Table:
    time = rows["time"].to_numpy()
    return rows.filter(pa.array((time >= span[0]) & (time < span[1])))
