"""The shipped filter beside the tutorial's own, on the tutorial's own ramp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from twinloop.batch import Batch
from twinloop.estimation.kalman import KalmanBank
from twinloop.tags import SECOND_NS, Tag, TagTable

F64 = npt.NDArray[np.float64]

TRUTH = np.linspace(85.0, 95.0, 50)
NOISE = 0.5


def tutorial_filter(measured: F64) -> F64:
    """The tutorial's filter, written plainly; its 0.5 is a deviation used as a variance, as it was."""
    F = np.array([[1.0, 1.0], [0.0, 1.0]])
    H = np.array([[1.0, 0.0]])
    Q = 0.01 * np.eye(2)
    R = np.array([[0.5]])
    x, P = np.array([85.0, 0.0]), np.eye(2)
    estimates = []
    for z in measured:
        x, P = F @ x, F @ P @ F.T + Q
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
        x = x + K @ (z - H @ x)
        P = (np.eye(2) - K @ H) @ P
        estimates.append(x[0])
    return np.array(estimates)


def shipped_filter(measured: F64) -> F64:
    """The bank with the sensor's noise and every default: it is told neither 85 nor the slope."""
    bank = KalmanBank(TagTable([Tag(name="R101.temperature", asset="R101", noise=NOISE)]))
    n = len(measured)
    batch = Batch.raw(tag=np.zeros(n), time=np.arange(n) * SECOND_NS, value=measured)
    return bank.step(batch).estimate


def mse(estimate: F64) -> float:
    return float(np.mean((estimate - TRUTH) ** 2))


def test_the_tutorials_filter_gives_the_tutorials_true_figure() -> None:
    random = np.random.RandomState(42)
    measured = TRUTH + random.normal(0.0, NOISE, 50)

    assert mse(measured) == pytest.approx(0.2263, abs=1e-4)
    assert mse(tutorial_filter(measured)) == pytest.approx(0.0898, abs=1e-4)


def test_the_shipped_filter_errs_less_than_the_tutorials_over_200_noise_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = np.array(
        [
            [mse(measured), mse(tutorial_filter(measured)), mse(shipped_filter(measured))]
            for measured in (
                TRUTH + np.random.default_rng(seed).normal(0.0, NOISE, 50) for seed in range(200)
            )
        ]
    )
    raw, tutorial, shipped = errors.mean(axis=0)
    with capsys.disabled():  # figures to see in every run
        print(f"\nmean MSE over 200 seeds: raw {raw:.4f}, tutorial {tutorial:.4f}, shipped {shipped:.4f}")  # noqa: T201 - shown

    assert shipped < 0.9 * tutorial
    assert np.mean(errors[:, 2] < errors[:, 1]) > 0.6, "a better mean must not rest on a few seeds"
