"""The loop's promises: nothing received is left behind, nothing is stored twice, and no failure is silent."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from test_fold import START, new_fold, samples
from twinloop.errors import StoreBusy
from twinloop.log.local import LocalLog
from twinloop.loop import sync
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.loop.metrics import Metrics
from twinloop.loop.state import Change
from twinloop.loop.supervise import Append, Supervisor
from twinloop.loop.sync import Loop, Parts
from twinloop.records import Outputs, Record
from twinloop.sources.source import Delivery, Reading
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

NAMES = ["R101.temperature", "R101.pressure"]
SECOND = 1_000_000_000


class Heard:
    """A source that has heard all its records already; it ends by itself unless it is to stay."""

    name = "field"

    def __init__(self, records: Sequence[Record], *, stay: bool = False) -> None:
        self._records = records
        self._stay = stay
        self.acked = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        yield self._deliver()

    async def _deliver(self) -> AsyncIterator[Delivery]:
        for record in self._records:
            yield Delivery((record,), self._ack, 1)
        if self._stay:
            await asyncio.Event().wait()

    def _ack(self) -> None:
        self.acked += 1

    async def check(self, timeout_s: float) -> list[Reading]:
        raise NotImplementedError


def loop_on(
    folder: Path,
    source: Heard,
    *,
    fold: Callable[[], Fold] = new_fold,
    store: LocalStore | None = None,
    outputs: LocalLog | None = None,
) -> Loop:
    parts = Parts(
        log=LocalLog(folder / "log"),
        outputs=outputs or LocalLog(folder / "outputs", durable=False),
        new_fold=fold,
        store=store or LocalStore(folder / "store", NAMES),
        metrics=Metrics(),
        checkpoints=Checkpoints(folder / "checkpoints"),
    )

    def supervisors(append: Append) -> Sequence[Supervisor]:
        return [Supervisor(source, append)]

    return Loop(parts, supervisors)


async def run(folder: Path, source: Heard, *, stop: bool = False, **rest: object) -> Loop:
    loop = loop_on(folder, source, **rest)  # type: ignore[arg-type]
    stopping = asyncio.Event()
    if stop:
        stopping.set()
    async with asyncio.timeout(30):
        await loop.run(stopping)
    return loop


def stored(folder: Path) -> list[float]:
    queries = LocalQueries(folder / "store", NAMES, ["degC", "bar"], lambda _after: [])
    try:
        table = queries.range("R101.temperature", None, None)
    finally:
        queries.close()
    return [float(value) for value in table["value"].to_pylist()]


def rows(count: int, first: int = 0) -> list[Record]:
    return [samples(second, (0, 20.0 + second % 5)) for second in range(first, first + count)]


VALUES = [20.0 + second % 5 for second in range(2000)]


async def test_a_full_output_log_is_emptied_into_the_store_and_holds_nothing_up_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path / "store", NAMES, seal_after_s=1e9)
    small = LocalLog(tmp_path / "outputs", max_bytes=100_000, file_bytes=10_000, durable=False)
    loop = loop_on(tmp_path, Heard(rows(2000)), store=store, outputs=small)
    async with asyncio.timeout(60):
        await loop.run(asyncio.Event())
    assert stored(tmp_path) == VALUES
    assert caplog.text.count("is full: ") == 1


class Refusing(LocalStore):
    """A store whose disk takes nothing."""

    def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        raise StoreBusy(f"no room for {len(entries)} entries", retry_after_s=0.01)


async def test_a_loop_that_works_off_what_ended_sources_left_stops_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "STOP_WITHIN_S", 0.05)
    loop = loop_on(tmp_path, Heard(rows(20)), store=Refusing(tmp_path / "store", NAMES))
    folded, stop = asyncio.Event(), asyncio.Event()
    loop.listen(lambda outputs: folded.set() if outputs.covers >= 20 else None)
    task = asyncio.create_task(loop.run(stop))
    await asyncio.wait_for(folded.wait(), 30)
    stop.set()
    await asyncio.wait_for(task, 30)


async def test_a_source_that_ends_is_folded_and_stored_to_its_end_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "STOP_WITHIN_S", 0.01)
    source = Heard(rows(2000))
    await run(tmp_path, source)
    assert stored(tmp_path) == VALUES
    assert source.acked == 2000


async def test_what_was_heard_before_the_stop_is_taken_folded_and_stored(tmp_path: Path) -> None:
    source = Heard(rows(200), stay=True)
    await run(tmp_path, source, stop=True)
    assert stored(tmp_path) == VALUES[:200]
    assert source.acked == 200


async def test_a_second_run_goes_on_with_state_and_offsets(tmp_path: Path) -> None:
    await run(tmp_path, Heard(rows(50)))
    loop = await run(tmp_path, Heard(rows(50, first=50)))
    assert stored(tmp_path) == VALUES[:100]
    whole = new_fold()
    for offset, record in enumerate(rows(100)):
        whole.step(offset, record)
    assert np.array_equal(loop.fold.estimate.bank.value, whole.estimate.bank.value, equal_nan=True)


@pytest.mark.parametrize("damage", [b"", b"garbage"])
async def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await run(tmp_path, Heard(rows(50)))
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(damage)
    await run(tmp_path, Heard(rows(50, first=50)))
    assert stored(tmp_path) == VALUES[:100]
    assert "checkpoint" in caplog.text


async def test_a_checkpoint_whose_state_no_longer_fits_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run(tmp_path, Heard(rows(30)))
    before = shutil.copytree(tmp_path / "checkpoints", tmp_path / "before")
    await run(tmp_path, Heard(rows(20, first=30)))
    shutil.rmtree(tmp_path / "checkpoints")
    before.rename(tmp_path / "checkpoints")
    change = Change(whole=True, time_ns=0, small=b"another version's state", arrays=())
    Checkpoints(tmp_path / "checkpoints").save(40, change)
    await run(tmp_path, Heard(rows(50, first=50)))
    assert stored(tmp_path) == VALUES[:100]
    assert "the checkpoint at offset 40 is not used" in caplog.text
    assert "on from the checkpoint at offset 30" in caplog.text


async def test_a_store_that_is_busy_gets_everything_later_and_once(tmp_path: Path) -> None:
    class Busy(LocalStore):
        refusals = 3

        def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
            if self.refusals:
                self.refusals -= 1
                raise StoreBusy("the disk is busy", retry_after_s=0.01)
            super().write(entries)

    await run(tmp_path, Heard(rows(300)), store=Busy(tmp_path / "store", NAMES))
    assert stored(tmp_path) == VALUES[:300]


async def test_a_bug_in_the_fold_stops_the_loop_and_arrives_as_itself(tmp_path: Path) -> None:
    class Buggy(Exception):  # noqa: N818 - stands for any bug
        pass

    class Broken(Fold):
        def step(self, offset: int, record: Record) -> Outputs:
            if offset == 20:
                raise Buggy("at record 20")
            return super().step(offset, record)

    def broken() -> Fold:
        fold = new_fold()
        fold.__class__ = Broken
        return fold

    with pytest.raises(Buggy, match="20"):
        await run(tmp_path, Heard(rows(50), stay=True), fold=broken)


async def test_two_loops_over_the_same_records_give_the_same_outputs(tmp_path: Path) -> None:
    seen: list[list[Outputs]] = []
    for name in ("a", "b"):
        loop = loop_on(tmp_path / name, Heard(rows(100)))
        outputs: list[Outputs] = []
        loop.listen(outputs.append)
        await loop.run(asyncio.Event())
        seen.append([each for each in outputs if each.samples])
    assert seen[0] == seen[1]
    assert seen[0][0].batch().time[0] == START
