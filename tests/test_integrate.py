"""Laws of the integrator: order, tolerance, stiffness, and no asset ever touching another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from twinloop.twin.integrate import Failure, _inverse, _rodas5p, integrate, numerical_jacobian

F64 = npt.NDArray[np.float64]
INT = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Decay:
    """x' = -k x: the closed form everything can be held against."""

    k: F64

    def __call__(self, x: F64) -> F64:
        return -self.k[:, None] * x

    def jacobian(self, x: F64) -> F64:
        return numerical_jacobian(self, x)

    def take(self, rows: INT) -> Self:
        return type(self)(self.k[rows])


@dataclass(frozen=True, eq=False)
class VanDerPol:
    """x'' = mu (1 - x^2) x' - x: smooth for small mu, very stiff for large."""

    mu: F64

    def __call__(self, x: F64) -> F64:
        return np.stack((x[:, 1], self.mu * (1.0 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]), axis=1)

    def jacobian(self, x: F64) -> F64:
        zero, one = np.zeros(len(x)), np.ones(len(x))
        last = np.stack((-2.0 * self.mu * x[:, 0] * x[:, 1] - 1.0, self.mu * (1.0 - x[:, 0] ** 2)), axis=1)
        return np.stack((np.stack((zero, one), axis=1), last), axis=1)

    def take(self, rows: INT) -> Self:
        return type(self)(self.mu[rows])


@dataclass(frozen=True, eq=False)
class BlowUp:
    """x' = a x^2: infinite at t = 1 / (a x0)."""

    a: F64

    def __call__(self, x: F64) -> F64:
        return self.a[:, None] * x * x

    def jacobian(self, x: F64) -> F64:
        return (2.0 * self.a[:, None] * x)[:, :, None]

    def take(self, rows: INT) -> Self:
        return type(self)(self.a[rows])


def test_a_decay_lands_on_its_closed_form() -> None:
    rate = np.array([0.01, 1.0, 30.0])
    solution = integrate(Decay(rate), np.ones((3, 1)), [0.5, 1.0, 2.0], rtol=1e-10, atol=1e-13)
    expected = np.exp(-rate * np.array([0.5, 1.0, 2.0])[:, None])
    assert solution.ok.all()
    np.testing.assert_allclose(solution.x[:, :, 0], expected, rtol=1e-9, atol=1e-11)


