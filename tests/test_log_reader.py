"""Laws of reading a log again and again while it is written, and of entries packed in its files."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinloop.log.files import log_files
from twinloop.log.local import LocalLog
from twinloop.log.packing import pack, unpack
from twinloop.log.reader import LogReader, read_entries


async def test_a_reader_sees_what_was_appended_since_it_read_last(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16)
    with LogReader(tmp_path) as reader:
        seen: list[tuple[int, bytes]] = []
        for number in range(300):
            await log.append(os.urandom(1_000), number)
            seen += reader.entries(len(seen) - 1)
        assert [offset for offset, _ in seen] == list(range(300)), "through several files"
        assert len(log_files(tmp_path)) > 3
        assert seen == list(read_entries(tmp_path, -1))
    await log.close()


async def test_a_reader_in_the_midst_of_a_file_is_in_no_other_readers_way(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    for number in range(20):
        await log.append(bytes([number]), number)
    with LogReader(tmp_path) as reader:
        one, two = reader.entries(-1), reader.entries(9)
        assert next(one) == (0, b"\0")
        assert next(two) == (10, b"\x0a")
        assert len(list(one)) == 19
        assert len(list(two)) == 9
        assert next(reader.entries(18)) == (19, b"\x13"), "one given up half way"
        assert list(reader.entries(18)) == [(19, b"\x13")]
    await log.close()


async def test_a_reader_that_took_only_some_is_given_the_rest(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    for number in range(5):
        await log.append(bytes([number]), number)
    with LogReader(tmp_path) as reader:
        assert [offset for offset, _ in reader.entries(-1, 2)] == [0, 1]
        assert [offset for offset, _ in reader.entries(1)] == [2, 3, 4]
        assert not list(reader.entries(4))
        assert [offset for offset, _ in reader.entries(2)] == [3, 4], "and again, from anywhere"
        await log.append(b"more", 5)
        assert [offset for offset, _ in reader.entries(4)] == [5]
    await log.close()


async def test_a_file_that_took_anothers_name_is_opened_anew(tmp_path: Path) -> None:
    for name, entry in (("before", b"old"), ("after", b"new")):
        log = LocalLog(tmp_path / name)
        await log.append(entry, 1)
        await log.close()
    with LogReader(tmp_path / "before") as reader:
        assert list(reader.entries(-1)) == [(0, b"old")]
        [path] = log_files(tmp_path / "after")
        path.replace(tmp_path / "before" / path.name)
        assert list(reader.entries(-1)) == [(0, b"new")]


async def test_a_file_that_is_full_stands_by_itself_though_a_reader_has_it_open(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1 << 16)
    with LogReader(tmp_path) as reader:
        await log.append(os.urandom(1_000), 0)
        assert len(list(reader.entries(-1))) == 1
        while len(log_files(tmp_path)) == 1:
            await log.append(os.urandom(10_000), 1)
        full = log_files(tmp_path)[0]
        assert full.with_name(f"{full.name}-wal").stat().st_size == 0
    await log.close()


def test_a_log_that_is_not_there_has_no_entries(tmp_path: Path) -> None:
    with LogReader(tmp_path / "nowhere") as reader:
        assert not list(reader.entries(-1))


@given(st.binary(max_size=5_000) | st.binary(min_size=1, max_size=40).map(lambda each: each * 100))
@example(b"\xc1")
@example(b"\xc1\0\0\0\0")
@example(b"\xc1" + b"x" * 5_000)
def test_an_entry_is_read_as_it_was_appended_packed_or_not(entry: bytes) -> None:
    assert unpack(pack(entry)) == entry
    assert len(pack(entry)) <= len(entry) + 5


async def test_a_large_entry_takes_less_room_than_it_has_bytes(tmp_path: Path) -> None:
    entry = b"0123456789abcdef" * 10_000
    log = LocalLog(tmp_path)
    await log.append(entry, 1)
    await log.close()
    [path] = log_files(tmp_path)
    assert path.stat().st_size < len(entry) / 4
    assert list(read_entries(tmp_path, -1)) == [(0, entry)]


@pytest.mark.parametrize("stored", [b"\xc1", b"\xc1\xff\xff\xff\x7fabc", b"\xc1\x05\0\0\0abc"])
def test_what_cannot_be_unpacked_is_no_entry(stored: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(stored)


async def test_entries_of_a_file_written_before_there_was_packing_are_read(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    await log.append(b"first", 1)
    await log.close()
    [path] = log_files(tmp_path)
    plain = b"0123456789abcdef" * 1_000
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE entries")
        db.execute("CREATE TABLE entries (offset INTEGER PRIMARY KEY, time INTEGER, data BLOB)")
        db.execute("INSERT INTO entries VALUES (0, 1, ?)", (plain,))
        db.commit()
    assert list(read_entries(tmp_path, -1)) == [(0, plain)]
