"""The compiled loop of the filter bank: rows in order, each tag's own irregular times.

Everything about covariances is kept in units of the tag's own noise variance, as factors P = U D U':

    P / noise^2 = [[d0 + u^2 d1, u d1], [u d1, d1]]      d0, d1 > 0

In this form both steps of the filter are sums and products of positive numbers. The covariance is symmetric
and positive definite by construction, whatever the gaps, and the gain does not depend on the noise level at
all where rate noise is relative to noise. The equations and their sources stand in docs/ESTIMATION.md.

Source: Bierman 1977, chapters V and VI (UD filter); Bar-Shalom, Li, Kirubarajan 2001, section 6.2.2
(white-noise acceleration) and 5.5.3 (two-point initialisation).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from twinloop.kernel import kernel
from twinloop.status import SEVERITY_SHIFT

__all__ = [
    "COAST_PERIODS",
    "GATED",
    "GATE_NIS",
    "GOOD_STREAK",
    "NIS_SAMPLES",
    "NOTHING",
    "RELATIVE_RATE_NOISE",
    "RESET",
    "RULE",
    "STATE",
    "UNCERTAIN_VARIANCE",
    "USED",
    "fold",
    "look",
    "variances",
]

GATE_NIS: Final = 25.0
"""A sample whose NIS is beyond this (five standard deviations) is not used."""
UNCERTAIN_VARIANCE: Final = 25.0
"""An Uncertain sample counts as one with five times the noise."""
RELATIVE_RATE_NOISE: Final = 0.05
"""Default rate noise, times noise / every^1.5: the tracking index at one sample a period."""
GOOD_STREAK: Final = 3
"""So many Good samples in a row beyond the gate, and it is the estimate that is wrong."""
NIS_SAMPLES: Final = 100
"""The running NIS is a mean over about this many samples (exponential weights)."""
COAST_PERIODS: Final = 10
"""How long a rate is extrapolated without a usable sample, in cycle periods; then the value is held."""

START_RATE: Final = 10.0  # standard deviation of the first rate, in noise per period: almost unknown
GAP_MAX_S: Final = 86_400.0  # beyond a day the variance grows no further: a sample then starts afresh anyway
NOISE_SAMPLES: Final = 500  # memory of the noise estimate
NOISE_CLIP: Final = 9.0  # a squared deviation enters the noise estimate at no more than 3 deviations
NOISE_CLIP_MEAN: Final = 0.99501  # E min(z^2, 9) of a standard normal z: takes the clipping's bias out
NOISE_TRUSTED: Final = 20  # deviations seen before an estimated noise may gate
NOISE_FLOOR: Final = 1e-9  # of the value: what rounding alone can do
VALUE_MAX: Final = 1e100  # squares of what is beyond would not be finite; NaN is not below it either
SECONDS_PER_NS: Final = 1e-9

# The belief's `kind`, its own small state machine.
NOTHING: Final = 0  # no usable sample yet
TENTATIVE: Final = 1  # only Uncertain samples so far: the first Good one starts afresh
FIRM: Final = 2  # rests on Good samples

# What became of a row.
UNUSED: Final = 0  # Bad, empty or late: the belief is untouched
USED: Final = 1
GATED: Final = 2
RESET: Final = 3  # the last of too many gated samples: the belief begins anew from it

STATE: Final = np.dtype(
    [
        ("time", "<i8"),  # of the newest sample used, ns
        ("value", "<f8"),
        ("rate", "<f8"),
        ("d0", "<f8"),
        ("d1", "<f8"),
        ("u", "<f8"),
        ("variance", "<f8"),  # noise^2, given or estimated
        ("noise_count", "<i8"),  # deviations behind an estimated noise
        ("quantum", "<f8"),  # smallest change between good samples; 0 before any
        ("last", "<f8"),  # newest good sample
        ("kind", "<i8"),
        ("used", "<i8"),  # samples used since the belief began
        ("streak", "<i8"),  # gated samples in a row
        ("good_streak", "<i8"),  # Good ones among the newest of them, in a row
        ("gated_time", "<i8"),  # the newest of them: time, value, variance factor
        ("gated_value", "<f8"),
        ("gated_factor", "<f8"),
        ("nis", "<f8"),
        ("nis_sum", "<f8"),
        ("nis_count", "<i8"),
        ("gated", "<i8"),  # in all
        ("resets", "<i8"),
    ]
)
RULE: Final = np.dtype(
    [
        ("analogue", "<i8"),
        ("variance", "<f8"),  # noise^2; NaN: estimate it
        ("rate_noise", "<f8"),  # unit/s per sqrt(s); NaN: relative to noise
        ("relative", "<f8"),  # the default, in noise/s per sqrt(s)
        ("period", "<f8"),  # s
        ("coast", "<f8"),  # s
        ("rebaseline", "<i8"),
        ("std_max", "<f8"),
        ("unit", "<i8"),  # a print of the unit the numbers are in; not read here
    ]
)


@kernel
def _spread(d0: float, d1: float, u: float, dt: float, relative: float) -> tuple[float, float, float]:
    """The factors `dt` seconds on (or back): F P F' + Q without a subtraction; d0, d1 never shrink."""
    w = relative * relative * abs(dt)
    if w == 0.0:
        return d0, d1, u + dt
    total = d1 + w
    share = d1 / total
    lever = u + 0.5 * dt
    # u: the mean of u + dt, of weight d1, and dt/2, of weight w
    return d0 + w * (dt * dt / 12.0 + share * lever * lever), total, 0.5 * dt + share * lever


