"""The dictionaries of a data directory: stable numbers for series and tags, never reused."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from twinloop.errors import LogError
from twinloop.tags import SeriesKey

__all__ = ["Dictionary"]

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, address TEXT NOT NULL, unit TEXT NOT NULL,
        UNIQUE (source, address, unit)
    )""",
    "CREATE TABLE IF NOT EXISTS tags (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS units (tag INTEGER PRIMARY KEY, unit TEXT NOT NULL)",
)


class Dictionary:
    """Numbers for series keys and tag names; a new one is on disk before it is given out.

    Everything is also held in memory, so that asking costs no I/O; any thread may ask.

    Args:
        path: the SQLite file, made where it is missing; None keeps the numbers in memory only.
        readonly: for a process that only asks questions.

    Attributes:
        tags: the number of each name.
        units: by number, the unit that a tag's stored history is in; none before one was told.

    Raises:
        LogError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path | None, *, readonly: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            if readonly and path is not None:
                self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
            else:
                self._db = sqlite3.connect(path or ":memory:", check_same_thread=False)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                for statement in _SCHEMA:
                    self._db.execute(statement)
            self._series: list[SeriesKey] = [
                (source, address, unit)
                for source, address, unit in self._db.execute(
                    "SELECT source, address, unit FROM series ORDER BY id"
                )
            ]
            self.tags: dict[str, int] = dict(self._db.execute("SELECT name, id FROM tags"))
            has_units = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'units'").fetchone()
            found = self._db.execute("SELECT tag, unit FROM units") if has_units else ()
            self.units: dict[int, str] = dict(found)
        except sqlite3.Error as error:
            raise LogError(f"the dictionary {path} cannot be used: {error}") from error
        self._indices = {key: index for index, key in enumerate(self._series)}

    def index(self, key: SeriesKey) -> int:
        """The key's index; see `SeriesDictionary.index`."""
        known = self._indices.get(key)
        if known is not None:
            return known
        with self._lock:
            if key in self._indices:
                return self._indices[key]
            index = len(self._series)
            self._insert("INSERT INTO series VALUES (?, ?, ?, ?)", [(index, *key)])
            self._series.append(key)
            self._indices[key] = index
            return index

    def key(self, index: int) -> SeriesKey:
        """The key of an index; see `SeriesDictionary.key`."""
        if not 0 <= index < len(self._series):
            raise KeyError(index)
        return self._series[index]

    def add_tags(self, names: Iterable[str]) -> dict[str, int]:
        """Number the names that have no number yet, in order; returns all numbers by name."""
        new = [name for name in dict.fromkeys(names) if name not in self.tags]
        first = max(self.tags.values(), default=-1) + 1
        numbered = {name: first + i for i, name in enumerate(new)}
        self._insert("INSERT INTO tags (name, id) VALUES (?, ?)", list(numbered.items()))
        self.tags.update(numbered)
        return dict(self.tags)

    def set_units(self, units: Mapping[int, str]) -> None:
        """Keep the units that tags are stored in from now on, by number."""
        new = {tag: unit for tag, unit in units.items() if self.units.get(tag) != unit}
        self._insert("INSERT OR REPLACE INTO units VALUES (?, ?)", list(new.items()))
        self.units.update(new)

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise LogError(f"the dictionary {self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
