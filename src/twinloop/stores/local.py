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

from twinloop.errors import StoreBusy
from twinloop.memory import give_back
from twinloop.records import Outputs
from twinloop.stores.latest import Latest, latest_path, remove_old
from twinloop.stores.merging import Merger
from twinloop.stores.minutes import parts_of
from twinloop.stores.repair import NEVER, Damage, clear, remove, set_aside, tidy
from twinloop.stores.retention import Retention
from twinloop.stores.rows import KINDS, SCHEMAS, Entry, tables
from twinloop.stores.segments import Segment, list_segments, write_segment

__all__ = ["Damage", "LocalStore", "StoreStats"]

logger = logging.getLogger(__name__)

SEAL_AFTER_S: Final = 60.0
SEAL_ROWS: Final = 500_000
SEAL_ENTRIES: Final = 50_000
SEAL_BYTES: Final = 64 * 2**20
"""Of dead letters, each of which may be as large as `max_payload` lets it be."""
RETRY_S: Final = 5.0
_COMMIT_LAST: Final = (*(kind for kind in KINDS if kind != "samples"), "samples")


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
        background: merge on a thread of its own; within `write` and `seal` by default.
        retention: what goes when; everything is kept by default.
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
        background: bool = False,
        retention: Retention | None = None,
        keeps: Collection[str] = KINDS,
    ) -> None:
        self._directory = directory
        self._keeps = frozenset(keeps)
        self._seal_after_s = seal_after_s
        self._clock = clock
        directory.mkdir(parents=True, exist_ok=True)
        self._damage = tidy(directory, redeliverable_from)
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
        self._merger = Merger(directory, self._set_aside, retention, background=background)
        self._entries = self._rows = self._seals = self._failures = 0

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
            merges=self._merger.merges,
            failures=self._failures + self._merger.failures,
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
        first, last, flooded = self._covered + 1, self._pending[-1][0], self._is_full()
        made = tables(self._pending)
        made["minutes"] = parts_of(made["samples"])
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
        self._after_seal(flooded=flooded)
        del made
        give_back()

    def _clear(self) -> None:
        """Once, before anything is written: a seal would commit what a crash left beyond `covered`."""
        if not self._cleared:
            clear(self._directory)
            self._cleared = True

    def close(self) -> None:
        """Seal what is pending; everything written stays.

        Raises:
            StoreBusy: the disk refused; what was pending stays in the output log.
        """
        try:
            self.seal()
        finally:
            self._merger.close()

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

    def _after_seal(self, *, flooded: bool) -> None:
        """Remove what merges left: readers had a seal's time to let go of it. Then merge what is many."""
        before = self._listing
        try:
            listing = list_segments(self._directory)
            remove_old(
                self._directory, (latest_path(self._directory, each.covered) for each in (before, listing))
            )
            remove(self._directory, sorted(set(listing.superseded) & set(before.superseded)))
        except OSError as error:
            self._failures += 1
            logger.warning("%s: leftovers of merges stay for now: %s", self._directory, error)
            return
        self._merger.wake(flooded=flooded)
        self._listing = list_segments(self._directory)

    def _set_aside(self, segment: Segment) -> None:
        self._damage.append(set_aside(segment, NEVER))


def _row_count(outputs: Outputs) -> int:
    """Rows without decoding them: the tag column is the first and has four bytes a row."""
    return sum(len(columns[0]) // 4 for columns in (outputs.samples, outputs.fills) if columns)
