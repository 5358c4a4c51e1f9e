"""Thinning: a full log keeps every second sample of each series in a file the fold has not begun to read.

Entries keep their offsets, and what is no sample stays as it is; a record of which nothing is left takes no
room, and is read as one without samples. What is left out is counted in the file
itself, and its arrivals stay: to the fold a thinned tag is slower, never silent. A file that is thinned again
keeps every fourth, and so on; the fold of a thinned log is as deterministic as that of any other.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum, unique
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import Received
from twinloop.errors import LogError
from twinloop.log.files import (
    NOTHING_LEFT,
    Row,
    first_offset,
    is_damage,
    remove_file,
    rows_of,
    size_of,
    write_plain_file,
)
from twinloop.records import Samples, Thinned, decode_record, encode_record

__all__ = ["ASIDE", "Refused", "thin_aside"]

_log = logging.getLogger("twinloop.log")

ASIDE: Final = ".thinned"
_WORTH: Final = 0.05
"""A file of which less than this share of its bytes can go is not written anew."""
_ROW_BYTES: Final = sum(dtype.itemsize for dtype in Received.DTYPES.values())


@unique
class Refused(Enum):
    """Why a file was not thinned."""

    SPENT = "spent"
    """It is not worth it, or the file is damaged: nor will it be later."""
    HELD = "held"
    """A reader of another process did not let go of it: another file may do, and this one later."""
    DISK = "disk"
    """The disk did not take the copy, and would take no other now."""


def thin_aside(path: Path, times_thinned: int) -> tuple[Path, int] | Refused:
    """Write a thinned copy of a closed file beside it, ready to be renamed over it.

    Args:
        path: the file; nobody appends to it.
        times_thinned: what is to stand in the copy.

    Returns:
        Where the copy is, and how many samples it lacks; or why there is none.
    """
    aside = path.with_suffix(ASIDE)
    remove_file(aside)
    try:
        dropped, last = _every_second(path)
        count = int(np.count_nonzero(dropped))
        if count * _ROW_BYTES <= _WORTH * size_of(path):
            return Refused.SPENT
        if not _settled(path):
            return Refused.HELD
        write_plain_file(aside, _worth_keeping(_thinned_rows(path, dropped, last)), times_thinned)
    except (OSError, sqlite3.Error, LogError) as error:
        _log.warning("the log file %s cannot be thinned: %s", path, error)
        remove_file(aside)
        return _why(error, path)
    return aside, count


def _why(error: Exception, path: Path) -> Refused:
    if isinstance(error, LogError) or (isinstance(error, sqlite3.Error) and is_damage(error, path)):
        return Refused.SPENT
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return Refused.HELD if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else Refused.DISK


def _worth_keeping(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows without those of which nothing is left, which reading makes up; the last one always stays."""
    held: Row | None = None
    for row in rows:
        if held is not None and held[2] != NOTHING_LEFT:
            yield held
        held = row
    if held is not None:
        yield held


def _settled(path: Path) -> bool:
    """Whether the file now stands by itself: a write-ahead log must never meet another file of its name."""
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as db:
        mode: str = db.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    return mode == "delete"


def _every_second(path: Path) -> tuple[npt.NDArray[np.bool_], int]:
    """Of all samples of a file in order, which are every second one of their series; the last such record."""
    parts, last = [], -1
    for offset, _, data in rows_of(path, -1):
        record = decode_record(data)
        if isinstance(record, Samples):
            parts += record.columns[:1]
            last = offset
    series = np.frombuffer(b"".join(parts), np.int32)
    order = np.argsort(series, kind="stable")
    ordered = series[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    rank = np.arange(len(series)) - np.repeat(begins, np.diff(np.append(begins, len(series))))
    dropped = np.zeros(len(series), np.bool_)
    dropped[order] = rank % 2 == 1
    return dropped, last


@dataclass(slots=True)
class _Held:
    """The newest record with samples: what follows says whether it has to carry what was left out."""

    offset: int
    time_ns: int
    record: Samples
    data: bytes | None

    def row(self, thinned: Thinned | None = None) -> Row:
        if thinned is None and self.data is not None:
            return self.offset, self.time_ns, self.data
        record = Samples(self.record.columns, self.record.live, thinned)
        return self.offset, self.time_ns, encode_record(record)


@dataclass(slots=True)
class _Heard:
    """By series, the newest arrival left out since the last record that is no sample."""

    newest: dict[int, int] = field(default_factory=dict)

    def add(self, series: list[int], arrival: list[int]) -> None:
        for each, at in zip(series, arrival, strict=True):
            self.newest[each] = max(at, self.newest.get(each, at))

    def take(self, first: int = 0, samples: int = 0) -> Thinned | None:
        series = sorted(self.newest)
        arrival = [self.newest[each] for each in series]
        self.newest = {}
        return Thinned(series, arrival, first, samples) if series or samples else None


def _thinned_rows(path: Path, dropped: npt.NDArray[np.bool_], last: int) -> Iterator[Row]:
    """The file's rows, samples left out; their arrivals stand in the last record before each other kind.

    The first sample of each series stays, and so the file tells of it before it tells what is left out.
    """
    heard, held, at, total = _Heard(), None, 0, int(np.count_nonzero(dropped))
    for offset, time_ns, data in rows_of(path, -1):
        record = decode_record(data)
        if held is not None:
            yield held.row(None if isinstance(record, Samples) else heard.take())
            held = None
        if not isinstance(record, Samples):
            yield offset, time_ns, data
            continue
        if record.thinned is not None:
            heard.add(record.thinned.series, record.thinned.arrival)
            total += record.thinned.samples
        received = record.unpack()
        gone = dropped[at : at + len(received)]
        at += len(received)
        if gone.any():
            left_out = received.take(gone)
            heard.add(left_out.series.tolist(), left_out.arrival_time.tolist())
            kept = received.take(~gone)
            held = _Held(offset, time_ns, Samples(kept.buffers() if len(kept) else [], record.live), None)
        else:
            held = _Held(offset, time_ns, record, data if record.thinned is None else None)
        if offset == last:
            yield held.row(heard.take(first_offset(path), total))
            held = None
