"""The loop's own two records: that it started, and that this host's clock was set."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from test_fold import new_fold
from test_sync import NAMES, SECOND, Heard, rows
from twinloop.log.local import LocalLog
from twinloop.log.reader import read_entries
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.metrics import Metrics
from twinloop.loop.supervise import Supervisor
from twinloop.loop.sync import Loop, Parts
from twinloop.records import ClockSet, EventKind, Outputs, Record, Samples, Started, Tick, decode_record
from twinloop.sources.clock import Clock
from twinloop.stores.local import LocalStore


class WallClock:
    """This host's wall clock, and how far it was set."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.offset_ns


def loop_on(folder: Path, wall: WallClock | None) -> Loop:
    parts = Parts(
        log=LocalLog(folder / "log"),
        outputs=LocalLog(folder / "outputs", durable=False),
        new_fold=new_fold,
        store=LocalStore(folder / "store", NAMES),
        metrics=Metrics(),
        checkpoints=Checkpoints(folder / "checkpoints"),
        clock=Clock(SECOND // 50, [SECOND // 50], wall_ns=wall) if wall else None,
    )
    return Loop(parts, lambda append: [Supervisor(Heard(rows(20), stay=True), append)])


def recorded(folder: Path) -> list[Record]:
    return [decode_record(data) for _, data in read_entries(folder / "log", -1, 100_000)]


async def live(folder: Path, wall: WallClock, *, ticks: int = 8, set_ns: int = 0) -> None:
    """Run until some records were folded, set the clock, run until that was told and some more were."""
    loop, stop = loop_on(folder, wall), asyncio.Event()
    seen = {"ticks": 0, "told": 0}

    def heard(outputs: Outputs) -> None:
        seen["told"] += any(event.kind is EventKind.CLOCK_SET for event in outputs.events)
        seen["ticks"] += not outputs.samples
        if seen["ticks"] == ticks:
            wall.offset_ns += set_ns
        if seen["ticks"] >= 2 * ticks and (seen["told"] or not set_ns):
            stop.set()

    loop.listen(heard)
    async with asyncio.timeout(30):
        await loop.run(stop)


async def test_each_start_stands_in_the_log_before_what_is_heard_then(tmp_path: Path) -> None:
    for _ in range(3):
        await live(tmp_path, WallClock())
    records = [each for each in recorded(tmp_path) if isinstance(each, Started | Samples | Tick)]
    starts = [n for n, each in enumerate(records) if isinstance(each, Started)]
    assert len(starts) == 3
    for first, last in zip(starts, [*starts[1:], len(records)], strict=True):
        kinds = {type(each) for each in records[first + 1 : last]}
        assert kinds == {Samples, Tick}


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_was_set_is_told_of_once_and_before_any_tick_of_the_new_time(
    tmp_path: Path, hours: int
) -> None:
    by_ns = hours * 3600 * SECOND
    await live(tmp_path, WallClock(), set_ns=by_ns)
    records = recorded(tmp_path)
    (told,) = [each for each in records if isinstance(each, ClockSet)]
    assert abs(told.by_ns - by_ns) < SECOND
    before, after = (
        [each.time for each in part if isinstance(each, Tick)]
        for part in (records[: records.index(told)], records[records.index(told) :])
    )
    assert all(0 < b - a < SECOND for a, b in itertools.pairwise([*before, *(t - by_ns for t in after)]))
    assert 0 < after[0] - told.time < SECOND


async def test_where_sources_bring_their_own_ticks_no_start_is_recorded(tmp_path: Path) -> None:
    loop, stop = loop_on(tmp_path, None), asyncio.Event()
    stop.set()
    await loop.run(stop)
    assert not any(isinstance(each, Started) for each in recorded(tmp_path))
