"""Laws of the filter bank that hold whatever comes, and when it is kept and taken up."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.filters import START_NS, samples, table
from twinloop.batch import NO_TIME, Batch
from twinloop.estimation.kalman import RELATIVE_RATE_NOISE, KalmanBank, Reset
from twinloop.status import BAD, GOOD, UNCERTAIN
from twinloop.tags import SECOND_NS, Tag, TagTable

YEAR_NS = 365 * 86_400 * SECOND_NS

# Whatever comes

GAPS = st.one_of(
    st.sampled_from([0, 1, SECOND_NS, YEAR_NS, -5 * SECOND_NS, -YEAR_NS]), st.integers(0, 10**12)
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        GAPS,
        st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, math.nan, math.inf, 1e99, 1e-300])),
        st.sampled_from([GOOD, GOOD, GOOD, UNCERTAIN, BAD]),
    ),
    max_size=60,
)


def rows_to_batch(rows: list[tuple[int, int, float, int]]) -> Batch:
    return Batch.raw(
        tag=[row[0] for row in rows],
        time=START_NS + np.cumsum([row[1] for row in rows], dtype=np.int64),
        value=[row[2] for row in rows],
        status=[row[3] for row in rows],
    )


def mixed_table(noise: float = 0.5) -> TagTable:
    return TagTable(
        [
            Tag(name="A.given", asset="A", noise=noise, rate_noise=0.02 * noise, rebaseline=3),
            Tag(name="A.found", asset="A"),
            Tag(name="A.on", asset="A", analogue=False),
        ]
    )


@given(rows=ROWS, noise=st.floats(1e-9, 1e9))
@settings(deadline=None)
def test_covariance_stays_symmetric_and_positive_definite(
    rows: list[tuple[int, int, float, int]], noise: float
) -> None:
    bank = KalmanBank(mixed_table(noise))

    result = bank.step(rows_to_batch(rows))

    known = ~np.isnan(result.estimate) & (result.tag == 0)
    assert (result.estimate_std[known] > 0.0).all()
    assert np.isfinite(result.estimate_std[known]).all()
    assert not np.isinf(result.estimate).any()
    if known.any():
        P = bank.covariance(0) / noise**2
        assert P[0, 1] == P[1, 0]
        assert bank._state["d0"][0] > 0.0
        assert bank._state["d1"][0] > 0.0
        assert np.isfinite(P).all()


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(deadline=None)
def test_the_result_does_not_depend_on_how_samples_are_batched(
    rows: list[tuple[int, int, float, int]], cuts: list[int]
) -> None:
    whole, parts = KalmanBank(mixed_table()), KalmanBank(mixed_table())
    batch = rows_to_batch(rows)
    together: list[Reset] = []
    apart: list[Reset] = []

    result = whole.step(batch, together)
    edges = [0, *sorted(cuts), len(batch)]
    pieces = [parts.step(batch.take(slice(start, end)), apart) for start, end in pairwise(edges)]

    assert Batch.concat(pieces).buffers() == result.buffers()
    assert parts.snapshot() == whole.snapshot()
    assert apart == together


@given(rows=ROWS, scale=st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_a_change_of_unit_changes_only_the_unit(
    rows: list[tuple[int, int, float, int]], scale: float
) -> None:
    rows = [row for row in rows if not abs(row[2]) > 1e6]
    tags = [
        Tag(name="A.given", asset="A", noise=0.5, rate_noise=0.02),
        Tag(name="A.default", asset="A", noise=0.5),
        Tag(name="A.on", asset="A", analogue=False),
    ]
    scaled_tags = [
        Tag(name="A.given", asset="A", noise=0.5 * scale, rate_noise=0.02 * scale),
        Tag(name="A.default", asset="A", noise=0.5 * scale),
        Tag(name="A.on", asset="A", analogue=False),
    ]
    batch = rows_to_batch(rows)

    one = KalmanBank(TagTable(tags)).step(batch)
    other = KalmanBank(TagTable(scaled_tags)).step(batch.with_columns(value=batch.value * scale))

    largest = np.abs(batch.value[np.isfinite(batch.value)]).max(initial=1.0)
    np.testing.assert_allclose(other.estimate / scale, one.estimate, rtol=1e-9, atol=1e-9 * largest)
    np.testing.assert_allclose(other.estimate_std / scale, one.estimate_std, rtol=1e-9)
    np.testing.assert_array_equal(other.reasons, one.reasons)


def test_noise_that_is_not_given_is_found_in_any_unit() -> None:
    measured = np.random.default_rng(3).normal(40.0, 0.1, 500)

    celsius = KalmanBank(table(noise=math.nan)).step(samples(measured))
    other = KalmanBank(table(noise=math.nan)).step(samples(measured * 1.8))

    np.testing.assert_allclose(other.estimate, 1.8 * celsius.estimate, rtol=1e-12)
    np.testing.assert_allclose(other.estimate_std, 1.8 * celsius.estimate_std, rtol=1e-9)


def test_a_tag_outside_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the table of 1 tags"):
        KalmanBank(table()).step(samples([1.0]).with_columns(tag=np.array([1], np.int32)))


def test_columns_of_a_log_entry_are_read_as_they_are() -> None:
    batch = samples([1.0, 2.0, 3.0])

    stored = Batch.from_buffers(batch.buffers())

    assert not stored.value.flags.writeable
    expected = KalmanBank(table()).step(batch)
    assert KalmanBank(table()).step(stored).buffers() == expected.buffers()


# Beliefs kept and taken up


def test_a_belief_at_a_time_is_what_a_bad_row_at_that_time_gets() -> None:
    bank = KalmanBank(table())
    bank.step(samples(np.arange(30.0)))
    time = START_NS + 33 * SECOND_NS + 1

    value, std, rate = bank.at(time)
    row = bank.step(samples([0.0], times=[time], status=BAD))

    assert (value[0], std[0], rate[0]) == (row.estimate[0], row.estimate_std[0], row.rate[0])


@given(rows=ROWS, cut=st.integers(0, 60))
@settings(deadline=None)
def test_a_restored_bank_goes_on_bit_for_bit(rows: list[tuple[int, int, float, int]], cut: int) -> None:
    whole, first, second = (KalmanBank(mixed_table()) for _ in range(3))
    batch = rows_to_batch(rows)

    result = whole.step(batch)
    head = first.step(batch.take(slice(0, cut)))
    second.restore(first.snapshot())
    tail = second.step(batch.take(slice(cut, None)))

    assert Batch.concat([head, tail]).buffers() == result.buffers()
    assert second.snapshot() == whole.snapshot()


def test_new_tags_start_afresh_beside_restored_ones() -> None:
    small, large = KalmanBank(table(tags=1)), KalmanBank(table(tags=3))
    small.step(samples(np.arange(30.0)))

    large.restore(small.snapshot())

    assert large.value[0] == small.value[0]
    assert np.isnan(large.value[1:]).all()
    assert large.time_ns[1] == NO_TIME


@pytest.mark.parametrize(("before", "after"), [(0.5, 2.0), (math.nan, 2.0), (0.5, math.nan)])
def test_a_tag_whose_noise_was_edited_keeps_its_belief(before: float, after: float) -> None:
    old, new = KalmanBank(table(noise=before)), KalmanBank(table(noise=after))
    old.step(samples(np.random.default_rng(0).normal(10.0, 0.5, 200)))

    new.restore(old.snapshot())

    assert new.value[0] == old.value[0]
    assert new.std[0] == pytest.approx(old.std[0], rel=1e-12)
    expected = old.noise[0] if math.isnan(after) else after
    assert new.noise[0] == pytest.approx(expected, rel=1e-12)


def test_a_tag_that_becomes_a_switch_starts_afresh() -> None:
    old = KalmanBank(table())
    old.step(samples([1.5, 2.5]))
    new = KalmanBank(TagTable([Tag(name="A.t0", asset="A", analogue=False)]))

    new.restore(old.snapshot())

    assert np.isnan(new.value[0])


@pytest.mark.parametrize("spoil", [b"", b"something else, and long enough for a header"])
def test_bytes_that_are_no_state_are_refused(spoil: bytes) -> None:
    with pytest.raises(ValueError, match="not a paged state"):
        KalmanBank(table()).restore(spoil)


def test_a_state_of_more_tags_or_a_torn_one_is_refused() -> None:
    state = KalmanBank(table(tags=3)).snapshot()

    with pytest.raises(ValueError, match="3 tags does not fit"):
        KalmanBank(table(tags=2)).restore(state)
    with pytest.raises(ValueError, match="truncated"):
        KalmanBank(table(tags=3)).restore(state[:-1])


@pytest.mark.parametrize("spoil", [b"", b"something else, and long enough for a header"])
def test_a_small_part_that_is_no_state_is_refused(spoil: bytes) -> None:
    with pytest.raises(ValueError, match="not a state"):
        KalmanBank(table()).adopt(spoil, {})


def test_the_default_rate_noise_follows_the_cycle_period() -> None:
    minute = Tag(name="A.slow", asset="A", noise=1.0, every_ns=60 * SECOND_NS)
    slow, fast = KalmanBank(TagTable([minute])), KalmanBank(table(noise=1.0))
    values = np.random.default_rng(0).normal(0.0, 1.0, 100)

    by_minute = slow.step(samples(values, times=START_NS + np.arange(100) * 60 * SECOND_NS))
    by_second = fast.step(samples(values))

    np.testing.assert_allclose(by_minute.estimate, by_second.estimate, rtol=1e-9, atol=1e-12)
    assert RELATIVE_RATE_NOISE == 0.05


def test_one_tags_samples_do_not_touch_another() -> None:
    alone, beside = KalmanBank(table(tags=2)), KalmanBank(table(tags=2))
    random = np.random.default_rng(0)
    batch = samples(random.normal(20.0, 0.5, 200)).with_columns(tag=np.tile([0, 1], 100).astype(np.int32))
    first = batch.tag == 0

    expected = alone.step(batch.take(first))

    assert beside.step(batch).take(first).buffers() == expected.buffers()


def test_a_plant_without_tags_has_an_empty_bank() -> None:
    bank = KalmanBank(TagTable([]))

    assert len(bank.step(Batch.empty())) == len(bank.value) == 0
    bank.restore(bank.snapshot())
