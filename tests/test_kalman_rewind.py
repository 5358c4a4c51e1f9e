"""Laws of late samples: within `rewind` the belief is what time order would have given."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.filters import START_NS, samples, table
from twinloop.batch import NO_TIME, Batch
from twinloop.estimation.kalman import KalmanBank, Reset
from twinloop.estimation.kalman_state import KEEP_EVERY, RING
from twinloop.pages import PAGE_BYTES
from twinloop.records import Event, EventKind
from twinloop.stages.estimate import EstimateStage
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason
from twinloop.tags import SECOND_NS, Tag, TagTable

WITHIN = RING - KEEP_EVERY
"""So many newer samples may always have come before a late one."""


def mixed_table() -> TagTable:
    return TagTable(
        [
            Tag(name="A.given", asset="A", noise=0.5, rate_noise=0.02, rebaseline=3),
            Tag(name="A.found", asset="A"),
            Tag(name="A.on", asset="A", analogue=False),
        ]
    )


def mixed(seed: int, count: int, restless: float) -> Batch:
    """Samples in time order at irregular times: noise, jumps of level, outliers, Uncertain, Bad and empty."""
    random = np.random.default_rng(seed)
    gaps = random.choice([1, 1_000_000, SECOND_NS // 4, SECOND_NS // 2], count)
    level = np.cumsum(np.where(random.random(count) < 0.3 * restless, random.normal(0.0, 50.0, count), 0.0))
    value = 20.0 + level + random.normal(0.0, 0.5, count)
    value[random.random(count) < 0.2 * restless] += 100.0
    value[random.random(count) < 0.05] = math.nan
    return Batch.raw(
        tag=random.integers(0, 3, count),
        time=START_NS + np.cumsum(gaps),
        value=value,
        status=random.choice([GOOD, UNCERTAIN, BAD], count, p=[0.75, 0.2, 0.05]),
    )


def arrival_order(batch: Batch, seed: int, late: int) -> Batch:
    """The same rows, each of a tag's overtaken by at most `late` others of that tag."""
    random = np.random.default_rng(seed)
    place = np.zeros(len(batch))
    for tag in range(3):
        rows = np.flatnonzero(batch.tag == tag)
        # Some come in time and some very late: both many small steps back and few large ones.
        delay = late * random.random(len(rows)) ** random.choice([1, 8])
        place[rows] = np.arange(len(rows)) + delay
    return batch.take(np.argsort(place, kind="stable"))


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    late=st.integers(1, WITHIN),
    restless=st.sampled_from([0.0, 0.02, 0.3]),
)
@settings(deadline=None, max_examples=150)
def test_any_order_of_arrival_gives_byte_for_byte_the_state_that_time_order_gives(
    seed: int, count: int, late: int, restless: float
) -> None:
    ordered, jumbled = KalmanBank(mixed_table()), KalmanBank(mixed_table())
    batch = mixed(seed, count, restless)

    ordered.step(batch)
    jumbled.step(arrival_order(batch, seed, late))

    assert jumbled.snapshot() == ordered.snapshot()


@given(seed=st.integers(0, 2**32 - 1), late=st.integers(1, 2 * RING), cuts=st.lists(st.integers(0, 500)))
@settings(deadline=None, max_examples=60)
def test_late_samples_give_the_same_however_they_are_batched_and_whenever_the_state_is_kept(
    seed: int, late: int, cuts: list[int]
) -> None:
    whole, parts = KalmanBank(mixed_table()), KalmanBank(mixed_table())
    batch = arrival_order(mixed(seed, 500, 0.1), seed, late)
    together: list[Reset] = []
    apart: list[Reset] = []

    result = whole.step(batch, together)
    pieces = []
    for rows in np.split(np.arange(500), sorted(cuts)):
        again = KalmanBank(mixed_table())
        again.restore(parts.snapshot())
        parts = again
        pieces.append(parts.step(batch.take(rows), apart))

    assert Batch.concat(pieces).buffers() == result.buffers()
    assert parts.snapshot() == whole.snapshot()
    assert apart == together


@given(seed=st.integers(0, 2**32 - 1), at=st.integers(0, 299), behind=st.integers(0, WITHIN))
@settings(deadline=None, max_examples=60)
def test_a_late_row_is_given_the_belief_at_its_place(seed: int, at: int, behind: int) -> None:
    ordered, jumbled = KalmanBank(mixed_table()), KalmanBank(mixed_table())
    batch = mixed(seed, 300, 0.1)
    at = min(at, 298)
    rows = np.delete(np.arange(300), at)
    place = min(at + behind, 299)
    moved = np.insert(rows, place, at)

    in_time, late = ordered.step(batch), jumbled.step(batch.take(moved))

    used = batch.status[at] != BAD and math.isfinite(batch.value[at])
    if used and batch.tag[at] < 2:
        assert late.take(slice(place, place + 1)).buffers() == in_time.take(slice(at, at + 1)).buffers()


