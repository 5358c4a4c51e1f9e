"""What the loop makes of checkpoints: no record folded twice or left out in silence, never a crash loop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.paged import paged_fold, ring_of
from test_checkpoints import FOUND, files, newest
from test_fold import new_fold
from test_sync import NAMES, VALUES, Heard, rows, run, stored
from twinloop.errors import LogError
from twinloop.log.files import log_files
from twinloop.log.local import LocalLog
from twinloop.log.memory import MemoryLog
from twinloop.loop import sync
from twinloop.loop.checkpoint import BASE, Checkpoints
from twinloop.loop.fold import Fold
from twinloop.loop.keep import Keeper, Reached
from twinloop.loop.metrics import Metrics
from twinloop.loop.supervise import Append, Supervisor
from twinloop.loop.sync import Loop, Parts
from twinloop.records import EventKind, Outputs, Record
from twinloop.stores.local import LocalStore

END = 50
"""The newest offset after a source that had 50 records: it tells of its link first."""


def ideal(records: Sequence[Record]) -> Fold:
    fold = new_fold()
    for offset, record in enumerate(records):
        fold.step(offset, record)
    return fold


async def run_as_built(
    folder: Path, source: Heard, *, max_bytes: int = 1 << 30
) -> tuple[Loop, list[Outputs]]:
    """As `build` puts the parts together: offsets go on after the newest checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints", NAMES)
    parts = Parts(
        log=LocalLog(folder / "log", first=checkpoints.newest_offset() + 1, max_bytes=max_bytes),
        outputs=LocalLog(folder / "outputs", durable=False),
        new_fold=new_fold,
        store=LocalStore(folder / "store", NAMES),
        metrics=Metrics(),
        checkpoints=checkpoints,
    )

    def supervisors(append: Append) -> Sequence[Supervisor]:
        return [Supervisor(source, append)]

    loop = Loop(parts, supervisors)
    outputs: list[Outputs] = []
    loop.listen(outputs.append)
    async with asyncio.timeout(60):
        await loop.run(asyncio.Event())
    return loop, outputs


async def test_a_log_removed_by_hand_goes_on_after_the_checkpoint_and_nothing_is_folded_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run_as_built(tmp_path, Heard(rows(50)))
    shutil.rmtree(tmp_path / "log")
    loop, outputs = await run_as_built(tmp_path, Heard(rows(50, first=50)))
    assert "the log's end was removed or damaged" in caplog.text
    assert [each.covers for each in outputs if each.samples] == list(range(END + 2, END + 52))
    assert stored(tmp_path) == VALUES[:100]
    assert loop.fold.digest() == ideal(rows(100)).digest()


async def test_records_gone_after_the_checkpoint_are_told_of_although_their_outputs_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_as_built(tmp_path, Heard(rows(50)))
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "older")
    await run_as_built(tmp_path, Heard(rows(50, first=50)))
    shutil.rmtree(tmp_path / "log")
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "older").rename(tmp_path / "checkpoints")
    monkeypatch.setattr(Checkpoints, "newest_offset", lambda *_, **__: END + 50)  # as the newest outputs say
    _, outputs = await run_as_built(tmp_path, Heard(rows(10, first=100)))
    [event] = [event for each in outputs for event in each.events if event.kind is EventKind.LOST]
    assert f"50 entries were not folded: offsets {END + 1} to {END + 50}" in event.why


async def test_a_checkpoint_beyond_the_end_of_a_log_that_goes_on_below_it_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run(tmp_path, Heard(rows(50)))
    fold = ideal(rows(60))
    Checkpoints(tmp_path / "checkpoints").save(59, fold.change())
    loop = await run(tmp_path, Heard(rows(50, first=50)))
    assert f"the log ends at offset {END}" in caplog.text
    assert "at offset 59, cannot be used: the fold goes on from the checkpoint at offset 50" in caplog.text
    assert "0 records again" in caplog.text
    assert loop.fold.digest() == ideal(rows(100)).digest()


async def test_a_checkpoint_of_another_log_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = rows(40, first=7)
    await run(tmp_path / "other", Heard(other))
    await run(tmp_path / "own", Heard(rows(50)))
    shutil.rmtree(tmp_path / "own" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "own" / "checkpoints")
    loop = await run(tmp_path / "own", Heard(rows(50, first=50)))
    assert "it is of another log" in caplog.text
    assert "from an empty state at the log's oldest entry, offset 0, 51 records again" in caplog.text
    assert loop.fold.digest() == ideal(rows(100)).digest()


@pytest.mark.parametrize("what", ["truncated", "version 1", "directory"])
async def test_whatever_stands_in_every_file_s_place_a_run_starts_and_so_does_the_next(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run(tmp_path, Heard(rows(50)))
    (good,) = files(tmp_path / "checkpoints")
    spare = good.rename(tmp_path / good.name)
    for name in (good.name, f"{5000:020d}-0000beef{BASE}"):
        FOUND[what][0](tmp_path / "checkpoints" / name, spare)
    for first in (50, 60):
        loop = await run(tmp_path, Heard(rows(10, first=first)))
        assert loop.fold.digest() == ideal(rows(first + 10)).digest()
    assert "cannot be used: the fold goes from an empty state" in caplog.text
    assert stored(tmp_path) == VALUES[:70]


async def test_a_full_log_is_let_go_of_before_the_next_checkpoint_would_be_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CHECKPOINT_AT_MOST_EVERY_S", 0.02)
    count = 2500
    loop, _ = await run_as_built(tmp_path, Heard(rows(count)), max_bytes=1 << 18)
    first = int(log_files(tmp_path / "log")[0].stem)
    assert first > 0, "nothing was trimmed: the log was never full"
    assert loop.fold.digest() == ideal(rows(count)).digest()
    kept = newest(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.offset == count


async def test_the_log_keeps_what_two_readable_checkpoints_do_not_cover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CHECKPOINT_EVERY_S", 0.02)
    monkeypatch.setattr(sync, "CHECKPOINT_AT_MOST_EVERY_S", 0.02)
    await run_as_built(tmp_path, Heard(rows(2000)), max_bytes=1 << 18)
    first = int(log_files(tmp_path / "log")[0].stem)
    for path in files(tmp_path / "checkpoints"):
        data = path.read_bytes()
        path.write_bytes(b"")
        kept = newest(tmp_path / "checkpoints")
        assert kept is not None
        assert kept.offset >= first - 1
        path.write_bytes(data)


async def test_what_could_not_be_written_is_in_what_is_written_next(tmp_path: Path) -> None:
    fold, directory = paged_fold(), tmp_path / "checkpoints"
    log = MemoryLog()
    keeper = Keeper(Checkpoints(directory), log)

    async def safe() -> None:
        await asyncio.sleep(0)

    async def keep(offset: int) -> None:
        ring_of(fold).note(offset * 20 % 300, 1.0)
        await keeper.keep(fold, lambda: Reached(offset, None), safe)

    await keep(1)
    directory.rename(tmp_path / "away")
    directory.write_bytes(b"")
    with pytest.raises(LogError, match="cannot be written"):
        await keep(2)
    directory.unlink()
    (tmp_path / "away").rename(directory)
    await keep(3)
    kept = newest(directory)
    assert kept is not None
    assert kept.digest == fold.digest()

    async def never() -> None:
        await asyncio.Event().wait()

    ring_of(fold).note(5, 1.0)
    given_up = asyncio.create_task(keeper.keep(fold, lambda: Reached(4, None), never))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await keep(5)
    kept = newest(directory)
    assert kept is not None
    assert kept.digest == fold.digest()
    await log.close()
