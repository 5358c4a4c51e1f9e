"""The files of a local log: SQLite databases, each named by the first offset it holds."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from twinloop.durable import sync_directory
from twinloop.errors import LogError
from twinloop.records import Samples, encode_record

__all__ = [
    "NOTHING_LEFT",
    "SUFFIX",
    "Row",
    "checksum",
    "first_offset",
    "in_words",
    "is_damage",
    "log_files",
    "newest_entry",
    "newest_of",
    "offset_path",
    "open_file",
    "read_entries",
    "remove_file",
    "rows_of",
    "size_of",
    "sound_rows",
    "sync_file",
    "thinned_times",
    "write_plain_file",
]

_log = logging.getLogger("twinloop.log")

Row = tuple[int, int, bytes]
"""Offset, time in ns, and the entry."""

SUFFIX: Final = ".sqlite"
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS entries (
        offset INTEGER PRIMARY KEY, time INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL
    )
"""
NOTHING_LEFT: Final = encode_record(Samples())
"""A record of which every sample was left out."""
_NEW: Final = ".new"
_ALL: Final = -1
_SURROUNDINGS: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
    }
)
_reported: set[Path] = set()


class _Torn(sqlite3.DatabaseError):
    """An entry is not what was appended."""


def checksum(offset: int, time_ns: int, data: bytes) -> int:
    """What stands beside an entry, so that a changed bit is found: SQLite itself checks no page."""
    return zlib.crc32(data, zlib.crc32(b"%d %d" % (offset, time_ns)))


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether an error tells of the file's content, not of the disk, a lock or a permission."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # a damaged header says so, too
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code not in _SURROUNDINGS


def in_words(error: Exception, where: Path | None = None) -> str:
    """What went wrong with a log's disk, and what a person can do about it; `where` is looked at, too."""
    code = getattr(error, "sqlite_errorcode", None)
    number = getattr(error, "errno", None)
    if (code is not None and code & 0xFF == sqlite3.SQLITE_FULL) or number in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"the disk is full ({error}). Free some space or lower `log: max_size`, then start again: "
            "everything acknowledged is safe, and what was not is sent again by sources that can"
        )
    # SQLite cannot open what it cannot write its write-ahead log beside, and does not say why.
    refused = where is not None and where.exists() and not os.access(where, os.W_OK)
    if refused or (code is not None and code & 0xFF == sqlite3.SQLITE_READONLY) or number == errno.EROFS:
        return f"the disk is read-only ({error}). Make it writable and start again: nothing is lost"
    return str(error)


def log_files(directory: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())


def first_offset(path: Path) -> int:
    """The offset a file begins with, by its name."""
    return int(path.stem)


def offset_path(directory: Path, offset: int) -> Path:
    """The name of the file that begins with an offset."""
    return directory / f"{offset:020d}{SUFFIX}"


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
        if not path.exists():
            _create(path)
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"the log file {path} cannot be opened: {in_words(error, path.parent)}") from error
    return db