def test_halving_the_step_divides_the_error_by_two_to_the_fifth() -> None:
    field, start = VanDerPol(np.array([1.0])), np.array([[2.0, 0.0]])
    truth = integrate(field, start, [1.0], rtol=1e-13, atol=1e-15).x[0]
    errors = []
    for count in (16, 32, 64):
        x = start
        for _ in range(count):
            x, _ = _rodas5p(field, x, np.array([1.0 / count]))
        errors.append(float(np.abs(x - truth).max()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 4.7).all(), orders


def test_the_error_estimate_shrinks_one_order_slower_than_the_error() -> None:
    field, start = VanDerPol(np.array([1.0])), np.array([[2.0, 0.0]])
    sizes = [float(np.abs(_rodas5p(field, start, np.array([h]))[1]).max()) for h in (0.04, 0.02, 0.01)]
    orders = np.log2(np.array(sizes[:-1]) / np.array(sizes[1:]))
    assert ((orders > 4.6) & (orders < 5.6)).all(), orders


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8, 1e-10])
def test_the_error_follows_the_tolerance(rtol: float) -> None:
    field, start = VanDerPol(np.array([5.0])), np.array([[2.0, 0.0]])
    got = integrate(field, start, [3.0], rtol=rtol, atol=rtol).x[0, 0]

    def one(_: float, x: F64) -> F64:
        return field(x[None]).reshape(-1)

    truth = solve_ivp(one, (0.0, 3.0), start[0], method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    assert np.abs(got - truth).max() < 100 * rtol


def test_a_problem_stiff_by_a_million_takes_few_steps() -> None:
    # The slow part has a time scale of 1, the fast one of 1e-6: an explicit method needs about 1e6 steps.
    field, start = VanDerPol(np.array([1e6])), np.array([[2.0, 0.0]])
    solution = integrate(field, start, [1.0], rtol=1e-6, atol=1e-8)
    assert solution.ok.all()
    assert solution.steps[0] < 100
    # On the slow manifold x' = -x / (mu (x^2 - 1)).
    assert solution.x[0, 0, 0] == pytest.approx(2.0 - 2.0 / 3.0 * 1e-6, abs=1e-10)


def test_a_blow_up_is_reported_and_the_others_reach_their_end() -> None:
    field = BlowUp(np.array([1.0, -1.0, 1e-3]))
    solution = integrate(field, np.ones((3, 1)), [0.5, 2.0], rtol=1e-8, atol=1e-10)
    assert solution.ok.tolist() == [False, True, True]
    assert solution.why(0)
    assert solution.why(1) == ""
    assert solution.x[0, 0, 0] == pytest.approx(2.0, rel=1e-6), "what came before the failure stands"
    assert np.isnan(solution.x[1, 0, 0])
    np.testing.assert_allclose(solution.x[1, 1:, 0], [1 / 3, 1 / (1 - 2e-3)], rtol=1e-7)


def test_a_start_that_is_not_finite_fails_at_once() -> None:
    solution = integrate(Decay(np.ones(2)), np.array([[np.nan], [1.0]]), [1.0])
    assert solution.failure.tolist() == [Failure.NOT_FINITE, Failure.NONE]
    assert solution.steps[0] == 0


def test_the_step_budget_ends_an_integration_that_would_not_end() -> None:
    solution = integrate(VanDerPol(np.array([1.0])), np.array([[2.0, 0.0]]), [1e6], max_steps=50)
    assert solution.failure.tolist() == [Failure.TOO_MANY_STEPS]
    assert solution.steps[0] == 50


def test_time_zero_gives_the_start_and_equal_times_equal_states() -> None:
    solution = integrate(Decay(np.ones(1)), np.ones((1, 1)), [0.0, 1.0, 1.0])
    assert solution.x[0, 0, 0] == 1.0
    assert solution.x[1, 0, 0] == solution.x[2, 0, 0]


def test_each_system_may_have_times_of_its_own() -> None:
    solution = integrate(Decay(np.ones(2)), np.ones((2, 1)), np.array([[1.0, 3.0]]), rtol=1e-9)
    np.testing.assert_allclose(solution.x[0, :, 0], np.exp([-1.0, -3.0]), rtol=1e-7)


@pytest.mark.parametrize("times", [[], [2.0, 1.0], [-1.0]])
def test_times_that_do_not_ascend_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        integrate(Decay(np.ones(1)), np.ones((1, 1)), times)


@settings(max_examples=40, deadline=None)
@given(
    mu=st.lists(st.floats(0.0, 1e4), min_size=2, max_size=12),
    start=st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)),
    data=st.data(),
)
def test_no_system_changes_another_by_a_single_bit(
    mu: list[float], start: tuple[float, float], data: st.DataObject
) -> None:
    n = len(mu)
    field, x0 = VanDerPol(np.array(mu)), np.tile(start, (n, 1)) + np.arange(n)[:, None] * 0.1
    together = integrate(field, x0, [0.3, 1.0], rtol=1e-5, atol=1e-6)
    rows = np.array(data.draw(st.permutations(range(n))))[: data.draw(st.integers(1, n))]
    apart = integrate(field.take(rows), x0[rows], [0.3, 1.0], rtol=1e-5, atol=1e-6)
    assert apart.x.tobytes() == together.x[:, rows].tobytes()
    assert apart.steps.tolist() == together.steps[rows].tolist()


@settings(deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda m: st.lists(st.floats(-10, 10, width=32), min_size=3 * m * m, max_size=3 * m * m)
    )
)
def test_the_inverse_undoes_its_matrix(numbers: list[float]) -> None:
    m = round((len(numbers) / 3) ** 0.5)
    a = np.array(numbers).reshape(3, m, m) + 50.0 * np.eye(m)[:, ::-1]
    np.testing.assert_allclose(_inverse(a) @ a, np.broadcast_to(np.eye(m), a.shape), atol=1e-9)
