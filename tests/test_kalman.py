"""Laws of the filter bank: what it computes, what it leaves alone, and its gate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.filters import F64, I64, START_NS, samples, table
from twinloop.batch import NO_TIME
from twinloop.estimation.consistency import nis_band
from twinloop.estimation.kalman import GATE_NIS, NIS_SAMPLES, UNCERTAIN_VARIANCE, KalmanBank, Reset
from twinloop.estimation.kalman_state import GOOD_STREAK, START_RATE
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason
from twinloop.tags import SECOND_NS, Tag, TagTable

YEAR_NS = 365 * 86_400 * SECOND_NS


def textbook(value: F64, time: I64, noise: F64, rate_noise: float, start_rate: float) -> tuple[F64, F64, F64]:
    """Means (n, 2), covariances (n, 2, 2) and NIS (n,) by Welch & Bishop 1.9 to 1.13, Joseph form."""
    x, P = np.array([value[0], 0.0]), np.diag([noise[0] ** 2, start_rate**2])
    H, I = np.array([[1.0, 0.0]]), np.eye(2)  # noqa: E741 - the identity's name
    means, covs, nis = [x], [P], [math.nan]
    for k in range(1, len(value)):
        dt = (time[k] - time[k - 1]) * 1e-9
        F = np.array([[1.0, dt], [0.0, 1.0]])
        Q = rate_noise**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        x, P = F @ x, F @ P @ F.T + Q
        S = (H @ P @ H.T)[0, 0] + noise[k] ** 2
        innovation = value[k] - x[0]
        K = P @ H.T / S
        x = x + K[:, 0] * innovation
        P = (I - K @ H) @ P @ (I - K @ H).T + noise[k] ** 2 * K @ K.T
        means.append(x)
        covs.append(P)
        nis.append(innovation**2 / S)
    return np.array(means), np.array(covs), np.array(nis)


# Agreement


def test_a_noisy_sensor_is_smoothed_and_its_rate_found() -> None:
    truth = 20.0 + 0.1 * np.arange(300)
    measured = truth + np.random.default_rng(1).normal(0.0, 0.5, 300)

    result = KalmanBank(table(noise=0.5)).step(samples(measured))

    assert np.std((result.estimate - truth)[50:]) < 0.6 * np.std((measured - truth)[50:])
    assert result.rate[50:].mean() == pytest.approx(0.1, abs=0.01)


@given(
    gaps=st.lists(st.integers(1_000_000, 100 * SECOND_NS), min_size=5, max_size=60),
    noise=st.floats(1e-3, 1e3),
    tracking=st.floats(1e-3, 10.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_the_bank_agrees_with_the_textbook_matrices(
    gaps: list[int], noise: float, tracking: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    time = START_NS + np.cumsum(np.array(gaps, np.int64))
    good = random.random(len(gaps)) < 0.8
    good[0] = True
    value = random.normal(0.0, noise, len(gaps))
    status = np.where(good, GOOD, UNCERTAIN)
    bank = KalmanBank(table(noise=noise, rate_noise=tracking * noise))

    result = bank.step(samples(value, times=time, status=status))
    factor = np.where(good, 1.0, math.sqrt(UNCERTAIN_VARIANCE))
    means, covs, nis = textbook(value, time, noise * factor, tracking * noise, START_RATE * noise)

    assert np.nanmax(nis) < GATE_NIS
    scale = np.abs(means).max(axis=0)
    np.testing.assert_allclose(result.estimate, means[:, 0], rtol=1e-10, atol=1e-10 * scale[0])
    np.testing.assert_allclose(result.rate, means[:, 1], rtol=1e-9, atol=1e-9 * scale[1])
    np.testing.assert_allclose(result.estimate_std, np.sqrt(covs[:, 0, 0]), rtol=1e-10)
    np.testing.assert_allclose(bank.covariance(0), covs[-1], rtol=1e-8)


def test_the_steady_gain_is_the_documented_one() -> None:
    bank = KalmanBank(table(noise=1.0))
    bank.step(samples(np.zeros(2000)))

    bound = bank.covariance(0)

    assert bound[0, 0] == pytest.approx(0.2707, abs=5e-4)  # also the gain on the value, as noise is 1
    assert bound[0, 1] == pytest.approx(0.0427, abs=5e-4)  # the gain on the rate
    assert math.sqrt(bound[1, 1]) == pytest.approx(0.121, abs=1e-3)


# What is not measured


def test_a_batch_with_nothing_measured_only_grows_the_variance() -> None:
    bank = KalmanBank(table())
    bank.step(samples(20.0 + 0.1 * np.arange(100)))
    before = bank.snapshot()
    later = START_NS + (100 + np.arange(500)) * SECOND_NS

    result = bank.step(samples(np.full(500, 3.0), times=later, status=BAD))

    assert (np.diff(result.estimate_std) > 0.0).all()
    assert bank.snapshot() == before
    np.testing.assert_allclose(result.estimate[:9], 29.9 + 0.1 * np.arange(1, 10), atol=0.1)
    assert (result.estimate[11:] == result.estimate[11]).all(), "after ten periods the value is held"
    assert (result.rate[11:] == 0.0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_a_value_no_filter_can_use_changes_nothing_whatever_its_status(value: float) -> None:
    bank = KalmanBank(table())
    bank.step(samples([1.0, 2.0]))
    before = bank.snapshot()

    result = bank.step(samples([value], times=[START_NS + 3 * SECOND_NS]))

    assert bank.snapshot() == before
    assert np.isfinite(result.estimate).all()


def test_a_late_sample_changes_no_belief_where_rewind_is_off() -> None:
    bank = KalmanBank(table(rewind_ns=0))
    bank.step(samples(20.0 + 0.1 * np.arange(100)))
    before, now = bank.snapshot(), bank.std[0]

    result = bank.step(samples([500.0, 500.0], times=[START_NS + 97 * SECOND_NS, START_NS + 50 * SECOND_NS]))

    assert bank.snapshot() == before
    assert result.estimate[0] == pytest.approx(29.7, abs=0.05)
    assert result.estimate_std[1] > 2.0 * now
    assert not result.reasons.any(), "late is not gated"


@pytest.mark.parametrize("lag_s", [1, 3, 10, 30])
def test_a_late_rows_deviation_covers_its_error(lag_s: int) -> None:
    squares = []
    for seed in range(300):
        random, n = np.random.default_rng(seed), 60
        kicks = random.normal(0.0, 0.05, n)
        rate = np.cumsum(kicks)
        truth = np.cumsum(rate + random.normal(0.0, 0.05 / math.sqrt(12.0), n) - 0.5 * kicks)
        bank = KalmanBank(table(noise=0.5, rate_noise=0.05, rewind_ns=0))
        bank.step(samples(truth + random.normal(0.0, 0.5, n)))
        row = n - 1 - lag_s
        late = bank.step(samples([0.0], times=[START_NS + row * SECOND_NS]))
        squares.append(((late.estimate[0] - truth[row]) / late.estimate_std[0]) ** 2)

    assert 0.05 < np.mean(squares) < nis_band(300, 0.99)[1]


def test_an_uncertain_sample_weighs_as_one_with_five_times_the_noise() -> None:
    uncertain, plain = KalmanBank(table(noise=0.5)), KalmanBank(table(noise=0.5))
    settled = samples(np.zeros(100))
    for bank in (uncertain, plain):
        bank.step(settled)
    after = [START_NS + 100 * SECOND_NS]

    low = uncertain.step(samples([1.0], times=after, status=UNCERTAIN)).estimate[0]
    high = plain.step(samples([1.0], times=after)).estimate[0]

    assert 0.0 < low < 0.1 * high


def test_a_tag_starts_from_an_uncertain_sample_but_the_first_good_one_starts_afresh() -> None:
    bank = KalmanBank(table(noise=0.5))

    result = bank.step(samples([900.0, 20.0], status=[UNCERTAIN, GOOD]))

    np.testing.assert_array_equal(result.estimate, [900.0, 20.0])
    np.testing.assert_allclose(result.estimate_std, [2.5, 0.5])


def test_nothing_is_known_before_the_first_usable_sample() -> None:
    bank = KalmanBank(table())

    result = bank.step(samples([20.0], status=BAD))

    assert np.isnan([result.estimate, result.estimate_std, result.rate]).all()
    assert bank.time_ns[0] == NO_TIME
    assert np.isnan([bank.value, bank.std, bank.rate, bank.nis, bank.nis_mean]).all()


def test_a_tag_that_is_not_analogue_is_held() -> None:
    bank = KalmanBank(TagTable([Tag(name="A.on", asset="A", analogue=False)]))

    result = bank.step(samples([1.0, 0.0, 1.0, 1.0], status=[GOOD, GOOD, UNCERTAIN, BAD]))

    np.testing.assert_array_equal(result.estimate, [1.0, 0.0, 0.0, 0.0])
    assert np.isnan([result.estimate_std, result.rate]).all()


def test_two_samples_at_one_time_count_as_two() -> None:
    bank = KalmanBank(table(noise=0.5))

    result = bank.step(samples([20.0, 21.0], times=[START_NS, START_NS]))

    np.testing.assert_allclose(result.estimate, [20.0, 20.5])
    np.testing.assert_allclose(result.estimate_std, [0.5, 0.5 / math.sqrt(2.0)])


def test_a_held_value_owns_up_to_what_the_rate_would_have_added() -> None:
    steep, flat = KalmanBank(table()), KalmanBank(table())
    steep.step(samples(20.0 + 0.2 * np.arange(200)))
    flat.step(samples(np.full(200, 20.0)))

    later = START_NS + (199 + 110) * SECOND_NS
    excess = steep.at(later)[1][0] ** 2 - flat.at(later)[1][0] ** 2

    assert excess == pytest.approx((0.2 * 100.0) ** 2, rel=1e-3)


def test_after_a_day_the_deviation_grows_no_further() -> None:
    bank = KalmanBank(table())
    bank.step(samples([20.0, 20.0]))

    hour, two_days, year = (bank.at(START_NS + hours * 3600 * SECOND_NS)[1][0] for hours in (1, 48, 8760))

    assert hour < two_days == year


def test_no_deviation_is_wider_than_the_instruments_range_allows() -> None:
    tag = Tag(name="A.t", asset="A", noise=0.5, low=0.0, high=120.0)
    bank = KalmanBank(TagTable([tag]))
    bank.step(samples([50.0, 50.0]))

    assert bank.at(START_NS + YEAR_NS)[1][0] == pytest.approx(120.0 / math.sqrt(12.0))


# The gate


def test_an_outlier_is_gated_flagged_and_leaves_no_trace() -> None:
    values = np.full(100, 85.0)
    values[50] = 120.0
    bank = KalmanBank(table(noise=0.5))

    result = bank.step(samples(values))

    assert np.flatnonzero(result.reasons & Reason.INNOVATION).tolist() == [50]
    assert not result.status.any(), "the gate lowers no status"
    np.testing.assert_array_equal(result.estimate, 85.0)
    assert result.estimate_std[50] > result.estimate_std[49]
    assert bank.gated[0] == 1


@pytest.mark.parametrize("noise", [0.5, math.nan])
@pytest.mark.parametrize("slope", [0.0, 40.0, -3000.0])
@pytest.mark.parametrize(("status", "k"), [(GOOD, GOOD_STREAK), (UNCERTAIN, 10)])
def test_the_truth_is_never_locked_out(noise: float, slope: float, status: int, k: int) -> None:
    """What validation calls Good is believed after three; what it flags, when it re-baselines itself."""
    random = np.random.default_rng(4)
    bank = KalmanBank(table(noise=noise, rebaseline=10))
    bank.step(samples(random.normal(85.0, 0.5, 300)))
    resets: list[Reset] = []
    truth = 500.0 + slope * np.arange(200)

    later = START_NS + (300 + np.arange(200)) * SECOND_NS
    statuses = np.where(np.arange(200) < k, status, GOOD)
    measured = truth + random.normal(0.0, 0.5, 200)
    result = bank.step(samples(measured, times=later, status=statuses), resets)

    flagged = np.flatnonzero(result.reasons & Reason.INNOVATION)
    assert flagged[: k - 1].tolist() == list(range(k - 1))
    assert [r.tag for r in resets] == [0]
    assert resets[0].before == pytest.approx(85.0, abs=1.0)
    assert resets[0].after == pytest.approx(truth[k - 1], abs=2.5)
    assert np.abs(result.estimate - truth)[k - 1 :].max() < 2.5
    assert bank.resets[0] == 1


def test_a_belief_that_begins_anew_is_as_sure_as_two_noisy_samples_make_it() -> None:
    bank = KalmanBank(table(noise=0.5, rebaseline=2))
    gap = 4.0
    times = START_NS + np.array([0, 1, 2, 6]) * SECOND_NS

    result = bank.step(samples([20.0, 20.0, 90.0, 98.0], times=times))

    assert (result.estimate[3], result.rate[3]) == (98.0, 2.0)
    expected = 0.25 * np.array([[1.0, 1.0 / gap], [1.0 / gap, 2.0 / gap**2]])
    np.testing.assert_allclose(bank.covariance(0), expected, rtol=1e-12)


def test_a_belief_that_begins_anew_within_nanoseconds_makes_up_no_rate() -> None:
    bank = KalmanBank(table(noise=0.1))
    steady = START_NS + np.arange(30) * SECOND_NS
    burst = steady[-1] + SECOND_NS + np.arange(GOOD_STREAK)

    times = np.concatenate([steady, burst, [burst[-1] + SECOND_NS]])
    result = bank.step(samples([20.0] * 30 + list(90.0 + np.arange(GOOD_STREAK)) + [math.nan], times=times))

    assert bank.resets[0] == 1
    assert result.estimate[-2:] == pytest.approx([92.0, 92.0])
    assert result.rate[-1] == 0.0
    assert result.estimate_std[-1] > 0.9, "the rate is as unknown as at the start"


def test_outliers_that_are_not_in_a_row_never_add_up_to_a_new_belief() -> None:
    values = np.full(200, 85.0)
    values[50::2] = 120.0
    bank = KalmanBank(table(noise=0.5))

    bank.step(samples(values))

    assert (bank.gated[0], bank.resets[0]) == (75, 0)


def test_one_outlier_lifts_the_running_nis_by_a_quarter_at_most() -> None:
    bank = KalmanBank(table(noise=0.5))
    bank.step(samples(np.full(300, 85.0)))
    before = bank.nis[0]

    bank.step(samples([1e6], times=[START_NS + 300 * SECOND_NS]))

    assert bank.nis[0] == pytest.approx(before + (GATE_NIS - before) / NIS_SAMPLES)


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_never_are_more_than_k_samples_in_a_row_refused(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_cauchy(400) * 10.0 ** random.integers(-3, 6, 400)

    result = KalmanBank(table(noise=0.5, rebaseline=k)).step(samples(values))

    runs = "".join("x" if flag else " " for flag in result.reasons & Reason.INNOVATION).split()
    assert max((len(run) for run in runs), default=0) < max(k, 1)
