"""Reading a log's files, also while another process appends."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from twinloop.errors import LogError
from twinloop.folders import names_in
from twinloop.log.files import SUFFIX, connected, entries_of, in_words, is_damage, offset_path

__all__ = ["LogReader", "read_entries"]

_log = logging.getLogger("twinloop.log")

_ALL: Final = -1
_UNREAD: Final = (-2, -1, frozenset[str]())
_reported: set[Path] = set()

Identity = tuple[int, int]


@dataclass(slots=True)
class _Open:
    """A file kept open, and what tells it from another that took its name.

    `last`, `version` and `names` say that it was read to its end, where its end was, of which version of the
    file, and the names of the directory then.
    """

    path: Path
    identity: Identity
    db: sqlite3.Connection
    last: int = -2
    version: int = -1
    names: frozenset[str] = frozenset()

    def is_read(self, after: int, names: frozenset[str]) -> bool:
        """Whether nothing can have come after an offset since it was read to its end."""
        return (
            self.last == after
            and self.names is names
            and self.version == _version(self.db)
            and self.identity == _identity(self.path)
        )


class LogReader:
    """Reads entries of a log's directory again and again; safe to use from many threads.

    The newest file stays open between reads: who asks for what is new waits for no more than that. A file
    open for reading is in nobody's way; `close` lets go of it.

    Args:
        directory: the log's; it need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._kept: _Open | None = None

    def entries(self, after: int, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Committed entries after an offset, ascending.

        Entries that are gone are passed over, so offsets may jump: files that were trimmed meanwhile, and
        what stands behind a damaged place of a file, which a warning names once.

        Raises:
            LogError: a file cannot be read for another reason than its content.
        """
        names = names_in(self._directory)
        if self._is_read(after, names):
            return
        firsts = _first_offsets(names)
        left = limit
        for at in range(max(0, bisect_right(firsts, after + 1) - 1), len(firsts)):
            following = firsts[at + 1] if at + 1 < len(firsts) else None
            for entry in self._entries_of(names, firsts[at], following, after, left):
                yield entry
                if left is not None:
                    left -= 1
            if left is not None and left <= 0:
                return

    def _entries_of(
        self, names: frozenset[str], first: int, following: int | None, after: int, limit: int | None
    ) -> Iterator[tuple[int, bytes]]:
        """Entries of one file, up to the first damaged place."""
        path = offset_path(self._directory, first)
        reached = max(after, first - 1)
        file: _Open | None = None
        try:
            file = self._taken(path)
            version = _version(file.db)  # before what is read: what comes meanwhile makes it another
            for offset, _, data in entries_of(file.db, path, after, _ALL if limit is None else limit):
                yield offset, data
                reached = offset
            if following is None:
                is_end = limit is None
                file.last, file.version, file.names = (reached, version, names) if is_end else _UNREAD
                self._keep(file)
                file = None
        except FileNotFoundError:
            return
        except sqlite3.Error as error:
            if not path.exists():
                return
            if not is_damage(error, path):
                words = in_words(error, path.parent)
                raise LogError(f"the log file {path} cannot be read: {words}") from error
            _report(path, error, reached + 1, following)
        finally:
            if file is not None:
                file.db.close()

    def _is_read(self, after: int, names: frozenset[str]) -> bool:
        """Whether there is nothing after an offset, as far as that is quickly told."""
        with self._lock:
            kept = self._kept
            try:
                return kept is not None and kept.is_read(after, names)
            except (OSError, sqlite3.Error):
                return False  # who reads it is told why

    def _taken(self, path: Path) -> _Open:
        """The file, opened or as it was kept; nobody else has it until it is kept again.

        Raises:
            FileNotFoundError: it went away.
            sqlite3.Error: it cannot be opened.
        """
        identity = _identity(path)
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            if kept.path == path and kept.identity == identity:
                return kept
            kept.db.close()
        return _Open(path, identity, connected(path))

    def _keep(self, file: _Open) -> None:
        # Looked at again: what was opened may have taken the place of what was looked at.
        if _identity(file.path) != file.identity:
            file.db.close()
            return
        with self._lock:
            before, self._kept = self._kept, file
        if before is not None:
            before.db.close()

    def close(self) -> None:
        """Let go of the file that is open."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            kept.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_entries(directory: Path, after: int, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """As `LogReader.entries`, by who reads once."""
    with closing(LogReader(directory)) as reader:
        yield from reader.entries(after, limit)


@lru_cache(maxsize=16)
def _first_offsets(names: frozenset[str]) -> list[int]:
    """By which a log's files are named, ascending; kept, as most questions meet the same names."""
    stems = (name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _identity(path: Path) -> Identity:
    stat = os.stat(path)  # noqa: PTH116 - takes a tenth of the time
    return stat.st_dev, stat.st_ino


def _version(db: sqlite3.Connection) -> int:
    """A number that is another once somebody else has written to the file."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _report(path: Path, error: Exception, lost: int, following: int | None) -> None:
    if path in _reported:
        return
    _reported.add(path)
    _log.error(
        "the log file %s is damaged (%s): entries from offset %d to %s are gone; going on",
        path,
        error,
        lost,
        "its end" if following is None else f"{following - 1}",
    )
