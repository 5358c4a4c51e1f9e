"""Answers from InfluxDB, the same as the embedded store's; also in another process while `run` writes.

InfluxDB has every row that the journal covers, and perhaps some that the output log still holds: (tag, time)
says which are the same. Windows that no row of the log falls into are worked out by the server, the others
here.
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
from twinloop.stores.influx.stored import STATEMENTS
from twinloop.stores.influx.windows import Cut, Window, by_time, table_of
from twinloop.stores.minutes import parts_of, windows_of
from twinloop.stores.quality import Grid, count_minutes
from twinloop.stores.queries import POINT_COLUMNS, RANGE_COLUMNS, LocalQueries
from twinloop.stores.reading import bounds
from twinloop.stores.rest import Beyond
from twinloop.stores.rows import SAMPLE_SCHEMA, Entry, first_stored
from twinloop.stores.segments import Listing
from twinloop.stores.windows import WINDOW_COLUMNS

__all__ = ["InfluxQueries"]

_NUMBER: Final = float | None
_TYPES: Final[dict[str, Any]] = {
    "value": _NUMBER, "estimate": _NUMBER, "estimate_std": _NUMBER,
    "status": int | None, "reasons": int | None, "arrival_ms": int | None, "offset": int | None,
}  # fmt: skip
"""Fields of a point, as JSON gives them; a point of somebody else may lack any."""
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

    def __init__(  # noqa: PLR0913 - what `LocalQueries` takes, and the server
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
        release: Callable[[], None] | None = None,
    ) -> None:
        more: dict[str, Any] = {"active": active, "ahead": ahead, "settled": settled, "release": release}
        super().__init__(directory, names, units, unsealed, **more)
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
        if not 0 < every_ns < 2**63:
            raise QueryError(f"a window must be longer than nothing and shorter than ages, not {every_ns} ns")
        index = self._tag(tag)
        span = bounds(start, end)
        began = self._began(tag)

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            before = super(InfluxQueries, self)._sealed(listing, "samples", index, span, WINDOW_COLUMNS)
            unsealed = beyond.of_tag("samples", index, *span, WINDOW_COLUMNS)
            times = np.concatenate([each["time"].to_numpy() for each in (_EMPTY, *before, *unsealed)])
            cut = Cut(every_ns, span, began, times)
            there = self._by_server(listing, cut, tag, BAD if uncertain_as_good else UNCERTAIN)
            mixed = [self._existing_rows(tag, began, part, WINDOW_COLUMNS) for part in cut.by_rows[:1]]
            points = [self._points(listing, "samples", index, cut.by_rows, WINDOW_COLUMNS)]
            before, unsealed = ([_of(cut, each) for each in parts] for parts in (before, unsealed))
            samples = first_stored(pa.concat_tables([*mixed, *before, *points, *unsealed]))
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
        return [*found, self._points(listing, kind, tag, [span], columns, most=most)]

    def _points(
        self,
        listing: Listing,
        kind: str,
        tag: int,
        spans: Sequence[tuple[int, int]],
        columns: list[str],
        *,
        most: int | None = None,
    ) -> pa.Table:
        """A tag's points of some spans; of each the first `most`."""
        fields = [name for name in columns if name in _TYPES]
        told = ", ".join(identifier(name) for name in fields)
        limit = "" if most is None else f" LIMIT {most}"
        statements = [
            f"SELECT {told} FROM {self._own(kind)}{where(self._series(tag), between(*span))}{limit}"
            for span in spans
        ]
        row: Any = tuple.__class_getitem__((int, *(_TYPES[name] for name in fields)))
        made = [_table(tag, fields, [], columns)]
        try:
            for first in range(0, len(statements), STATEMENTS):
                for _, series in self._client.pieces(statements[first : first + STATEMENTS], row):
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

    def _by_server(self, listing: Listing, cut: Cut, name: str, limit: int) -> list[pa.Table]:
        """The windows that the server works out by itself; statuses below the limit count."""
        made = []
        if cut.existing[0] < cut.existing[1]:
            made.append(self._existing_grouped(cut, name))
        if cut.own[0] < cut.own[1]:
            made.append(self._own_grouped(listing, cut, self._series(self._tag(name)), limit))
        return made

    def _existing_grouped(self, cut: Cut, name: str) -> pa.Table:
        """Windows over somebody else's points, all of them Good."""
        series = self._options.existing[name]
        value = identifier(series.field)
        told = f"count({value}), mean({value}), min({value}), max({value})"
        statement = f"SELECT {told} FROM {_source(series, cut.existing)} {by_time(cut.every_ns)}"
        try:
            [found] = self._asked(None, [statement], Window, series.bucket)
        except MissingError:
            raise
        except QueryError:  # of truth values, for one, there is no mean
            rows = self._existing_rows(name, cut.existing[1], cut.existing, WINDOW_COLUMNS)
            return windows_of(parts_of(rows, cut.every_ns), cut.every_ns, uncertain_as_good=False)
        return table_of(found, found, None)

    def _own_grouped(self, listing: Listing, cut: Cut, series: dict[str, str], limit: int) -> pa.Table:
        """Windows over own points: those with a status below the limit for numbers, all for the count."""
        source = self._own("samples")
        every = where(series, between(*cut.own))
        usable, good = (f'{every} AND "status" < {each}' for each in (limit, UNCERTAIN))
        group = by_time(cut.every_ns)
        numbers = 'count("status"), mean("value"), min("value"), max("value")'
        told = ((numbers, usable), ('count("status")', good), ('count("status")', every))
        statements = [f"SELECT {what} FROM {source}{each} {group}" for what, each in told]
        figures, of_good, total = self._asked(listing, statements, Window)
        return table_of(cut.left(total), figures, of_good)


_EMPTY: Final = SAMPLE_SCHEMA.empty_table()


def _source(series: Existing, span: tuple[int, int]) -> str:
    return f"{identifier(series.measurement)}{where(series.tags, between(*span))}"


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


def _of(cut: Cut, rows: pa.Table) -> pa.Table:
    return rows.filter(pa.array(cut.by_row(rows["time"].to_numpy())))
