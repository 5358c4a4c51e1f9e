"""What each check of validation promises. See docs/VALIDATION.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.records import Event, EventKind
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, StatusCode
from validating import QUIET, S, judged, last, samples, stage, words

# The tutorial's promises.


def test_a_step_from_85_to_120_degrees_is_uncertain_and_a_spike() -> None:
    temperature = stage(low=-50, high=400, spike_fraction=0.2)
    assert last(temperature, [85.0, 120.0]) == (UNCERTAIN, "SPIKE")


def test_500_degrees_is_bad_and_out_of_range() -> None:
    temperature = stage(low=-50, high=400, spike_fraction=0.2, rate_limit=5)
    assert last(temperature, [85.0, 500.0]) == (StatusCode.BAD_OUT_OF_RANGE, "RANGE")


@pytest.mark.parametrize("n", [10, 30, 100, 250])
def test_zscore_flags_a_five_sigma_outlier_once_ten_good_samples_are_known(n: int) -> None:
    # Standardised noise: exactly mean 85 and deviation 0.5, so that 5 sigma means 5 sigma.
    noise = np.random.default_rng(n).normal(size=n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    a_stage = stage(zscore=6.0, window=max(n, 10))
    assert words(judged(a_stage, samples(85 + 0.5 * noise))) == [""] * n
    strict = stage(zscore=3.0, window=max(n, 10))
    strict.restore(a_stage.snapshot())
    assert last(strict, [85 + 5 * 0.5], start_s=n + 1) == (UNCERTAIN, "ZSCORE")


@pytest.mark.parametrize("every_s", [1.0, 3600.0])
def test_zscore_begins_anew_after_a_gap_longer_than_its_window(every_s: float) -> None:
    """An hour later the plant may stand elsewhere; within the window's own span an outlier is one."""
    quiet = [85.0, 85.1, 84.9] * 40
    end_s = 1 + every_s * len(quiet)
    for gap_s, found in [(50 * every_s, "ZSCORE"), (150 * every_s, "")]:
        a_stage = stage()
        judged(a_stage, samples(quiet, every_s=every_s))
        assert last(a_stage, [95.0], start_s=end_s + gap_s)[1] == found


def test_zscore_is_silent_before_ten_good_samples_are_known() -> None:
    values = [85.0, 85.1, 84.9, 85.0, 85.2, 84.8, 85.1, 84.9, 85.0]
    assert last(stage(), [*values, 99.0]) == (GOOD, "")
    assert last(stage(), [*values, 85.1, 99.0]) == (UNCERTAIN, "ZSCORE")


def test_an_outlier_is_not_in_its_own_statistics() -> None:
    # In its own window of ten a point cannot be further than 2.85 deviations away.
    values = [85.0, 85.1] * 5
    a_stage = stage()
    assert last(a_stage, [*values, 1e9]) == (UNCERTAIN, "ZSCORE")
    assert last(a_stage, [85.05, 86.0], start_s=20) == (UNCERTAIN, "ZSCORE")


# What one sample alone tells.


