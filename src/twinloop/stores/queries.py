"""Answers from the embedded store, also in another process while `run` writes.

Each row is in a segment or in the output log after the last sealed offset (`asking`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twinloop.errors import QueryError
from twinloop.stores.asking import Asker
from twinloop.stores.dead import Tally
from twinloop.stores.minutes import part_columns, windows_of
from twinloop.stores.newest import Newest
from twinloop.stores.paging import Told, Where, first_parts, first_told
from twinloop.stores.quality import Grid, count_minutes, grid_of
from twinloop.stores.reading import (
    bounds,
    meeting,
    of_tag,
    read_rows,
    read_whole,
    with_time,
    within,
)
from twinloop.stores.rest import Beyond
from twinloop.stores.rows import SAMPLE_SCHEMA, SCHEMAS, Entry, by_time, first_stored, tables
from twinloop.stores.segments import Listing, Segment
from twinloop.stores.store import RANGE_SCHEMA
from twinloop.stores.windows import WINDOW_COLUMNS, TagParts

__all__ = ["LocalQueries"]

_TEXT: Final = pa.string()
POINT_COLUMNS: Final = ["tag", "time", "value", "offset"]
RANGE_COLUMNS: Final = ["tag", "time", "value", "status", "reasons", "estimate", "estimate_std", "offset"]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The newest rows as they are kept and as they are answered, and where each tag's is."""

    rows: pa.Table
    position: npt.NDArray[np.int64]
    named: pa.Table


