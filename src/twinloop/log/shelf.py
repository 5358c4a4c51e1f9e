"""The files of a log and how room is made among them: what goes, what is thinned, what the archive keeps."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Protocol

from twinloop.durable import sync_directory
from twinloop.log.archive import archive_rows, forget_archive
from twinloop.log.files import first_offset, remove_file, size_of, sound_rows
from twinloop.log.log import Overflow
from twinloop.log.opening import Closed
from twinloop.log.thinning import Refused, thin_aside

__all__ = ["Current", "Limits", "Shelf"]

_log = logging.getLogger("twinloop.log")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a log may hold, and what happens then; see `LocalLog`."""

    max_bytes: int
    max_age_ns: int
    file_bytes: int
    overflow: Overflow
    archive_ns: int


@dataclass(slots=True)
class Current:
    """The file that takes new entries.

    Attributes:
        newest_ns: time of the log's newest entry.
        size: bytes on disk.
        is_empty: whether it has no entry yet.
    """

    path: Path
    newest_ns: int
    size: int
    is_empty: bool


class _OnThread(Protocol):
    def __call__(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]: ...


class Shelf:
    """The full files, oldest first, the current one, and how far the readers are.

    Args:
        directory: the log's.
        limits: what may stand here.
        full, current: the files there are.
        first: no entry below it is thinned: others have seen them.
        on_thread: does on the log's own thread what may wait for the disk.
        forget: lets go of entries kept in memory, up to an offset: their file was thinned.

    Attributes:
        released: what every reader has let go of, up to this offset.
        handed: the newest entry a reader has asked for: it may never read another one there.
        given: the newest entry a reader got, which may be less.
        trimmed, dropped, thinned: counters; see `LogStats`.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        *,
        full: Iterable[Closed],
        current: Current,
        first: int,
        on_thread: _OnThread,
        forget: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._on_thread = on_thread
        self._forget = forget
        self.files: Final = deque(full)
        self.current = current
        self.released = -1
        self.handed = first - 1
        self.given = -1
        self.trimmed = self.dropped = self.thinned = 0

    def first(self) -> int:
        """The oldest offset kept; any thread may ask."""
        with suppress(IndexError):  # the last full file went between two looks
            return first_offset(self.files[0].path)
        return first_offset(self.current.path)

    def size(self) -> int:
        """Bytes held."""
        return sum(file.size for file in self.files) + self.current.size

    def is_full(self, files: int = 1) -> bool:
        """Whether so many more files would be too much."""
        return self.size() + files * self._limits.file_bytes > self._limits.max_bytes

    @property
    def is_in_the_way(self) -> bool:
        """Whether entries must wait until a file goes, and there is one."""
        return self.is_full() and self._may_go()

    @property
    def is_held(self) -> bool:
        """Whether a reader still needs the oldest file."""
        return self.files[0].last > self.released

    @property
    def is_pressed(self) -> bool:
        """Whether readers should let go of what they can."""
        return self.is_full(files=2) and self._may_go() and self.is_held

    def _may_go(self) -> bool:
        """Whether there is a file to remove: never the one with the newest entry."""
        return len(self.files) > self.current.is_empty

    async def trim(self) -> None:
        """Remove the files that every reader has and that are too old or too much."""
        while self._may_go():
            oldest = self.files[0]
            too_old = oldest.newest_ns < self.current.newest_ns - self._limits.max_age_ns
            if self.is_held or not (too_old or self.is_full()):
                break
            await self._remove_oldest()
            self.trimmed += oldest.newest - first_offset(oldest.path) + 1

    async def give_way(self) -> bool:
        """Thin or drop a file that a reader still needs, where the policy says so; whether one was."""
        if self._limits.overflow is Overflow.THIN and await self._thin():
            return True
        if self._may_drop():
            await self._drop()
            return True
        return False

    def _may_drop(self) -> bool:
        """Whether the oldest file goes although it is needed; what is read only waits for a checkpoint."""
        thin = self._limits.overflow is Overflow.THIN and self.files[0].last > self.handed
        return thin or self._limits.overflow is Overflow.DROP_OLDEST

    async def _drop(self) -> None:
        """Remove the oldest file although a reader still needs it, and count what it had not let go of."""
        oldest = self.files[0]
        await self._remove_oldest()
        first = max(first_offset(oldest.path), self.released + 1)
        self.trimmed += first - first_offset(oldest.path)
        self.dropped += max(0, oldest.newest - first + 1)
        _log.warning(
            "the log %s is full: entries %d to %d were dropped before all readers had them",
            self._directory,
            first,
            oldest.newest,
        )

    async def _remove_oldest(self) -> None:
        oldest = self.files.popleft()  # from here on nobody is given more of it
        if self._limits.archive_ns:
            await self._on_thread(self._archive, oldest, max(self.given, self.released))
        remove_file(oldest.path)

    def _archive(self, file: Closed, upto: int) -> None:
        """Keep what was read of a file: a replay folds what was folded, and no more."""
        forget_archive(self._directory, self.current.newest_ns - self._limits.archive_ns)
        first = first_offset(file.path)
        if first <= upto:
            rows = takewhile(lambda row: row[0] <= upto, sound_rows(file.path))
            archive_rows(self._directory, first, file.newest_ns, rows)

    async def _thin(self) -> bool:
        """Thin one file that no reader has begun, the one thinned least often, the oldest of these.

        One that is held, or for which the disk has no room, is passed over now and asked again next time.
        """
        held: set[Path] = set()
        while files := [each for each in self.files if self._may_thin(each) and each.path not in held]:
            file = min(files, key=lambda each: (each.times_thinned, each.last))
            made = await self._on_thread(thin_aside, file.path, file.times_thinned + 1)
            if made is Refused.DISK:
                return False
            if isinstance(made, Refused):
                file.spent = made is Refused.SPENT
                held.add(file.path)
                continue
            aside, count = made
            if not self._is_unread(file):  # begun meanwhile
                remove_file(aside)
                continue
            # Between the last look and here nothing waits: no reader can have come in between.
            aside.replace(file.path)
            self._put_in_place(file, count)
            await self._on_thread(sync_directory, self._directory)
            return True
        return False

    def _put_in_place(self, file: Closed, count: int) -> None:
        """Take note of a file that stands thinned now."""
        self._forget(file.last)
        if not file.times_thinned:
            _log.warning(
                "the log %s is full: of offsets %d to %d only every second sample is kept",
                self._directory,
                first_offset(file.path),
                file.newest,
            )
        file.times_thinned, file.size = file.times_thinned + 1, size_of(file.path)
        self.thinned += count

    def _may_thin(self, file: Closed) -> bool:
        return not file.spent and self._is_unread(file)

    def _is_unread(self, file: Closed) -> bool:
        return first_offset(file.path) > self.handed
