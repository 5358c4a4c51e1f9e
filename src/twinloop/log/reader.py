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
_reported: set[Path] = set()

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Open:
    """A file kept open, and what tells it from another that took its name."""

    path: Path
    identity: Identity
    db: sqlite3.Connection


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
        firsts = _first_offsets(names_in(self._directory))
        left = limit
        for at in range(max(0, bisect_right(firsts, after + 1) - 1), len(firsts)):
            following = firsts[at + 1] if at + 1 < len(firsts) else None
            for entry in self._entries_of(firsts[at], following, after, left):
                yield entry
                if left is not None:
                    left -= 1
            if left is not None and left <= 0:
                return

    def _entries_of(
        self, first: int, following: int | None, after: int, limit: int | None
    ) -> Iterator[tuple[int, bytes]]:
        """Entries of one file, up to the first damaged place."""
        path = offset_path(self._directory, first)
        reached = max(after, first - 1)
        file: _Open | None = None
        try:
            file = self._taken(path)
            for offset, _, data in entries_of(file.db, path, after, _ALL if limit is None else limit):
                yield offset, data
                reached = offset
            if following is None:
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