def test_a_gated_late_sample_is_flagged_and_leaves_only_its_count() -> None:
    bank = KalmanBank(table())
    bank.step(samples(np.full(50, 20.0)))
    before = (bank.value[0], bank.std[0], bank.rate[0])

    late = bank.step(samples([500.0], times=[START_NS + 40 * SECOND_NS + 1]))

    assert late.reasons[0] == Reason.INNOVATION
    assert late.estimate[0] == 20.0
    assert (bank.value[0], bank.std[0], bank.rate[0]) == before
    assert bank.gated[0] == 1


def test_a_late_sample_makes_the_belief_better_from_now_on() -> None:
    truth = 0.5 * np.arange(40)
    measured = truth + np.random.default_rng(1).normal(0.0, 0.5, 40)
    bank = KalmanBank(table())
    batch = samples(measured)
    bank.step(batch.take(np.delete(np.arange(40), 38)))
    before = bank.std[0]

    bank.step(batch.take(slice(38, 39)))

    assert bank.std[0] < before
    assert bank.time_ns[0] == batch.time[39]


# What is left to history


@pytest.mark.parametrize("rewind_s", [0, 5])
def test_later_than_rewind_it_changes_nothing(rewind_s: int) -> None:
    bank = KalmanBank(TagTable([Tag(name="A.t", asset="A", noise=0.5, rewind_ns=rewind_s * SECOND_NS)]))
    bank.step(samples(20.0 + 0.1 * np.arange(100)))
    before = bank.snapshot()

    newest = START_NS + 99 * SECOND_NS
    result = bank.step(samples([20.0], times=[newest - rewind_s * SECOND_NS - 1]))

    assert bank.snapshot() == before
    assert np.isfinite(result.estimate[0]), "traced back from the present belief"
    if rewind_s:
        bank.step(samples([20.0], times=[newest - rewind_s * SECOND_NS]))
        assert bank.snapshot() != before


