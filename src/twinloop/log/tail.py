"""The newest entries of a log, in memory: readers that keep up never touch the disk."""

from __future__ import annotations

from typing import Final

__all__ = ["Tail"]

_MOST_BYTES: Final = 32 << 20


class Tail:
    """Entries that follow each other without a gap; one thread adds and forgets, any reads."""

    def __init__(self) -> None:
        self._entries: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, offset: int, data: bytes) -> None:
        """Keep the next entry; the oldest go when they are too many bytes."""
        self._entries[offset] = data
        self._bytes += len(data)
        while self._bytes > _MOST_BYTES and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))

    def forget(self, upto: int) -> None:
        """Drop the entries up to and including an offset: they are no longer what they were."""
        while self._entries and (oldest := next(iter(self._entries))) <= upto:
            self._drop(oldest)

    def _drop(self, offset: int) -> None:
        self._bytes -= len(self._entries.pop(offset))

    def read(self, first: int, last: int, most_bytes: int) -> list[tuple[int, bytes]]:
        """Entries from `first` on, at most to `last` and little more than so many bytes; empty for none."""
        found: list[tuple[int, bytes]] = []
        for offset in range(first, last + 1):
            data = self._entries.get(offset)
            if data is None or most_bytes <= 0:
                break
            found.append((offset, data))
            most_bytes -= len(data)
        return found
