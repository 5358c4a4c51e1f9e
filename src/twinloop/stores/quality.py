"""How many samples of every tag were Good, Uncertain and Bad, window by window: one question for all tags.

Minutes answer it, as they do for the windows of one tag. Where times of two parts of a minute overlap, of two
samples with one time only the first stored counts, so those minutes are counted by their samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twinloop.errors import QueryError
from twinloop.stores.footers import footer, recent_groups
from twinloop.stores.minutes import MINUTE_NS, parts_of
from twinloop.stores.reading import meeting, of_tag, read_parts, within
from twinloop.stores.rows import MINUTES_SCHEMA, first_stored
from twinloop.stores.segments import Listing, Segment
from twinloop.stores.windows import WINDOW_COLUMNS, TagParts, rolled_up

__all__ = ["MOST_CELLS", "QUALITY_SCHEMA", "Grid", "count_minutes", "grid_of"]

QUALITY_SCHEMA: Final = pa.schema(
    [
        ("tag", pa.string()),
        ("time", pa.timestamp("ns", tz="UTC")),
        ("count", pa.int64()),
        ("good", pa.int64()),
        ("uncertain", pa.int64()),
        ("bad", pa.int64()),
    ]
)
"""Columns of `quality`; `time` is a window's start."""

MOST_CELLS: Final = 5_000_000
"""Tags times minutes that are read for one answer; some 300 MB."""
_COLUMNS: Final = ["tag", "time", "first", "last", "count", "good", "uncertain_n"]
_PARTS_SCHEMA: Final = pa.schema([MINUTES_SCHEMA.field(name) for name in _COLUMNS])

I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Grid:
    """Counts of each tag and window.

    Attributes:
        tags: how many there are, by index.
        every_ns: width of a window, whole minutes.
        low, high: the first window's start and the last one's end.
        counts: samples in all, Good and Uncertain ones, each (tags * windows,).
    """

    tags: int
    every_ns: int
    low: int
    high: int
    counts: dict[str, I64] = field(init=False)

    def __post_init__(self) -> None:
        size = self.tags * self.windows
        self.counts = {name: np.zeros(size, np.int64) for name in ("count", "good", "uncertain")}

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return (self.high - self.low) // self.every_ns

    def cells(self, tag: npt.NDArray[np.integer], time: I64) -> I64:
        """Where tags and times belong."""
        at: I64 = tag.astype(np.int64) * self.windows + (time - self.low) // self.every_ns
        return at

    def add(self, cells: I64, **numbers: npt.NDArray[np.integer]) -> None:
        """Add numbers by the name of what they count."""
        for name, number in numbers.items():
            total = self.counts[name]
            total += np.bincount(cells, number, len(total)).astype(np.int64)

    def table(self, names: list[str], shown: npt.NDArray[np.bool_]) -> pa.Table:
        """The windows that have samples, by `QUALITY_SCHEMA`, tag by tag as they are numbered."""
        count, good, uncertain = self.counts.values()
        cells = np.flatnonzero(count)
        tag = cells // max(self.windows, 1)
        keep = shown[tag]
        cells, tag = cells[keep], tag[keep]
        time = self.low + cells % max(self.windows, 1) * self.every_ns
        bad = count - good - uncertain
        columns = [
            pa.array(names, pa.string()).take(pa.array(tag)),
            pa.array(time).cast(QUALITY_SCHEMA.field("time").type),
            *(pa.array(each[cells]) for each in (count, good, uncertain, bad)),
        ]
        return pa.Table.from_arrays(columns, schema=QUALITY_SCHEMA)


def grid_of(tags: int, every_ns: int, start: int, end: int) -> Grid:
    """An empty grid of the windows that [start, end) meets, all of them whole.

    Raises:
        QueryError: windows are not whole minutes, or too much would be read.
    """
    if every_ns <= 0 or every_ns % MINUTE_NS:
        raise QueryError(f"windows of quality are whole minutes, such as 1m or 1h, not {every_ns} ns")
    low, high = start // every_ns * every_ns, -(-end // every_ns) * every_ns
    minutes = max(high - low, 0) // MINUTE_NS
    if tags * minutes > MOST_CELLS:
        most = MOST_CELLS // max(tags, 1)
        raise QueryError(f"of {tags:,} tags at most {most:,} minutes are counted at once, not {minutes:,}")
    return Grid(tags, every_ns, low, max(low, high))


