"""Recorded samples from CSV and Parquet files, with the ticks that would have fallen between them.

A file has the columns `time`, `tag`, `value` and, if it likes, `status`; `tag` is the full name. The
arrival time of a replayed sample is its own time, so that nothing in the fold depends on today's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from twinloop.batch import NO_TIME, Received
from twinloop.errors import ConfigError, PayloadError
from twinloop.records import DeadLetter, DeadLetters, DeadReason, Record, Samples, Tick
from twinloop.sources.clock import tiers_due
from twinloop.sources.source import Delivery, Intake, Reading
from twinloop.sources.timestamps import parse_timestamp
from twinloop.status import status_from_text
from twinloop.tags import Refusal

__all__ = ["REPLAY", "FileOptions", "FileSource"]

REPLAY: Final = "replay"
"""The source name under which replayed samples enter the log."""
_ROWS_PER_DELIVERY: Final = 10_000
_HEAD: Final = 200


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What to replay and how.

    Attributes:
        paths: files, replayed one after the other.
        period_ns: cycle period of the ticks.
        tiers: tier periods, ns.
        settle_ns: ticks go on for so long after the last sample before a gap (long enough for staleness
            to show); the rest of the gap is one tick that carries the number missed.
        speed: recorded seconds per second; 0 for as fast as it goes.
    """

    paths: tuple[Path, ...]
    period_ns: int
    tiers: tuple[int, ...]
    settle_ns: int
    speed: float = 0.0


@dataclass(frozen=True, slots=True)
class _Rows:
    """One file's usable rows in ascending time, and its dead letters."""

    time: npt.NDArray[np.int64]
    series: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint32]
    dead: list[DeadLetter]


class FileSource:
    """Files as a source; see `Source`. It ends when the last row has been given out."""

    def __init__(self, options: FileOptions, intake: Intake) -> None:
        self._options = options
        self._intake = intake
        self._paced: tuple[int, float] | None = None
        self._last_tick = NO_TIME

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return REPLAY

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        """See `Source.connect`."""
        yield self._deliver()

    async def check(self, timeout_s: float) -> list[Reading]:  # noqa: ARG002 - files answer at once
        """A file has no addresses to read; see `Source.check`."""
        return []

    async def _deliver(self) -> AsyncIterator[Delivery]:
        for path in self._options.paths:
            rows = await asyncio.to_thread(_load, path, self._intake)
            if rows.dead:
                yield Delivery((DeadLetters(rows.dead),), _no_ack)
            async for delivery in self._rows(rows):
                yield delivery

    async def _rows(self, rows: _Rows) -> AsyncIterator[Delivery]:
        """Samples and ticks in the order of their times, some thousand rows a delivery."""
        period = self._options.period_ns
        cycle = rows.time // period
        starts = np.flatnonzero(np.diff(cycle, prepend=cycle[:1] - 1)).tolist()
        records: list[Record] = []
        samples = 0
        for first, last in zip(starts, [*starts[1:], len(cycle)], strict=True):
            records.extend(self._ticks_before(int(rows.time[first])))
            records.append(Samples.pack(_received(rows, slice(first, last))))
            samples += int(last - first)
            if samples >= _ROWS_PER_DELIVERY or self._options.speed:
                await self._pace(int(rows.time[first]))
                yield Delivery(tuple(records), _no_ack, samples)
                records, samples = [], 0
        if len(cycle):
            end = int(cycle[-1] + 1) * period
            records.extend(self._ticks_before(end + 1))
        if records:
            yield Delivery(tuple(records), _no_ack, samples)

    def _ticks_before(self, time_ns: int) -> Iterator[Tick]:
        """The ticks due after the last one given out and before a sample's time."""
        period = self._options.period_ns
        if self._last_tick == NO_TIME:
            self._last_tick = time_ns // period * period
        settled = self._last_tick + self._options.settle_ns
        newest = (time_ns - 1) // period * period
        while self._last_tick < newest:
            gap = self._last_tick >= settled
            following = newest if gap else self._last_tick + period
            missed = (following - self._last_tick) // period - 1
            due = tiers_due(self._last_tick, following, self._options.tiers)
            self._last_tick = following
            yield Tick(following, due, missed)

    async def _pace(self, time_ns: int) -> None:
        if not self._options.speed:
            return
        now = asyncio.get_running_loop().time()
        if self._paced is None:
            self._paced = (time_ns, now)
        first_ns, began = self._paced
        due = began + (time_ns - first_ns) / 1e9 / self._options.speed
        await asyncio.sleep(max(0.0, due - now))


