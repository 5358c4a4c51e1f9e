"""Is a filter as sure as it should be? Bands for the normalised innovation squared (NIS).

The NIS of a filter that is right about itself is chi-square with as many degrees of freedom as the
measurement has numbers, here 1; a mean of n of them is chi-square of n degrees of freedom over n.

Source: Bar-Shalom, Li, Kirubarajan 2001, section 5.4.2. The incomplete gamma function: Abramowitz and
Stegun, 6.5.29 (series) and 6.5.31 (continued fraction, by Lentz's method).
"""

from __future__ import annotations

import math
from typing import Final

from twinloop.estimation.kalman_state import NIS_SAMPLES

__all__ = ["chi_square_cdf", "chi_square_quantile", "nis_band", "running_nis_band"]

_TINY: Final = 1e-300
_EPSILON: Final = 1e-16


def chi_square_cdf(x: float, dof: float) -> float:
    """P(chi-square of `dof` degrees of freedom <= x), to about 1e-12.

    >>> round(chi_square_cdf(3.841458820694124, 1), 12)
    0.95
    """
    if x <= 0.0:
        return 0.0
    a, z = 0.5 * dof, 0.5 * x
    scale = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1.0:
        return min(scale * _series(a, z), 1.0)
    return max(1.0 - scale * _fraction(a, z), 0.0)


def _series(a: float, z: float) -> float:
    term = total = 1.0 / a
    n = a
    while abs(term) > _EPSILON * total:
        n += 1.0
        term *= z / n
        total += term
    return total


def _fraction(a: float, z: float) -> float:
    b = z + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    value, n, delta = d, 0, 0.0
    while abs(delta - 1.0) > 4.0 * _EPSILON:
        n += 1
        factor = -n * (n - a)
        b += 2.0
        d = factor * d + b
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = b + factor / c
        c = c if abs(c) > _TINY else _TINY
        delta = c * d
        value *= delta
    return value


def chi_square_quantile(probability: float, dof: float) -> float:
    """The x with `chi_square_cdf(x, dof) == probability`, by bisection.

    Raises:
        ValueError: `probability` is not between 0 and 1, or `dof` not positive.

    >>> round(chi_square_quantile(0.975, 10), 6)
    20.483177
    """
    if not 0.0 < probability < 1.0 or dof <= 0.0:
        raise ValueError(f"no chi-square quantile for probability {probability} and {dof} degrees of freedom")
    low, high = 0.0, dof + 10.0
    while chi_square_cdf(high, dof) < probability:
        high *= 2.0
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high or high - low <= 1e-14 * high:
            return middle
        if chi_square_cdf(middle, dof) < probability:
            low = middle
        else:
            high = middle


def nis_band(count: float, probability: float = 0.95) -> tuple[float, float]:
    """Between which two numbers the mean of `count` NIS values lies with this probability, if all is well.

    >>> low, high = nis_band(1000)
    >>> round(low, 3), round(high, 3)
    (0.914, 1.09)
    """
    tail = 0.5 * (1.0 - probability)
    return (
        chi_square_quantile(tail, count) / count,
        chi_square_quantile(1.0 - tail, count) / count,
    )


def running_nis_band(probability: float = 0.95) -> tuple[float, float]:
    """The band of `KalmanBank.nis` once it has seen `NIS_SAMPLES` samples.

    A running mean with weight 1/N has the variance of a plain mean of 2 N - 1 values.
    """
    return nis_band(2 * NIS_SAMPLES - 1, probability)