def test_older_than_the_ring_it_changes_nothing() -> None:
    bank = KalmanBank(table())
    times = START_NS + np.arange(1000) * (SECOND_NS // 100)
    bank.step(samples(np.full(1000, 20.0), times=times))
    before = bank.snapshot()

    bank.step(samples([21.0], times=[times[1000 - RING] - 1]))
    assert bank.snapshot() == before
    bank.step(samples([21.0], times=[times[1000 - WITHIN]]))
    assert bank.snapshot() != before


def test_without_rewind_no_samples_are_kept() -> None:
    bank = KalmanBank(TagTable([Tag(name="A.t", asset="A", rewind_ns=0)]))

    bank.step(samples(np.arange(300.0)))

    assert not any(pages.array.tobytes().strip(b"\0") or pages.dirty.any() for pages in bank.pages.values())


def test_a_gated_sample_from_the_future_makes_no_other_sample_late() -> None:
    bank, clean = KalmanBank(table()), KalmanBank(table())
    batch = samples(np.full(100, 20.0))
    bank.step(batch.take(slice(0, 50)))
    bank.step(samples([9e9], times=[START_NS + 600 * SECOND_NS]))

    bank.step(batch.take(slice(50, None)))
    clean.step(batch)

    assert bank.gated[0] == 1
    assert bank.time_ns[0] == clean.time_ns[0]
    assert bank.value[0] == clean.value[0]


@pytest.mark.parametrize("far", [NO_TIME + 1, -(2**62), 2**63 - 1])
def test_times_too_far_apart_to_subtract_are_just_too_late(far: int) -> None:
    bank = KalmanBank(table())
    bank.step(samples([20.0, 20.0, 20.0], times=[far, START_NS, NO_TIME + 1]))

    assert bank.time_ns[0] == max(far, START_NS)


def test_a_held_tag_keeps_the_newest_value_whatever_comes_late() -> None:
    bank = KalmanBank(mixed_table())
    on = samples([1.0, 0.0]).with_columns(tag=np.full(2, 2, np.int32))
    bank.step(on.take(slice(1, 2)))

    late = bank.step(on.take(slice(0, 1)))

    assert bank.value[2] == late.estimate[0] == 0.0
    assert bank.time_ns[2] == on.time[1]


# What is told


def test_a_reset_through_a_late_sample_is_told_once_with_its_own_time() -> None:
    bank, told = KalmanBank(table()), list[Reset]()
    batch = samples([20.0] * 50 + [90.0] * 3)
    bank.step(batch.take(np.delete(np.arange(53), 51)), told)
    assert not told

    bank.step(batch.take(slice(51, 52)), told)

    assert told == [Reset(tag=0, time=int(batch.time[52]), before=20.0, after=90.0)]
    assert bank.resets[0] == 1
    assert bank.value[0] == 90.0


def test_a_reset_that_only_moves_is_not_told_again() -> None:
    bank, told = KalmanBank(table()), list[Reset]()
    batch = samples([20.0] * 50 + [90.0] * 10)
    bank.step(batch.take(np.delete(np.arange(60), 50)), told)

    bank.step(batch.take(slice(50, 51)), told)

    assert [reset.time for reset in told] == [batch.time[53]]
    assert bank.resets[0] == 1


def test_a_reset_a_late_sample_undoes_is_gone_from_the_count_and_not_told_again() -> None:
    bank, told = KalmanBank(table()), list[Reset]()
    batch = samples([20.0] * 50 + [90.0, 90.0, 20.0, 90.0] + [20.0] * 5)
    bank.step(batch.take(np.delete(np.arange(59), 52)), told)
    assert bank.resets[0] == 2

    bank.step(batch.take(slice(52, 53)), told)

    assert bank.resets[0] == 0
    assert len(told) == 2
    assert bank.value[0] == 20.0


def test_the_stage_tells_a_late_reset_as_diverged() -> None:
    stage, events = EstimateStage(table()), list[Event]()
    batch = samples([20.0] * 50 + [90.0] * 3)

    stage.step(batch.take(np.r_[:51, 52]), events)
    stage.step(batch.take(slice(51, 52)), events)

    assert [(event.kind, event.time) for event in events] == [(EventKind.DIVERGED, batch.time[52])]


# A clock set back


def back(batch: Batch, row: int) -> Batch:
    reasons = np.where(np.arange(len(batch)) == row, np.uint32(Reason.CLOCK_BACK), np.uint32(0))
    return batch.with_columns(reasons=reasons)


def test_a_clock_set_back_begins_the_belief_afresh_there() -> None:
    hour = 3600 * SECOND_NS
    times = START_NS + np.r_[np.arange(50), np.arange(50)] * SECOND_NS - np.repeat([0, hour], 50)
    bank, fresh, told = KalmanBank(table()), KalmanBank(table()), list[Reset]()
    values = np.random.default_rng(0).normal(20.0, 0.5, 100)

    result = bank.step(back(samples(values, times=times), 50), told)
    expected = fresh.step(samples(values[50:], times=times[50:]))

    assert bank.time_ns[0] == times[99]
    for name in ("estimate", "estimate_std", "rate"):
        np.testing.assert_array_equal(getattr(result, name)[50:], getattr(expected, name))
    assert not told, "it was the clock, not the process"


def test_after_a_clock_set_back_late_samples_are_late_by_the_new_clock() -> None:
    ordered, within, beyond = (KalmanBank(table(noise=math.nan)) for _ in range(3))
    values = np.random.default_rng(0).normal(20.0, 0.5, 150)
    times = START_NS + np.r_[np.arange(50) + 20, np.arange(100)] * SECOND_NS
    batch = back(samples(values, times=times), 50)

    ordered.step(batch)
    within.step(batch.take(np.r_[:120, 121:150, 120]))  # 29 s late
    beyond.step(batch.take(np.r_[:70, 71:150, 70]))  # 79 s late

    assert within.snapshot() == ordered.snapshot()
    assert beyond.snapshot() != ordered.snapshot()


def test_noise_that_was_learnt_outlives_a_clock_set_back() -> None:
    bank = KalmanBank(table(noise=math.nan))
    bank.step(samples(np.random.default_rng(0).normal(20.0, 0.5, 200)))
    noise, counted = bank.noise[0], bank.nis_count[0]

    bank.step(back(samples([math.nan], times=[START_NS]), 0))

    assert (bank.noise[0], bank.nis_count[0]) == (noise, counted)
    assert np.isnan(bank.value[0])
    assert bank.time_ns[0] == NO_TIME
    assert bank.step(samples([21.0], times=[START_NS - 5])).estimate[0] == 21.0


def test_a_held_tag_goes_by_the_new_clock() -> None:
    bank = KalmanBank(mixed_table())
    on = samples([1.0, 0.0], times=[START_NS, START_NS - SECOND_NS]).with_columns(tag=np.full(2, 2, np.int32))

    bank.step(back(on, 1))

    assert (bank.value[2], bank.time_ns[2]) == (0.0, START_NS - SECOND_NS)


# Kept and taken up


def test_a_restored_ring_is_folded_again_beside_new_tags() -> None:
    one, more = KalmanBank(table(tags=1)), KalmanBank(table(tags=3))
    batch = samples(np.random.default_rng(0).normal(20.0, 0.5, 200))
    one.step(batch.take(np.delete(np.arange(200), 190)))

    more.restore(one.snapshot())
    late = one.step(batch.take(slice(190, 191)))

    assert all(pages.dirty.all() for pages in more.pages.values()), "the layout is another"
    assert more.step(batch.take(slice(190, 191))).buffers() == late.buffers()
    assert more.value[0] == one.value[0]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"noise": 1.0}, True),
        ({"noise": math.nan}, True),
        ({"rewind_ns": 30 * SECOND_NS}, True),
        ({"rewind_ns": 0}, False),
        ({"unit": "degF"}, False),
        ({"analogue": False}, False),
    ],
)
def test_a_ring_is_kept_where_it_still_means_something(change: dict[str, object], kept: bool) -> None:  # noqa: FBT001
    old_rules = {"name": "A.t", "asset": "A", "unit": "degC", "noise": 0.5}
    old = KalmanBank(TagTable([Tag(**old_rules)]))  # type: ignore[arg-type]
    new = KalmanBank(TagTable([Tag(**{**old_rules, **change})]))  # type: ignore[arg-type]
    batch = samples(np.random.default_rng(0).normal(20.0, 0.5, 200))
    old.step(batch.take(np.delete(np.arange(200), 190)))

    new.restore(old.snapshot())

    ring = new.pages["samples"]
    assert (ring.array.tobytes() == old.pages["samples"].array.tobytes()) == kept
    assert bool(ring.array.tobytes().strip(b"\0")) == kept
    assert ring.dirty.all() == (not kept)
    before = new.value[0]
    new.step(batch.take(slice(190, 191)))
    assert (new.value[0] != before) == (kept or before != before)  # noqa: PLR0124 - NaN


