"""What the embedded store does with its files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.outputs import NAMES, T0, UNITS, OutputLog, batch, samples, values
from twinloop.batch import Batch
from twinloop.errors import StoreBusy
from twinloop.records import DeadLetter, DeadReason, Event, EventKind, Outputs
from twinloop.stores import local, merging
from twinloop.stores.footers import brief
from twinloop.stores.latest import latest_path
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.rows import tables
from twinloop.stores.segments import Segment, list_segments, write_segment

TAG = NAMES[0]


def entry(offset: int) -> tuple[int, Outputs]:
    """A sample a second, an event and a dead letter."""
    at = T0 + offset
    event = Event(at, "field", EventKind.LINK_UP, after=str(offset))
    letter = DeadLetter(at, "field", "a/b", str(offset).encode(), DeadReason.UNDECODABLE, "")
    row = batch([(0, offset, float(offset))])
    return offset, Outputs(offset, at, row.buffers(), events=[event], dead=[letter])


@pytest.fixture
def log() -> OutputLog:
    return OutputLog([entry(offset) for offset in range(100)])


@pytest.fixture
def queries(tmp_path: Path, log: OutputLog) -> LocalQueries:
    return LocalQueries(tmp_path, NAMES, UNITS, log.after)


def fill(directory: Path, seals: int, log: OutputLog) -> LocalStore:
    """A store with one entry a seal."""
    store = LocalStore(directory, NAMES)
    for each in log.entries[:seals]:
        store.write([each])
        store.seal()
    return store


def files(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def assert_whole(queries: LocalQueries, upto: int = 100) -> None:
    """Every entry below `upto` is answered once, of every kind."""
    assert values(queries.range(TAG, None, None)) == [float(each) for each in range(upto)]
    assert queries.events(None, None)["after"].to_pylist() == [str(each) for each in range(upto)]
    assert queries.dead(None, None)["raw"].to_pylist() == [str(each).encode() for each in range(upto)]
    assert values(queries.latest([TAG])) == [upto - 1.0]


def test_entries_are_held_until_a_minute_has_passed(tmp_path: Path, log: OutputLog) -> None:
    clock = [0.0]
    store = LocalStore(tmp_path, NAMES, clock=lambda: clock[0])
    store.write(log.entries[:1])
    clock[0] = 59.0
    store.write(log.entries[1:2])
    assert (store.covered, store.stats.pending_entries, store.stats.pending_rows) == (-1, 2, 2)
    clock[0] = 60.0
    store.write(log.entries[2:3])
    assert (store.covered, store.stats.pending_entries) == (2, 0)
    assert files(tmp_path, "samples*") == ["samples-0000000000000000-0000000000000002.parquet"]


def test_a_segment_whose_bytes_rotted_is_set_aside_when_a_merge_comes_upon_it(
    tmp_path: Path, log: OutputLog
) -> None:
    store = fill(tmp_path, 7, log)
    path = tmp_path / "samples-0000000000000003-0000000000000003.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)  # the pages, not the footer
    path.write_bytes(content)
    for each in log.entries[7:12]:
        store.write([each])
        store.seal()
    assert (store.covered, store.stats.merges) == (11, 1)
    assert [(damage.first, damage.recovered) for damage in store.damage] == [(3, False)]
    assert path.with_name(path.name + ".damaged").exists()
    queries = LocalQueries(tmp_path, NAMES, UNITS, log.after)
    assert values(queries.range(TAG, None, None)) == [float(each) for each in range(100) if each != 3]
    assert len(queries.events(None, None)) == 100


def test_many_rows_are_sealed_without_waiting(
    tmp_path: Path, log: OutputLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SEAL_ROWS", 10)
    store = LocalStore(tmp_path, NAMES)
    store.write(log.entries[:9])
    assert store.covered == -1
    store.write(log.entries[9:12])
    assert store.covered == 11


def test_a_flood_of_large_dead_letters_is_sealed_before_it_fills_the_memory(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, NAMES)
    letter = DeadLetter(T0, "field", "a/b", bytes(2**20), DeadReason.UNDECODABLE, "")
    for offset in range(200):
        store.write([(offset, Outputs(offset, T0 + offset, dead=[letter]))])
        assert len(store._pending) < 65
    assert store.covered >= 127


def test_a_refused_seal_keeps_everything_and_asks_for_time(
    tmp_path: Path, log: OutputLog, queries: LocalQueries
) -> None:
    store = LocalStore(tmp_path, NAMES)
    store.write(log.entries)
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreBusy, match="cannot seal"):
        store.seal()
    assert store.covered == -1
    tmp_path.mkdir()
    store.write(log.entries)
    store.close()
    assert store.covered == 99
    assert store.stats.failures == 1
    assert_whole(queries)


def test_while_the_disk_refuses_no_more_is_taken_than_fits(
    tmp_path: Path, log: OutputLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SEAL_ROWS", 10)
    store = LocalStore(tmp_path, NAMES)
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreBusy):
        store.write(log.entries[:10])
    with pytest.raises(StoreBusy):
        store.write(log.entries[10:])
    assert store.stats.pending_entries == 10


@pytest.mark.parametrize("seals", [7, 8, 9, 10, 17])
def test_merging_changes_no_answer(tmp_path: Path, log: OutputLog, queries: LocalQueries, seals: int) -> None:
    store = fill(tmp_path, seals, log)
    assert store.stats.merges == seals // 8
    assert len(list_segments(tmp_path).of("samples")) == seals - 7 * (seals // 8)
    assert_whole(queries)
    LocalStore(tmp_path, NAMES)
    assert len(files(tmp_path, "events*")) == seals - 7 * (seals // 8)
    assert_whole(queries)


def test_merged_segments_are_merged_again_until_they_are_large(
    tmp_path: Path, log: OutputLog, queries: LocalQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MERGE_COUNT", 3)
    monkeypatch.setattr(merging, "MERGE_ROWS", 20)
    fill(tmp_path, 50, log)
    rows = [brief(segment).rows for segment in list_segments(tmp_path).of("samples")]
    assert sum(rows) == 50
    assert max(rows) <= 20
    assert len(rows) <= 50 // 10 + 2 * 3 + 1
    assert_whole(queries)


def test_what_a_crash_within_a_seal_left_is_removed_and_delivered_again(
    tmp_path: Path, log: OutputLog, queries: LocalQueries
) -> None:
    """The samples file commits a seal: without it, files of other kinds do not count."""
    fill(tmp_path, 5, log)
    (tmp_path / "samples-0000000000000004-0000000000000004.parquet").unlink()
    (tmp_path / "samples-0000000000000004-0000000000000009.parquet.tmp").write_bytes(b"PAR1")
    assert_whole(queries)
    store = LocalStore(tmp_path, NAMES)
    assert store.covered == 3
    assert not files(tmp_path, "*0004.parquet")
    assert not files(tmp_path, "*.tmp")
    store.write(log.entries)
    store.close()
    assert_whole(queries)


def test_what_a_crash_within_a_merge_left_is_ignored_and_removed(
    tmp_path: Path, log: OutputLog, queries: LocalQueries
) -> None:
    fill(tmp_path, 8, log)
    assert len(files(tmp_path, "samples*")) == 9
    (tmp_path / "samples-0000000000000000-0000000000000007.parquet").unlink()  # renamed last
    assert_whole(queries)
    store = LocalStore(tmp_path, NAMES)
    assert store.covered == 7
    assert_whole(queries)


def test_a_truncated_newest_segment_is_set_aside_and_delivered_again(
    tmp_path: Path, log: OutputLog, queries: LocalQueries, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, 5, log)
    truncate(tmp_path / "samples-0000000000000004-0000000000000004.parquet")
    with caplog.at_level(logging.WARNING):
        assert_whole(queries)
        store = LocalStore(tmp_path, NAMES)
    assert "0004.parquet" in caplog.text
    damage = store.damage[0]
    assert (damage.kind, damage.first, damage.last, damage.recovered) == ("samples", 4, 4, True)
    assert damage.path.name == "samples-0000000000000004-0000000000000004.parquet.damaged"
    assert damage.path.exists()
    assert store.covered == 3
    store.write(log.entries)
    store.close()
    assert_whole(LocalQueries(tmp_path, NAMES, UNITS, log.after))


@pytest.mark.parametrize(("offset", "log_has"), [(4, 5), (2, 3)])
def test_a_damaged_segment_the_log_cannot_replace_costs_its_own_rows_only(
    tmp_path: Path, log: OutputLog, offset: int, log_has: int
) -> None:
    fill(tmp_path, 5, log)
    truncate(tmp_path / f"samples-{offset:016d}-{offset:016d}.parquet")
    store = LocalStore(tmp_path, NAMES, redeliverable_from=log_has)
    assert [damage.recovered for damage in store.damage] == [False]
    assert store.covered == 4
    store.write(log.entries)
    store.close()
    queries = LocalQueries(tmp_path, NAMES, UNITS, log.after)
    assert values(queries.range(TAG, None, None)) == [float(each) for each in range(100) if each != offset]
    assert len(queries.events(None, None)) == 100
    assert not LocalStore(tmp_path, NAMES).damage


def test_a_damaged_segment_the_log_still_has_is_delivered_again_with_all_that_came_after(
    tmp_path: Path, log: OutputLog
) -> None:
    fill(tmp_path, 5, log)
    truncate(tmp_path / "events-0000000000000002-0000000000000002.parquet")
    store = LocalStore(tmp_path, NAMES, redeliverable_from=1)
    assert [(damage.kind, damage.first, damage.recovered) for damage in store.damage] == [("events", 2, True)]
    assert store.covered == 1
    store.write(log.entries)
    store.close()
    assert_whole(LocalQueries(tmp_path, NAMES, UNITS, log.after))


def test_a_damaged_merged_segment_gives_way_to_what_it_was_merged_from(
    tmp_path: Path, log: OutputLog, queries: LocalQueries
) -> None:
    fill(tmp_path, 8, log)
    for kind in ("samples", "events"):
        truncate(tmp_path / f"{kind}-0000000000000000-0000000000000007.parquet")
    store = LocalStore(tmp_path, NAMES, redeliverable_from=8)
    assert [damage.recovered for damage in store.damage] == [True, True]
    assert store.covered == 7
    assert_whole(queries)


@pytest.mark.parametrize("spoil", [Path.unlink, truncate])
def test_lost_latest_values_are_made_anew_from_the_segments(
    tmp_path: Path, log: OutputLog, queries: LocalQueries, spoil: Callable[[Path], None]
) -> None:
    fill(tmp_path, 20, log)
    before = queries.latest([])
    spoil(latest_path(tmp_path, 19))
    assert queries.latest([]) == before
    LocalStore(tmp_path, NAMES)
    assert queries.latest([]) == before


def test_segments_are_sorted_parquet_any_tool_can_open(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, NAMES)
    store.write([samples(0, (1, 1, 1.0), (0, 2, 2.0), (0, 1, float("nan")))])
    store.close()
    path = tmp_path / "samples-0000000000000000-0000000000000000.parquet"
    table = pq.read_table(path)
    assert table["tag"].to_pylist() == [0, 0, 1]
    assert table["value"].to_pylist() == [None, 2.0, 1.0]
    sorting = pq.read_metadata(path).row_group(0).sorting_columns
    assert [column.column_index for column in sorting] == [0, 1]


@example(1.7976931348623157e308, 3e296)
@example(5e-324, 5e-324)
@given(
    st.floats(allow_nan=False, allow_infinity=False, width=64),
    st.floats(0, 1e300, allow_subnormal=True) | st.just(float("nan")),
)
def test_an_estimate_is_kept_to_a_ten_thousandth_of_its_deviation(estimate: float, std: float) -> None:
    one = np.ones(1)
    row = Batch.of(
        tag=[0], time=[T0], value=one, status=[0], reasons=[0], arrival=[T0],
        estimate=[estimate], estimate_std=[std], rate=one,
    )  # fmt: skip
    kept = tables([(0, Outputs(0, T0, row.buffers()))], ["samples"])["samples"]["estimate"].to_pylist()[0]
    assert kept is not None
    assert kept == estimate or abs(kept - estimate) <= std * 1e-4


def test_a_row_of_an_ordinary_tag_takes_less_than_a_dozen_bytes(tmp_path: Path) -> None:
    """A minute of 100 tags, jittered times, two decimals, a settled filter."""
    random = np.random.default_rng(1)
    store = LocalStore(tmp_path, [f"R{tag}.t" for tag in range(100)])
    for second in range(60):
        when = T0 + second * 10**9 + random.integers(0, 50, 100) * 10**6
        value = np.round(random.normal(85, 0.5, 100), 2)
        rows = Batch.of(
            tag=np.arange(100), time=when, value=value, status=np.zeros(100),
            reasons=np.zeros(100), arrival=when + 10**6, estimate=random.normal(85, 0.1, 100),
            estimate_std=np.full(100, 0.2), rate=random.normal(0, 0.01, 100),
        )  # fmt: skip
        store.write([(second, Outputs(second, T0, rows.buffers()))])
    store.close()
    table = pq.ParquetFile(next(tmp_path.glob("samples*"))).metadata
    group = table.row_group(0)
    size = sum(group.column(column).total_compressed_size for column in range(table.num_columns))
    assert table.num_rows == 6_000
    assert size / table.num_rows < 12


def test_an_entry_with_nothing_in_it_is_covered_too(tmp_path: Path, queries: LocalQueries) -> None:
    store = LocalStore(tmp_path, NAMES)
    store.write([(0, Outputs(0, T0))])
    store.close()
    assert store.covered == 0
    assert LocalStore(tmp_path, NAMES).covered == 0
    assert isinstance(queries.latest([]), pa.Table)


def test_leftovers_that_cannot_be_removed_at_the_start_are_removed_before_the_next_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else that seal would commit them: events of a crash would be there twice."""
    event = Event(T0, "R101", EventKind.HEALTH)
    left = Segment(0, 1, "events", tmp_path)
    write_segment(left, tables([(0, Outputs(0, T0, events=[event]))])["events"])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        store = LocalStore(tmp_path, NAMES)
        store.write([(offset, Outputs(offset, T0, events=[event])) for offset in range(3)])
        with pytest.raises(StoreBusy, match="Read-only"):
            store.seal()
    assert "leftovers stay" in caplog.text
    store.seal()
    assert not left.path.exists()
    assert len(LocalQueries(tmp_path, NAMES, UNITS, lambda _after: []).events(None, None)) == 3
