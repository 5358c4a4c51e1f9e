"""A model in motion: following the plant between two ticks, and running ahead of it.

Both integrate the same augmented system. Beside the model's states x stands, for each state a sensor shows,
the *unexplained rate* d: how fast the plant was seen to move beyond what the model explains (heat the plant
file does not tell of, say). It acts on the model and fades with the time constant tau:

    dx/dt = f(x, u, p) + d        dd/dt = -d / tau

While a state is measured it is not integrated but imposed: it moves on a straight line from estimate to
estimate, and the rest of the model follows it (an open-loop observer for what no sensor shows).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from twinloop.twin.integrate import BOOL, F64, INT, Solution, integrate
from twinloop.twin.model import Model

__all__ = ["RTOL", "Motion", "predict"]

RTOL: Final = 1e-6
"""Relative tolerance of the twin's integrations; the absolute one is `RTOL` of the model's scales."""

MAX_STEPS: Final = 2000
"""Twenty times what a thermal runaway takes; an asset that needs more must not hold up the cycle."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The augmented right-hand side of n assets of one model; a `Field` over [x, d].

    Attributes:
        model: the physics.
        u: inputs, shape (n, n_u), held constant.
        p: parameters by name, each (n,).
        imposed: states that follow `slope` instead of the model, shape (n, n_x).
        slope: their rate of change per second, shape (n, n_x).
        fade: 1 / tau per second, shape (n,).
        drifting: columns of x that have an unexplained rate, in the order of the columns of d.
    """

    model: Model
    u: F64
    p: Mapping[str, F64]
    imposed: BOOL
    slope: F64
    fade: F64
    drifting: tuple[int, ...] = ()

    def __call__(self, x: F64) -> F64:
        """d[x, d]/dt, shape (n, n_x + n_d)."""
        n_x = len(self.model.states)
        rate = self.model.derivative(x[:, :n_x], self.u, self.p)
        if not self.drifting:
            return np.where(self.imposed, self.slope, rate)
        out = np.empty_like(x)
        for k, column in enumerate(self.drifting):
            rate[:, column] += x[:, n_x + k]
            out[:, n_x + k] = -self.fade * x[:, n_x + k]
        out[:, :n_x] = np.where(self.imposed, self.slope, rate)
        return out

    def jacobian(self, x: F64) -> F64:
        """The right-hand side's Jacobian, shape (n, m, m) with m = n_x + n_d."""
        n_x, m = len(self.model.states), x.shape[1]
        out = np.zeros((x.shape[0], m, m))
        inner = self.model.jacobian(x[:, :n_x], self.u, self.p)
        out[:, :n_x, :n_x] = np.where(self.imposed[:, :, None], 0.0, inner)
        for k, column in enumerate(self.drifting):
            out[:, column, n_x + k] = np.where(self.imposed[:, column], 0.0, 1.0)
            out[:, n_x + k, n_x + k] = -self.fade
        return out

    def take(self, rows: INT) -> Self:
        """The motion of some of the assets."""
        return replace(
            self,
            u=self.u[rows],
            p={name: values[rows] for name, values in self.p.items()},
            imposed=self.imposed[rows],
            slope=self.slope[rows],
            fade=self.fade[rows],
        )

    def run(self, x: F64, drift: F64, t_s: npt.ArrayLike) -> Solution:
        """Integrate from x (n, n_x) and the unexplained rates (n, n_x) to each time of `t_s`.

        The solution's columns are those of [x, d]; an asset that fails is reported in it, not raised.
        """
        start = np.concatenate((x, drift[:, list(self.drifting)]), axis=1)
        scales = [*self.model.scales, *(self.model.scales[column] for column in self.drifting)]
        return integrate(self, start, t_s, rtol=RTOL, atol=RTOL * np.array(scales), max_steps=MAX_STEPS)


def predict(
    model: Model,
    x: F64,
    drift: F64,
    u: F64,
    p: Mapping[str, F64],
    *,
    fade: F64,
    drifting: tuple[int, ...],
    horizons_s: npt.ArrayLike,
) -> Solution:
    """States ahead, by the model from the state it is in now, with inputs and parameters as they are now.

    Args:
        model: the physics.
        x: present states, shape (n, n_x).
        drift: present unexplained rates per second, shape (n, n_x); 0 where there are none.
        u: inputs, shape (n, n_u).
        p: parameters by name, each (n,).
        fade: 1 / tau of the unexplained rates, per second, shape (n,).
        drifting: the columns of x that may have an unexplained rate.
        horizons_s: ascending times ahead in seconds, (n_times,) or (n_times, n).

    Returns:
        The solution; its first n_x columns are the states.
    """
    free = np.zeros(x.shape, np.bool_)
    return Motion(model, u, p, free, np.zeros(x.shape), fade, drifting).run(x, drift, horizons_s)