@kernel
def _gap(later: int, earlier: int) -> float:
    """Seconds from one time to another, at most a day either way; never wraps around."""
    if later >= earlier:
        gap = later - earlier
        return min(gap * SECONDS_PER_NS, GAP_MAX_S) if gap >= 0 else GAP_MAX_S
    gap = earlier - later
    return -min(gap * SECONDS_PER_NS, GAP_MAX_S) if gap >= 0 else -GAP_MAX_S


@kernel
def _variance(s: Any, rule: Any) -> float:
    """noise^2 in force: as given, or as estimated but not below what quantisation and rounding explain."""
    if not math.isnan(rule.variance):
        return float(rule.variance)
    if s.noise_count == 0:
        return math.nan
    rounding = NOISE_FLOOR * abs(s.last)
    return float(max(s.variance, s.quantum * s.quantum / 12.0, rounding * rounding, 1e-300))


@kernel
def _relative(variance: float, rule: Any) -> float:
    """Rate noise in units of noise."""
    if math.isnan(rule.rate_noise) or math.isnan(variance):
        return float(rule.relative)
    return float(rule.rate_noise / math.sqrt(variance))


@kernel
def _start(s: Any, rule: Any, time: int, value: float, factor: float) -> None:
    """Begin a belief from one sample: the value as good as the sample, the rate almost unknown."""
    s.time = time
    s.value = value
    s.rate = 0.0
    s.d0 = factor
    s.d1 = (START_RATE / rule.period) ** 2
    s.u = 0.0
    s.used = 1
    s.streak = 0
    s.good_streak = 0


@kernel
def _restart(s: Any, rule: Any, time: int, value: float, factor: float) -> None:
    """Begin anew from the last two gated samples (two-point differencing), so that a ramp is caught too."""
    apart = _gap(time, s.gated_time)
    before, before_factor, pair = s.gated_value, s.gated_factor, s.streak > 1
    _start(s, rule, time, value, factor)
    s.resets += 1
    # Perhaps it is the noise that has grown: learn it quickly and gate nothing meanwhile.
    s.noise_count = min(s.noise_count, 1)
    both = factor + before_factor
    # Two samples closer than that say less of the rate than nothing does: their slope would be noise.
    if pair and both < s.d1 * apart * apart:
        s.rate = (value - before) / apart
        s.d0 = factor * before_factor / both
        s.d1 = both / (apart * apart)
        s.u = factor * apart / both
        s.used = 2


@kernel
def _learn_noise(s: Any, deviation: float, variance: float) -> None:
    """Fold one squared deviation (tag units squared, expectation noise^2) into the noise estimate."""
    if s.noise_count == 0:
        s.variance = deviation
    else:
        # Weights grow with the square of the count at first: a wild first sample is soon forgotten.
        weight = max(1.0 / NOISE_SAMPLES, 3.0 / (s.noise_count + 3.0))
        ratio = min(deviation / variance, NOISE_CLIP) / NOISE_CLIP_MEAN
        s.variance = variance * (1.0 + weight * (ratio - 1.0))
    s.noise_count += 1


@kernel
def _count_nis(s: Any, nis: float) -> None:
    """Fold one NIS, capped at the gate so that one outlier does not own the figure, into the mean."""
    nis = min(nis, GATE_NIS)
    s.nis_count += 1
    s.nis_sum += nis
    if s.nis_count == 1:
        s.nis = nis
    else:
        s.nis += (nis - s.nis) / min(s.nis_count, NIS_SAMPLES)


@kernel
def _note_quantum(s: Any, value: float) -> None:
    """Keep the smallest step between good samples: noise is not less than a sensor's resolution."""
    step = abs(value - s.last)
    if step > 0.0 and (s.quantum == 0.0 or step < s.quantum):
        s.quantum = step
    s.last = value


