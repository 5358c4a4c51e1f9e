"""The embedded store: outputs sealed every minute into Parquet segments, merged into larger ones.

Between two seals the outputs stand in the output log only, which keeps everything after `covered`; the
store holds them in memory to seal them together. So no file here ever changes, a crash costs nothing
that the log does not deliver again, and another process reads while this one writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from twinloop.durable import sync_directory
from twinloop.errors import StoreBusy
from twinloop.memory import give_back
from twinloop.records import Outputs
from twinloop.stores.latest import Latest, latest_path, remove_old
from twinloop.stores.rows import KINDS, SCHEMAS, Entry, by_time, first_stored, tables
from twinloop.stores.segments import (
    DAMAGED,
    TEMPORARY,
    Segment,
    footer,
    is_damage,
    list_segments,
    read_segment,
    write_segment,
)

__all__ = ["Damage", "LocalStore", "StoreStats"]

logger = logging.getLogger(__name__)

SEAL_AFTER_S: Final = 60.0
SEAL_ROWS: Final = 500_000
SEAL_ENTRIES: Final = 50_000
SEAL_BYTES: Final = 64 * 2**20
"""Of dead letters, each of which may be as large as `max_payload` lets it be."""
MERGE_COUNT: Final = 16
MERGE_ROWS: Final = 1_000_000
RETRY_S: Final = 5.0
_NEVER: Final = 2**63 - 1
_COMMIT_LAST: Final = (*(kind for kind in KINDS if kind != "samples"), "samples")


@dataclass(frozen=True, slots=True)
class Damage:
    """A segment that could not be read and was set aside.

    Attributes:
        kind, first, last: what it answered for, output-log offsets both included.
        path: where the file lies now.
        recovered: whether nothing is lost: the segments it was merged from were still there, or
            `covered` went back, so that the output log delivers the range again.
    """

    kind: str
    first: int
    last: int
    path: Path
    recovered: bool


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters since the store was opened.

    Attributes:
        entries: entries taken, not counting those delivered again.
        rows: samples taken.
        seals, merges, failures: how often each happened; a failure is a seal or merge the disk refused.
        pending_rows, pending_entries: taken and not yet sealed.
    """

    entries: int
    rows: int
    seals: int
    merges: int
    failures: int
    pending_rows: int
    pending_entries: int


