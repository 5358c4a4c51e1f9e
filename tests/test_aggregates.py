"""Laws of the aggregates, and what a store answers by them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.aggregates import AGGREGATES, Configuration, Result, aggregate, named
from twinloop.aggregates import Rows as Columns
from twinloop.aggregates.asking import ask_aggregates
from twinloop.errors import QueryError
from twinloop.status import BAD, GOOD, PARTIAL, UNCERTAIN, Reason, StatusCode
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

TAG = NAMES[0]
STATUSES = [GOOD, GOOD, GOOD, UNCERTAIN, BAD, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, StatusCode.BAD_NO_DATA]
VALUES = st.floats(-1e300, 1e300) | st.integers(-3, 3).map(float) | st.just(math.nan)
ROWS = st.lists(
    st.tuples(st.integers(0, 400), VALUES, st.sampled_from(STATUSES)),
    max_size=25,
    unique_by=lambda row: row[0],
).map(sorted)
EDGES = st.lists(st.integers(0, 400), min_size=2, max_size=12, unique=True).map(sorted)
CONFIGURATIONS = st.builds(
    Configuration,
    treat_uncertain_as_bad=st.booleans(),
    percent_data_good=st.sampled_from([50.0, 100.0]),
    percent_data_bad=st.sampled_from([50.0, 80.0, 100.0]),
    use_sloped_extrapolation=st.booleans(),
    stepped=st.booleans(),
    resolution_ns=st.sampled_from([1, 3]),
)
Rows = list[tuple[int, float, int]]


def columns(rows: Rows) -> Columns:
    time, value, status = zip(*rows, strict=True) if rows else ((), (), ())
    return Columns(np.array(time, np.int64), np.array(value, float), np.array(status, np.uint32))


def worked_out(rows: Rows, edges: list[int], configuration: Configuration) -> dict[str, Result]:
    return aggregate(columns(rows), np.array(edges, np.int64), AGGREGATES, configuration)


def needed(rows: Rows, low: int, high: int, configuration: Configuration) -> Rows:
    """The rows of a window and, on either side, those as far as two that are usable."""

    def usable(row: tuple[int, float, int]) -> bool:
        worst = 0 if configuration.treat_uncertain_as_bad else 1
        return math.isfinite(row[1]) and row[2] >> 30 <= worst

    before = [row for row in rows if row[0] < low]
    after = [row for row in rows if row[0] >= high]
    sides = []
    for side in (before[::-1], after):
        found = [at for at, row in enumerate(side) if usable(row)]
        sides.append(side[: found[1] + 1] if len(found) > 1 else side)
    return sides[0][::-1] + [row for row in rows if low <= row[0] < high] + sides[1]


@settings(max_examples=60, deadline=None)
@given(ROWS, EDGES, CONFIGURATIONS, st.data())
def test_it_does_not_matter_how_many_windows_are_worked_out_at_once(
    rows: Rows, edges: list[int], configuration: Configuration, data: st.DataObject
) -> None:
    whole = worked_out(rows, edges, configuration)
    at = data.draw(st.integers(1, len(edges) - 1))
    for part in (edges[: at + 1], edges[at:]):
        if len(part) < 2:
            continue
        found = worked_out(needed(rows, part[0], part[-1], configuration), part, configuration)
        first = edges.index(part[0])
        for name in AGGREGATES:
            rest = slice(first, first + len(part) - 1)
            assert found[name].status.tolist() == whole[name].status[rest].tolist(), name
            np.testing.assert_array_equal(found[name].value, whole[name].value[rest], name)


@settings(max_examples=60, deadline=None)
@given(ROWS, EDGES, CONFIGURATIONS)
def test_a_value_is_a_number_where_its_status_is_not_bad_and_shares_stay_shares(
    rows: Rows, edges: list[int], configuration: Configuration
) -> None:
    found = worked_out(rows, edges, configuration)
    for name, (value, status) in found.items():
        assert not np.isinf(value).any(), name
        assert np.isfinite(value[status >> 30 < 2]).all(), name
        if not AGGREGATES[name].keeps:
            assert np.isnan(value[status >> 30 >= 2]).all(), name
    good, bad = found["percent_good"].value, found["percent_bad"].value
    shares = (good + bad)[np.isfinite(good)]
    assert ((shares >= 0) & (shares <= 100 * (1 + 1e-12))).all()
    mean, low, high = (found[name].value for name in ("average", "minimum", "maximum"))
    known = np.isfinite(mean) & np.isfinite(low)
    slack = 1e-9 * np.maximum(abs(low[known]), abs(high[known]))
    assert ((mean[known] >= low[known] - slack) & (mean[known] <= high[known] + slack)).all()


@settings(max_examples=40, deadline=None)
@given(ROWS, EDGES, CONFIGURATIONS)
def test_values_are_what_a_loop_over_the_samples_says(
    rows: Rows, edges: list[int], configuration: Configuration
) -> None:
    found = worked_out(rows, edges, configuration)
    kept = [row for row in rows if row[2] != StatusCode.BAD_NO_DATA]
    for window, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = [row for row in kept if low <= row[0] < high]
        good = [value for _, value, status in inside if status >> 30 == 0 and math.isfinite(value)]
        if kept and kept[0][0] < high and low <= kept[-1][0]:
            assert found["count"].value[window] == len(good)
        if good:
            assert found["minimum"].value[window] == min(good)
            assert found["maximum"].value[window] == max(good)
            assert found["delta"].value[window] == good[-1] - good[0] or math.isinf(good[-1] - good[0])
        else:
            assert np.isnan(found["minimum"].value[window])
        if inside:
            first = inside[0][2] if math.isfinite(inside[0][1]) else max(inside[0][2], BAD)
            assert found["start"].status[window] & ~np.uint32(PARTIAL) == first
            assert found["end"].value[window] == pytest.approx(inside[-1][1], nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(ROWS, EDGES)
def test_a_stepped_mean_is_the_sum_of_its_steps(rows: Rows, edges: list[int]) -> None:
    plain = [(at, float(round(value)) % 100 if math.isfinite(value) else 0.0, GOOD) for at, value, _ in rows]
    found = worked_out(plain, edges, Configuration(stepped=True))["time_average2"].value
    for window, (low, high) in enumerate(itertools.pairwise(edges)):
        held = [
            max((row for row in plain if row[0] <= tick), default=None) if tick <= plain[-1][0] else None
            for tick in range(low, high)
            if plain
        ]
        known = [row[1] for row in held if row is not None]
        assert found[window] == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)


@pytest.mark.parametrize("stepped", [False, True])
def test_a_gap_between_two_samples_has_windows_that_say_what_it_was_then(stepped: bool) -> None:  # noqa: FBT001
    found = worked_out(
        [(0, 0.0, GOOD), (100, 100.0, GOOD)], [*range(0, 101, 20)], Configuration(stepped=stepped)
    )
    held = [0.0] * 5
    assert found["interpolative"].value.tolist() == (held if stepped else [0, 20, 40, 60, 80])
    assert found["time_average2"].value.tolist() == (held if stepped else [10, 30, 50, 70, 90])
    assert found["time_average"].value.tolist() == [10, 30, 50, 70, 90]
    assert found["count"].value.tolist() == [1, 0, 0, 0, 0]


def test_a_slope_goes_on_beyond_the_newest_sample_where_that_is_asked_for() -> None:
    rows = [(0, 0.0, GOOD), (10, 10.0, GOOD)]
    for sloped, value in ((True, 30.0), (False, 10.0)):
        found = worked_out(rows, [30, 40], Configuration(use_sloped_extrapolation=sloped))["interpolative"]
        assert found.value.tolist() == [value]
        assert found.status[0] >> 30 == 1


def test_names_are_the_standards_and_a_wrong_one_is_answered_with_the_nearest() -> None:
    assert named(["TimeAverage2", "percent_good", "percent-good", " MINIMUM "]) == [
        "time_average2",
        "percent_good",
        "minimum",
    ]
    with pytest.raises(QueryError, match="did you mean time_average"):
        named(["time_avrage"])
    with pytest.raises(QueryError, match="must make 100"):
        Configuration(percent_data_good=40, percent_data_bad=40)


def stored(folder: Path, rows: list[tuple[float, float, int]]) -> LocalQueries:
    """Half of the samples sealed, the rest not, in two entries."""
    half = len(rows) // 2
    parts = [[(0, at, value, status, 0) for at, value, status in part] for part in (rows[:half], rows[half:])]
    log = OutputLog([samples(offset, *part) for offset, part in enumerate(parts)])
    store = LocalStore(folder, NAMES)
    store.write(log.entries[:1])
    store.seal()
    return LocalQueries(folder, NAMES, UNITS, log.after)


def asked(queries: LocalQueries, tag: str, every: int, start: int | None, end: int | None) -> pa.Table:
    names = ["count", "average"]
    return ask_aggregates(queries, tag, every, start, end, names=names, configuration=Configuration())


def test_a_store_answers_as_one_pass_over_all_its_samples_would(tmp_path: Path) -> None:
    random = np.random.default_rng(13)
    # Five days with gaps of hours, so that windows are read in several parts with bounds far from them.
    at = np.unique(
        np.concatenate([random.uniform(0, 3600, 300), random.uniform(86_400, 5 * 86_400, 60)]).round()
    )
    picked = random.choice([GOOD, GOOD, UNCERTAIN, BAD], len(at))
    rows = [(float(t), float(t) % 977, int(s)) for t, s in zip(at, picked, strict=True)]
    queries = stored(tmp_path, rows)
    every, start, end = 600 * SECOND, T0 + 1_234 * SECOND, T0 + 5 * 86_400 * SECOND + 7
    first = start // every * every
    edges = np.array([start, *range(first + every, end, every), end])
    for configuration in (Configuration(), Configuration(treat_uncertain_as_bad=False, stepped=True)):
        found = ask_aggregates(queries, TAG, every, start, end, names=AGGREGATES, configuration=configuration)
        all_rows = columns([(T0 + round(t) * SECOND, value, status) for t, value, status in rows])
        whole = aggregate(all_rows, edges, AGGREGATES, configuration, whole_ns=every)
        assert found["time"].cast(pa.int64()).to_pylist() == edges[:-1].tolist()
        for name, result in whole.items():
            assert found[f"{name}_status"].to_pylist() == result.status.tolist(), name
            values = [math.nan if each is None else float(each) for each in found[name].to_pylist()]
            np.testing.assert_array_equal(values, result.value, name)
    queries.close()


def test_open_ends_are_the_first_and_last_sample_and_nothing_is_told_of_before(tmp_path: Path) -> None:
    queries = stored(tmp_path, [(70.0, 1.0, GOOD), (100.0, 2.0, GOOD), (250.0, 3.0, GOOD)])
    minute = 60 * SECOND

    def windows(start: int | None, end: int | None) -> list[tuple[float, float | None]]:
        made = asked(queries, TAG, minute, start, end)
        times = [(each - T0) / SECOND for each in made["time"].cast(pa.int64()).to_pylist()]
        return list(zip(times, made["average"].to_pylist(), strict=True))

    shift = T0 // SECOND % 60  # windows are aligned to the epoch, not to T0
    whole = windows(None, None)
    assert [value for _, value in whole if value is not None] == [1.0, 2.0, 3.0] or shift
    assert whole[0][0] <= 70 < whole[0][0] + 60
    assert whole[-1][0] <= 250 < whole[-1][0] + 60
    assert windows(T0 - 10**15, None) == whole, "before the first sample nothing is known"
    assert windows(T0 + 120 * SECOND, T0 + 130 * SECOND) == [(120.0, None)], "a gap is told"
    assert windows(T0 + 300 * SECOND, None) == []
    assert windows(None, T0) == []
    assert windows(T0 + 300 * SECOND, T0 + 320 * SECOND) == [(300.0, None)]
    with pytest.raises(QueryError, match="more than"):
        asked(queries, TAG, 1, T0 + 70 * SECOND, T0 + 90 * SECOND)
    with pytest.raises(QueryError, match="did you mean"):
        asked(queries, TAG[:-1], minute, None, None)
    queries.close()


class MinutesOnly(LocalQueries):
    """A store that has let go of the samples before a time and kept what its windows say of them."""

    gone = T0 + 9_000 * SECOND

    def range(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        return super().range(tag, max(start or self.gone, self.gone), end, most=most)


def test_what_a_store_has_only_figures_of_is_before_the_beginning(tmp_path: Path) -> None:
    rows = [(float(at), at / 100, GOOD) for at in range(0, 20_000, 50)]
    log = OutputLog([samples(0, *((0, at, value, status, 0) for at, value, status in rows))])
    store = LocalStore(tmp_path, NAMES)
    store.write(log.entries)
    store.seal()
    queries = MinutesOnly(tmp_path, NAMES, UNITS, log.after)
    for start in (None, T0 + 1_000 * SECOND):
        made = asked(queries, TAG, 600 * SECOND, start, T0 + 15_000 * SECOND)
        times = made["time"].cast(pa.int64()).to_pylist()
        assert times[0] <= MinutesOnly.gone < times[0] + 600 * SECOND
        assert sum(made["count"].to_pylist()) == 120
    assert len(asked(queries, TAG, 600 * SECOND, None, T0 + 5_000 * SECOND)) == 0
    queries.close()


def test_late_and_marked_samples_count_like_any_other(tmp_path: Path) -> None:
    log = OutputLog(
        [samples(0, (0, 10, 1.0), (0, 30, 3.0)), samples(1, (0, 20, 2.0, GOOD, int(Reason.LATE)))]
    )
    store = LocalStore(tmp_path, NAMES)
    store.write(log.entries)
    store.seal()
    queries = LocalQueries(tmp_path, NAMES, UNITS, log.after)
    made = asked(queries, TAG, 3600 * SECOND, None, None)
    assert (made["count"].to_pylist(), made["average"].to_pylist()) == ([3], [2.0])
    queries.close()
