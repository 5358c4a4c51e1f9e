"""A full log that thins: slower tags, never silent ones; counted, told, and the same however often folded."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_fold import START, new_fold, samples, tick
from twinloop.errors import LogGap
from twinloop.log import thinning
from twinloop.log.files import first_offset, log_files, write_plain_file
from twinloop.log.local import LocalLog
from twinloop.log.log import Overflow
from twinloop.log.reader import read_entries
from twinloop.log.thinning import Refused, thin_aside
from twinloop.records import (
    EventKind,
    Outputs,
    Record,
    Samples,
    Thinned,
    Tick,
    decode_record,
    encode_record,
)

SIZE = 1 << 18
SECOND = 1_000_000_000


def plant(count: int) -> list[bytes]:
    """A record a second of two tags, one of which is alone in its records, with a tick every ten."""
    made: list[Record] = []
    for i in range(count):
        often = [(1, 2.0 + (i + k) % 3) for k in range(5)] if i % 2 else [(0, 20.0 + i % 5)]
        made.append(samples(i, *often) if i % 10 else tick(i))
    return [encode_record(record) for record in made]


async def fill(log: LocalLog, given: list[bytes]) -> None:
    for at in range(0, len(given), 100):
        taken = [log.append(data, START + at + i) for i, data in enumerate(given[at : at + 100])]
        await asyncio.wait_for(asyncio.gather(*taken), 20)


def rows_of(directory: Path) -> dict[int, bytes]:
    return dict(read_entries(directory, -1))


def by_series(entries: list[bytes]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for data in entries:
        record = decode_record(data)
        if isinstance(record, Samples):
            received = record.unpack()
            for series, value in zip(received.series.tolist(), received.value.tolist(), strict=True):
                found[series].append(value)
    return found


def folded(entries: dict[int, bytes]) -> tuple[list[Outputs], str]:
    fold = new_fold()
    outputs = [fold.step(offset, decode_record(data)) for offset, data in entries.items()]
    return outputs, fold.digest()


async def test_a_full_log_thins_what_nobody_has_read_and_says_so_in_what_is_left(tmp_path: Path) -> None:
    given = plant(2400)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, given)
    kept = rows_of(tmp_path)
    stats = log.stats()
    assert sorted(kept) == list(range(len(given))), "records keep their offsets"
    assert stats.size_bytes <= SIZE
    assert stats.dropped == 0
    before, after = by_series(given), by_series(list(kept.values()))
    lacking = sum(len(before[each]) - len(after[each]) for each in before)
    assert stats.thinned == lacking > 0
    for i, data in enumerate(given):
        if isinstance(decode_record(data), Tick):
            assert kept[i] == data, "what is no sample stays as it is"
    outputs, digest = folded(kept)
    assert folded(kept)[1] == digest
    events = [event for each in outputs for event in each.events]
    assert not [event for event in events if "STALE" in event.why], "what is left out is no silence"
    told = [event.why for event in events if event.kind is EventKind.THINNED]
    assert sum(int(why.split()[0]) for why in told) == stats.thinned
    assert log.read(-1, 5) == list(kept.items())[:5]
    assert log.read(100, 7) == list(kept.items())[101:108]
    await log.close()


async def test_what_a_reader_has_begun_is_never_changed_under_it(tmp_path: Path) -> None:
    given = plant(2000)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, given[:600])
    first = first_offset(log_files(tmp_path)[1])
    assert len(log.read(-1, 10)) == 10
    appending = asyncio.create_task(fill(log, given[600:]))
    while not log.stats().thinned:  # noqa: ASYNC110 - the log sets no event for it
        await asyncio.sleep(0.01)  # between two looks; the condition ends the wait
    assert list(rows_of(tmp_path).values())[:first] == given[:first], "not even the rest of that file"
    log.release(first)
    await appending
    await log.close()


async def test_what_was_read_and_waits_for_a_checkpoint_is_neither_thinned_nor_dropped(
    tmp_path: Path,
) -> None:
    given = plant(1200)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    appending = asyncio.create_task(fill(log, given))
    after = -1
    while after < 1199:
        reading = asyncio.create_task(log.wait(after))
        pressed = asyncio.create_task(log.pressed())
        await asyncio.wait([reading, pressed], return_when=asyncio.FIRST_COMPLETED)
        if entries := log.read(after):
            after = entries[-1][0]
        else:
            log.release(after)
    await appending
    assert (log.stats().thinned, log.stats().dropped) == (0, 0)
    await log.close()


async def test_what_others_have_seen_before_the_log_was_opened_is_not_thinned(tmp_path: Path) -> None:
    given = plant(2000)
    log = LocalLog(tmp_path, max_bytes=SIZE)
    await fill(log, given[:600])
    await log.close()
    known = first_offset(log_files(tmp_path)[-1]) + 10
    again = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN, first=known)
    appending = asyncio.create_task(fill(again, given[600:]))
    await asyncio.wait_for(again.pressed(), 10)
    again.release(known + 10)
    await appending
    kept = rows_of(tmp_path)
    seen = [data for offset, data in kept.items() if offset < known]
    assert seen == given[known - len(seen) : known]
    assert again.stats().thinned > 0
    assert again.stats().dropped == 0
    await again.close()


async def test_when_nothing_more_can_be_left_out_the_oldest_file_goes_and_its_reader_is_told(
    tmp_path: Path,
) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, plant(5_000))
    stats = log.stats()
    assert stats.size_bytes <= SIZE
    assert stats.thinned > 0
    with pytest.raises(LogGap) as gap:
        log.read(-1)
    assert stats.dropped == gap.value.last + 1
    rest = rows_of(tmp_path)
    assert sorted(rest) == list(range(gap.value.last + 1, 5_000))
    for path in log_files(tmp_path)[:-1]:
        held = by_series([data for offset, data in rest.items() if offset >= first_offset(path)])
        assert held.keys() == {0, 1}, "no series goes whole"
    await log.close()


async def test_a_copy_left_by_a_crash_is_removed_and_how_often_a_file_was_thinned_is_known(
    tmp_path: Path,
) -> None:
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, plant(3000))
    await log.close()
    times = {each.path: each.times_thinned for each in log._shelf.files}
    copy = tmp_path / f"{0:020d}.thinned"
    copy.write_bytes(b"half a copy")
    again = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    assert times.items() <= {each.path: each.times_thinned for each in again._shelf.files}.items()
    assert max(times.values()) > 0
    assert not copy.exists()
    await again.close()


async def test_a_disk_that_does_not_take_the_copy_costs_the_oldest_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("twinloop.log.thinning.write_plain_file", refuse)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, plant(3000))
    stats = log.stats()
    assert stats.thinned == 0
    assert stats.dropped > 0
    await log.close()


async def test_a_disk_that_had_no_room_for_a_copy_is_asked_again_before_another_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[int] = []

    def refuse_at_first(*given: Any) -> None:
        if not log.stats().dropped:
            raise OSError(28, "No space left on device")
        begins.append(log.stats().first_offset)
        write_plain_file(*given)

    monkeypatch.setattr("twinloop.log.thinning.write_plain_file", refuse_at_first)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, plant(2400))
    stats = log.stats()
    assert stats.dropped == stats.first_offset == begins[0], "no other file went after the first"
    assert log._shelf.files[0].times_thinned > 0, "it was there when the disk was full"
    assert stats.thinned > 0
    await log.close()


async def test_a_file_that_was_held_by_another_process_is_thinned_once_it_is_let_go(tmp_path: Path) -> None:
    given = plant(3000)
    log = LocalLog(tmp_path, max_bytes=SIZE, overflow=Overflow.THIN)
    await fill(log, given[:600])
    first = log_files(tmp_path)[0]
    with closing(sqlite3.connect(first, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT offset FROM entries").fetchone()
        upto = 600
        while not log.stats().thinned:
            await fill(log, given[upto : upto + 100])
            upto += 100
        assert not log._shelf.files[0].times_thinned, "another one was thinned in its place"
    await fill(log, given[upto : upto + 700])
    assert log._shelf.files[0].path == first
    assert log._shelf.files[0].times_thinned > 0
    assert log.stats().dropped == 0
    await log.close()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=30), st.integers(1, 4))
def test_however_often_a_file_is_thinned_every_tick_knows_the_same_arrivals(
    tmp_path_factory: pytest.TempPathFactory, plan: list[list[int]], passes: int
) -> None:
    """An empty list is a tick, others are the series of one record's samples."""
    directory = tmp_path_factory.mktemp("thin")
    path = directory / f"{7:020d}.sqlite"
    records: list[Record] = [
        samples(at, *[(series, float(at)) for series in each]) if each else tick(at)
        for at, each in enumerate(plan)
    ]
    rows = [(7 + i, i, encode_record(record)) for i, record in enumerate(records)]
    write_plain_file(path, rows, 0)
    lacking = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thinning, "_WORTH", 0.0)
        for times in range(1, passes + 1):
            made = thin_aside(path, times)
            if isinstance(made, Refused):
                break
            made[0].replace(path)
            lacking += made[1]
    thinned = [decode_record(data) for _, data in read_entries(directory, -1)]
    assert heard_at_ticks(thinned) == heard_at_ticks(records)
    before, after = ([series for each in some for series in series_of(each)] for some in (records, thinned))
    assert len(before) - len(after) == lacking
    assert set(before) == set(after)
    told = [each.thinned.samples for each in thinned if isinstance(each, Samples) and each.thinned]
    assert sum(told) == lacking


def series_of(record: Record) -> list[int]:
    return record.unpack().series.tolist() if isinstance(record, Samples) else []


def heard_at_ticks(records: list[Record]) -> list[dict[int, int]]:
    newest: dict[int, int] = {}
    found = []
    for record in records:
        if isinstance(record, Samples):
            received = record.unpack()
            thinned = record.thinned or Thinned()
            for series, at in [
                *zip(received.series.tolist(), received.arrival_time.tolist(), strict=True),
                *zip(thinned.series, thinned.arrival, strict=True),
            ]:
                newest[series] = max(at, newest.get(series, at))
        else:
            found.append(dict(newest))
    return [*found, newest]


def test_a_record_of_which_every_sample_was_left_out_folds_to_nothing_but_renewed_ages() -> None:
    fold = new_fold()
    fold.step(0, samples(0, (0, 20.0)))
    empty = decode_record(encode_record(Samples(thinned=Thinned([0], [START + 9 * SECOND]))))
    assert fold.step(1, empty).is_empty
    assert not [event for event in fold.step(2, tick(10)).events if "STALE" in event.why]
    assert np.isnan(fold.step(3, decode_record(encode_record(Samples()))).batch().value).size == 0
