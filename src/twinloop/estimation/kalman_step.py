"""One tag's filter, compiled: predict, gate, update, and what is believed at any time.

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
from typing import Any

from twinloop.estimation.kalman_state import (
    FIRM,
    GAP_MAX_S,
    GATE_NIS,
    GATED,
    GOOD_STREAK,
    NIS_SAMPLES,
    NOISE_CLIP,
    NOISE_CLIP_MEAN,
    NOISE_FLOOR,
    NOISE_SAMPLES,
    NOISE_TRUSTED,
    NOTHING,
    RESET,
    SECONDS_PER_NS,
    START_RATE,
    TENTATIVE,
    UNCERTAIN_VARIANCE,
    USED,
)
from twinloop.kernel import kernel

__all__ = ["belief", "hold", "newest", "noise_variance", "update"]


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
def noise_variance(s: Any, rule: Any) -> float:
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
    before, pair = s.gated_value, s.streak > 1
    before_factor = 1.0 if s.gated_good else UNCERTAIN_VARIANCE
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
def update(s: Any, rule: Any, time: int, value: float, good: bool) -> int:  # noqa: FBT001 - a kernel takes no keywords
    """One usable sample of an analogue tag: predict, gate, update; says what became of it."""
    factor = 1.0 if good else UNCERTAIN_VARIANCE
    if s.kind == NOTHING or (good and s.kind == TENTATIVE):
        s.kind = FIRM if good else TENTATIVE
        s.last = value
        _start(s, rule, time, value, factor)
        return USED
    if good:
        _note_quantum(s, value)
    variance = noise_variance(s, rule)
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
        s.gated_good = good
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
    s.used = 2
    s.streak = 0
    s.good_streak = 0
    return USED


@kernel
def belief(s: Any, rule: Any, time: int) -> tuple[float, float, float]:
    """Value, its standard deviation and rate at any time, without changing the belief."""
    if s.kind == NOTHING:
        return math.nan, math.nan, math.nan
    if rule.analogue == 0:
        return s.value, math.nan, math.nan
    variance = noise_variance(s, rule)
    if time == s.time:  # as below, only sooner: most rows are of the newest sample
        return s.value, min(math.sqrt((s.d0 + s.u * s.u * s.d1) * variance), rule.std_max), s.rate
    dt = _gap(time, s.time)
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
def hold(s: Any, time: int, value: float) -> None:
    """A good sample of a tag that is only held."""
    s.kind = FIRM
    s.time = time
    s.value = value


@kernel
def newest(s: Any, rule: Any) -> int:
    """The time before which a sample is late. Gated samples count where there is a ring to put it into."""
    return int(s.gated_time) if s.streak > 0 and rule.rewind > 0 else int(s.time)