@kernel
def _filter(s: Any, rule: Any, time: int, value: float, good: bool) -> int:  # noqa: FBT001 - a kernel takes no keywords
    """One usable sample of an analogue tag: predict, gate, update; says what became of it."""
    factor = 1.0 if good else UNCERTAIN_VARIANCE
    if s.kind == NOTHING or (good and s.kind == TENTATIVE):
        s.kind = FIRM if good else TENTATIVE
        s.last = value
        _start(s, rule, time, value, factor)
        return USED
    if good:
        _note_quantum(s, value)
    variance = _variance(s, rule)
    dt = _gap(time, s.time)
    d0, d1, u = _spread(s.d0, s.d1, s.u, dt, _relative(variance, rule))
    predicted = s.value + s.rate * dt
    innovation = value - predicted
    inner = d0 + factor
    total = inner + u * u * d1
    deviation = innovation * innovation / total
    nis = deviation / variance
    settled = s.used > 1 and (good or s.kind == TENTATIVE)
    trusted = not math.isnan(rule.variance) or s.noise_count >= NOISE_TRUSTED
    if settled and trusted:
        _count_nis(s, nis)
    # The second sample sets the rate, whatever it is: there is nothing yet to hold it against.
    if trusted and nis > GATE_NIS and s.used > 1:
        s.gated += 1
        s.streak += 1
        s.good_streak = s.good_streak + 1 if good else 0
        if s.streak >= rule.rebaseline or s.good_streak >= GOOD_STREAK:
            _restart(s, rule, time, value, factor)
            return RESET
        s.gated_time = time
        s.gated_value = value
        s.gated_factor = factor
        return GATED
    if settled and math.isnan(rule.variance):
        _learn_noise(s, deviation, variance)
    step = innovation / total
    kept = factor / inner
    s.time = time
    s.value = predicted + step * (d0 + u * u * d1)
    s.rate += step * (u * d1)
    s.d0 = d0 * kept
    s.d1 = d1 * (inner / total)
    s.u = u * kept
    s.used += 1
    s.streak = 0
    s.good_streak = 0
    return USED


@kernel
def _belief(s: Any, rule: Any, time: int) -> tuple[float, float, float]:
    """Value, its standard deviation and rate at any time, without changing the belief."""
    if s.kind == NOTHING:
        return math.nan, math.nan, math.nan
    if rule.analogue == 0:
        return s.value, math.nan, math.nan
    dt = _gap(time, s.time)
    variance = _variance(s, rule)
    d0, d1, u = _spread(s.d0, s.d1, s.u, dt, _relative(variance, rule))
    mean_square = (d0 + u * u * d1) * variance
    if abs(dt) <= rule.coast:
        return s.value + s.rate * dt, min(math.sqrt(mean_square), rule.std_max), s.rate
    # From here on the value is held, off the model's own mean by what the rate would have added.
    coasted = math.copysign(rule.coast, dt)
    held_back = s.rate * (dt - coasted)
    std = math.sqrt(mean_square + held_back * held_back)
    return s.value + s.rate * coasted, min(std, rule.std_max), 0.0


@kernel
def _hold(s: Any, time: int, value: float) -> int:
    """A good sample of a tag that is only held."""
    s.kind = FIRM
    s.time = time
    s.value = value
    return USED


@kernel
def fold(  # noqa: PLR0913, PLR0917 - a kernel takes columns
    state: Any,
    rules: Any,
    tag: Any,
    time: Any,
    value: Any,
    status: Any,
    estimate: Any,
    std: Any,
    rate: Any,
    before: Any,
    outcome: Any,
) -> int:
    """All rows in order; fills the last five columns; returns how many beliefs began anew."""
    resets = 0
    for row in range(len(tag)):
        s = state[tag[row]]
        rule = rules[tag[row]]
        level = status[row] >> SEVERITY_SHIFT
        outcome[row] = UNUSED
        in_order = s.kind == NOTHING or time[row] >= s.time
        if level < 2 and in_order and abs(value[row]) < VALUE_MAX:
            if rule.analogue:
                held = s.value
                outcome[row] = _filter(s, rule, time[row], value[row], level == 0)
                if outcome[row] == RESET:
                    before[row] = held
                    resets += 1
            elif level == 0:
                outcome[row] = _hold(s, time[row], value[row])
        estimate[row], std[row], rate[row] = _belief(s, rule, time[row])
    return resets


@kernel
def look(  # noqa: PLR0917 - a kernel takes columns
    state: Any, rules: Any, time: Any, value: Any, std: Any, rate: Any
) -> None:
    """Every tag's belief at the time asked for it."""
    for tag in range(len(state)):
        value[tag], std[tag], rate[tag] = _belief(state[tag], rules[tag], time[tag])


@kernel
def variances(state: Any, rules: Any, out: Any) -> None:
    """Every tag's noise^2 in force; NaN where it is not known yet."""
    for tag in range(len(state)):
        out[tag] = _variance(state[tag], rules[tag])
