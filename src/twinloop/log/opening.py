"""Opening a local log: which files there are, how far they are sound, and which takes new entries."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from twinloop.errors import LogError
from twinloop.log.files import (
    first_offset,
    in_words,
    is_damage,
    log_files,
    newest_entry,
    offset_path,
    open_file,
    remove_file,
    size_of,
    sync_file,
    thinned_times,
)
from twinloop.log.salvage import Survey, finish_salvage, salvage, survey
from twinloop.log.thinning import ASIDE

__all__ = ["Closed", "Opened", "open_log"]

_log = logging.getLogger("twinloop.log")

BEYOND_ANY: Final = 1 << 26
"""Entries that a file of up to 1 GB cannot hold: where a damaged one may have ended, we begin after."""


@dataclass(slots=True)
class Closed:
    """A full file: nothing is appended to it any more.

    Attributes:
        last: the offset before the next file's first.
        newest: the newest entry's offset, lower than `last` where offsets were left out.
        newest_ns: the newest entry's time.
        size: bytes on disk.
        times_thinned: how often every second of its samples was left out.
        spent: thinning it again is not worth it, and will not be.
    """

    path: Path
    last: int
    newest: int
    newest_ns: int
    size: int
    times_thinned: int = 0
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A log's files.

    Attributes:
        closed: the full files, oldest first.
        current: the file that takes new entries, open as `db`.
        last, newest_ns: the newest offset given out as far as is known, and the newest entry's time.
    """

    closed: list[Closed]
    current: Path
    db: sqlite3.Connection
    last: int
    newest_ns: int


def open_log(directory: Path, begin: int, *, durable: bool) -> Opened:
    """Open the newest file, or a fresh one after it where the newest is damaged or ends too early.

    Args:
        directory: made where it is missing.
        begin: no offset below this is given out.
        durable: see `LocalLog`.

    Raises:
        LogError: the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        finish_salvage(directory)
        for path in directory.glob(f"*{ASIDE}"):  # left by a crash
            remove_file(path)
        paths = log_files(directory)
        if paths:
            _make_sound(paths, begin, durable=durable)
        current = paths[-1] if paths else offset_path(directory, begin)
        db = open_file(current, durable=durable)
        closed = [_closed(path, first_offset(following) - 1) for path, following in pairwise(paths)]
        last, newest_ns = newest_entry(db) or (first_offset(current) - 1, 0)
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"the log {directory} cannot be opened: {in_words(error, directory)}") from error
    return Opened(closed, current, db, last, newest_ns)


def _make_sound(paths: list[Path], begin: int, *, durable: bool) -> None:
    """See to it that the last of the paths is a sound file that new entries may go into."""
    newest = paths[-1]
    found = survey(newest)
    following = max(found.last, first_offset(newest) - 1) + 1
    # What was written without a sync is folded again, and may be given the same offsets again.
    leap = BEYOND_ANY if found.problem and durable else 0
    begin = max(begin, following + leap)
    if begin > following or (found.last >= 0 and (found.problem or not _has_checksums(newest))):
        # It stands on the disk before the damaged file is touched: whatever happens then, no offset is
        # given out twice.
        fresh = offset_path(newest.parent, begin)
        open_file(fresh, durable=True).close()
        sync_file(fresh)
        paths.append(fresh)
    if found.problem:
        _report(newest, found, salvage(newest), begin)


def _report(damaged: Path, found: Survey, aside: Path, begin: int) -> None:
    used = f"entries up to offset {found.last} are used" if found.last >= 0 else "no entry is sound"
    _log.error(
        "the newest log file %s is damaged (%s): %s, what followed is lost. The damaged file is kept as %s; "
        "new entries begin at offset %d",
        damaged,
        found.problem,
        used,
        aside.name,
        begin,
    )


def _closed(path: Path, last: int) -> Closed:
    newest, times = None, 0
    try:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            newest, times = newest_entry(db), thinned_times(db)
    except sqlite3.Error as error:
        if not is_damage(error, path):
            raise
        _log.error("the log file %s is damaged (%s): what is sound in it is used", path, error)
    offset, newest_ns = newest or (last, 0)
    return Closed(path, last, min(offset, last), newest_ns, size_of(path), times)


def _has_checksums(path: Path) -> bool:
    """Whether a file has today's columns: one of the first versions is read, and not appended to."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return bool(db.execute("SELECT 1 FROM pragma_table_info('entries') WHERE name = 'crc'").fetchone())
