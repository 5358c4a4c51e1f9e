"""The newest sample of every tag, kept as outputs go by, and who has fallen silent since.

Silence makes no sample, only a STATUS event with reason STALE. It is undone by the next sample that
arrives, however old its own time, or by a STATUS event without STALE; not by one that arrived long ago and
was read only now (a dead letter fed again). Both are compared by offset, that
is by the order the fold saw them in: a device whose clock runs ahead falls silent like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.records import EventKind
from twinloop.status import BAD, GOOD, Reason, StatusCode, status_from_text
from twinloop.stores.footers import read_durable
from twinloop.stores.reading import DamagedSegment, read_parts
from twinloop.stores.rows import SAMPLE_SCHEMA, Entry, tables
from twinloop.stores.segments import Listing, list_segments
from twinloop.stores.writing import write_durably

__all__ = ["Latest", "latest_path", "stale_status"]

_log = logging.getLogger("twinloop.store")

_EXTRA: Final = {"heard": pa.int64(), "stale": pa.uint32(), "stale_offset": pa.int64()}
LATEST_SCHEMA: Final = pa.schema(
    [*SAMPLE_SCHEMA, *(pa.field(name, kind, nullable=False) for name, kind in _EXTRA.items())]
)
_EVENT_COLUMNS: Final = ["subject", "kind", "after", "why", "offset"]


def latest_path(directory: Path, covered: int) -> Path:
    """Where the newest samples up to an offset are kept: derived data, made anew when it is missing."""
    return directory / f"latest-{covered:016d}.parquet"


class Latest:
    """The newest row of each tag by its time; of two with one time the one stored first.

    From a row with reason CLOCK_BACK on, whose source's clock was set back, those before it do not count.

    Args:
        names: full tag names by index, to know whom an event is about.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: index for index, name in enumerate(names) if name}
        self._rows = SAMPLE_SCHEMA.empty_table()
        self._shown: pa.Table | None = None
        size = len(names)
        self._heard = np.full(size, -1, np.int64)
        self._stale = np.full(size, GOOD, np.uint32)
        self._stale_offset = np.full(size, -1, np.int64)

    def add(self, entries: Sequence[Entry]) -> None:
        """Take outputs up, in the order of their offsets."""
        made = tables(entries, ["samples", "events"])
        self.add_samples(made["samples"])
        self.add_events(made["events"])

    def add_samples(self, rows: pa.Table) -> None:
        """Take up rows as a segment has them."""
        if not len(rows):
            return
        self._shown = None
        tag = rows["tag"].to_numpy()
        self._make_room(int(tag.max()) + 1)
        self._hear(rows, tag)
        back = (rows["reasons"].to_numpy() & np.uint32(Reason.CLOCK_BACK)) != 0
        if back.any():
            rows = self._begin_anew(rows, back)
            tag = rows["tag"].to_numpy()
        last = np.flatnonzero(np.append(tag[1:] != tag[:-1], True))  # rows come sorted by (tag, time)
        both = pa.concat_tables([self._rows, rows.take(pa.array(last))])
        tag, time, offset = (both[name].to_numpy() for name in ("tag", "time", "offset"))
        order = np.lexsort((-offset, time, tag))
        newest = order[np.append(tag[order][1:] != tag[order][:-1], True)]
        self._rows = both.take(pa.array(newest)).combine_chunks()

    def _hear(self, rows: pa.Table, tag: npt.NDArray[np.int32]) -> None:
        """Take down the newest offset at which each tag is heard, of rows sorted by tag."""
        offset = rows["offset"].to_numpy()
        if (rows["reasons"].to_numpy() & np.uint32(Reason.LATE)).any():
            heard = self._arrives_now(rows)
            tag, offset = tag[heard], offset[heard]
        if not len(tag):
            return
        first = np.flatnonzero(np.append(True, tag[1:] != tag[:-1]))
        heard_now, there = np.maximum.reduceat(offset, first), tag[first]
        self._heard[there] = np.maximum(self._heard[there], heard_now)

    def _arrives_now(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows say that their tag is heard: a late one only if it arrived after those in order."""
        tag, arrival = rows["tag"].to_numpy(), rows["arrival_ms"].to_numpy()
        late = (rows["reasons"].to_numpy() & np.uint32(Reason.LATE)) != 0
        known = np.full(len(self._heard), np.iinfo(np.int64).min, np.int64)
        known[self._rows["tag"].to_numpy()] = self._rows["arrival_ms"].to_numpy()
        np.maximum.at(known, tag[~late], arrival[~late])
        heard: npt.NDArray[np.bool_] = ~late | (arrival >= known[tag])
        return heard

    def _begin_anew(self, rows: pa.Table, back: npt.NDArray[np.bool_]) -> pa.Table:
        """Leave out, here and of new rows, what was stored before its source's clock was set back."""
        since = np.full(len(self._heard), -1, np.int64)
        np.maximum.at(since, rows["tag"].to_numpy()[back], rows["offset"].to_numpy()[back])
        kept, new = (
            each.filter(pa.array(each["offset"].to_numpy() >= since[each["tag"].to_numpy()]))
            for each in (self._rows, rows)
        )
        self._rows = kept
        return new

    def add_events(self, events: pa.Table) -> None:
        """Take up events as a segment has them: only changes of a tag's status matter here."""
        status = [
            each for each in events.select(_EVENT_COLUMNS).to_pylist() if each["kind"] == EventKind.STATUS
        ]
        for event in sorted(status, key=_offset):
            index = self._index.get(event["subject"])
            if index is None or event["offset"] < self._stale_offset[index]:
                continue
            self._shown = None
            self._stale[index] = stale_status(event["after"], event["why"])
            self._stale_offset[index] = event["offset"]

    def received(self) -> pa.Table:
        """One row a tag that ever had a sample, by tag index, as it was received."""
        return self._rows

    def rows(self) -> pa.Table:
        """The same with a silent tag's status lowered, reason STALE; the same table until it has changed."""
        if self._shown is None:
            self._shown = self._lowered()
        return self._shown

    def _lowered(self) -> pa.Table:
        tag = self._rows["tag"].to_numpy()
        silent = self._stale_offset[tag] > self._heard[tag]
        stale = np.where(silent, self._stale[tag], np.uint32(GOOD)).astype(np.uint32)
        status, reasons = (self._rows[name].to_numpy() for name in ("status", "reasons"))
        status = np.where(stale >> 30 > status >> 30, stale, status)
        reasons = np.where(stale != GOOD, reasons | np.uint32(Reason.STALE), reasons)
        shown = {"status": status, "reasons": reasons}
        columns = [
            pa.array(shown[name], field.type) if name in shown else self._rows[name]
            for name, field in ((field.name, field) for field in SAMPLE_SCHEMA)
        ]
        return pa.Table.from_arrays(columns, schema=SAMPLE_SCHEMA)

    def save(self, path: Path) -> None:
        """Write the whole state durably. Raises OSError."""
        tag = self._rows["tag"].to_numpy()
        extra = [self._heard[tag], self._stale[tag], self._stale_offset[tag]]
        columns = [*self._rows.columns, *(pa.array(column) for column in extra)]
        write_durably(path, pa.Table.from_arrays(columns, schema=LATEST_SCHEMA), "latest")

    def load(self, path: Path) -> None:
        """Take up a saved state in place of this one.

        Raises:
            OSError, ValueError, pa.ArrowException: there is none, or it cannot be read.
        """
        table = read_durable(path, LATEST_SCHEMA)
        self._shown = None
        self._rows = table.select(SAMPLE_SCHEMA.names).combine_chunks()
        tag = self._rows["tag"].to_numpy()
        self._make_room(int(tag.max(initial=-1)) + 1)
        for column, name in (
            (self._heard, "heard"),
            (self._stale, "stale"),
            (self._stale_offset, "stale_offset"),
        ):
            column[tag] = table[name].to_numpy()

    @classmethod
    def at(
        cls,
        directory: Path,
        names: Sequence[str],
        listing: Listing,
        listed: Callable[[], Listing] | None = None,
    ) -> Latest:
        """The newest samples as of a listing: from a saved state, else from the segments themselves.

        Args:
            directory: the store's.
            names: full tag names by index.
            listing: of its segments.
            listed: lists them again; a damaged one is named then. Without it, damaged ones are left out.

        Raises:
            FileNotFoundError: a segment is gone since it was listed, or a newer state took this one's place.
            DamagedSegment: one cannot be read.
        """
        latest = cls(names)
        if listing.covered < 0:
            return latest
        try:
            # Of the newest there is, whatever is wrong with its segment: outputs taken up twice are once.
            latest.load(latest_path(directory, max(listing.covered, list_segments(directory).covered)))
        except (OSError, ValueError, pa.ArrowException) as error:
            again = listed() if listed is not None else list_segments(directory)
            if again.covered != listing.covered:
                raise FileNotFoundError(str(error)) from error  # the segments may not have the samples
            latest = cls(names)
            latest.rebuild(listing, tolerant=listed is None)
        return latest

    def rebuild(self, listing: Listing, *, tolerant: bool = True) -> None:
        """Read every segment, oldest first, some rows at a time."""
        for kind, add in (("samples", self.add_samples), ("events", self.add_events)):
            for segment in listing.of(kind):
                try:
                    for part in read_parts(segment):
                        add(part)
                except DamagedSegment as damaged:
                    if not tolerant:
                        raise
                    _log.warning("%s; the newest values do without it", damaged)

    def _make_room(self, size: int) -> None:
        missing = size - len(self._heard)
        if missing > 0:
            self._heard = _grown(self._heard, missing, -1)
            self._stale = _grown(self._stale, missing, GOOD)
            self._stale_offset = _grown(self._stale_offset, missing, -1)


def remove_old(directory: Path, keep: Iterable[Path]) -> None:
    """Remove saved states other than those to keep."""
    kept = set(keep)
    for path in directory.glob("latest-*.parquet"):
        if path not in kept:
            path.unlink(missing_ok=True)


def _grown(column: npt.NDArray[Any], by: int, fill: int) -> npt.NDArray[Any]:
    return np.concatenate([column, np.full(by, fill, column.dtype)])


def _offset(event: dict[str, Any]) -> int:
    return int(event["offset"])


def stale_status(after: str, why: str) -> int:
    """The status a STATUS event leaves a silent tag with; Good where the event is not about silence."""
    if "STALE" not in why.replace("|", " ").replace(",", " ").split():
        return GOOD
    status = status_from_text(after)
    if status is None or status == StatusCode.UNCERTAIN:
        return StatusCode.UNCERTAIN_LAST_USABLE_VALUE
    if status == BAD:
        return StatusCode.BAD_NO_COMMUNICATION
    return status