def count_minutes(grid: Grid, listing: Listing, unsealed: pa.Table) -> None:
    """Count what segments hold, and unsealed samples, with `WINDOW_COLUMNS`, some of them perhaps sealed."""
    span = (grid.low, grid.high)
    rolled, alone, plain = rolled_up(listing)
    met = meeting(listing, "minutes", *span)
    for segment in met:
        if segment in alone:
            _add(grid, _minutes(segment, *span))
    parts = [_minutes(segment, *span) for segment in met if segment in rolled]
    parts += [_of_samples(each, *span) for each in meeting(listing, "samples", *span) if each in plain]
    rows = first_stored(unsealed.filter(pc.greater(unsealed["offset"], listing.covered)))
    parts.append(parts_of(rows).select(_COLUMNS))
    _settle(grid, pa.concat_tables([_PARTS_SCHEMA.empty_table(), *parts]), listing, rows)


def _settle(grid: Grid, parts: pa.Table, listing: Listing, unsealed: pa.Table) -> None:
    """Add parts, those that overlap as their samples say."""
    minutes = (grid.high - grid.low) // MINUTE_NS
    tag, time = parts["tag"].to_numpy(), parts["time"].to_numpy()
    key = tag.astype(np.int64) * minutes + (time - grid.low) // MINUTE_NS
    again = _overlapping(parts, key)
    if not len(again):
        _add(grid, parts)
        return
    _add(grid, parts.filter(pa.array(~np.isin(key, again))))
    for one in np.unique(again // minutes).tolist():
        wanted = grid.low + again[again // minutes == one] % minutes * MINUTE_NS
        asked = TagParts(listing, of_tag(unsealed, one, grid.low, grid.high), one)
        found = asked.between(int(wanted[0]), int(wanted[-1]) + MINUTE_NS, MINUTE_NS)
        _add(grid, found.filter(pa.array(np.isin(found["time"].to_numpy(), wanted))).select(_COLUMNS))


def _overlapping(parts: pa.Table, key: I64) -> I64:
    """Keys of minutes in which times of two parts overlap, ascending."""
    number = np.bincount(key, minlength=1)
    several = np.flatnonzero(number[key] > 1)
    if not len(several):
        return several
    first, last, time = (parts[name].to_numpy()[several] for name in ("first", "last", "time"))
    key = key[several]
    order = np.lexsort((first, key))
    key, begin, end = key[order], (first - time)[order], (last - time)[order]
    # A minute after the other on one line, so that the furthest reach so far never leads into the next.
    rank = np.cumsum(np.append(0, key[1:] != key[:-1])) * MINUTE_NS
    reach = np.maximum.accumulate(rank + end)
    overlaps = (key[1:] == key[:-1]) & ((rank + begin)[1:] <= reach[:-1])
    found: I64 = np.unique(key[1:][overlaps])
    return found


def _add(grid: Grid, parts: pa.Table) -> None:
    if not len(parts):
        return
    cells = grid.cells(parts["tag"].to_numpy(), parts["time"].to_numpy())
    count, good, uncertain = (parts[name].to_numpy() for name in ("count", "good", "uncertain_n"))
    grid.add(cells, count=count, good=good, uncertain=uncertain)


def _minutes(segment: Segment, low: int, high: int) -> pa.Table:
    """The minutes of [low, high) of all tags in a segment."""
    time_min, time_max = footer(segment).groups[:, 2:4].T
    groups = [int(group) for group in np.flatnonzero((time_min < high) & (low <= time_max))]
    return within(recent_groups(segment, groups, _COLUMNS), low, high, None)


def _of_samples(segment: Segment, low: int, high: int) -> pa.Table:
    """The same of a segment of samples that has no minutes beside it."""
    rows = [within(part, low, high, None).select(WINDOW_COLUMNS) for part in read_parts(segment)]
    return parts_of(pa.concat_tables(rows)).select(_COLUMNS) if rows else _PARTS_SCHEMA.empty_table()
