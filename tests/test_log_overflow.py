"""A log that is full: what is dropped is counted and told, what is archived can be read again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.entries import dense
from test_fold import new_fold
from test_sync import Heard, loop_on, rows
from twinloop.errors import LogError, LogGap
from twinloop.log.archive import archive_files, read_archive
from twinloop.log.files import log_files
from twinloop.log.local import LocalLog
from twinloop.log.log import Log, Overflow
from twinloop.log.memory import MemoryLog
from twinloop.log.reader import read_entries
from twinloop.loop.sync import Loop
from twinloop.records import (
    DeadLetter,
    DeadLetters,
    DeadReason,
    EventKind,
    Loss,
    Outputs,
    decode_record,
    encode_record,
)

SIZE = 1 << 18


@pytest.mark.parametrize("kind", ["local", "memory"])
async def test_drop_oldest_never_waits_counts_what_went_and_tells_its_reader_where_to_go_on(
    tmp_path: Path, kind: str
) -> None:
    log: Log = (
        LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.DROP_OLDEST)
        if kind == "local"
        else MemoryLog(max_bytes=SIZE, drop_oldest=True)
    )
    for i in range(100):
        await asyncio.wait_for(log.append(b"%8d" % i + dense(1 << 13), i), 5)
    with pytest.raises(LogGap) as gap:
        log.read(-1)
    entries = log.read(gap.value.last)
    assert [int(data[:8]) for _, data in entries] == list(range(gap.value.last + 1, 100))
    assert gap.value.first == 0
    assert log.stats().dropped == gap.value.last + 1 == 100 - len(entries)
    assert log.stats().size_bytes <= SIZE
    await log.close()


async def test_what_every_reader_has_is_trimmed_and_not_dropped(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.DROP_OLDEST)
    for i in range(100):
        log.release(await log.append(dense(1 << 13), i))
    assert log.stats().dropped == 0
    assert log.stats().trimmed > 0
    await log.close()


async def test_a_log_that_fills_up_asks_its_readers_to_let_go(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE)
    pressed = asyncio.ensure_future(log.pressed())
    taken = [log.append(dense(1 << 13), i) for i in range(40)]
    await asyncio.wait_for(pressed, 5)
    log.release(39)
    await asyncio.wait_for(asyncio.gather(*taken), 5)
    await log.close()


async def test_the_archive_and_the_log_together_give_all_there_was(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, archive_ns=10**12)
    given = [(i, dense(2000, i).hex().encode()) for i in range(200)]  # the archive packs better
    for i, data in given:
        log.release(await log.append(data, i))
    await log.close()
    assert len(archive_files(tmp_path)) > 1
    archived = list(read_archive(tmp_path))
    assert [*archived, *read_entries(tmp_path, -1)] == given
    assert list(read_archive(tmp_path, 30)) == archived[31:]
    assert sum(path.stat().st_size for path in archive_files(tmp_path)) < 0.6 * sum(
        len(data) for _, data in archived
    )


async def test_what_was_read_and_is_dropped_is_archived_too_and_goes_whole_by_age(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.DROP_OLDEST, archive_ns=100)
    for i in range(200):
        await log.append(dense(1 << 13), i)
        assert log.read(i - 1), "read, and not released"
    await log.close()
    archived = list(read_archive(tmp_path))
    kept = [offset for offset, _ in [*archived, *read_entries(tmp_path, archived[-1][0])]]
    assert kept == list(range(kept[0], 200))
    assert 0 < kept[0] <= 100
    assert log.stats().dropped > 100


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.THIN])
async def test_what_nobody_had_read_when_it_was_dropped_is_not_archived(
    tmp_path: Path, overflow: Overflow
) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=overflow, archive_ns=10**12)
    letter = DeadLetter(1, "source", "origin", dense(1 << 13), DeadReason.UNDECODABLE, "")
    for i in range(100):
        await log.append(encode_record(DeadLetters([letter])), i)
    with pytest.raises(LogGap) as gap:
        log.read(-1)
    await log.close()
    assert not list(read_archive(tmp_path))
    assert next(offset for offset, _ in read_entries(tmp_path, -1)) == gap.value.last + 1
    assert log.stats().dropped > 0


async def test_a_damaged_archive_gives_what_is_sound_and_names_the_file_and_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, archive_ns=10**12)
    for i in range(100):
        log.release(await log.append(dense(4000, i), i))
    await log.close()
    whole = list(read_archive(tmp_path))
    path, following = archive_files(tmp_path)[:2]
    begins = int(following.stem.partition("-")[0])
    path.write_bytes(path.read_bytes()[:-30])
    left = list(read_archive(tmp_path))
    lost = len(whole) - len(left)
    assert 0 < lost <= begins
    assert left == whole[: begins - lost] + whole[begins:]
    assert path.name in caplog.text
    assert f"from offset {begins - lost} to {begins - 1} are gone" in caplog.text


async def test_a_commit_interval_makes_few_commits_of_many_appends(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, commit_interval_s=30)
    taken = [log.append(b"%d" % i, i) for i in range(50)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(log.close())
    assert await asyncio.wait_for(asyncio.gather(*taken), 5) == list(range(50))
    await closing
    assert log.stats().commits == 1


def test_a_loss_comes_back_from_its_bytes_and_becomes_one_event() -> None:
    loss = Loss(5, "received", 10, 19, 10)
    assert decode_record(encode_record(loss)) == loss
    [event] = new_fold().step(20, loss).events
    assert event.kind is EventKind.LOST
    assert "10 entries" in event.why
    assert "offsets 10 to 19" in event.why
    [event] = new_fold().step(20, Loss(5, "outputs", 10, 10**9)).events
    assert "unknown number" in event.why


async def heard(loop: Loop) -> list[Outputs]:
    found: list[Outputs] = []
    loop.listen(found.append)
    async with asyncio.timeout(30):
        await loop.run(asyncio.Event())
    return found


async def test_a_hole_in_the_log_is_folded_over_and_becomes_one_event_and_only_once(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log")
    for record in rows(100):
        await log.append(encode_record(record), 1)
    await log.close()
    [path] = log_files(tmp_path / "log")
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM entries WHERE offset BETWEEN 40 AND 59")
    outputs = await heard(loop_on(tmp_path, Heard([])))
    [event] = [event for each in outputs for event in each.events if event.kind is EventKind.LOST]
    assert "20 entries were not folded: offsets 40 to 59" in event.why
    folded = [each.covers for each in outputs if each.samples]
    assert folded == [*range(40), *range(60, 100)]
    # Folded again from the beginning, the hole is known: its record stands in the log.
    shutil.rmtree(tmp_path / "checkpoints")
    again = await heard(loop_on(tmp_path, Heard([])))
    assert [event for each in again for event in each.events if event.kind is EventKind.LOST] == [event]


async def test_a_full_disk_is_one_message_that_says_what_to_do(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    await log.append(b"first", 1)
    log._db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(LogError, match=r"disk is full .*Free some space"):
        await log.append(dense(1 << 20), 2)
    await log.close()
    again = LocalLog(tmp_path)
    assert await again.append(b"goes on", 3) == 1
    await again.close()


PLANT = """
plant: full
data_dir: DATA
tags: {temperature: {unit: degC}}
assets: {R101: {tags: [temperature]}}
log: {max_size: 1GB}
"""


@pytest.mark.parametrize("disk", ["size=3m", "size=3m,ro"])
def test_a_real_disk_that_is_full_or_read_only_ends_a_run_with_one_paragraph(
    tmp_path: Path, disk: str
) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    data = tmp_path / "data"
    data.mkdir()
    if subprocess.run([*inside, f"mount -t tmpfs -o {disk} none {data}"], check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    (tmp_path / "plant.yaml").write_text(PLANT.replace("DATA", str(data)))
    lines = [
        f"2026-03-01T10:00:{i // 1000:02d}.{i % 1000:03d}Z,R101.temperature,{i * 7919 % 100_003 / 7}\n"
        for i in range(60_000)
    ]
    (tmp_path / "rows.csv").write_text("".join(["time,tag,value\n", *lines]))
    replay = f"{sys.executable} -m twinloop replay {tmp_path}/plant.yaml {tmp_path}/rows.csv"
    script = f"mount -t tmpfs -o {disk} none {data} && {replay}"
    done = subprocess.run([*inside, script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if "disk is full" in line or "ead-only" in line]
    assert len(said) == 1, done.stderr