class LocalStore:
    """A `Store` in one directory; one process writes, any number read with `LocalQueries`.

    Args:
        directory: made when it is missing.
        names: full tag names by index.
        redeliverable_from: the oldest offset the output log still has. A damaged newest segment from
            there on is delivered again; an older one is only reported.
        seal_after_s: seconds after which what is pending is sealed.
        clock: seconds, monotonic.
        keeps: the kinds of rows it keeps. Samples that are kept elsewhere still count for the newest values.

    Raises:
        OSError: the directory cannot be made or read.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        *,
        redeliverable_from: int = 0,
        seal_after_s: float = SEAL_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        keeps: Collection[str] = KINDS,
    ) -> None:
        self._directory = directory
        self._keeps = frozenset(keeps)
        self._seal_after_s = seal_after_s
        self._clock = clock
        directory.mkdir(parents=True, exist_ok=True)
        self._damage = _tidy(directory, redeliverable_from)
        self._cleared = False
        try:
            self._clear()
        except OSError as error:
            logger.warning("%s: leftovers stay until it can be written: %s", directory, error)
        self._listing = list_segments(directory)
        self._covered = self._listing.covered
        self._latest = Latest.at(directory, names, self._listing)
        self._pending: list[Entry] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._pending_since = clock()
        self._latest_upto = self._covered
        self._merge_fails = False
        self._entries = self._rows = self._seals = self._merges = self._failures = 0

    @property
    def covered(self) -> int:
        """The newest output-log offset that is sealed; the output log must keep what comes after it."""
        return self._covered

    @property
    def taken(self) -> int:
        """The newest output-log offset that was taken, sealed or not."""
        return self._pending[-1][0] if self._pending else self._covered

    @property
    def damage(self) -> Sequence[Damage]:
        """What was set aside, on opening or when a merge came upon it; empty on every ordinary day."""
        return self._damage

    @property
    def stats(self) -> StoreStats:
        """Counters, cheap."""
        return StoreStats(
            entries=self._entries,
            rows=self._rows,
            seals=self._seals,
            merges=self._merges,
            failures=self._failures,
            pending_rows=self._pending_rows,
            pending_entries=len(self._pending),
        )

    def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        """Take outputs with their output-log offsets, ascending; what was taken before is skipped.

        Raises:
            StoreBusy: the disk refuses and too much is pending; nothing of `entries` was taken, or all.
        """
        if self._is_full():
            self.seal()
        newest = self.taken
        fresh = [entry for entry in entries if entry[0] > newest]
        if fresh and not self._pending:
            self._pending_since = self._clock()
        self._pending += fresh
        rows = sum(_row_count(outputs) for _, outputs in fresh)
        self._pending_rows += rows
        self._pending_bytes += sum(len(letter.raw) for _, outputs in fresh for letter in outputs.dead)
        self._entries += len(fresh)
        self._rows += rows
        if self._pending and (self._is_full() or self._clock() - self._pending_since >= self._seal_after_s):
            self.seal()

    def seal(self) -> None:
        """Make segments of what is pending now, durable when it returns, and merge if there are many.

        Raises:
            StoreBusy: the disk refused; what was pending is still pending.
        """
        if not self._pending:
            return
        first, last = self._covered + 1, self._pending[-1][0]
        made = tables(self._pending)
        try:
            self._clear()
            self._update_latest(made, last)
            for kind in _COMMIT_LAST:
                rows = made[kind] if kind in self._keeps else SCHEMAS[kind].empty_table()
                if kind == "samples" or len(rows):
                    write_segment(Segment(first, last, kind, self._directory), rows)
        except OSError as error:
            self._failures += 1
            self._pending_since = self._clock()
            raise StoreBusy(f"{self._directory}: cannot seal: {error}", retry_after_s=RETRY_S) from error
        self._covered = last
        self._pending = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._seals += 1
        self._after_seal()
        del made
        give_back()

    def _clear(self) -> None:
        """Once, before anything is written: a seal would commit what a crash left beyond `covered`."""
        if not self._cleared:
            _clear(self._directory)
            self._cleared = True

    def close(self) -> None:
        """Seal what is pending; everything written stays.

        Raises:
            StoreBusy: the disk refused; what was pending stays in the output log.
        """
        self.seal()

    def _is_full(self) -> bool:
        return (
            self._pending_rows >= SEAL_ROWS
            or len(self._pending) >= SEAL_ENTRIES
            or self._pending_bytes >= SEAL_BYTES
        )

    def _update_latest(self, made: dict[str, pa.Table], last: int) -> None:
        if self._latest_upto < last:  # else a seal failed after this, and is tried again
            self._latest.add_samples(made["samples"])
            self._latest.add_events(made["events"])
            self._latest_upto = last
        self._latest.save(latest_path(self._directory, last))

    def _after_seal(self) -> None:
        """Merge, and remove what earlier merges left: readers had a whole seal's time to let go of it."""
        before = self._listing
        try:
            listing = list_segments(self._directory)
            remove_old(
                self._directory, (latest_path(self._directory, each.covered) for each in (before, listing))
            )
            _remove(self._directory, listing.superseded)
            while chosen := _choose(list_segments(self._directory).of("samples")):
                damaged = _merge(self._directory, chosen)
                self._merges += damaged is None
                if damaged is not None:
                    self._damage.append(_set_aside(damaged, _NEVER))
            self._listing = listing
        except (OSError, ValueError) as error:
            self._failures += 1
            if not self._merge_fails:
                logger.warning("%s: cannot merge segments, answers stay whole: %s", self._directory, error)
            self._merge_fails = True
        else:
            self._merge_fails = False


