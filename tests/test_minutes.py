"""Windows from minutes have the very digits of windows from samples, however those lie in segments."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from support.twin import eventually
from twinloop.status import BAD, GOOD, UNCERTAIN
from twinloop.stores import local, merging
from twinloop.stores.footers import brief, footer
from twinloop.stores.local import LocalStore
from twinloop.stores.minutes import MINUTE_NS, contested, parts_of, starts_of, windows_of
from twinloop.stores.queries import LocalQueries
from twinloop.stores.rows import SAMPLE_SCHEMA, first_stored
from twinloop.stores.segments import Segment, list_segments
from twinloop.stores.writing import LARGEST_GROUP, ROW_GROUP, row_groups

TAG = NAMES[0]
VALUE = st.floats(-1e6, 1e6).map(lambda value: round(value, 3)) | st.sampled_from([float("nan"), 0.1])
SAMPLE = st.tuples(
    st.just(0), st.integers(-200, 400), VALUE, st.sampled_from([GOOD, UNCERTAIN, BAD]), st.just(0)
)
ENTRIES = st.lists(st.lists(SAMPLE, max_size=12), min_size=1, max_size=12)


def plain(entries: list[list[tuple[int, int, float, int, int]]]) -> LocalQueries:
    """Nothing sealed: every answer comes from the samples themselves."""
    log = OutputLog([samples(offset, *rows) for offset, rows in enumerate(entries)])
    return LocalQueries(Path("/nowhere"), NAMES, UNITS, log.after)


@settings(max_examples=40, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(
    ENTRIES,
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.sampled_from([60, 120, 3600]),
    st.one_of(st.none(), st.integers(-300, 300)),
    st.one_of(st.none(), st.integers(-300, 500)),
    st.booleans(),
)
def test_a_window_is_the_same_to_the_last_bit_wherever_its_samples_lie(
    entries: list[list[tuple[int, int, float, int, int]]],
    sealed: list[bool],
    every: int,
    start: int | None,
    end: int | None,
    wide: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    bounds = [None if each is None else T0 + each * SECOND for each in (start, end)]
    log = OutputLog([samples(offset, *rows) for offset, rows in enumerate(entries)])

    def asked(queries: LocalQueries) -> pa.Table:
        return queries.window(TAG, every * SECOND, bounds[0], bounds[1], uncertain_as_good=wide)

    expected = asked(plain(entries))
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "MERGE_COUNT", 3)
        store = LocalStore(Path(directory), NAMES)
        for entry, seal in zip(log.entries, sealed, strict=False):
            store.write([entry])
            if seal:
                store.seal()
        found = asked(LocalQueries(Path(directory), NAMES, UNITS, log.after))
        store.close()
        closed = asked(LocalQueries(Path(directory), NAMES, UNITS, lambda _after: []))
    assert found.equals(expected)
    assert closed.equals(expected)


def test_parts_that_do_not_overlap_are_not_read_again() -> None:
    rows = pa.table({"tag": [0] * 4, "time": [1, 2, 3, 4], "value": [1.0] * 4, "status": [GOOD] * 4})
    rows = rows.cast(SAMPLE_SCHEMA.empty_table().select(rows.schema.names).schema)
    halves = pa.concat_tables([parts_of(rows.slice(0, 2)), parts_of(rows.slice(2))])
    assert not len(contested(halves))
    overlapping = pa.concat_tables([parts_of(rows.slice(0, 3)), parts_of(rows.slice(2))])
    assert contested(overlapping).tolist() == [0]


def test_a_sum_in_parts_has_the_digits_of_the_sum_at_once() -> None:
    """Plain float64 partial sums of these differ in the last digits for most of the ways to cut them."""
    random = np.random.default_rng(3)
    n = 90_000
    rows = pa.table(
        {
            "tag": np.zeros(n, np.int32),
            "time": np.arange(n, dtype=np.int64) * 100_000_000,
            "value": np.round(random.normal(85, 20, n), 2),
            "status": np.zeros(n, np.uint32),
        }
    )
    expected = windows_of(parts_of(rows, n * SECOND), n * SECOND, uncertain_as_good=False)
    for cut in random.integers(1, n, 200).tolist():
        parts = pa.concat_tables([parts_of(rows.slice(0, cut)), parts_of(rows.slice(cut))])
        assert windows_of(parts, n * SECOND, uncertain_as_good=False).equals(expected)


def test_values_whose_sum_no_float_holds_have_a_mean() -> None:
    rows = pa.table({"tag": [0] * 3, "time": [1, 2, 3], "value": [1.7e308] * 3, "status": [GOOD] * 3})
    rows = rows.cast(SAMPLE_SCHEMA.empty_table().select(rows.schema.names).schema)
    parts = pa.concat_tables([parts_of(rows.slice(0, 2)), parts_of(rows.slice(2))])
    assert windows_of(parts, MINUTE_NS, uncertain_as_good=False)["mean"].to_pylist() == [1.7e308]


def lose(kind: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        for path in directory.glob(f"{kind}-*"):
            path.unlink()

    return damage


def keep_old_minutes(directory: Path) -> None:
    """As where merged minutes were set aside: minutes of parts beside merged samples."""
    merged = next(each for each in list_segments(directory).of("minutes") if brief(each).level)
    merged.path.unlink()


@pytest.mark.parametrize("spoil", [lose("minutes"), keep_old_minutes, lambda _directory: None])
def test_without_minutes_windows_are_made_of_samples(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    log = OutputLog([samples(at, (0, at * 7, float(at)), (1, at, 1.0)) for at in range(60)])
    store = LocalStore(tmp_path, NAMES)
    for at in range(0, 50, 5):
        store.write(log.entries[at : at + 5])
        store.seal()
    assert store.stats.merges == 1
    spoil(tmp_path)
    expected = LocalQueries(Path("/nowhere"), NAMES, UNITS, log.after).window(TAG, MINUTE_NS, None, None)
    assert LocalQueries(tmp_path, NAMES, UNITS, log.after).window(TAG, MINUTE_NS, None, None).equals(expected)


def test_a_merge_in_many_portions_is_the_same_as_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "PART_ROWS", 10)
    names = [f"R{tag}.t" for tag in range(40)]
    log = OutputLog(
        [samples(at, *((tag, at, float(tag * at)) for tag in range(at % 3, 40, 3))) for at in range(24)]
    )
    store = LocalStore(tmp_path, names)
    for entry in log.entries:
        store.write([entry])
        store.seal()
    assert store.stats.merges == 3
    merged = LocalQueries(tmp_path, names, [""] * 40, lambda _after: [])
    never = LocalQueries(Path("/nowhere"), names, [""] * 40, log.after)
    for name in names:
        assert merged.stored(name, None, None).equals(never.stored(name, None, None))


def test_merges_in_the_background_hold_up_no_write_and_are_given_up_on_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    merge = merging._merge_samples

    def slow(*arguments: object) -> None:
        begun.set()
        assert go_on.wait(30)
        merge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "_merge_samples", slow)
    log = OutputLog([samples(at, (0, at, float(at))) for at in range(20)])
    store = LocalStore(tmp_path, NAMES, background=True)
    for entry in log.entries:
        store.write([entry])
        store.seal()
    assert begun.wait(30)
    assert store.covered == 19
    assert store.stats.merges == 0
    closing = threading.Thread(target=store.close)
    closing.start()
    while not store._merger._closing:
        threading.Event().wait(0.001)
    go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert store.stats.merges == 0
    assert not list(tmp_path.glob("*.tmp"))
    assert len(LocalQueries(tmp_path, NAMES, UNITS, lambda _after: []).range(TAG, None, None)) == 20


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes so many segments more, of a sample each, and merges none."""
    monkeypatch.setattr(merging.Merger, "wake", lambda *_, **__: None)
    store, made = LocalStore(tmp_path, NAMES), itertools.count()

    def make_more(more: int) -> None:
        for at in itertools.islice(made, more):
            store.write([samples(at, (0, at, float(at)))])
            store.seal()

    return make_more