def test_limits_themselves_are_in_range() -> None:
    inclusive = stage(low=0, high=10, warn_low=2, warn_high=8, **QUIET)
    out = judged(inclusive, samples([0.0, 2.0, 8.0, 10.0, -0.1, 10.1]))
    assert words(out) == ["WARN_RANGE", "", "", "WARN_RANGE", "RANGE", "RANGE"]
    assert out.status[0] == StatusCode.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    assert out.value.tolist() == [0.0, 2.0, 8.0, 10.0, -0.1, 10.1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_becomes_empty_and_bad(value: float) -> None:
    out = judged(stage(low=0, high=10), samples([value]))
    assert np.isnan(out.value[0])
    assert (out.status[0], words(out)) == (BAD, ["NON_FINITE"])


def test_a_bad_source_keeps_its_own_code() -> None:
    failure = np.array([StatusCode.BAD_SENSOR_FAILURE] * 2, np.uint32)
    out = judged(stage(low=0, high=10), samples([math.nan, 11.0], status=failure))
    assert out.status.tolist() == failure.tolist()
    assert words(out) == ["NON_FINITE|SOURCE_STATUS", "RANGE|SOURCE_STATUS"]


def test_an_uncertain_source_is_lowered_to_bad_but_not_renamed_uncertain() -> None:
    code = int(StatusCode.UNCERTAIN_SUBSTITUTE_VALUE)
    out = judged(stage(low=0, high=10, warn_high=5), samples([4.0, 6.0, 11.0], status=[code] * 3))
    assert out.status.tolist() == [code, code, StatusCode.BAD_OUT_OF_RANGE]


def test_what_was_doubted_on_the_way_is_not_put_on_the_source() -> None:
    marks = [int(Reason.CLOCK), int(Reason.RETAINED), int(Reason.OVERFLOW)]
    out = judged(stage(), samples([1.0, 1.0, 1.0], status=[UNCERTAIN, UNCERTAIN, GOOD], reasons=marks))
    assert words(out) == ["CLOCK", "RETAINED", "OVERFLOW"]


# Against the last good value.


def test_rate_uses_the_time_that_really_passed() -> None:
    limited = {"rate_limit": 5.0, **QUIET}
    assert last(stage(**limited), [20.0, 30.0], every_s=1.0) == (UNCERTAIN, "RATE")
    assert last(stage(**limited), [20.0, 30.0], every_s=2.0) == (GOOD, "")


def test_the_way_back_from_a_spike_is_no_spike() -> None:
    a_stage = stage(spike=10, rate_limit=5, **QUIET)
    out = judged(a_stage, samples([85.0, 120.0, 85.5, 86.0]))
    assert words(out) == ["", "RATE|SPIKE", "", ""]


def test_a_bad_or_uncertain_sample_is_never_the_last_good_one() -> None:
    a_stage = stage(spike=10, low=0, high=400, warn_high=150, **QUIET)
    statuses = [GOOD, UNCERTAIN, BAD, GOOD, GOOD, GOOD]
    out = judged(a_stage, samples([85.0, 94.0, 94.0, 401.0, 96.0, 94.0], status=statuses))
    assert words(out) == ["", "SOURCE_STATUS", "SOURCE_STATUS", "RANGE", "SPIKE", ""]


def test_a_fraction_near_zero_is_taken_of_a_twentieth_of_the_span() -> None:
    # Span 100: the least magnitude is 5, so 20 % allows a step of 1 at zero.
    around_zero = {"low": -50, "high": 50, "spike_fraction": 0.2, **QUIET}
    assert last(stage(**around_zero), [0.0, 1.0]) == (GOOD, "")
    assert last(stage(**around_zero), [0.0, 1.01]) == (UNCERTAIN, "SPIKE")


def test_a_fraction_without_a_range_is_taken_of_the_windows_own_magnitude() -> None:
    wave = 10 * np.cos(np.arange(200) / 20)
    assert words(judged(stage(spike_fraction=0.2, **QUIET), samples(wave))) == [""] * 200
    spiked = wave.copy()
    spiked[157] += 20  # close to a zero of the wave
    out = judged(stage(spike_fraction=0.2, **QUIET), samples(spiked))
    assert np.flatnonzero(out.reasons).tolist() == [157]


def test_a_fraction_of_nothing_forbids_nothing() -> None:
    assert last(stage(spike_fraction=0.2, **QUIET), [0.0, 1.0]) == (GOOD, "")


def test_what_noise_alone_makes_is_no_spike() -> None:
    noisy = {"low": 0, "high": 10, "spike_fraction": 0.2, "noise": 0.1, **QUIET}
    assert last(stage(**noisy), [0.0, 0.5]) == (GOOD, "")
    assert last(stage(**noisy), [0.0, 0.6]) == (UNCERTAIN, "SPIKE")


def test_what_the_tag_usually_does_is_no_spike_where_its_noise_is_not_given() -> None:
    noise = np.random.default_rng(5).normal(size=400)
    out = judged(stage(spike_fraction=0.2, **QUIET), samples(1.0 + noise))
    assert np.count_nonzero(out.reasons[100:]) <= 3
    calm = 85 + 0.5 * noise
    calm[200] = 120.0
    assert np.flatnonzero(judged(stage(spike_fraction=0.2, **QUIET), samples(calm)).reasons).tolist() == [200]


@pytest.mark.parametrize("glitches", [[8500.0], [1.7e308], [1.7e308, -1.7e308, 1.7e308]])
def test_no_glitch_however_large_blinds_the_spike_check(glitches: list[float]) -> None:
    calm = 85 + 0.1 * np.random.default_rng(5).normal(size=60)
    values = [*calm[:30], *glitches, *calm[30:], 120.0]
    out = judged(stage(spike_fraction=0.2, **QUIET), samples(values))
    assert np.flatnonzero(out.reasons).tolist() == [*range(30, 30 + len(glitches)), len(values) - 1]


def test_after_a_gap_a_step_is_a_spike_only_where_the_rate_forbids_it() -> None:
    ageing = {"spike": 10, "stale_ns": 5 * S, **QUIET}
    assert last(stage(**ageing), [85.0, 120.0], every_s=5) == (UNCERTAIN, "SPIKE")
    assert last(stage(**ageing), [85.0, 120.0], every_s=6) == (GOOD, "")
    assert last(stage(rate_limit=5.0, **ageing), [85.0, 120.0], every_s=6) == (UNCERTAIN, "RATE|SPIKE")
    assert last(stage(rate_limit=5.0, **ageing), [85.0, 120.0], every_s=7) == (GOOD, "")


def test_outliers_that_keep_coming_do_not_age_the_last_good_value() -> None:
    ageing = stage(spike=10, stale_ns=5 * S, **QUIET)
    assert words(judged(ageing, samples([85.0, *[120.0] * 9])))[1:] == ["SPIKE"] * 9


# The window.


def test_the_first_step_of_a_constant_is_not_measured_and_one_quantum_is_never_an_outlier() -> None:
    quantised = [20.0] * 50 + [20.1] + [20.0] * 50 + [20.1, 20.0, 20.2]
    out = judged(stage(), samples(quantised))
    assert words(out) == [""] * len(quantised)
    several = stage()
    assert last(several, [*quantised, 20.5], start_s=1) == (UNCERTAIN, "ZSCORE")


def test_noise_given_is_the_least_deviation() -> None:
    calm = [20.0, 20.01] * 20
    assert last(stage(noise=0.5), [*calm, 21.4]) == (GOOD, "")
    assert last(stage(noise=0.5), [*calm, 21.6]) == (UNCERTAIN, "ZSCORE")


def test_booleans_are_not_measured_in_deviations() -> None:
    values = [0.0, 1.0] + [0.0] * 200 + [7.0]
    assert words(judged(stage(analogue=False), samples(values))) == [""] * len(values)


@pytest.mark.parametrize("offset", [0.0, 85.0, 1e9])
def test_statistics_equal_numpys_over_the_same_window_after_a_million_samples(offset: float) -> None:
    values = offset + np.random.default_rng(1).normal(size=1_000_037)
    a_stage = stage(window=100, **QUIET)
    judged(a_stage, samples(values, every_s=0.001))
    state, window = a_stage._memory.state[0], values[-100:]
    exact = np.sort(window - offset)  # the difference is exact: the window's own digits decide
    assert state["origin"] + state["mean"] == pytest.approx(window.mean(), rel=1e-15)
    assert math.sqrt(state["m2"] / 99) == pytest.approx(exact.std(ddof=1), rel=1e-13)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(2, 12))
