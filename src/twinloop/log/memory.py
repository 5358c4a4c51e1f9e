"""A log in memory: for tests and for plants that need no history of what was received."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from twinloop.errors import LogError, LogGap
from twinloop.log.log import LogStats

__all__ = ["MemoryLog"]


class MemoryLog:
    """Entries in a dict by offset; the oldest released ones go when `max_bytes` is passed.

    Entries not yet released are never dropped unless asked for: an append waits for the slowest reader.

    Args:
        max_bytes: bound on the entries' bytes.
        drop_oldest: drop the oldest entries where an append would have to wait.
        first: the offset of the first entry.
    """

    def __init__(self, *, max_bytes: int = 1 << 30, first: int = 0, drop_oldest: bool = False) -> None:
        self._entries: dict[int, bytes] = {}
        self._max_bytes = max_bytes
        self._first = first
        self._next = first
        self._began = first
        self._released = first - 1
        self._bytes = 0
        self._trimmed = 0
        self._drop_oldest = drop_oldest
        self._dropped = 0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._closed = False

    def append(self, entry: bytes, time_ns: int) -> Awaitable[int]:  # noqa: ARG002 - memory has no age
        """Take an entry; see `Log.append`."""
        if self._closed:
            raise LogError("the log is closed")
        return asyncio.ensure_future(self._append(entry))

    async def _append(self, entry: bytes) -> int:
        async with self._turn:
            while not self._has_room(len(entry)):
                self._changed.clear()
                await self._changed.wait()
            offset = self._next
            self._entries[offset] = entry
            self._next += 1
            self._bytes += len(entry)
            self._changed.set()
            return offset

    def _has_room(self, size: int) -> bool:
        """Whether an entry fits, after the oldest that every reader has were dropped where it would not."""
        if self._bytes + size > self._max_bytes:
            while self._entries and self._first <= self._released and self._bytes > self._max_bytes // 2:
                self._bytes -= len(self._entries.pop(self._first))
                self._first += 1
                self._trimmed += 1
        while self._drop_oldest and self._entries and self._bytes + size > self._max_bytes:
            self._bytes -= len(self._entries.pop(self._first))
            self._first += 1
            self._dropped += 1
        return self._bytes + size <= self._max_bytes or not self._entries or self._closed

    def read(self, after: int, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Entries after an offset; see `Log.read`."""
        if after + 1 < self._first:
            raise LogGap("in memory", after + 1, self._first - 1)
        stop = min(after + 1 + limit, self._next)
        try:
            return [(offset, self._entries[offset]) for offset in range(after + 1, stop)]
        except KeyError:  # dropped while another thread reads
            raise LogGap("in memory", after + 1, self._first - 1) from None

    async def wait(self, after: int) -> None:
        """Return when there is an entry after the offset."""
        while self._next <= after + 1:
            self._changed.clear()
            await self._changed.wait()

    def release(self, upto: int) -> None:
        """See `Log.release`."""
        self._released = max(self._released, upto)
        self._changed.set()

    async def pressed(self) -> None:
        """Never: nothing that is kept waits for a checkpoint."""
        await asyncio.Event().wait()

    def newest(self) -> bytes | None:
        """See `Log.newest`."""
        return self._entries.get(self._next - 1)

    async def sync(self) -> None:
        """Nothing to do: memory survives nothing."""

    def stats(self) -> LogStats:
        """See `Log.stats`."""
        appended = self._next - self._began
        return LogStats(
            self._first, self._next - 1, self._bytes, appended, self._trimmed, 0, dropped=self._dropped
        )

    async def close(self) -> None:
        """Refuse further entries; those that wait for room are taken."""
        self._closed = True
        self._changed.set()