def test_what_was_left_unmerged_is_merged_though_newer_segments_stand_behind_it(
    tmp_path: Path, make: Callable[[int], None]
) -> None:
    """Merges in the background lag; then there are always some small segments at the end."""
    make(70)
    while chosen := merging.choose(tmp_path):
        merging.merge(tmp_path, chosen)
    assert [brief(each).level for each in list_segments(tmp_path).of("samples")] == [2, 0, 0, 0, 0, 0, 0]


def test_what_is_far_behind_is_merged_in_one_step(tmp_path: Path, make: Callable[[int], None]) -> None:
    """Eight by eight, the same rows would be written twice."""
    make(63)
    assert not merging.choose(tmp_path, merging.MERGE_WIDTH), "in a flood it waits for more"
    make(1)
    merging.merge(tmp_path, merging.choose(tmp_path, merging.MERGE_WIDTH))
    [merged] = list_segments(tmp_path).of("samples")
    assert brief(merged).level == 2
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    assert queries.range(TAG, None, None)["value"].to_pylist() == [float(at) for at in range(64)]


def test_merges_wait_while_there_is_a_flood_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SEAL_ENTRIES", 1)
    monkeypatch.setattr(merging, "FLOOD_S", 0.2)
    log = OutputLog([samples(at, (0, at, float(at))) for at in range(20)])
    store = LocalStore(tmp_path, NAMES, background=True)
    for entry in log.entries:
        store.write([entry])
        assert store.covered == entry[0], "sealed because it was much"
    eventually(lambda: store.stats.merges, lambda merges: merges > 0)
    store.close()
    assert len(list_segments(tmp_path).of("samples")) < 8