def test_a_ring_that_begins_within_a_belief_reaches_no_further_back_than_itself() -> None:
    off = KalmanBank(TagTable([Tag(name="A.t0", asset="A", noise=0.5, rewind_ns=0)]))
    batch = samples(np.random.default_rng(0).normal(20.0, 0.5, 60))
    off.step(batch.take(slice(0, 40)))
    on, ordered = KalmanBank(table()), KalmanBank(table())
    on.restore(off.snapshot())
    ordered.restore(off.snapshot())
    before = on.snapshot()

    on.step(batch.take(slice(30, 31)))
    assert on.snapshot() == before
    on.step(batch.take(slice(41, 60)))
    before = on.snapshot()
    on.step(samples([25.0], times=[batch.time[39] - 1]))
    assert on.snapshot() == before
    on.step(batch.take(slice(40, 41)))

    ordered.step(batch.take(slice(40, 60)))
    assert on.snapshot() == ordered.snapshot()


@given(seed=st.integers(0, 2**32 - 1), late=st.integers(1, WITHIN), tags=st.sampled_from([3, 40]))
@settings(deadline=None, max_examples=30)
def test_pages_that_changed_laid_over_those_kept_give_the_state(seed: int, late: int, tags: int) -> None:
    bank = KalmanBank(TagTable([*(tag for _, tag in mixed_table().items()), *more_tags(tags - 3)]))
    kept = {
        name: bytearray(-(-pages.nbytes // PAGE_BYTES) * PAGE_BYTES) for name, pages in bank.pages.items()
    }
    batch = arrival_order(mixed(seed, 400, 0.1), seed, late)
    for rows in np.array_split(np.arange(400), 9):
        bank.step(batch.take(rows))
        for name, pages in bank.pages.items():
            numbers, data = pages.changed()
            for place, number in enumerate(numbers):
                kept[name][number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = data[
                    place * PAGE_BYTES : (place + 1) * PAGE_BYTES
                ]
            pages.clean()

    again = KalmanBank(TagTable([*(tag for _, tag in mixed_table().items()), *more_tags(tags - 3)]))
    again.adopt(bank.small(), arrays(bank, kept))
    assert again.snapshot() == bank.snapshot()
    assert not any(pages.dirty.any() for pages in again.pages.values())


def more_tags(count: int) -> list[Tag]:
    return [Tag(name=f"B.t{i}", asset="B") for i in range(count)]


def arrays(bank: KalmanBank, kept: Mapping[str, bytearray]) -> dict[str, bytes]:
    return {name: bytes(kept[name][: pages.nbytes]) for name, pages in bank.pages.items()}


@pytest.mark.parametrize("spoilt", [{}, {"samples": b"", "kept": b""}])
def test_arrays_of_another_size_are_refused(spoilt: dict[str, bytes]) -> None:
    bank = KalmanBank(table())
    with pytest.raises(ValueError, match="do not fit the state of 1 tags"):
        bank.adopt(bank.small(), spoilt)