def _no_ack() -> None:
    """Files need no acknowledgement."""


def _received(rows: _Rows, part: slice) -> Received:
    time = rows.time[part]
    n = len(time)
    return Received.of(
        series=rows.series[part],
        source_time=time,
        server_time=np.full(n, NO_TIME),
        arrival_time=time,
        value=rows.value[part],
        status=rows.status[part],
        reasons=np.zeros(n),
    )


def _load(path: Path, intake: Intake) -> _Rows:
    """A whole file, sorted by time; rows that cannot be used become dead letters."""
    table = _read(path)
    missing = {"time", "tag", "value"} - set(table.column_names)
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(sorted(missing))}; "
            "a replay file has the columns time, tag, value and, if it likes, status"
        )
    now = intake.now_ns()
    dead: list[DeadLetter] = []

    def bury(row: int, reason: DeadReason, detail: str) -> None:
        raw = ",".join(str(table[name][row].as_py()) for name in table.column_names).encode()
        origin = f"{path.name}: row {row + 1}"
        dead.append(DeadLetter(now, REPLAY, origin, raw[:_HEAD], reason, detail))

    names = table["tag"].cast(pa.string()).to_pylist()
    series_of = {name: intake.series(name or "", "") for name in dict.fromkeys(names)}
    times = _times(table["time"])
    values = _values(table["value"])
    statuses = _statuses(table)
    keep: list[int] = []
    for row, name in enumerate(names):
        answer = series_of[name]
        if isinstance(answer, Refusal):
            bury(row, answer.reason, answer.detail)
        elif times[row] == NO_TIME:
            bury(row, DeadReason.BAD_TIMESTAMP, "the time cannot be read")
        elif values[row] is None:
            bury(row, DeadReason.NOT_NUMERIC, "the value is not a number")
        elif statuses[row] is None:
            bury(row, DeadReason.BAD_QUALITY, "the status is no known word or code")
        else:
            keep.append(row)
    order = np.array(keep, np.int64)[np.argsort(times[keep], kind="stable")]
    return _Rows(
        time=times[order],
        series=np.array([series_of[names[row]] for row in order], np.int32),
        value=np.array([values[row] for row in order], np.float64),
        status=np.array([statuses[row] for row in order], np.uint32),
        dead=dead,
    )


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return pq.read_table(path)
        text = dict.fromkeys(("time", "tag", "value", "status"), pa.string())
        convert = pa_csv.ConvertOptions(column_types=text, strings_can_be_null=True)
        return pa_csv.read_csv(path, convert_options=convert)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: cannot be read as CSV or Parquet: {reason}") from error


def _times(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Times as ns since epoch UTC; `NO_TIME` where they cannot be read."""
    if pa.types.is_timestamp(column.type):
        whole = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
        return np.asarray(pc.fill_null(whole, NO_TIME).to_numpy(), np.int64)
    if pa.types.is_integer(column.type):
        return np.asarray(pc.fill_null(column.cast(pa.int64()), NO_TIME).to_numpy(), np.int64)
    return np.array([_time(text) for text in column.to_pylist()], np.int64)


def _time(text: object) -> int:
    try:
        return parse_timestamp(str(text).strip()) if text is not None else NO_TIME
    except PayloadError:
        return NO_TIME


def _values(column: pa.ChunkedArray) -> list[float | None]:
    """Numbers; an empty cell is a missing value (NaN), a text that is no number None."""
    if not pa.types.is_string(column.type):
        return [float("nan") if v is None else float(v) for v in column.to_pylist()]
    return [_number(text) for text in column.to_pylist()]


def _number(text: str | None) -> float | None:
    if text is None:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return None


def _statuses(table: pa.Table) -> list[int | None]:
    if "status" not in table.column_names:
        return [0] * len(table)
    column = table["status"].to_pylist()
    known = {word: 0 if word is None else status_from_text(str(word)) for word in set(column)}
    return [known[word] for word in column]
