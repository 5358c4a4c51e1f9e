"""Answers while the store is written, and figures against plain Python."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, batch, samples, values
from twinloop.errors import LogError, QueryError
from twinloop.records import Outputs
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, StatusCode
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.segments import list_segments

TAG = NAMES[0]
STATUSES = [GOOD, UNCERTAIN, BAD, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, StatusCode.BAD_OUT_OF_RANGE]
SAMPLE = st.tuples(
    st.just(0) | st.just(1),
    st.integers(-300, 300),
    st.floats(-1e12, 1e12) | st.just(float("nan")),
    st.sampled_from(STATUSES),
    st.just(0),
)
ENTRIES = st.lists(st.lists(SAMPLE, max_size=8), max_size=12)
Sample = tuple[int, int, float, int, int]


def stored(directory: Path, entries: list[list[Sample]], sealed: list[bool]) -> LocalQueries:
    """Queries over entries of which some are sealed, one by one, and the rest not."""
    log = OutputLog([samples(offset, *rows) for offset, rows in enumerate(entries)])
    store = LocalStore(directory, NAMES)
    for each, seal in zip(log.entries, sealed, strict=False):
        store.write([each])
        if seal:
            store.seal()
    return LocalQueries(directory, NAMES, UNITS, log.after)


def unique(entries: list[list[Sample]], tag: int) -> dict[int, tuple[float, int]]:
    """Value and status by second: of two with one time the first."""
    rows: dict[int, tuple[float, int]] = {}
    for entry in entries:
        for sample_tag, at, value, status, _ in entry:
            if sample_tag == tag:
                rows.setdefault(at, (value, status))
    return rows


@settings(max_examples=30, deadline=None)
@given(
    ENTRIES,
    st.lists(st.booleans(), max_size=12),
    st.sampled_from([1, 7, 60, 3600]),
    st.integers(-300, 300),
    st.integers(-300, 300),
    st.sampled_from([0, 1]),
)
def test_windows_say_what_a_loop_over_the_samples_says(
    entries: list[list[Sample]], sealed: list[bool], every: int, start: int, end: int, worst: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        queries = stored(Path(directory), entries, sealed)
        found = queries.window(
            TAG, every * SECOND, T0 + start * SECOND, T0 + end * SECOND, uncertain_as_good=bool(worst)
        )
        queries.close()
    windows: dict[int, list[tuple[float, int]]] = {}
    for at, row in sorted(unique(entries, 0).items()):
        if start <= at < end:
            windows.setdefault((T0 // SECOND + at) // every * every * SECOND, []).append(row)

    assert found["time"].cast(pa.int64()).to_pylist() == sorted(windows)
    for row, window in zip(found.to_pylist(), (windows[at] for at in sorted(windows)), strict=True):
        used = [value for value, status in window if status >> 30 <= worst and not math.isnan(value)]
        assert row["count"] == len(window)
        assert row["good_fraction"] == sum(status >> 30 == 0 for _, status in window) / len(window)
        assert (row["min"], row["max"]) == (min(used, default=None), max(used, default=None))
        if used:
            scale = max(map(abs, used))
            assert row["mean"] == pytest.approx(math.fsum(used) / len(used), rel=1e-14, abs=1e-14 * scale)
        else:
            assert row["mean"] is None


@settings(max_examples=30, deadline=None)
@given(ENTRIES, st.lists(st.booleans(), max_size=12))
def test_range_and_latest_do_not_depend_on_what_is_sealed(
    entries: list[list[Sample]], sealed: list[bool]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        queries = stored(Path(directory), entries, sealed)
        found = [queries.range(name, None, None) for name in NAMES[:2]]
        latest = queries.latest(NAMES[:2])
        queries.close()
    newest: list[dict[str, object]] = []
    for tag, table in enumerate(found):
        rows = sorted(unique(entries, tag).items())
        assert table["status"].to_pylist() == [status for _, (_, status) in rows]
        assert values(table) == [None if math.isnan(value) else value for _, (value, _) in rows]
        newest += table.slice(len(table) - 1).to_pylist() if rows else []
    assert latest.to_pylist() == newest


def test_windows_before_1970_start_at_multiples_of_their_length_too(tmp_path: Path) -> None:
    row = batch([(0, 0, 1.0)]).with_columns(time=np.array([-1], np.int64))
    queries = LocalQueries(tmp_path, NAMES, UNITS, OutputLog([(0, Outputs(0, 0, row.buffers()))]).after)
    found = queries.window(TAG, 60 * SECOND, None, None)
    assert found["time"].cast(pa.int64()).to_pylist() == [-60 * SECOND]


def test_a_seal_between_listing_and_reading_the_log_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The log is trimmed behind the seal at the worst moment, as the loop would trim it."""
    log = OutputLog([samples(offset, (0, offset, float(offset))) for offset in range(40)])
    store = LocalStore(tmp_path, NAMES)
    waiting = iter(log.entries)
    pauses = iter([True, False, True, True, False])

    def read(after: int) -> Iterable[tuple[int, Outputs]]:
        if next(pauses, False):
            store.write([next(waiting) for _ in range(10)])
            store.seal()
            log.entries = log.after(store.covered)
        return log.after(after)

    queries = LocalQueries(tmp_path, NAMES, UNITS, read)
    for _ in range(3):
        assert values(queries.range(TAG, None, None)) == [float(each) for each in range(40)]


