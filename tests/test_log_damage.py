"""A damaged log file never keeps the log from opening, and never makes two entries share an offset."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twinloop.errors import LogError, LogGap
from twinloop.log.files import log_files
from twinloop.log.local import LocalLog
from twinloop.log.reader import read_entries

Harm = Callable[[bytearray, random.Random], bytearray]


async def fill(directory: Path, count: int, size: int = 700) -> dict[int, bytes]:
    """A log of several files, closed; returns what was appended by offset."""
    log = LocalLog(directory, file_bytes=1 << 16)
    chance = random.Random(7)  # noqa: S311 - damage, not secrets
    given = {}
    for i in range(count):
        data = chance.randbytes(chance.randrange(size))
        given[await log.append(data, i)] = data
    await log.close()
    return given


def read_all(log: LocalLog, after: int = -1) -> tuple[dict[int, bytes], list[LogGap]]:
    """All entries by offset, and the gaps met on the way."""
    found: dict[int, bytes] = {}
    gaps: list[LogGap] = []
    while after < log.stats().last_offset:
        try:
            entries = log.read(after)
        except LogGap as gap:
            gaps.append(gap)
            after = gap.last
            continue
        assert [offset for offset, _ in entries] == list(range(after + 1, after + 1 + len(entries)))
        found.update(entries)
        after = entries[-1][0]
    return found, gaps


def cut(content: bytearray, chance: random.Random) -> bytearray:
    return content[: chance.randrange(len(content))]


def zero(content: bytearray, chance: random.Random) -> bytearray:
    """A page that was never written."""
    page = 4096 * chance.randrange(len(content) // 4096)
    content[page : page + 4096] = bytes(4096)
    return content


def tear(content: bytearray, chance: random.Random) -> bytearray:
    """Sectors of something else."""
    at, length = chance.randrange(len(content)), chance.choice([1, 16, 512, 4096, 20_000])
    rubbish = chance.randbytes(length)
    content[at : at + length] = rubbish
    return content


def flip(content: bytearray, chance: random.Random) -> bytearray:
    """One bit, also in the header."""
    at = chance.choice([chance.randrange(100), chance.randrange(len(content))])
    content[at] ^= 1 << chance.randrange(8)
    return content


async def test_whatever_happens_to_the_newest_file_the_log_opens_and_gives_no_offset_twice(
    tmp_path: Path,
) -> None:
    given = await fill(tmp_path / "sound", 400)
    sound = log_files(tmp_path / "sound")
    assert len(sound) > 2
    older = [offset for offset in given if offset < int(sound[-1].stem)]
    damaged = 0
    for seed in range(200):
        chance = random.Random(seed)  # noqa: S311 - damage, not secrets
        directory = tmp_path / "log"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "sound", directory)
        path = directory / sound[-1].name
        harm = chance.choice([cut, zero, tear, flip])
        path.write_bytes(harm(bytearray(path.read_bytes()), chance))
        log = LocalLog(directory, file_bytes=1 << 16)
        new = await log.append(b"after the damage", 1000)
        found, gaps = read_all(log)
        assert found.pop(new) == b"after the damage", (seed, harm)
        assert new > max(given), (seed, harm, new)
        assert all(given[offset] == data for offset, data in found.items()), (seed, harm)
        assert sorted(found) == list(range(len(found))), (seed, harm)
        assert len(found) >= len(older), (seed, harm)
        assert bool(gaps) == (new > max(given) + 1), (seed, harm)
        await log.close()
        damaged += any(directory.glob("*.damaged"))
        again = LocalLog(directory, file_bytes=1 << 16)
        assert await again.append(b"next", 1001) == new + 1, (seed, harm)
        await again.close()
    assert damaged > 100


async def test_a_damaged_newest_file_is_kept_aside_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path, 100)
    path = log_files(tmp_path)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 6000])
    await LocalLog(tmp_path).close()
    assert caplog.text.count("is damaged") == 1
    assert (tmp_path / f"{path.name}.damaged").read_bytes() == content[: len(content) - 6000]
    caplog.clear()
    await LocalLog(tmp_path).close()
    assert not caplog.text


async def test_a_power_cut_in_the_middle_of_a_salvage_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await fill(tmp_path / "log", 100)
    path = log_files(tmp_path / "log")[-1]
    path.write_bytes(path.read_bytes()[:-6000])
    rename = Path.rename
    for allowed in range(3):
        directory = tmp_path / f"cut{allowed}"
        shutil.copytree(tmp_path / "log", directory)
        left = [allowed]

        def cut_off(self: Path, target: Path, left: list[int] = left) -> Path:
            if left[0] == 0:
                raise OSError("power cut")
            left[0] -= 1
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", cut_off)
        if allowed < 2:
            with pytest.raises(LogError, match="power cut"):
                LocalLog(directory)
        monkeypatch.setattr(Path, "rename", rename)
        log = LocalLog(directory)
        assert await log.append(b"new", 1) > max(given)
        found, _ = read_all(log)
        assert [offset for offset in found if offset in given] == list(range(len(found) - 1))
        assert len(found) > int(path.stem)
        await log.close()


APPENDER = """
import asyncio, pathlib, sys
from twinloop.log.local import LocalLog

