"""Dead letters on their way back: a spool beside the log, a source that reads it, a ledger of what was fed.

A spool file is whole or not there. The source delivers one as a record of samples; when that is durable the
ledger takes note, and then the file goes. Killed in between, a letter enters the log a second time, where
the fold takes it for the duplicate it is; it is never lost and never a second row of history.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from twinloop.durable import place_file
from twinloop.errors import LogError, SpoolDamage
from twinloop.records import DeadLetter, DeadLetters, Record, Samples, decode_record, encode_record
from twinloop.sources.source import Delivery
from twinloop.sources.spool import SpoolSource, set_aside_in

__all__ = ["FOLDER", "Again", "Ledger", "Reader", "RefeedSource", "Spool", "key_of", "letter_key"]

_log = logging.getLogger("twinloop.refeed")

FOLDER: Final = "refeed"
"""Of the data directory: spool files and the ledger."""
_SUFFIX: Final = ".letters"
_MOST_LETTERS: Final = 500
_MOST_BYTES: Final = 2**20
_AT_ONCE: Final = 500


class Again(NamedTuple):
    """What became of a letter that was put through the decoder again.

    Attributes:
        samples: how many it gives; 0 where any part of it still fails.
        detail: why it stays a dead letter; empty where it does not.
    """

    samples: int
    detail: str = ""


class Reader(Protocol):
    """How a source reads its own dead letters again."""

    def read_again(self, letters: Sequence[DeadLetter]) -> tuple[Samples | None, list[Again]]:
        """The samples of the letters that can be read whole now, and what became of each letter."""
        ...


def letter_key(time_ns: int, source: str, origin: str, raw: bytes) -> bytes:
    """What tells a letter from every other: when, from where, and its bytes."""
    digest = hashlib.blake2b(b"%d" % time_ns, digest_size=16)
    for part in (source.encode(errors="surrogatepass"), origin.encode(errors="surrogatepass"), raw):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def key_of(letter: DeadLetter) -> bytes:
    """The letter's key; see `letter_key`."""
    return letter_key(letter.time, letter.source, letter.origin, letter.raw)


class Ledger:
    """Which letters have become samples, for good; any process may ask, and the file need not exist yet.

    Args:
        data_dir: the plant's.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FOLDER / "fed.sqlite"

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever fed."""
        return not self._path.exists()

    def fed(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The samples that each letter became, by key, of those of `keys` that were fed.

        Raises:
            LogError: the ledger cannot be read.
        """
        found: dict[bytes, int] = {}
        if self.is_empty:
            return found
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as db:
                for first in range(0, len(keys), _AT_ONCE):
                    part = keys[first : first + _AT_ONCE]
                    marks = ",".join("?" * len(part))
                    found.update(db.execute(f"SELECT key, samples FROM fed WHERE key IN ({marks})", part))
        except sqlite3.Error as error:
            raise LogError(f"the ledger of re-fed letters {self._path} cannot be read: {error}") from error
        return found

    def add(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Note the samples some letters became, by key.

        Raises:
            LogError: the ledger cannot be written.
        """
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS fed"
                    " (key BLOB PRIMARY KEY, samples INTEGER NOT NULL) WITHOUT ROWID"
                )
                with db:
                    db.executemany("INSERT OR REPLACE INTO fed VALUES (?, ?)", entries)
        except sqlite3.Error as error:
            raise LogError(f"the ledger of re-fed letters {self._path} cannot be written: {error}") from error


class Spool:
    """Files of letters that wait to be fed.

    Args:
        data_dir: the plant's.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._letters: list[DeadLetter] = []
        self._bytes = 0

    def waiting(self) -> list[Path]:
        """The files there are, oldest first."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def set_aside(self) -> int:
        """How many files were found damaged, in all that time."""
        return set_aside_in(self._folder)

    def put(self, letter: DeadLetter) -> None:
        """Add a letter; `flush` after the last.

        Raises:
            OSError: the disk would not take it.
        """
        self._letters.append(letter)
        self._bytes += len(letter.raw)
        if len(self._letters) >= _MOST_LETTERS or self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was put, whole and durable, into a file that the source takes up.

        Raises:
            OSError: the disk would not take it.
        """
        letters, self._letters, self._bytes = self._letters, [], 0
        if not letters:
            return
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{time.time_ns():020d}{_SUFFIX}"
        place_file(path, encode_record(DeadLetters(letters)))

    def read(self, path: Path) -> list[DeadLetter]:
        """The letters of a file.

        Raises:
            SpoolDamage: it is damaged.
            OSError: it cannot be read.
        """
        data = path.read_bytes()
        try:
            record = decode_record(data)
        except LogError as error:
            raise SpoolDamage(f"{path}: {error}") from error
        if not isinstance(record, DeadLetters):
            raise SpoolDamage(f"{path} holds no dead letters")
        return record.letters


class RefeedSource(SpoolSource):
    """A `Source` that puts the letters of a spool through their decoders again.

    Args:
        data_dir: the plant's.
        readers: by source name, of the sources whose letters can be read again.
        watch: go on looking for new files; else it ends when there are none.
    """

    name = "refeed"
    says = _log

    def __init__(self, data_dir: Path, readers: Mapping[str, Reader], *, watch: bool) -> None:
        super().__init__(watch=watch)
        self._spool, self._ledger = Spool(data_dir), Ledger(data_dir)
        self._readers = readers
        self._fed = self._became = 0

    def waiting(self) -> list[Path]:
        """See `SpoolSource`."""
        return self._spool.waiting()

    def delivery(self, path: Path) -> Delivery:
        """See `SpoolSource`."""
        letters = self._spool.read(path)
        known = self._ledger.fed([key_of(letter) for letter in letters])
        records, fed = self._read(letter for letter in letters if key_of(letter) not in known)
        return Delivery(tuple(records), lambda: self._settle(path, fed), sum(fed.values()))

    def _read(self, letters: Iterable[DeadLetter]) -> tuple[list[Record], dict[bytes, int]]:
        """The records of some letters, and what each that was read whole became."""
        by_source: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            by_source.setdefault(letter.source, []).append(letter)
        records: list[Record] = []
        fed: dict[bytes, int] = {}
        for source, own in by_source.items():
            reader = self._readers.get(source)
            if reader is None:
                continue
            samples, answers = reader.read_again(own)
            if samples is not None:
                records.append(samples)
            for letter, again in zip(own, answers, strict=True):
                if again.samples:
                    fed[key_of(letter)] = again.samples
        return records, fed

    def _settle(self, path: Path, fed: Mapping[bytes, int]) -> None:
        """The samples are durable: take note, and let go of the file; that order loses nothing."""
        try:
            if fed:
                self._ledger.add(fed.items())
            path.unlink(missing_ok=True)
        except (LogError, OSError) as error:
            _log.error("%s: it was fed and will be once more, as duplicates: %s", path, error)
        self._fed += len(fed)
        self._became += sum(fed.values())

    def say(self) -> None:
        """See `SpoolSource`."""
        if self._fed:
            _log.info("%d dead letters became %d samples", self._fed, self._became)
            self._fed = self._became = 0