def _create(path: Path) -> None:
    """Make an empty file whole, then give it its name: a file without a table is a damaged one."""
    aside = path.with_suffix(_NEW)
    remove_file(aside)
    with closing(sqlite3.connect(aside, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(_SCHEMA)
    aside.rename(path)
    sync_directory(path.parent)


def write_plain_file(path: Path, rows: Iterable[Row], times_thinned: int) -> None:
    """A file of entries, whole and durable when it returns, without a write-ahead log beside it.

    Raises:
        sqlite3.Error, OSError: the disk would not take it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(_SCHEMA)
        db.execute("BEGIN")
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", ((*row, checksum(*row)) for row in rows))
        db.execute(f"PRAGMA user_version = {times_thinned:d}")
        db.execute("COMMIT")
    sync_directory(path)


def thinned_times(db: sqlite3.Connection) -> int:
    """How often a file was thinned."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def newest_entry(db: sqlite3.Connection) -> tuple[int, int] | None:
    """Offset and time of a file's last entry, without reading the file; None when it is empty."""
    found: tuple[int, int] | None = db.execute(
        "SELECT offset, time FROM entries ORDER BY offset DESC LIMIT 1"
    ).fetchone()
    return found


def remove_file(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it, which must never meet another file of that name."""
    for part in ("-wal", "-shm", ""):
        path.with_name(path.name + part).unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Return when all that was committed to a file survives a power cut.

    What is not yet in the file itself stands in its write-ahead log, and SQLite syncs that before it moves
    anything; a checkpoint would do the same, but not while another process reads.

    Raises:
        OSError: the disk would not take it.
    """
    # Only the write-ahead log is opened: closing any handle on the file itself would drop SQLite's locks.
    with suppress(FileNotFoundError):
        sync_directory(path.with_name(f"{path.name}-wal"))
    sync_directory(path.parent)


def rows_of(path: Path, after: int, limit: int = _ALL) -> Iterator[Row]:
    """A file's committed entries after an offset, ascending, each checked.

    A thinned file has no rows for records of which nothing is left: they are given as what they are.

    Raises:
        sqlite3.Error: the file cannot be read; of `is_damage` where its content is broken: the entries
            given so far are sound.
    """
    query = "SELECT * FROM entries WHERE offset > ? ORDER BY offset LIMIT ?"
    before = after
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            db.text_factory = bytes
            # A file that is just being made has no table yet, and so no entry.
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entries'").fetchone():
                return
            thinned = thinned_times(db) > 0
            # A reader that comes from the file before asks with an offset far below this one's first.
            before = max(after, first_offset(path) - 1) if thinned else after
            upto = before + limit if limit != _ALL else 2**63 - 1
            for offset, time_ns, data, *crc in db.execute(query, (after, limit)):
                # Files of the first versions have no checksums.
                if offset <= before or (crc and crc[0] != checksum(offset, time_ns, data)):
                    raise _Torn(f"the entry after offset {before} is not what was written")
                if thinned:
                    for empty in range(before + 1, min(offset, upto + 1)):
                        yield empty, time_ns, NOTHING_LEFT
                    if offset > upto:
                        return
                before = offset
                yield offset, time_ns, data
    except (TypeError, ValueError) as error:  # a column of another type, or a name that is no text
        raise _Torn(f"the entry after offset {before} is not what was written") from error


def sound_rows(path: Path) -> Iterator[Row]:
    """A file's entries up to the first damaged place.

    Raises:
        sqlite3.Error: the file cannot be read, for another reason than its content.
    """
    try:
        yield from rows_of(path, -1)
    except sqlite3.Error as error:
        if not is_damage(error, path):
            raise


def newest_of(directory: Path) -> tuple[int, bytes] | None:
    """The newest entry of a log that can be read; None where there is none."""
    for path in reversed(log_files(directory)):
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
                newest = newest_entry(db)
            if newest is not None:
                return next((offset, data) for offset, _, data in rows_of(path, newest[0] - 1))
        except (sqlite3.Error, StopIteration):
            continue
    return None


def read_entries(directory: Path, after: int, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Committed entries after an offset, ascending, also while another process appends.

    Entries that are gone are passed over, so offsets may jump: files that were trimmed meanwhile, and what
    stands behind a damaged place of a file, which a warning names once.

    Raises:
        LogError: a file cannot be read for another reason than its content.
    """
    files = log_files(directory)
    left = limit
    for position, path in enumerate(files):
        following = files[position + 1] if position + 1 < len(files) else None
        if following is not None and first_offset(following) <= after + 1:
            continue
        for offset, data in _read_file(path, after, left, following):
            yield offset, data
            if left is not None:
                left -= 1
        if left is not None and left <= 0:
            return


def _read_file(
    path: Path, after: int, limit: int | None, following: Path | None
) -> Iterator[tuple[int, bytes]]:
    reached = max(after, first_offset(path) - 1)
    try:
        for offset, _, data in rows_of(path, after, _ALL if limit is None else limit):
            yield offset, data
            reached = offset
    except sqlite3.Error as error:
        if not path.exists():
            return
        if not is_damage(error, path):
            raise LogError(f"the log file {path} cannot be read: {in_words(error, path.parent)}") from error
        if path not in _reported:
            _reported.add(path)
            upto = "its end" if following is None else f"{first_offset(following) - 1}"
            _log.error(
                "the log file %s is damaged (%s): entries from offset %d to %s are gone; going on",
                path,
                error,
                reached + 1,
                upto,
            )
