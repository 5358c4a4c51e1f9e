"""The files of a local log: SQLite databases, each named by the first offset it holds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from twinloop.errors import LogError

__all__ = [
    "SUFFIX",
    "first_offset",
    "log_files",
    "newest_entry",
    "open_file",
    "read_entries",
    "size_of",
    "sync_file",
]

SUFFIX: Final = ".sqlite"
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS entries (
        offset INTEGER PRIMARY KEY, time INTEGER NOT NULL, data BLOB NOT NULL
    )
"""


def log_files(directory: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())


def first_offset(path: Path) -> int:
    """The offset a file begins with, by its name."""
    return int(path.stem)


def size_of(path: Path) -> int:
    """Bytes on disk, the write-ahead log included; 0 for a file that went away."""
    total = 0
    for part in (path, path.with_name(f"{path.name}-wal")):
        try:
            total += part.stat().st_size
        except FileNotFoundError:
            continue
    return total


def open_file(path: Path, *, durable: bool) -> sqlite3.Connection:
    """A connection for the log's one writer; the table is made where it is missing.

    Args:
        path: the file; made where it is missing.
        durable: commits survive a power cut (else only a killed process).

    Raises:
        LogError: the file cannot be opened or is no log file.
    """
    try:
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute(_SCHEMA)
    except sqlite3.Error as error:
        raise LogError(f"the log file {path} cannot be opened: {error}") from error
    return db


def newest_entry(db: sqlite3.Connection) -> tuple[int, int] | None:
    """Offset and time of a file's last entry, without reading the file; None when it is empty."""
    found: tuple[int, int] | None = db.execute(
        "SELECT offset, time FROM entries ORDER BY offset DESC LIMIT 1"
    ).fetchone()
    return found


def sync_file(path: Path) -> None:
    """Return when all that was committed to a file survives a power cut.

    What is not yet in the file itself stands in its write-ahead log, and SQLite syncs that before it moves
    anything; a checkpoint would do the same, but not while another process reads.

    Raises:
        OSError: the disk would not take it.
    """
    # Only the write-ahead log is opened: closing any handle on the file itself would drop SQLite's locks.
    for part in (path.with_name(f"{path.name}-wal"), path.parent):
        try:
            handle = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_entries(directory: Path, after: int, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Committed entries after an offset, ascending, also while another process appends.

    Files that go away meanwhile (trimmed) are passed over.

    Raises:
        LogError: a file cannot be read.
    """
    files = log_files(directory)
    left = limit
    for position, path in enumerate(files):
        following = files[position + 1] if position + 1 < len(files) else None
        if following is not None and first_offset(following) <= after + 1:
            continue
        for offset, data in _read_file(path, after, left):
            yield offset, data
            if left is not None:
                left -= 1
        if left is not None and left <= 0:
            return


def _read_file(path: Path, after: int, limit: int | None) -> Iterator[tuple[int, bytes]]:
    query = "SELECT offset, data FROM entries WHERE offset > ? ORDER BY offset LIMIT ?"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            # A file that is just being made has no table yet, and so no entry.
            if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entries'").fetchone():
                yield from db.execute(query, (after, -1 if limit is None else limit))
    except sqlite3.Error as error:
        if path.exists():
            raise LogError(f"the log file {path} cannot be read: {error}") from error