def _row_count(outputs: Outputs) -> int:
    """Rows without decoding them: the tag column is the first and has four bytes a row."""
    return sum(len(columns[0]) // 4 for columns in (outputs.samples, outputs.fills) if columns)


def _choose(samples: list[Segment]) -> list[Segment]:
    """The newest segments of one level, oldest of them first, once they are worth merging.

    A segment that has half of `MERGE_ROWS` is left alone, so a row is rewritten a few times at most.
    """
    run: list[Segment] = []
    level = -1
    for segment in reversed(samples):
        said = footer(segment)
        level = said.level if level < 0 else level
        if said.level != level or said.rows > MERGE_ROWS // 2:
            break
        run.append(segment)
    run.reverse()
    total = sum(footer(segment).rows for segment in run)
    if len(run) < MERGE_COUNT and total < MERGE_ROWS:
        return []
    chosen: list[Segment] = []
    rows = 0
    for segment in run[:MERGE_COUNT]:
        rows += footer(segment).rows
        if rows > MERGE_ROWS and len(chosen) > 1:
            break
        chosen.append(segment)
    return chosen if len(chosen) > 1 else []


def _merge(directory: Path, chosen: list[Segment]) -> Segment | None:
    """One segment a kind in place of the chosen ones and of what other kinds have in their range.

    Returns a segment that turned out to be damaged, and then nothing of its kind was merged.
    """
    first, last = chosen[0].first, chosen[-1].last
    level = footer(chosen[0]).level + 1
    listing = list_segments(directory)
    for kind in _COMMIT_LAST:
        parts = [each for each in listing.of(kind) if first <= each.first and each.last <= last]
        if not parts:
            continue
        tables_read = []
        for part in parts:
            try:
                tables_read.append(read_segment(part))
            except (OSError, ValueError, pa.ArrowException) as error:
                if not is_damage(error):
                    raise
                return part
        table = pa.concat_tables(tables_read)
        table = first_stored(table) if SCHEMAS[kind] is SCHEMAS["samples"] else by_time(table)
        write_segment(Segment(first, last, kind, directory), table, level=level)
    return None


def _clear(directory: Path) -> None:
    """Remove what crashes and merges left behind. Raises OSError."""
    for path in directory.glob(f"*{TEMPORARY}"):
        path.unlink()
    listing = list_segments(directory)
    _remove(directory, [*listing.superseded, *listing.uncommitted])
    remove_old(directory, [latest_path(directory, listing.covered)])


def _tidy(directory: Path, redeliverable_from: int) -> list[Damage]:
    """Set damaged segments aside."""
    damage: list[Damage] = []
    while (damaged := _first_damaged(directory)) is not None:
        damage.append(_set_aside(damaged, redeliverable_from))
    return damage


def _first_damaged(directory: Path) -> Segment | None:
    for segment in list_segments(directory).live:
        try:
            footer(segment)
        except ValueError:
            return segment
    return None


def _set_aside(segment: Segment, redeliverable_from: int) -> Damage:
    """Rename a damaged segment; whatever it was merged from and is still there takes its place.

    Where nothing does and the output log no longer has its entries either, an empty stand-in keeps
    answering for the range, so that the loss stays where it is and is not taken for work to do.
    """
    aside = segment.path.with_name(segment.path.name + DAMAGED)
    segment.path.rename(aside)
    sync_directory(segment.directory)
    listing = list_segments(segment.directory)
    held = sum(each.last - each.first + 1 for each in listing.of(segment.kind) if segment.contains(each))
    recovered = held == segment.last - segment.first + 1
    if segment.kind == "samples" and not recovered:
        recovered = listing.covered < segment.first >= redeliverable_from
        if not recovered:
            write_segment(segment, SCHEMAS["samples"].empty_table(), lost=True)
    fate = "they are delivered again or held elsewhere" if recovered else "their rows are missing"
    logger.error("%s: damaged, set aside; offsets %d to %d: %s", aside, segment.first, segment.last, fate)
    return Damage(segment.kind, segment.first, segment.last, aside, recovered)


def _remove(directory: Path, segments: Sequence[Segment]) -> None:
    for segment in segments:
        segment.path.unlink(missing_ok=True)
    if segments:
        sync_directory(directory)