async def main():
    log = LocalLog(pathlib.Path(sys.argv[1]), file_bytes=1 << 16)
    print("open", log.stats().last_offset, flush=True)
    while True:
        taken = [log.append(b"x" * 997, 1) for _ in range(7)]
        print((await asyncio.gather(*taken))[-1], flush=True)

asyncio.run(main())
"""


def append_and_be_killed(directory: Path, last: int, commits: int) -> tuple[int, int]:
    """The newest offset at the start, and the newest acknowledged when the process was killed."""
    command = [sys.executable, "-c", APPENDER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        opened = int(process.stdout.readline().split()[1])
        for _ in range(commits):
            last = int(process.stdout.readline())
        process.kill()
        for line in process.stdout:
            last = int(line) if line.endswith("\n") else last
    return opened, last


async def test_a_killed_process_loses_nothing_acknowledged_and_leaves_neither_gap_nor_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(3)  # noqa: S311 - damage, not secrets
    last = before = -1
    for _ in range(12):
        opened, last = append_and_be_killed(tmp_path, last, chance.randrange(1, 60))
        assert opened >= before
        before = last
    log = LocalLog(tmp_path)
    assert await log.append(b"next", 1) > last
    found, gaps = read_all(log)
    assert list(found) == list(range(len(found)))
    assert not gaps
    assert not caplog.text
    await log.close()


async def test_a_damaged_older_file_costs_its_own_entries_and_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = await fill(tmp_path, 400)
    files = log_files(tmp_path)
    content = bytearray(files[1].read_bytes())
    content[20_000:30_000] = bytes(10_000)
    files[1].write_bytes(content)
    log = LocalLog(tmp_path, file_bytes=1 << 16)
    found, gaps = read_all(log)
    assert set(given) - set(found) == {o for gap in gaps for o in range(gap.first, gap.last + 1)}
    assert gaps[-1].last < int(files[2].stem)
    assert all(given[offset] == data for offset, data in found.items())
    assert f"to {int(files[2].stem) - 1} are gone" in caplog.text
    assert await log.append(b"goes on", 1) == len(given)
    await log.close()
    assert [offset for offset, _ in read_entries(tmp_path, -1)] == [*sorted(found), len(given)]


async def test_a_changed_bit_within_an_entry_is_found(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    for i in range(10):
        await log.append(bytes([65 + i]) * 100, i)
    await log.close()
    [path] = log_files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"F" * 100, b"F" * 50 + b"G" + b"F" * 49))
    assert [offset for offset, _ in read_entries(tmp_path, -1)] == [0, 1, 2, 3, 4]


async def test_no_offset_below_the_one_others_have_seen_is_given_out(tmp_path: Path) -> None:
    await fill(tmp_path, 10)
    log = LocalLog(tmp_path, first=25)
    assert await log.append(b"new", 1) == 25
    _, [gap] = read_all(log)
    assert (gap.first, gap.last) == (10, 24)
    await log.close()


async def test_a_file_of_the_first_versions_is_read_and_not_appended_to(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / f"{0:020d}.sqlite") as db:
        db.execute("CREATE TABLE entries (offset INTEGER PRIMARY KEY, time INTEGER, data BLOB)")
        db.executemany("INSERT INTO entries VALUES (?, ?, ?)", [(0, 1, b"a"), (1, 2, b"b")])
    log = LocalLog(tmp_path)
    assert await log.append(b"c", 3) == 2
    assert log.read(-1) == [(0, b"a"), (1, b"b"), (2, b"c")]
    await log.close()
    assert len(log_files(tmp_path)) == 2
