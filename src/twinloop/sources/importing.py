"""History on its way in: a spool beside the log, and the source that reads it.

A spool file is whole or not there. The source delivers one as a record of samples that are not live; when
that is durable the file goes. Killed in between, its rows enter the log a second time, where the fold takes
them for the duplicates they are, or the store, which keeps the first row of a time.
"""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from twinloop.batch import Received
from twinloop.durable import place_file, sync_directory
from twinloop.errors import SpoolDamage
from twinloop.records import DeadLetter, DeadLetters, Record, Samples
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.source import Delivery, Intake
from twinloop.sources.spool import SpoolSource, set_aside_in
from twinloop.tags import Refusal

__all__ = ["FOLDER", "ImportSource", "ImportSpool", "Part"]

_log = logging.getLogger("twinloop.import")

FOLDER: Final = "import"
"""Of the data directory."""
_SUFFIX: Final = ".rows"


class Part(msgspec.Struct, frozen=True):
    """Some rows of history, as a spool file has them.

    Attributes:
        names: (full tag name, unit as the file says it) by the numbers in `columns`.
        columns: `Received.buffers()`, whose series are numbers of `names`.
        dead: rows that cannot be used.
    """

    names: list[tuple[str, str]]
    columns: list[bytes]
    dead: list[DeadLetter] = []

    def __post_init__(self) -> None:
        if self.columns:
            Received.check_buffers(self.columns)
            series = self.received().series
            if len(series) and not 0 <= series.min() <= series.max() < len(self.names):
                raise ValueError("a row is of a series that has no name")

    def received(self) -> Received:
        """The rows."""
        return Received.from_buffers(self.columns) if self.columns else Received.empty()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Part)


class ImportSpool:
    """Files of rows that wait to be taken in.

    Args:
        data_dir: the plant's.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._last = 0

    def waiting(self) -> list[Path]:
        """The files there are, oldest first."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def set_aside(self) -> int:
        """How many files were found damaged, in all that time."""
        return set_aside_in(self._folder)

    def put(self, part: Part) -> None:
        """Write some rows, whole and durable, into a file that the source takes up.

        Raises:
            OSError: the disk would not take it.
        """
        if not self._folder.exists():
            self._folder.mkdir(exist_ok=True)
            sync_directory(self._folder.parent)
        self._last = max(self._last + 1, time.time_ns())
        own = secrets.token_hex(4)  # others put files here, too, and clocks are set back
        place_file(self._folder / f"{self._last:020d}-{own}{_SUFFIX}", _encoder.encode(part))

    def read(self, path: Path) -> Part:
        """The rows of a file.

        Raises:
            SpoolDamage: it is damaged.
            OSError: it cannot be read.
        """
        data = path.read_bytes()
        try:
            return _decoder.decode(data)
        except (ValueError, RecursionError) as error:
            raise SpoolDamage(f"{path} holds no rows of history: {error}") from error


class ImportSource(SpoolSource):
    """A `Source` that brings the rows of a spool into the log.

    Args:
        data_dir: the plant's.
        intake: that of replayed files.
        watch: go on looking for new files; else it ends when there are none.
    """

    name = "import"
    says = _log

    def __init__(self, data_dir: Path, intake: Intake, *, watch: bool) -> None:
        super().__init__(watch=watch)
        self._spool = ImportSpool(data_dir)
        self._intake = intake
        self._rows = 0

    def waiting(self) -> list[Path]:
        """See `SpoolSource`."""
        return self._spool.waiting()

    def delivery(self, path: Path) -> Delivery:
        """See `SpoolSource`."""
        records, rows = self._records(self._spool.read(path))
        return Delivery(records, lambda: self._settle(path, rows), rows)

    def _records(self, part: Part) -> tuple[tuple[Record, ...], int]:
        """A part as records; rows of tags this twin does not know are dead letters."""
        dead = list(part.dead)
        numbers = np.full(len(part.names), -1, np.int32)
        received = part.received()
        for number, (name, unit) in enumerate(part.names):
            answer = self._intake.series(name, unit)
            if isinstance(answer, Refusal):
                dead += _buried(received.take(received.series == number), name, unit, answer)
            else:
                numbers[number] = answer
        series = numbers[received.series]
        known = received.with_columns(series=series).take(series >= 0)
        records: list[Record] = [DeadLetters(dead)] if dead else []
        if len(known):
            records.append(Samples.pack(known, live=False))
        return tuple(records), len(known)

    def _settle(self, path: Path, rows: int) -> None:
        """The rows are durable: let go of the file."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("%s: it was taken in and will be once more, as duplicates: %s", path, error)
        self._rows += rows

    def say(self) -> None:
        """See `SpoolSource`."""
        if self._rows:
            _log.info("%d samples of history were taken in", self._rows)
            self._rows = 0


def _buried(rows: Received, name: str, unit: str, why: Refusal) -> list[DeadLetter]:
    return [
        DeadLetter(int(at), REPLAY, name, f"{float(value)!r} {unit}".strip().encode(), why.reason, why.detail)
        for at, value in zip(rows.arrival_time, rows.value, strict=True)
    ]
