"""What a power cut or a dying disk can leave of a log's newest file: find it, keep the sound part.

The order of steps makes a second power cut harmless: the file that new entries go into is named and made
durable by the caller before `salvage` touches the damaged one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.durable import sync_directory
from twinloop.log.files import (
    SUFFIX,
    Row,
    is_damage,
    open_file,
    remove_file,
    rows_of,
    sound_rows,
    stored_row,
)

__all__ = ["Survey", "finish_salvage", "salvage", "survey"]

_ASIDE: Final = ".salvage"
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in a file.

    Attributes:
        last, newest_ns: offset and time of the newest sound entry; -1 and 0 for none.
        problem: what is wrong with the file; empty for a sound one.
    """

    last: int = -1
    newest_ns: int = 0
    problem: str = ""


def survey(path: Path) -> Survey:
    """Read a whole file: how far it is sound.

    Raises:
        sqlite3.Error: it cannot be read at all, for another reason than its content.
    """
    last, newest_ns = -1, 0
    try:
        for offset, time_ns, _ in rows_of(path, -1):
            last, newest_ns = offset, max(newest_ns, time_ns)
        problem = _check(path)
    except UnicodeDecodeError as error:  # a name in the file is no text any more
        problem = str(error)
    except sqlite3.Error as error:
        if not is_damage(error, path):
            raise
        problem = str(error)
    return Survey(last, newest_ns, problem.replace("\n", " "))


def _check(path: Path) -> str:
    """What SQLite finds wrong with a file that could be read; empty for nothing."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        verdict: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            return verdict
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entries'").fetchone():
            return "its table is gone"
        # A header can be broken in ways that only a writer meets.
        db.execute("BEGIN IMMEDIATE")
        db.rollback()
    return ""


def salvage(path: Path) -> Path:
    """Put a file's sound entries into a fresh one of the same name and the damaged file aside.

    Returns:
        Where the damaged file is now: `NAME.damaged`, its write-ahead log beside it.

    Raises:
        OSError: the disk would not take it.
        LogError, sqlite3.Error: the same.
    """
    fresh = path.with_name(f"{path.stem}{_ASIDE}")
    remove_file(fresh)
    with closing(open_file(fresh, durable=True)) as db:
        portion: list[Row] = []
        for row in sound_rows(path):
            portion.append(row)
            if len(portion) == _AT_ONCE:
                _insert(db, portion)
                portion = []
        _insert(db, portion)
    aside = _free_name(path)
    for part in ("-wal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(aside.with_name(aside.name + part))
    remove_file(path)
    fresh.rename(path)
    sync_directory(path.parent)
    return aside


def finish_salvage(directory: Path) -> None:
    """Take up what a power cut left of a `salvage`: the fresh file is whole once the damaged one is aside."""
    for fresh in directory.glob(f"*{_ASIDE}"):
        path = fresh.with_name(fresh.stem + SUFFIX)
        if path.exists():
            remove_file(fresh)
        else:
            fresh.rename(path)
            sync_directory(directory)


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    db.execute("BEGIN")
    db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", [stored_row(*row) for row in rows])
    db.execute("COMMIT")


def _free_name(path: Path) -> Path:
    name, number = path.with_name(f"{path.name}.damaged"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.damaged{number}")
    return name
