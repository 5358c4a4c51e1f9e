"""The local log: a row of SQLite files, one row an entry, many entries a commit.

While one commit is on its way to disk, the entries that arrive meanwhile gather for the next: a group
commit without a waiting time, so a lone entry is durable after one commit and a flood shares few.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

from twinloop.errors import LogError, LogGap
from twinloop.log.files import (
    finish_file,
    first_offset,
    in_words,
    newest_of,
    offset_path,
    open_file,
    size_of,
    stored_row,
    sync_file,
)
from twinloop.log.log import LogStats, Overflow
from twinloop.log.opening import Closed, open_log
from twinloop.log.reader import read_entries
from twinloop.log.shelf import Current, Limits, Shelf
from twinloop.log.tail import Tail

__all__ = ["LocalLog", "Overflow"]

_log = logging.getLogger("twinloop.log")

_READ_BYTES: Final = 8 << 20
_GROUP: Final = 2000
_ROW_BYTES: Final = 16
_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(slots=True)
class _Pending:
    data: bytes
    time_ns: int
    done: asyncio.Future[int]


class LocalLog:
    """A log in a directory of its own; made on the event loop that will use it.

    Args:
        directory: made where it is missing; one process appends, any number read.
        max_bytes: bound on the bytes held.
        overflow: what happens when it is reached and the slowest reader still needs the oldest file.
        archive_ns: keep what leaves the log and was read, compressed, until its newest entry is older than
            this; 0 not.
        commit_interval_s: wait so long for company before a commit; 0 commits as soon as the disk can.
        max_age_ns: files whose newest entry is older go, once every reader has them.
        file_bytes: size at which the next file begins.
        durable: commits survive a power cut; without, a killed process (what can be folded again).
        first: no offset below this is given out, and none below it is thinned: others have seen them.

    Raises:
        LogError: the directory cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each a key of the plant file
        self,
        directory: Path,
        *,
        max_bytes: int = 10 << 30,
        max_age_ns: int = 24 * 3600 * 10**9,
        file_bytes: int = 64 << 20,
        durable: bool = True,
        first: int = 0,
        overflow: Overflow = Overflow.BLOCK,
        archive_ns: int = 0,
        commit_interval_s: float = 0.0,
    ) -> None:
        self._directory = directory
        self._file_bytes = min(file_bytes, max(max_bytes // 4, 1 << 16))
        self._durable = durable
        self._commit_interval_s = commit_interval_s
        self._pending: deque[_Pending] = deque()
        self._tail = Tail()
        self._appended = self._commits = 0
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._pressed = asyncio.Event()
        self._told_full = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"log-{directory.name}")
        self._failure: Exception | None = None
        self._closing = False
        limits = Limits(max_bytes, max_age_ns, self._file_bytes, overflow, archive_ns)
        self._open_files(first, limits)
        self._writer = asyncio.create_task(self._write(), name=f"log-{directory.name}")

    def _open_files(self, first: int, limits: Limits) -> None:
        opened = open_log(self._directory, first, durable=self._durable)
        self._db = opened.db
        self._durable_last = self._synced_last = opened.last
        self._next = self._durable_last + 1
        size, is_empty = size_of(opened.current), self._next == first_offset(opened.current)
        self._shelf = Shelf(
            self._directory,
            limits,
            full=opened.closed,
            current=Current(opened.current, opened.newest_ns, size, is_empty),
            first=first,
            on_thread=self._on_thread,
            forget=self._tail.forget,
        )

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def append(self, entry: bytes, time_ns: int) -> Awaitable[int]:
        """Take an entry in call order; see `Log.append`."""
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise LogError(f"the log {self._directory} is closed")
        pending = _Pending(entry, time_ns, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._wake.set()
        return pending.done

    async def _write(self) -> None:
        group: list[_Pending] = []
        try:
            while await self._something():
                await self._gather()
                await self._make_room()
                group = self._next_group()
                stored = await self._on_thread(self._commit, self._next, group)
                await self._publish(group, stored)
                if self._shelf.current.size >= self._file_bytes:
                    await self._begin_file()
                await self._trim()
        except (sqlite3.Error, OSError, LogError) as error:
            failure = LogError(f"the log {self._directory} cannot be written: {in_words(error)}")
            await self._fail(group, failure)
        except Exception as bug:  # noqa: BLE001 - raised again by everyone who waits
            await self._fail(group, bug)

    async def _something(self) -> bool:
        """Whether there is an entry to write, once there is; not, once the log is closing."""
        while not self._pending and not self._closing:
            self._wake.clear()
            await self._wake.wait()
        return bool(self._pending)

    async def _gather(self) -> None:
        """Wait for company, where that was asked for; not once a commit is full or the log is closing."""
        if self._commit_interval_s and len(self._pending) < _GROUP:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._commit_interval_s)

    async def _on_thread(self, work: Callable[[Unpack[_Arguments]], _T], *arguments: *_Arguments) -> _T:
        """Do on the log's own thread what may wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _next_group(self) -> list[_Pending]:
        """What waits, up to a commit's worth: the bound keeps the log within `max_bytes`."""
        group: list[_Pending] = []
        size = 0
        while self._pending and len(group) < _GROUP and size < self._file_bytes // 2:
            group.append(self._pending.popleft())
            size += len(group[-1].data)
        return group

    def _commit(self, first: int, group: list[_Pending]) -> int:
        """Write entries; how many bytes they take in the file."""
        rows = [
            stored_row(offset, pending.time_ns, pending.data) for offset, pending in enumerate(group, first)
        ]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return sum(len(row[2]) + _ROW_BYTES for row in rows)

    async def _publish(self, group: list[_Pending], stored: int) -> None:
        first = self._next
        self._next = first + len(group)
        self._durable_last = self._next - 1
        self._appended += len(group)
        self._commits += 1
        current = self._shelf.current
        current.is_empty = False
        current.size += stored
        for offset, pending in enumerate(group, first):
            self._tail.add(offset, pending.data)
            current.newest_ns = max(current.newest_ns, pending.time_ns)
            if not pending.done.done():
                pending.done.set_result(offset)
        await self._notify()

    async def _fail(self, group: list[_Pending], failure: Exception) -> None:
        self._failure = failure
        for pending in [*group, *self._pending]:
            if not pending.done.done():
                pending.done.set_exception(failure)
                pending.done.exception()
        self._pending.clear()
        await self._notify()

    async def _begin_file(self) -> None:
        following = offset_path(self._directory, self._next)
        self._db = await self._on_thread(self._change_file, following)
        full, last = self._shelf.current, self._next - 1
        self._shelf.files.append(Closed(full.path, last, last, full.newest_ns, size_of(full.path)))
        self._shelf.current = Current(following, full.newest_ns, 0, is_empty=True)

    def _change_file(self, following: Path) -> sqlite3.Connection:
        """Close the full file, whole on the disk, before the next exists; a reader's hold delays nothing."""
        if not self._durable:
            sync_file(self._shelf.current.path)
        finish_file(self._db)
        return open_file(following, durable=self._durable)

    async def _trim(self) -> None:
        await self._shelf.trim()
        if self._shelf.is_pressed:
            self._pressed.set()
        else:
            self._pressed.clear()

    async def _make_room(self) -> None:
        """While the log is full and a reader still needs its oldest file: wait, thin or drop."""
        await self._trim()
        while self._shelf.is_in_the_way and not self._closing:
            if await self._shelf.give_way():
                continue
            self._say_full()
            async with self._changed:
                if self._shelf.is_held and not self._closing:
                    await self._changed.wait()
            await self._trim()

    def _say_full(self) -> None:
        """Once a run: a log that is too small fills again and again."""
        if not self._told_full:
            self._told_full = True
            _log.warning(
                "the log %s is full: what comes waits until its readers let go of the oldest file, and so do "
                "the sources; `log: max_size` says how large it may become",
                self._directory,
            )

    def read(self, after: int, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Durable entries after an offset; see `Log.read`. Few large ones are as much as many small."""
        first, last = after + 1, min(after + limit, self._durable_last)
        if first > last:
            return []
        if first < self._shelf.first():
            raise LogGap(str(self._directory), first, self._shelf.first() - 1)
        self._shelf.handed = max(self._shelf.handed, last)
        entries = self._tail.read(first, last, _READ_BYTES) or self._read_files(after, last)
        self._shelf.given = max(self._shelf.given, entries[-1][0])
        return entries

    def _read_files(self, after: int, last: int) -> list[tuple[int, bytes]]:
        first = after + 1
        entries: list[tuple[int, bytes]] = []
        size = 0
        for offset, data in read_entries(self._directory, after, last - after):
            if offset != first + len(entries):
                if not entries:
                    raise LogGap(str(self._directory), first, min(offset - 1, self._durable_last))
                break
            entries.append((offset, data))
            size += len(data)
            if size >= _READ_BYTES:
                break
        if not entries:
            raise LogGap(str(self._directory), first, self._durable_last)
        return entries

    def newest(self) -> bytes | None:
        """See `Log.newest`."""
        found = newest_of(self._directory)
        return found[1] if found else None

    async def pressed(self) -> None:
        """See `Log.pressed`."""
        await self._pressed.wait()

    async def wait(self, after: int) -> None:
        """Return when an entry after the offset is durable; raises LogError once the log failed."""
        async with self._changed:
            while self._durable_last <= after:
                if self._failure is not None:
                    raise self._failure
                await self._changed.wait()

    def release(self, upto: int) -> None:
        """See `Log.release`."""
        if upto > self._shelf.released:
            self._shelf.released = upto
            if self._shelf.is_full():
                self._notice = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def sync(self) -> None:
        """See `Log.sync`."""
        last = self._durable_last
        if self._durable or self._closing or last <= self._synced_last:
            return
        try:
            await self._on_thread(self._sync_current)
        except OSError as error:
            raise LogError(f"the log {self._directory} cannot be synced: {error}") from error
        self._synced_last = max(self._synced_last, last)

    def _sync_current(self) -> None:
        sync_file(self._shelf.current.path)

    def stats(self) -> LogStats:
        """See `Log.stats`."""
        shelf = self._shelf
        return LogStats(
            first_offset=shelf.first(),
            last_offset=self._durable_last,
            size_bytes=shelf.size(),
            appended=self._appended,
            trimmed=shelf.trimmed,
            commits=self._commits,
            dropped=shelf.dropped,
            thinned=shelf.thinned,
        )

    async def close(self) -> None:
        """Commit what was taken and close the files; see `Log.close`."""
        self._closing = True
        self._wake.set()
        self._stop.set()
        await self._notify()
        await self._writer
        self._thread.shutdown(wait=True)
        if not self._durable:
            sync_file(self._shelf.current.path)
        finish_file(self._db)
