"""What a log promises.

An *offset* is the position of one entry; the first is 0. "After n" means from n + 1 on, so a reader that
has handled entry n asks for `read(after=n)`, and one that has handled nothing asks with `after=-1`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Protocol

__all__ = ["Log", "LogStats", "Overflow"]


@unique
class Overflow(StrEnum):
    """What happens when a full log's oldest entries are still needed."""

    BLOCK = "block"
    """Appends wait, and so do the sources."""
    DROP_OLDEST = "drop_oldest"
    """The oldest file goes; its readers learn of the gap."""
    THIN = "thin"
    """Every second sample of each series goes that the reader has not begun to read, again and again."""


@dataclass(frozen=True, slots=True)
class LogStats:
    """Counters of a log.

    Attributes:
        first_offset, last_offset: oldest entry kept and newest; last < first when empty.
        size_bytes: bytes held.
        appended, trimmed: entries since this process opened the log.
        commits: durable commits since then.
        dropped: entries removed to make room before every reader had let go of them, since then.
        thinned: samples left out of entries to make room before the fold had read them, since then.
    """

    first_offset: int
    last_offset: int
    size_bytes: int
    appended: int
    trimmed: int
    commits: int
    dropped: int = 0
    thinned: int = 0


class Log(Protocol):
    """An ordered, bounded, durable row of entries with one appending process and many readers."""

    def append(self, entry: bytes, time_ns: int) -> Awaitable[int]:
        """Take an entry now, in call order; awaiting gives its offset once it is durable.

        Raises (when awaited):
            LogError: the entry could not be made durable; nothing after it was either.
        """
        ...

    def read(self, after: int, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Durable entries after an offset, without a gap, at most `limit`; empty when there are none.

        Fewer where they are large: a portion is bounded in bytes, too. Any thread may ask.

        Raises:
            LogGap: the next entries are gone for good; read on after the gap's `last`.
            LogError: they cannot be read.
        """
        ...

    async def wait(self, after: int) -> None:
        """Return when an entry after the offset is durable."""
        ...

    def release(self, upto: int) -> None:
        """Entries up to and including the offset are no longer needed by the slowest reader."""
        ...

    async def pressed(self) -> None:
        """Return when the log is so full that readers should let go of what they can."""
        ...

    def newest(self) -> bytes | None:
        """The newest entry there is; None for an empty log."""
        ...

    async def sync(self) -> None:
        """Return when all that can be read survives a power cut, also where appends do not wait for that.

        Raises:
            LogError: the disk would not take it.
        """
        ...

    def stats(self) -> LogStats:
        """Counters, cheap."""
        ...

    async def close(self) -> None:
        """Make everything taken durable and let go of the files."""
        ...