class LocalQueries:
    """`Queries` over a store's directory and the outputs not yet sealed; safe to use from many threads.

    Args:
        directory: the store's; it need not exist yet.
        names: full tag names by index, also of tags no longer in the plant file.
        units: their units, by index.
        unsealed: the output log's entries after an offset, ascending. It may raise or leave out entries
            that were trimmed: the store has sealed those by then, and the question is asked again.
        active: by index, whether `latest` of all tags shows it; all by default.
        ahead: where the newest values are kept while the store lags; None for nowhere.
        settled: of a table of dead letters, which are none any more; none by default.
        release: called by `close`, for what `unsealed` holds open.
    """

    def __init__(
        self,
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
        self._settled = settled
        self._release = release
        self._directory = directory
        self._names = list(names)
        self._units = list(units)
        self._index = {name: index for index, name in enumerate(names) if name}
        shown = [at for at, name in enumerate(names) if name and (active is None or active[at])]
        self._shown = np.array(sorted(shown, key=self._names.__getitem__), np.int64)
        self._shape: _Shape | None = None
        self._name_column, self._unit_column = pa.array(self._names, _TEXT), pa.array(self._units, _TEXT)
        self._asker = Asker(directory, unsealed)
        self._newest = Newest(self._asker, directory, self._names, unsealed, ahead)

    def latest(self, tags: Sequence[str]) -> pa.Table:
        """The newest sample of each tag by its own time, by `RANGE_SCHEMA`, in the order asked for.

        All tags that ever had a sample when `tags` is empty, by name. A tag that has fallen silent shows its
        last value with the status lowered and reason STALE; one without any sample has no row.

        Raises:
            QueryError: a tag is not known.
        """
        known = self._index
        asked = [known[name] if name in known else self._tag(name) for name in dict.fromkeys(tags)]
        shape = self._shaped(self._newest.rows())
        if len(asked) == 1:  # as most alarms and scripts ask; a slice copies nothing
            at = int(shape.position[asked[0]])
            return shape.named.slice(max(at, 0), int(at >= 0))
        picked = shape.position[np.array(asked, np.int64) if tags else self._shown]
        return shape.named.take(pa.array(picked[picked >= 0]))

    def _shaped(self, rows: pa.Table) -> _Shape:
        """The newest rows as they are answered, made once as long as they are the same."""
        shape = self._shape  # another thread may set it meanwhile
        if shape is None or shape.rows is not rows:
            tag = rows["tag"].to_numpy()
            position = np.full(max(len(self._names), int(tag.max(initial=-1)) + 1), -1, np.int64)
            position[tag] = np.arange(len(tag))
            known = rows.filter(pa.array(tag < len(self._names)))
            self._shape = shape = _Shape(rows, position, self._named(known))
        return shape

    def range(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        """Every sample received of a tag in [start, end), one row each, ascending time, by `RANGE_SCHEMA`.

        With `most`, only the first so many.

        Raises:
            QueryError: the tag is not known.
        """
        return self._named(self._picked("samples", tag, start, end, RANGE_COLUMNS, most=most))

    def fills(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        """What stood in for a tag's bad or missing values in [start, end), by `RANGE_SCHEMA`; as `range`.

        Raises:
            QueryError: the tag is not known.
        """
        return self._named(self._picked("fills", tag, start, end, RANGE_COLUMNS, most=most))

    def points(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        """The bare numbers of `range`: `time` (ns since epoch UTC) and `value`, and no more of it is read.

        Raises:
            QueryError: the tag is not known.
        """
        return self._picked("samples", tag, start, end, POINT_COLUMNS, most=most).select(["time", "value"])

    def stored(self, tag: str, start: int | None, end: int | None) -> pa.Table:
        """A tag's samples in [start, end) as they are kept, by `SAMPLE_SCHEMA`, ascending time.

        Raises:
            QueryError: the tag is not known.
        """
        return self._picked("samples", tag, start, end, SAMPLE_SCHEMA.names)

    def window(
        self,
        tag: str,
        every_ns: int,
        start: int | None,
        end: int | None,
        *,
        uncertain_as_good: bool = False,
    ) -> pa.Table:
        """Mean, min, max, count and good fraction over epoch-aligned windows, by `WINDOW_SCHEMA`.

        Windows without samples are left out; the first and last hold only what lies in [start, end).
        `mean min max` are null where no sample counts. `good_fraction` is Good / count, however widely
        `mean` was asked for. A mean is summed with compensation and in ascending time, so the same
        samples give the same digits.

        Raises:
            QueryError: the tag is not known, or `every_ns` is not positive.
        """
        if not 0 < every_ns < 2**63:
            raise QueryError(f"a window must be longer than nothing and shorter than ages, not {every_ns} ns")
        index = self._tag(tag)
        low, high = bounds(start, end)

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            empty = SAMPLE_SCHEMA.empty_table().select(WINDOW_COLUMNS)
            rows = beyond.of_tag("samples", index, low, high, WINDOW_COLUMNS)
            unsealed = first_stored(pa.concat_tables([empty, *rows]))
            # A backlog takes its time, and seals and merges go on: the segments are those of this moment.
            listing = max(listing, self._asker.listed(), key=lambda each: each.covered)
            unsealed = unsealed.filter(pc.greater(unsealed["offset"], listing.covered))
            columns = part_columns(uncertain_as_good=uncertain_as_good)
            return TagParts(listing, unsealed, index, columns).between(low, high, every_ns)

        return windows_of(self._asker.ask(ask), every_ns, uncertain_as_good=uncertain_as_good)

    def quality(self, every_ns: int, start: int, end: int) -> pa.Table:
        """Of every tag that `latest` shows and window that [start, end) meets, by `QUALITY_SCHEMA`.

        Windows are whole, also at the ends; those without samples are left out.

        Raises:
            QueryError: `every_ns` is not whole minutes, or it is too much for one answer.
        """

        def ask(listing: Listing, beyond: Beyond) -> Grid:
            grid = grid_of(len(self._names), every_ns, start, end)
            self._count(grid, listing, beyond)
            return grid

        shown = np.zeros(len(self._names), bool)
        shown[self._shown] = True
        return self._asker.ask(ask).table(self._names, shown)

    def _count(self, grid: Grid, listing: Listing, beyond: Beyond) -> None:
        """Count samples, sealed or not."""
        rows = beyond.of_all("samples", grid.low, grid.high, WINDOW_COLUMNS)
        unsealed = pa.concat_tables([SAMPLE_SCHEMA.empty_table().select(WINDOW_COLUMNS), *rows])
        count_minutes(grid, listing, unsealed)

    def page(
        self,
        kind: str,
        start: int | None,
        end: int | None,
        most: int,
        where: Where | None = None,
        *,
        settled: bool = False,
    ) -> Told:
        """The first `most` rows of `events`, `snapshots` or `dead`, of those for which `where` says yes."""

        def wanted(rows: pa.Table) -> npt.NDArray[np.bool_]:
            picked = np.ones(len(rows), bool) if where is None else where(rows)
            if kind != "dead" or settled or self._settled is None:
                return picked
            return picked & ~self._settled(with_time(rows))

        def ask(listing: Listing, beyond: Beyond) -> Told:
            return first_told(listing, beyond, kind, bounds(start, end), most=most, where=wanted)

        rows, more = self._asker.ask(ask)
        return Told(with_time(rows).drop_columns(["offset"]), more)

    def events(self, start: int | None, end: int | None) -> pa.Table:
        """Events in [start, end) by ascending time: `time subject kind before after why`."""
        return self._told("events", start, end)

    def dead(self, start: int | None, end: int | None, *, settled: bool = False) -> pa.Table:
        """Dead letters that arrived in [start, end): `time source origin reason detail raw`.

        Those that have become samples since are left out, unless `settled` asks for them.
        """
        rows = self._told("dead", start, end)
        return rows if settled else self._unsettled(rows)

    def dead_summary(self, start: int | None, end: int | None, *, settled: bool = False) -> pa.Table:
        """The same counted: `source origin reason count first last detail`, the most frequent first."""

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            tally = Tally()
            for part in self._dead_parts(listing, beyond, start, end):
                tally.add(part if settled else self._unsettled(part))
            return tally.table()

        return self._asker.ask(ask)

    def each_dead(self, start: int | None, end: int | None, take: Callable[[pa.Table], None]) -> None:
        """Give `take` the dead letters of [start, end), a part at a time; now and then one comes again."""

        def ask(listing: Listing, beyond: Beyond) -> None:
            for part in self._dead_parts(listing, beyond, start, end):
                take(self._unsettled(part))

        self._asker.ask(ask)

    def _dead_parts(
        self, listing: Listing, beyond: Beyond, start: int | None, end: int | None
    ) -> Iterator[pa.Table]:
        low, high = bounds(start, end)
        for segment in meeting(listing, "dead", low, high):
            yield with_time(within(read_whole(segment), low, high, None))
        for rows in beyond.told("dead", low, high):
            yield with_time(rows)

    def _unsettled(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~self._settled(rows))) if self._settled and len(rows) else rows

    def snapshots(self, asset: str | None, start: int | None, end: int | None) -> pa.Table:
        """Twin snapshots in [start, end) by ascending time, of one asset or of all.

        Columns `time asset health why model state std horizon_s predictions nis`; `state` and `std` are
        maps from name to number, `predictions` a list of `output unit now value persistence`.
        """
        return self._told("snapshots", start, end, asset)

    @property
    def assets(self) -> list[str]:
        """The assets that tags were ever of, by name."""
        return sorted({name.partition(".")[0] for name in self._names if name})

    def close(self) -> None:
        """Let go of the memory held, and of files."""
        self._shape = None
        self._newest.clear()
        self._asker.clear()
        if self._release is not None:
            self._release()

    def _picked(
        self,
        kind: str,
        name: str,
        start: int | None,
        end: int | None,
        columns: list[str],
        *,
        most: int | None = None,
    ) -> pa.Table:
        """A tag's rows in [start, end), ascending time, one a time; the first `most` of them."""
        tag = self._tag(name)
        low, high = bounds(start, end)

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            parts = [
                *self._sealed(listing, kind, tag, (low, high), columns, most=most),
                *beyond.of_tag(kind, tag, low, high, columns),
            ]
            rows = first_stored(pa.concat_tables(parts or [SCHEMAS[kind].empty_table().select(columns)]))
            return rows if most is None else rows.slice(0, most)

        return self._asker.ask(ask)

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
        """A tag's rows of [low, high) that are in the store, in parts; overridden where there are others.

        With `most`, at least those of the first so many times.
        """

        def read(segment: Segment) -> pa.Table:
            return of_tag(read_rows(segment, columns, tag, *span), tag, *span)

        return first_parts(meeting(listing, kind, *span), read, most)

    def _told(self, kind: str, start: int | None, end: int | None, asset: str | None = None) -> pa.Table:
        """Rows of a kind without tags in [start, end), ascending time."""
        low, high = bounds(start, end)

        def ask(listing: Listing, beyond: Beyond) -> pa.Table:
            met = meeting(listing, kind, low, high)
            parts = [within(read_whole(segment), low, high, asset) for segment in met]
            parts += [
                within(tables(entries, [kind])[kind], low, high, asset) for entries in beyond.portions()
            ]
            return by_time(pa.concat_tables(parts or [SCHEMAS[kind].empty_table()]))

        return with_time(self._asker.ask(ask)).drop_columns(["offset"])

    def newest(self) -> pa.Table:
        """The newest sample of every tag that ever had one, as it was received, by `SAMPLE_SCHEMA`."""
        return self._newest.received()

    def _tag(self, name: str) -> int:
        index = self._index.get(name)
        if index is None:
            near = difflib.get_close_matches(name, self._index, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise QueryError(f"no tag {name!r}{hint}")
        return index

    def _named(self, rows: pa.Table) -> pa.Table:
        """Rows with names and units in place of indices, by `RANGE_SCHEMA`."""
        tag = pa.array(rows["tag"].to_numpy())
        made = {
            "tag": self._name_column.take(tag),
            "unit": self._unit_column.take(tag),
            "time": rows["time"].cast(pa.timestamp("ns", tz="UTC")),
            "estimate_std": rows["estimate_std"].cast(pa.float64()),
        }
        columns = [made[name] if name in made else rows[name] for name in RANGE_SCHEMA.names]
        return pa.Table.from_arrays(columns, schema=RANGE_SCHEMA)
