"""The files of a local log: SQLite databases, each named by the first offset it holds."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from twinloop.durable import sync_directory
from twinloop.errors import LogError
from twinloop.log.packing import pack, unpack
from twinloop.records import Samples, encode_record

__all__ = [
    "NOTHING_LEFT",
    "SUFFIX",
    "Row",
    "checksum",
    "connected",
    "entries_of",
    "finish_file",
    "first_offset",
    "in_words",
    "is_damage",
    "log_files",
    "newest_entry",
    "newest_of",
    "offset_path",
    "open_file",
    "remove_file",
    "rows_of",
    "size_of",
    "sound_rows",
    "stored_row",
    "sync_file",
    "thinned_times",
    "write_plain_file",
]

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


class _Torn(sqlite3.DatabaseError):
    """An entry is not what was appended."""


def checksum(offset: int, time_ns: int, data: bytes) -> int:
    """What stands beside an entry, so that a changed bit is found: SQLite itself checks no page."""
    return zlib.crc32(data, zlib.crc32(b"%d %d" % (offset, time_ns)))


def stored_row(offset: int, time_ns: int, data: bytes) -> tuple[int, int, bytes, int]:
    """An entry as it stands in a file: packed, with a checksum of that."""
    packed = pack(data)
    return offset, time_ns, packed, checksum(offset, time_ns, packed)


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


def finish_file(db: sqlite3.Connection) -> None:
    """Close a file that is not written any more.

    A reader may hold it open, and then SQLite does not move what stands in the write-ahead log when the
    writer closes: that is done here, and given up at once where a reader is in the midst of it.
    """
    with closing(db), suppress(sqlite3.Error):  # all of it is safe where it stands
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


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
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", (stored_row(*row) for row in rows))
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


def connected(path: Path) -> sqlite3.Connection:
    """A connection for reading a file that may be written meanwhile. Raises sqlite3.Error."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30, check_same_thread=False)
    db.text_factory = bytes
    return db


def rows_of(path: Path, after: int, limit: int = _ALL) -> Iterator[Row]:
    """A file's committed entries after an offset; as `entries_of`."""
    with closing(connected(path)) as db:
        yield from entries_of(db, path, after, limit)


def entries_of(db: sqlite3.Connection, path: Path, after: int, limit: int = _ALL) -> Iterator[Row]:
    """A file's committed entries after an offset, ascending, each checked.

    A thinned file has no rows for records of which nothing is left: they are given as what they are.

    Args:
        db: made by `connected`.
        path: the file.
        after: the offset.
        limit: the most to be given; all by default.

    Raises:
        sqlite3.Error: the file cannot be read; of `is_damage` where its content is broken: the entries
            given so far are sound.
    """
    query = "SELECT * FROM entries WHERE offset > ? ORDER BY offset LIMIT ?"
    before = after
    try:
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
            entry = unpack(data)
            if thinned:
                for empty in range(before + 1, min(offset, upto + 1)):
                    yield empty, time_ns, NOTHING_LEFT
                if offset > upto:
                    return
            before = offset
            yield offset, time_ns, entry
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