def test_statistics_equal_numpys_for_any_values_and_window(values: list[float], size: int) -> None:
    a_stage = stage(window=size, **QUIET)
    judged(a_stage, samples(values))
    state, window = a_stage._memory.state[0], np.array(values[-size:])
    scale = max(abs(window).max(), abs(np.array(values)).max(), 1.0)
    assert state["origin"] + state["mean"] == pytest.approx(window.mean(), abs=1e-12 * scale)
    assert state["m2"] == pytest.approx(((window - window.mean()) ** 2).sum(), abs=1e-10 * scale**2)


def test_after_k_outliers_in_a_row_the_level_has_moved() -> None:
    a_stage, events = stage(spike=10, rebaseline=4, window=50, zscore=3.0), list[Event]()
    before = [85.0, 85.2, 84.8, 85.1] * 5
    out = a_stage.step(samples([*before, 120.0, 120.2, 119.8, 120.0, 120.1, 119.9]), events)
    assert words(out)[20:] == ["SPIKE|ZSCORE"] * 3 + [""] * 3
    assert out.status[20:].tolist() == [UNCERTAIN] * 3 + [GOOD] * 3
    moved = [event for event in events if event.kind is EventKind.REBASELINED]
    assert [(e.subject, e.before, e.after, e.time) for e in moved] == [
        ("R101.temperature", "85.025", "120", 24 * S)
    ]
    assert "4 outliers in a row" in moved[0].why


def test_a_good_sample_between_ends_the_row_of_outliers_and_a_missing_one_does_not() -> None:
    row = {"spike": 10.0, "rebaseline": 3, **QUIET}
    out = judged(stage(**row), samples([85.0, 120, 120, 85, 120, 120]))
    assert words(out) == ["", "SPIKE", "SPIKE", "", "SPIKE", "SPIKE"]
    out = judged(stage(**row), samples([85.0, 120, 120, math.nan, 120]))
    assert words(out) == ["", "SPIKE", "SPIKE", "NON_FINITE", ""]


def test_a_doubtful_outlier_does_not_move_the_level() -> None:
    a_stage = stage(spike=10, rebaseline=3, warn_high=100, **QUIET)
    assert words(judged(a_stage, samples([85.0, *[120.0] * 6])))[1:] == ["WARN_RANGE|SPIKE"] * 6


# Stuck.


def test_a_value_that_does_not_change_for_so_long_is_stuck_until_it_does() -> None:
    a_stage = stage(stuck_ns=3 * S, **QUIET)
    out = judged(a_stage, samples([5.0, 5.0, 5.0, 5.0, 5.0, 5.1, 5.1]))
    assert words(out) == ["", "", "", "STUCK", "STUCK", "", ""]
    assert out.status[3] == UNCERTAIN


def test_bad_samples_neither_make_nor_end_a_stuck_value() -> None:
    a_stage = stage(stuck_ns=3 * S, **QUIET)
    out = judged(a_stage, samples([5.0, 7.0, math.nan, 5.0], status=[GOOD, BAD, GOOD, GOOD]))
    assert words(out) == ["", "SOURCE_STATUS", "NON_FINITE", "STUCK"]
