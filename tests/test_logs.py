"""What every log promises, and what the local one adds: files, trimming, other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from support.entries import dense
from twinloop.errors import LogError
from twinloop.log.dictionary import Dictionary
from twinloop.log.files import log_files
from twinloop.log.local import LocalLog
from twinloop.log.log import Log
from twinloop.log.memory import MemoryLog
from twinloop.log.reader import read_entries

MakeLog = Callable[[int], Awaitable[Log]]


@pytest.fixture(params=["memory", "local"])
async def make_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeLog]:
    made: list[Log] = []

    async def make(max_bytes: int = 1 << 30) -> Log:
        log: Log
        if request.param == "memory":
            log = MemoryLog(max_bytes=max_bytes)
        else:
            log = LocalLog(tmp_path / "log", max_bytes=max_bytes, file_bytes=1 << 16)
        made.append(log)
        return log

    yield make
    for log in made:
        await log.close()


async def test_entries_come_back_in_order_with_ascending_offsets(make_log: MakeLog) -> None:
    log = await make_log(1 << 30)
    offsets = await asyncio.gather(*[log.append(b"%d" % i, i) for i in range(500)])
    assert offsets == list(range(500))
    assert log.read(-1, 1000) == [(i, b"%d" % i) for i in range(500)]
    assert log.read(498) == [(499, b"499")]
    assert log.read(499) == []


async def test_a_waiting_reader_wakes_when_an_entry_is_durable(make_log: MakeLog) -> None:
    log = await make_log(1 << 30)
    waiting = asyncio.create_task(log.wait(-1))
    await asyncio.sleep(0)
    assert not waiting.done()
    await log.append(b"x", 1)
    await asyncio.wait_for(waiting, 5)


async def test_a_full_log_makes_appends_wait_until_its_readers_let_go(make_log: MakeLog) -> None:
    log = await make_log(1 << 18)
    taken = [asyncio.ensure_future(log.append(dense(1 << 14), i)) for i in range(40)]
    await asyncio.wait(taken, timeout=1)
    held = [future for future in taken if not future.done()]
    assert held, "a log over its bound went on taking entries"
    while held:
        log.release(log.stats().last_offset)
        await asyncio.wait(held, timeout=0.05)
        held = [future for future in taken if not future.done()]
    assert log.stats().last_offset == 39
    assert log.stats().trimmed > 0
    assert log.stats().size_bytes <= 1 << 18


async def test_what_was_trimmed_is_an_error_and_never_a_silent_gap(make_log: MakeLog) -> None:
    log = await make_log(1 << 18)
    for i in range(60):
        await log.append(dense(1 << 14), i)
        log.release(i)
    assert log.stats().first_offset > 0
    with pytest.raises(LogError, match="trimmed"):
        log.read(-1)


async def test_a_log_far_smaller_than_what_passes_through_it_never_stops(make_log: MakeLog) -> None:
    log = await make_log(1 << 18)
    for i in range(400):
        group = [log.append(bytes(64), i) for _ in range(100)]
        await asyncio.wait_for(asyncio.gather(*group), 5)
        log.release(log.stats().last_offset)
    stats = log.stats()
    assert stats.last_offset == 39_999
    assert stats.first_offset > 0
    assert [offset for offset, _ in log.read(stats.last_offset - 3)] == [39_997, 39_998, 39_999]


async def test_a_closed_log_refuses_entries(make_log: MakeLog) -> None:
    log = await make_log(1 << 30)
    await log.close()
    with pytest.raises(LogError, match="closed"):
        await log.append(b"x", 1)


async def test_a_reopened_local_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16)
    for i in range(50):
        await log.append(dense(4096, i), i)
    await log.close()
    assert len(log_files(tmp_path)) > 1
    again = LocalLog(tmp_path, file_bytes=1 << 16)
    assert await again.append(b"next", 50) == 50
    assert [offset for offset, _ in again.read(-1)] == list(range(51))
    assert again.read(9, 1) == [(10, dense(4096, 10))]
    await again.close()


async def test_another_reader_sees_committed_entries_while_the_log_is_open(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16)
    for i in range(50):
        await log.append(dense(4096, i), i)
    assert [offset for offset, _ in read_entries(tmp_path, 20)] == list(range(21, 50))
    await log.close()
    assert [offset for offset, _ in read_entries(tmp_path, -1)] == list(range(50))


async def test_a_file_that_is_just_being_made_is_read_as_empty(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    await log.append(b"x", 1)
    sqlite3.connect(tmp_path / f"{1:020d}.sqlite").close()
    (tmp_path / f"{2:020d}.sqlite").touch()
    assert list(read_entries(tmp_path, -1)) == [(0, b"x")]
    await log.close()


async def test_old_files_go_by_age_once_they_are_released(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16, max_age_ns=100)
    for i in range(60):
        await log.append(dense(8192), i * 10)
    assert log.stats().first_offset == 0
    log.release(59)
    await log.append(b"", 600)
    assert log.stats().first_offset > 0
    assert all(int(path.stem) >= log.stats().first_offset for path in log_files(tmp_path))
    await log.close()


async def test_a_log_that_cannot_be_written_says_so_to_everyone_who_waits(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    await log.append(b"fine", 1)
    log._db.close()
    with pytest.raises(LogError, match="cannot be written"):
        await log.append(b"x", 2)
    with pytest.raises(LogError, match="cannot be written"):
        await log.wait(0)
    await log.close()


async def test_a_log_that_cannot_begin_its_next_file_says_so_to_everyone_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16)

    def refuse(path: Path, *, durable: bool) -> sqlite3.Connection:  # noqa: ARG001 - as the real one
        raise LogError("disk full")

    monkeypatch.setattr("twinloop.log.local.open_file", refuse)
    taken = [log.append(dense(1 << 14), i) for i in range(20)]
    answers = await asyncio.wait_for(asyncio.gather(*taken, return_exceptions=True), 5)
    assert isinstance(answers[-1], LogError)
    with pytest.raises(LogError, match="disk full"):
        await asyncio.wait_for(log.wait(19), 5)
    await log.close()


async def test_a_bug_in_the_writer_reaches_everyone_who_waits_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path)
    monkeypatch.setattr(log, "_commit", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(log.append(b"x", 1), 5)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(log.wait(-1), 5)
    await log.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_reader_that_holds_on_delays_neither_appends_nor_the_event_loop(
    tmp_path: Path, *, durable: bool
) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16, durable=durable)
    for i in range(5):
        await log.append(dense(4096), i)
    [path] = log_files(tmp_path)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        held = reader.execute("SELECT offset FROM entries")
        held.fetchone()
        async with asyncio.timeout(5):
            for i in range(5, 50):
                await log.append(dense(4096), i)
            await log.sync()
        assert len(log_files(tmp_path)) > 1
        assert len(held.fetchall()) == 4
    await log.close()
    assert [offset for offset, _ in read_entries(tmp_path, -1)] == list(range(50))


async def test_a_synced_log_has_put_all_that_can_be_read_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path / "log", file_bytes=1 << 16, durable=False)
    lost = tmp_path / "lost"
    on_disk: dict[int, bytes] = {}

    def sync(handle: int) -> None:
        """Remember what a power cut would leave of the file."""
        on_disk[os.fstat(handle).st_ino] = (
            b"" if os.fstat(handle).st_mode & 0o040000 else os.pread(handle, 1 << 24, 0)
        )

    monkeypatch.setattr("os.fsync", sync)
    for i in range(20):
        await log.append(b"%d" % i, i)
    [path] = log_files(log.directory)
    # A reader that holds on keeps SQLite from checkpointing, and so from syncing anything itself.
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.execute("SELECT offset FROM entries").fetchone()
        await log.sync()
        journal = path.with_name(f"{path.name}-wal")
        lost.mkdir()
        (lost / path.name).write_bytes(path.read_bytes())
        (lost / journal.name).write_bytes(on_disk[journal.stat().st_ino])
    await log.close()
    assert [offset for offset, _ in read_entries(lost, -1)] == list(range(20))


async def test_the_file_with_the_newest_entry_stays_so_that_readers_know_how_far_it_went(
    tmp_path: Path,
) -> None:
    log = LocalLog(tmp_path, max_bytes=1 << 18)
    log.release(1000)
    await log.append(b"small", 1)
    await log.append(dense(1 << 18), 2)
    await log.close()
    again = LocalLog(tmp_path, max_bytes=1 << 18)
    assert again.stats().last_offset == 1
    assert [offset for offset, _ in again.read(0)] == [1]
    assert await asyncio.wait_for(again.append(b"next", 3), 5) == 2
    await again.close()


def test_numbers_once_given_survive_and_are_never_given_again(tmp_path: Path) -> None:
    path = tmp_path / "dictionary.sqlite"
    first = Dictionary(path)
    assert first.index(("field", "a/b", "degC")) == 0
    assert first.index(("field", "a/b", "degF")) == 1
    assert first.add_tags(["R101.a", "R101.b"]) == {"R101.a": 0, "R101.b": 1}
    first.close()
    again = Dictionary(path)
    assert again.index(("field", "a/b", "degF")) == 1
    assert again.index(("dcs", "a/b", "degF")) == 2
    assert again.key(0) == ("field", "a/b", "degC")
    assert again.add_tags(["R101.c", "R101.a"])["R101.c"] == 2
    with pytest.raises(KeyError):
        again.key(9)
    again.close()
    readonly = Dictionary(path, readonly=True)
    assert readonly.tags["R101.c"] == 2
    readonly.close()


def test_any_thread_may_ask_for_a_number_and_two_threads_get_the_same() -> None:
    dictionary = Dictionary(None)
    keys = [("field", f"a/{i % 50}", "") for i in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(dictionary.index, keys))
    assert numbers == [dictionary.index(key) for key in keys]
    assert sorted(set(numbers)) == list(range(50))