def test_a_log_trimmed_meanwhile_is_asked_again_and_one_that_is_broken_is_not(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, NAMES)

    def read(after: int) -> Iterable[tuple[int, Outputs]]:
        if after < 0:
            store.write([samples(0, (0, 0, 1.0))])
            store.seal()
            raise LogError("trimmed")
        return []

    queries = LocalQueries(tmp_path, NAMES, UNITS, read)
    assert values(queries.range(TAG, None, None)) == [1.0]

    def broken(_after: int) -> Iterable[tuple[int, Outputs]]:
        raise LogError("broken")

    with pytest.raises(LogError, match="broken"):
        LocalQueries(tmp_path, NAMES, UNITS, broken).range(TAG, None, None)


def test_readers_see_every_row_once_while_the_store_seals_and_merges(tmp_path: Path) -> None:
    """Each answer holds at least what was written before it was asked, once, in order."""
    log = OutputLog()
    store = LocalStore(tmp_path, NAMES)
    finished = threading.Event()

    def write() -> None:
        for offset in range(200):
            log.entries.append(samples(offset, (0, offset, float(offset))))
            store.write(log.entries[-1:])
            if offset % 2:
                store.seal()
        finished.set()

    writer = threading.Thread(target=write)
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda after: log.entries[after + 1 :])
    writer.start()
    answers = 0
    try:
        while not finished.is_set() or answers < 3:
            before = len(log.entries)
            found = values(queries.range(TAG, None, None))
            assert found == [float(each) for each in range(len(found))]
            assert len(found) >= before
            newest = values(queries.latest([TAG]))
            assert newest >= found[-1:]
            answers += 1
    finally:
        writer.join()
    assert store.stats.merges > 3


def test_a_damaged_segment_is_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path, NAMES)
    for offset in range(3):
        store.write([samples(offset, (0, offset, float(offset)))])
        store.seal()
    middle = list_segments(tmp_path).of("samples")[1].path
    content = bytearray(middle.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:footer] = bytes(footer - 4)  # the pages
    middle.write_bytes(content)
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert values(queries.range(TAG, None, None)) == [0.0, 2.0]
    assert caplog.text.count(middle.name) == 1


def test_latest_of_all_leaves_out_retired_tags_and_is_in_order_of_names(tmp_path: Path) -> None:
    names = ["b", "a", "gone", ""]
    log = OutputLog([samples(0, (0, 0, 0.0), (1, 0, 1.0), (2, 0, 2.0), (3, 0, 3.0))])
    queries = LocalQueries(tmp_path, names, [""] * 4, log.after, active=[True, True, False, False])
    assert queries.latest([])["tag"].to_pylist() == ["a", "b"]
    assert queries.latest(["gone", "b"])["tag"].to_pylist() == ["gone", "b"]


@pytest.mark.parametrize("sealed", [0, 1, 2, 3])
def test_latest_goes_by_a_source_s_clock_that_was_set_back(tmp_path: Path, sealed: int) -> None:
    back, late = int(Reason.CLOCK_BACK), int(Reason.LATE)
    made = [
        samples(0, (0, 3600.0, 1.0), (1, 3600.0, 7.0)),
        samples(1, (0, 0.0, 2.0, GOOD, late)),
        samples(2, (0, 1.0, 3.0, GOOD, back), (1, 3601.0, 8.0)),
        samples(3, (0, 2.0, 4.0)),
    ]
    store = LocalStore(tmp_path, NAMES)
    for entry in made[:sealed]:
        store.write([entry])
        store.seal()
    log = OutputLog(made)
    queries = LocalQueries(tmp_path, NAMES, UNITS, log.after)
    found = queries.latest([])
    queries.close()
    store.close()
    assert dict(zip(found["tag"].to_pylist(), found["value"].to_pylist(), strict=True)) == {
        NAMES[0]: 4.0,
        NAMES[1]: 8.0,
    }


def test_a_window_of_no_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="longer than nothing"):
        LocalQueries(tmp_path, NAMES, UNITS, lambda _after: []).window(TAG, 0, None, None)


def test_answers_become_pandas_frames(tmp_path: Path) -> None:
    queries = stored(tmp_path, [[(0, 1, 85.0, GOOD, 0), (0, 2, float("nan"), BAD, 0)]], [True])
    frame = queries.range(TAG, None, None).to_pandas()
    assert frame["value"].isna().tolist() == [False, True]
    assert str(frame["time"].dt.tz) == "UTC"
