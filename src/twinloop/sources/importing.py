"""History on its way in: a spool beside the log, and the source that reads it.

A spool file is whole or not there. The source delivers one as a record of samples that are not live; when
that is durable the file goes. Killed in between, its rows enter the log a second time, where the fold takes
them for the duplicates they are, or the store, which keeps the first row of a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from twinloop.batch import Received
from twinloop.durable import place_file
from twinloop.errors import LogError
from twinloop.records import DeadLetter, DeadLetters, Record, Samples
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.source import Delivery, Intake, Reading
from twinloop.tags import Refusal

__all__ = ["FOLDER", "ImportSource", "ImportSpool", "Part"]

_log = logging.getLogger("twinloop.import")

FOLDER: Final = "import"
"""Of the data directory."""
_SUFFIX: Final = ".rows"
_LOOK_S: Final = 0.5
_PAUSE_S: Final = 0.02
"""Between two files, so that what the plant says now need not wait."""


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

    def put(self, part: Part) -> None:
        """Write some rows, whole and durable, into a file that the source takes up.

        Raises:
            OSError: the disk would not take it.
        """
        self._folder.mkdir(exist_ok=True)
        self._last = max(self._last + 1, time.time_ns())
        place_file(self._folder / f"{self._last:020d}{_SUFFIX}", _encoder.encode(part))

    def read(self, path: Path) -> Part:
        """The rows of a file.

        Raises:
            LogError: it is damaged.
            OSError: it cannot be read.
        """
        try:
            return _decoder.decode(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise LogError(f"{path} holds no rows of history: {error}") from error


class ImportSource:
    """A `Source` that brings the rows of a spool into the log.

    Args:
        data_dir: the plant's.
        intake: that of replayed files.
        watch: go on looking for new files; else it ends when there are none.
    """

    name = "import"

    def __init__(self, data_dir: Path, intake: Intake, *, watch: bool) -> None:
        self._spool = ImportSpool(data_dir)
        self._intake = intake
        self._watch = watch
        self._taken: set[Path] = set()
        self._rows = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        """There is always a spool, if an empty one."""
        deliveries = self._deliveries()
        try:
            yield deliveries
        finally:
            await deliveries.aclose()

    async def check(self, timeout_s: float) -> list[Reading]:
        """Nothing: a spool feeds no tag of its own."""
        del timeout_s
        return []

    async def _deliveries(self) -> AsyncGenerator[Delivery, None]:
        while True:
            waiting = self._spool.waiting()
            self._taken.intersection_update(waiting)
            fresh = [path for path in waiting if path not in self._taken]
            for path in fresh:
                self._taken.add(path)
                delivery = self._delivery(path)
                if delivery is not None:
                    yield delivery
                await asyncio.sleep(_PAUSE_S if self._watch else 0)
            if not self._watch and not fresh:
                return
            if self._watch:
                self._say()
                await asyncio.sleep(_LOOK_S)

    def _delivery(self, path: Path) -> Delivery | None:
        """A file as a delivery; None where it cannot be read, which is set aside."""
        try:
            part = self._spool.read(path)
            records, rows = self._records(part)
        except (LogError, OSError, IndexError) as error:
            _log.error("%s: cannot be taken in, and is set aside: %s", path, error)
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            return None
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

    def _say(self) -> None:
        if self._rows:
            _log.info("%d samples of history were taken in", self._rows)
            self._rows = 0


def _buried(rows: Received, name: str, unit: str, why: Refusal) -> list[DeadLetter]:
    return [
        DeadLetter(int(at), REPLAY, name, f"{float(value)!r} {unit}".strip().encode(), why.reason, why.detail)
        for at, value in zip(rows.arrival_time, rows.value, strict=True)
    ]