@given(st.lists(st.integers(1, 3 * LARGEST_GROUP), max_size=12))
@settings(max_examples=30, deadline=None)
def test_row_groups_hold_every_row_once_and_a_large_tag_alone(counts: list[int]) -> None:
    tag = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    groups = list(row_groups(tag))
    assert [first for first, _ in groups] == [0, *(last for _, last in groups)][: len(groups)]
    assert (groups[-1][1] if groups else 0) == len(tag)
    for first, last in groups:
        within = np.unique(tag[first:last])
        assert last - first <= (LARGEST_GROUP if len(within) == 1 else ROW_GROUP)
        assert len(within) == 1 or all(2 * counts[each] < ROW_GROUP for each in within)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60), st.booleans())
def test_of_one_tag_and_time_the_first_row_stands_and_all_are_in_order(
    rows: list[tuple[int, int]],
    wide: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    step = 100_000 if wide else 1  # tags beyond two bytes are sorted in another way
    keys = [(tag * step, time) for tag, time in rows]
    first: dict[tuple[int, int], int] = {}
    for at, key in enumerate(keys):
        first.setdefault(key, at)
    table = pa.table(
        {
            "tag": pa.array([key[0] for key in keys], pa.int32()),
            "time": pa.array([key[1] for key in keys], pa.int64()),
            "offset": pa.array(range(len(keys)), pa.int64()),
        }
    )
    found = first_stored(table)["offset"].to_pylist()
    assert found == [first[key] for key in sorted(first)]


def test_a_segment_says_which_tags_and_times_its_row_groups_hold(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, [f"R{tag}.t" for tag in range(2)])
    rows = [(tag, at, 1.0) for tag in range(2) for at in range(ROW_GROUP)]
    store.write([samples(0, *rows)])
    store.close()
    said = footer(Segment(0, 0, "samples", tmp_path))
    assert said.groups[:, :2].tolist() == [[0, 0], [1, 1]]
    assert said.groups_with(1, T0, T0 + SECOND) == [1]
    assert said.groups_with(1, T0 - SECOND, T0) == []


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**63 - 1))
def test_a_window_begins_at_a_multiple_of_its_width_or_where_time_begins(time: int, every: int) -> None:
    expected = max(time // every * every, -(2**63))
    assert starts_of(np.array([time], np.int64), every).tolist() == [expected]
