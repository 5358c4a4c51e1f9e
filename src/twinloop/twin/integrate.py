"""A stiff integrator for many small systems at once, each with its own step size.

Every asset is stepped by its own error alone: a runaway in one costs the others nothing, not even a
rounding. The method is Rodas5P, a linearly implicit (Rosenbrock) method of order 5 that is L-stable and
stiffly accurate, so it crosses a thermal runaway and the stiff decay behind it without iteration.

Source: G. Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the
Julia Differential Equations package", BIT Numerical Mathematics 63:27 (2023). The form with k scaled by
1 / (gamma h) is that of Hairer & Wanner, Solving Ordinary Differential Equations II, IV.7, eq. 7.25.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Failure", "Field", "Solution", "integrate", "numerical_jacobian"]

F64 = npt.NDArray[np.float64]
BOOL = npt.NDArray[np.bool_]
INT = npt.NDArray[np.int64]

GAMMA: Final = 0.21193756319429014
# What stage i adds to x before f is evaluated; stages 7 and 8 repeat row 6 plus the k in between.
_A: Final = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
# What the earlier k contribute to the right-hand side of stage i, per h.
_C: Final = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (
        30.91273214028599,
        -3.1208243349937974,
        77.79954646070892,
        34.28646028294783,
        -19.097331116725623,
        -28.087943162872662,
    ),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
_LAST_FULL: Final = len(_A) - 1

_ERROR_ORDER: Final = 5  # the embedded method has order 4: its error shrinks with h^5
_SAFETY: Final = 0.9
_SHRINK: Final = 0.1
_GROW: Final = 6.0
_SMALLEST_STEP: Final = 16 * float(np.finfo(np.float64).eps)


@unique
class Failure(IntEnum):
    """Why an asset could not be integrated to the end."""

    NONE = 0
    NOT_FINITE = 1
    """The state or its derivative was not finite at the start."""
    STEP_UNDERFLOW = 2
    """No step, however small, met the tolerance: the derivative is not smooth or leaves its domain."""
    TOO_MANY_STEPS = 3
    """The step budget ran out before the end."""

    @property
    def text(self) -> str:
        """The reason in words; empty for none."""
        return _TEXTS[self]


_TEXTS: Final = {
    Failure.NONE: "",
    Failure.NOT_FINITE: "the model's state or derivative is not finite",
    Failure.STEP_UNDERFLOW: "the model cannot be integrated: its step size fell to nothing",
    Failure.TOO_MANY_STEPS: "the model cannot be integrated within the allowed number of steps",
}


class Field(Protocol):
    """An autonomous right-hand side for n systems of m states; row i depends on row i of x alone."""

    def __call__(self, x: F64) -> F64:
        """dx/dt at x, shape (n, m), per second."""
        ...

    def jacobian(self, x: F64) -> F64:
        """d(dx_i/dt)/dx_j at x, shape (n, m, m)."""
        ...

    def take(self, rows: INT) -> Self:
        """The field of some of the systems, in the order of `rows`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where each system stood at each time asked for.

    Attributes:
        x: states, shape (n_times, n, m); NaN from the time on at which a system failed.
        failure: `Failure` of each system, shape (n,), uint8.
        steps: steps tried, shape (n,).
    """

    x: F64
    failure: npt.NDArray[np.uint8]
    steps: INT

    @property
    def ok(self) -> BOOL:
        """Which systems reached the end, shape (n,)."""
        return np.asarray(self.failure == Failure.NONE, np.bool_)

    def why(self, row: int) -> str:
        """Why a system failed, in words; empty when it did not."""
        return Failure(int(self.failure[row])).text


def integrate(
    field: Field,
    x0: F64,
    t_s: npt.ArrayLike,
    *,
    rtol: float = 1e-6,
    atol: npt.ArrayLike = 1e-9,
    max_steps: int = 20_000,
) -> Solution:
    """Integrate every system from time 0, none of them touched by the others, bit for bit.

    A system that cannot be integrated is reported in the solution and never raised: the rest go on.

    Args:
        field: the right-hand side.
        x0: states at time 0, shape (n, m).
        t_s: times wanted in seconds, ascending and not negative: shape (n_times,), or (n_times, n) for
            times of each system's own.
        rtol: relative tolerance of the local error.
        atol: absolute tolerance, broadcast to (m,), in the units of the states.
        max_steps: steps tried, rejected ones included, before a system counts as failed.

    Raises:
        ValueError: the times descend or are negative, or shapes do not fit.
    """
    start = np.array(x0, np.float64, ndmin=2)
    times = _times(t_s, start.shape[0])
    run = _Run(field, start, times, rtol, np.broadcast_to(np.asarray(atol, np.float64), start.shape[1:]))
    with np.errstate(all="ignore"):
        run.begin()
        while run.rows.size:
            run.step(max_steps)
    return Solution(run.out, run.failure, run.steps)


def _times(t_s: npt.ArrayLike, n: int) -> F64:
    given = np.asarray(t_s, np.float64)
    times = np.broadcast_to(given[:, None] if given.ndim == 1 else given, (given.shape[0], n))
    if times.shape[0] == 0 or not np.all(np.diff(times, axis=0, prepend=0.0) >= 0.0):
        raise ValueError("the times to integrate to must ascend from 0")
    return times


class _Run:
    """One integration under way; `rows` are the systems not yet at their end."""

    def __init__(self, field: Field, x0: F64, times: F64, rtol: float, atol: F64) -> None:
        n, m = x0.shape
        self.field, self.x, self.times, self.rtol, self.atol = field, x0, times, rtol, atol
        self.rows: INT = np.arange(n)
        self.t: F64 = np.zeros(n)
        self.h: F64 = np.zeros(n)
        self.next: INT = np.zeros(n, np.int64)
        self.out: F64 = np.full((times.shape[0], n, m), np.nan)
        self.failure = np.zeros(n, np.uint8)
        self.steps: INT = np.zeros(n, np.int64)

    def begin(self) -> None:
        """Choose first steps; set aside what is already there or cannot start."""
        slope = self.field(self.x)
        finite = _finite(self.x) & _finite(slope)
        scale = self.atol + self.rtol * np.abs(self.x)
        # Hairer & Wanner, Solving ODEs I, II.4: a step that changes x by about a hundredth.
        speed = _rms(slope / scale)
        span = self.times[-1]
        guess = 0.01 * np.maximum(_rms(self.x / scale), 1.0) / np.where(speed > 0.0, speed, np.inf)
        self.h = np.where(guess > 0.0, np.minimum(guess, span), span)
        self.failure[~finite] = Failure.NOT_FINITE
        self._record(finite)

    def step(self, max_steps: int) -> None:
        """Try one step of every system still on its way."""
        target = self.times[self.next, self.rows]
        remaining = target - self.t
        reaches = self.h >= remaining * (1.0 - 1e-9)
        h = np.where(reaches, remaining, self.h)
        new, error = _rodas5p(self.field, self.x, h)
        scale = self.atol + self.rtol * np.maximum(np.abs(self.x), np.abs(new))
        size = _rms(error / scale)
        good = _finite(new) & np.asarray(size <= 1.0, np.bool_)
        factor = _SAFETY * np.power(np.maximum(size, 1e-12), -1.0 / _ERROR_ORDER)
        factor = np.where(np.isfinite(factor), np.clip(factor, _SHRINK, _GROW), _SHRINK)
        wanted = h * factor
        # A step cut short by an output time says nothing against the longer one it replaced.
        self.h = np.where(good & reaches, np.maximum(wanted, self.h), wanted)
        self.x = np.where(good[:, None], new, self.x)
        self.t = np.where(good, np.where(reaches, target, self.t + h), self.t)
        self.steps[self.rows] += 1
        alive = self._still_able(max_steps)
        self._record(alive)

    def _still_able(self, max_steps: int) -> BOOL:
        finished = self.t >= self.times[-1, self.rows]
        smallest = _SMALLEST_STEP * np.maximum(self.times[-1, self.rows], self.t)
        # Also a step that was good: near a blow-up they shrink for ever without time moving on.
        stuck = ~finished & (self.h < smallest)
        spent = ~stuck & ~finished & (self.steps[self.rows] >= max_steps)
        self.failure[self.rows[stuck]] = Failure.STEP_UNDERFLOW
        self.failure[self.rows[spent]] = Failure.TOO_MANY_STEPS
        return np.asarray(~(stuck | spent), np.bool_)

    def _record(self, alive: BOOL) -> None:
        """Write down the states at output times reached, and keep only the systems with some left."""
        count = self.times.shape[0]
        while True:
            due = alive & (self.next < count)
            due &= self.t >= self.times[np.minimum(self.next, count - 1), self.rows]
            if not due.any():
                break
            self.out[self.next[due], self.rows[due]] = self.x[due]
            self.next = self.next + due
        keep = alive & (self.next < count)
        if keep.all():
            return
        chosen = np.flatnonzero(keep)
        self.rows, self.next = self.rows[chosen], self.next[chosen]
        self.t, self.h, self.x = self.t[chosen], self.h[chosen], self.x[chosen]
        self.field = self.field.take(chosen)


def _rodas5p(field: Field, x: F64, h: F64) -> tuple[F64, F64]:
    """The state one step on and the embedded error estimate, both (n, m).

    (I / (gamma h) - J) k_i = f(x + sum_j a_ij k_j) + sum_j c_ij k_j / h
    """
    per_h = (1.0 / h)[:, None]
    w = -field.jacobian(x)
    for i in range(x.shape[1]):
        w[:, i, i] += per_h[:, 0] / GAMMA
    solver = _inverse(w)
    k: list[F64] = []
    at = x
    for stage, couplings in enumerate(_C):
        if 0 < stage <= _LAST_FULL:
            at = x + _combine(_A[stage], k)
        elif stage > _LAST_FULL:
            at = at + k[-1]
        right = field(at)
        if couplings:
            right = right + _combine(couplings, k) * per_h
        k.append(_apply(solver, right))
    # Stiffly accurate: the last k is the difference to the embedded method of order 4.
    return at + k[-1], k[-1]


def _combine(weights: tuple[float, ...], k: list[F64]) -> F64:
    total = weights[0] * k[0]
    for weight, stage in zip(weights[1:], k[1:], strict=True):
        total += weight * stage
    return total


def _apply(matrix: F64, vector: F64) -> F64:
    """Matrix times vector for each system, summed in one fixed order."""
    total = matrix[:, :, 0] * vector[:, 0, None]
    for j in range(1, vector.shape[1]):
        total += matrix[:, :, j] * vector[:, j, None]
    return total


def _finite(x: F64) -> BOOL:
    """Which rows are finite throughout, shape (n,)."""
    return np.asarray(np.isfinite(x).all(axis=1), np.bool_)


def _rms(x: F64) -> F64:
    """Root mean square of each row, summed in one fixed order."""
    total = x[:, 0] * x[:, 0]
    for j in range(1, x.shape[1]):
        total = total + x[:, j] * x[:, j]
    root: F64 = np.sqrt(total / x.shape[1])
    return root


def _inverse(a: F64) -> F64:
    """Inverses by Gauss-Jordan elimination with partial pivoting; not finite where singular.

    Written out so that no system's result depends on its neighbours or on a library's threads.
    """
    n, m, _ = a.shape
    if m == 1:
        return 1.0 / a
    # Both halves side by side: one row operation serves the matrix and its inverse.
    both = np.concatenate((a, np.broadcast_to(np.eye(m), a.shape)), axis=2)
    every = np.arange(n)
    for c in range(m):
        if c < m - 1:
            pivot = c + np.argmax(np.abs(both[:, c:, c]), axis=1)
            if (pivot != c).any():
                swapped = both[every, pivot]
                both[every, pivot] = both[:, c]
                both[:, c] = swapped
        lead = both[:, c] / both[:, c, c, None]
        both -= both[:, :, c, None] * lead[:, None, :]
        both[:, c] = lead
    inverse: F64 = both[:, :, m:]
    return inverse


def numerical_jacobian(field: Field, x: F64) -> F64:
    """The Jacobian by central differences, shape (n, m, m): for fields that do not give their own.

    Good to about 1e-10 relative, which the method's order survives down to tolerances near 1e-9.
    """
    n, m = x.shape
    jacobian = np.empty((n, m, m))
    for j in range(m):
        width = np.cbrt(np.finfo(np.float64).eps) * np.maximum(np.abs(x[:, j]), 1.0)
        above, below = x.copy(), x.copy()
        above[:, j] += width
        below[:, j] -= width
        jacobian[:, :, j] = (field(above) - field(below)) / (above[:, j] - below[:, j])[:, None]
    return jacobian
