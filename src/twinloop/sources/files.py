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

from twinloop.batch import NO_TIME, Received
from twinloop.records import Record, Samples, Tick
from twinloop.sources.clock import tiers_due
from twinloop.sources.file_rows import REPLAY, Rows, read_rows
from twinloop.sources.source import Delivery, Intake, Reading

__all__ = ["REPLAY", "FileOptions", "FileSource"]

_ROWS_PER_DELIVERY: Final = 10_000


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
            rows = await asyncio.to_thread(read_rows, path, self._intake)
            for letters in rows.dead:
                yield Delivery((letters,), _no_ack)
            async for delivery in self._rows(rows):
                yield delivery

    async def _rows(self, rows: Rows) -> AsyncIterator[Delivery]:
        """Samples and ticks in the order of their times, some thousand rows a delivery."""
        if not len(rows.time):
            return
        period = self._options.period_ns
        cycle = rows.time // period
        starts = np.flatnonzero(np.diff(cycle, prepend=cycle[:1] - 1)).tolist()
        records: list[Record] = []
        samples = 0
        for first, last in zip(starts, [*starts[1:], len(cycle)], strict=True):
            records.extend(self._ticks_before(int(rows.time[first])))
            records.append(Samples.pack(_received(rows, slice(first, last)), live=False))
            samples += int(last - first)
            if samples >= _ROWS_PER_DELIVERY or self._options.speed:
                await self._pace(int(rows.time[first]))
                yield Delivery(tuple(records), _no_ack, samples)
                records, samples = [], 0
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


def _received(rows: Rows, part: slice) -> Received:
    time = rows.time[part]
    n = len(time)
    return Received.of(
        series=rows.series[part],
        source_time=time,
        server_time=np.full(n, NO_TIME),
        arrival_time=time,
        value=rows.value[part],
        status=rows.status[part],
        reasons=rows.reasons[part],
    )
