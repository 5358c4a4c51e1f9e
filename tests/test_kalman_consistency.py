"""Is the bank as sure as it should be: NIS, bands, and noise that nobody gave."""

from __future__ import annotations

import csv
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from support.filters import F64, I64, START_NS, samples, table
from twinloop.batch import Batch
from twinloop.estimation.consistency import (
    chi_square_cdf,
    chi_square_quantile,
    nis_band,
    running_nis_band,
)
from twinloop.estimation.kalman import KalmanBank, Reset
from twinloop.tags import SECOND_NS

SKAB = Path(__file__).parents[1] / ".." / "shared" / "data" / "skab" / "anomaly-free" / "anomaly-free.csv"


def own_model(seed: int, n: int, noise: float, rate_noise: float) -> tuple[F64, I64, F64]:
    """Measured values, irregular times and true values drawn from the filter's own model."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1.0, n).clip(0.01) * random.choice([0.1, 1.0, 5.0], n)
    steps = np.rint(gaps * 1e9).astype(np.int64)
    value, rate, truth = 20.0, 0.1, np.empty(n)
    for k, dt in enumerate(steps * 1e-9):
        Q = rate_noise**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        kick = np.linalg.cholesky(Q) @ random.normal(size=2)
        value, rate = value + rate * dt + kick[0], rate + kick[1]
        truth[k] = value
    return truth + random.normal(0.0, noise, n), START_NS + np.cumsum(steps), truth


# Consistency


@pytest.mark.parametrize("seed", range(5))
def test_mean_nis_lies_in_its_95_percent_band_on_data_from_the_filters_own_model(seed: int) -> None:
    n, noise, rate_noise = 20_000, 0.5, 0.05
    measured, time, truth = own_model(seed, n, noise, rate_noise)
    bank = KalmanBank(table(noise=noise, rate_noise=rate_noise))

    result = bank.step(samples(measured, times=time))

    low, high = nis_band(int(bank.nis_count[0]))
    assert bank.nis_count[0] == n - 2
    assert low < bank.nis_mean[0] < high
    errors = ((result.estimate - truth) / result.estimate_std)[10:]
    assert np.mean(errors**2) == pytest.approx(1.0, abs=0.08)  # neighbours are correlated: a wider band


def test_an_overconfident_filter_leaves_the_band() -> None:
    measured, time, _ = own_model(0, 2000, 0.5, 0.05)
    bank = KalmanBank(table(noise=0.25, rate_noise=0.025))

    bank.step(samples(measured, times=time))

    assert bank.nis_mean[0] > nis_band(2000)[1]
    assert bank.nis[0] > running_nis_band()[1]


def test_the_running_nis_stays_in_its_band_most_of_the_time() -> None:
    measured, time, _ = own_model(3, 6000, 0.5, 0.05)
    bank, low_high, inside = KalmanBank(table(rate_noise=0.05)), running_nis_band(), []
    for start in range(0, 6000, 50):
        bank.step(samples(measured[start : start + 50], times=time[start : start + 50]))
        inside.append(low_high[0] < bank.nis[0] < low_high[1])

    assert 0.88 < np.mean(inside[4:]) < 1.0


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 1e5))
@settings(deadline=None)
def test_chi_square_agrees_with_scipy(probability: float, dof: float) -> None:
    quantile = chi_square_quantile(probability, dof)

    assert quantile == pytest.approx(stats.chi2.ppf(probability, dof), rel=1e-8)
    assert chi_square_cdf(quantile, dof) == pytest.approx(probability, rel=1e-9)


def test_a_probability_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="probability 1"):
        chi_square_quantile(1.0, 3)


# Noise nobody gave


@pytest.mark.parametrize("noise", [1e-4, 0.3, 2e5])
def test_noise_that_is_not_given_is_found(noise: float) -> None:
    random = np.random.default_rng(7)
    bank = KalmanBank(table(noise=math.nan))
    truth = 100.0 * noise * np.sin(np.arange(3000) / 200.0)

    result = bank.step(samples(truth + random.normal(0.0, noise, 3000)))

    assert bank.noise[0] == pytest.approx(noise, rel=0.1)
    assert np.isnan(result.estimate_std[:2]).all(), "nobody can know yet"
    assert (result.estimate_std[2:] > 0.0).all()


def test_the_noise_estimate_has_no_bias() -> None:
    random, n, tags = np.random.default_rng(11), 1500, 2000
    kicks = random.normal(0.0, 0.05, (n, tags))
    bend = random.normal(0.0, 0.05 / math.sqrt(12.0), (n, tags)) - 0.5 * kicks
    truth = np.cumsum(np.cumsum(kicks, axis=0) + bend, axis=0)
    measured = truth + random.normal(0.0, 1.0, (n, tags))
    bank = KalmanBank(table(noise=math.nan, tags=tags))

    time = START_NS + np.repeat(np.arange(n), tags) * SECOND_NS
    bank.step(Batch.raw(tag=np.tile(np.arange(tags), n), time=time, value=measured.ravel()))

    assert np.mean(bank.noise**2) == pytest.approx(1.0, abs=0.003)


def test_a_first_wild_sample_is_forgotten_by_the_noise_estimate() -> None:
    measured = np.random.default_rng(2).normal(0.0, 1.0, 200)
    measured[2] = 1000.0
    bank = KalmanBank(table(noise=math.nan))

    bank.step(samples(measured))

    assert 0.5 < bank.noise[0] < 4.0


def test_a_long_constant_sensor_may_move_by_its_resolution() -> None:
    values = np.full(500, 21.5)
    values[400:] = 21.6
    bank = KalmanBank(table(noise=math.nan))

    result = bank.step(samples(values))

    assert not result.reasons.any()
    assert np.isfinite(result.estimate_std[2:]).all()
    assert result.estimate[-1] == pytest.approx(21.6, abs=0.01)


def test_noise_that_grows_a_hundredfold_is_learnt_again() -> None:
    random = np.random.default_rng(5)
    bank = KalmanBank(table(noise=math.nan))
    bank.step(samples(random.normal(0.0, 0.01, 500)))
    resets: list[Reset] = []

    later = START_NS + (500 + np.arange(1500)) * SECOND_NS
    bank.step(samples(random.normal(0.0, 1.0, 1500), times=later), resets)

    assert bank.noise[0] == pytest.approx(1.0, rel=0.2)
    assert len(resets) <= 3


def test_on_a_real_plant_the_defaults_are_consistent_and_beat_persistence() -> None:
    if not SKAB.exists():
        pytest.skip("the SKAB data are not beside the checkout (shared/data/skab)")
    with SKAB.open(newline="") as file:
        head, *rows = csv.reader(file, delimiter=";")
    seconds = np.array([datetime.fromisoformat(row[0] + "+00:00").timestamp() for row in rows])
    time = np.rint(seconds).astype(np.int64) * SECOND_NS
    values = np.array([row[1:9] for row in rows], float)
    bank = KalmanBank(table(noise=math.nan, tags=8))
    tag = np.tile(np.arange(8), len(time))

    result = bank.step(Batch.raw(tag=tag, time=np.repeat(time, 8), value=values.ravel()))

    estimate, rate = result.estimate.reshape(-1, 8), result.rate.reshape(-1, 8)
    gap = np.diff(seconds)[:, None]
    predicted = estimate[:-1] + rate[:-1] * gap
    rmse = np.sqrt(np.mean((predicted - values[1:])[100:] ** 2, axis=0))
    persistence = np.sqrt(np.mean(np.diff(values, axis=0)[100:] ** 2, axis=0))
    for i, name in enumerate(head[1:9]):
        print(  # noqa: T201 - figures for the curious, shown with -s
            f"{name:20} noise {bank.noise[i]:9.4g}  NIS {bank.nis_mean[i]:.3f}  gated {bank.gated[i]:4d}"
            f"  resets {bank.resets[i]}  one step ahead: {rmse[i] / persistence[i]:.3f} of persistence"
        )

    # One sensor jumps once; persistence follows at once, a gate that guards against spikes later.
    assert (rmse < 1.05 * persistence).all()
    assert np.median(rmse / persistence) < 0.85
    assert ((bank.nis_mean > 0.9) & (bank.nis_mean < 1.2)).all()
    assert (bank.gated < 0.01 * len(time)).all()
