"""The compiled loop of the filter bank: rows in order, each tag's own irregular times.

Everything the loop calls stands in this file, because the on-disk cache notices only its own file.

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
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twinloop.estimation.kalman_state import (
    CHUNK,
    FIRM,
    GAP_MAX_S,
    GATE_NIS,
    GATED,
    GOOD_MARK,
    GOOD_STREAK,
    KEEP_EVERY,
    NIS_SAMPLES,
    NOISE_CLIP,
    NOISE_CLIP_MEAN,
    NOISE_FLOOR,
    NOISE_SAMPLES,
    NOISE_TRUSTED,
    NOTHING,
    RESET,
    RESET_MARK,
    RING,
    SAMPLE,
    SECONDS_PER_NS,
    START_RATE,
    STATE,
    TENTATIVE,
    UNCERTAIN_VARIANCE,
    USED,
    VALUE_MAX,
)
from twinloop.kernel import kernel
from twinloop.pages import PAGE_SHIFT
from twinloop.status import SEVERITY_SHIFT, Reason

__all__ = ["Memory", "Rows", "fold", "look", "variances"]

_CLOCK_BACK: Final = int(Reason.CLOCK_BACK)
_INNOVATION: Final = int(Reason.INNOVATION)
STATE_SIZE: Final = STATE.itemsize
SAMPLE_SIZE: Final = SAMPLE.itemsize
_Void = npt.NDArray[np.void]
_F64 = npt.NDArray[np.float64]
_U8 = npt.NDArray[np.uint8]


class Memory(NamedTuple):
    """What is kept between batches.

    Attributes:
        state, rules: one `STATE` and one `RULE` a tag, shape (n_tags,).
        samples: the ring, sample k of a tag at `_slot(k, tag, n_tags)`, shape (n_tags * RING,).
        kept: the belief before sample k, for every k that is a multiple of KEEP_EVERY, at
            `_keep_slot(k, tag, n_tags)`, shape (n_tags * RING // KEEP_EVERY,).
        samples_dirty, kept_dirty: marks on their pages.
    """

    state: _Void
    rules: _Void
    samples: _Void
    kept: _Void
    samples_dirty: _U8
    kept_dirty: _U8


class Rows(NamedTuple):
    """The columns of a batch; INNOVATION is added to `reasons`, the last three are filled in. Shapes (n,)."""

    tag: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    value: _F64
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]
    estimate: _F64
    std: _F64
    rate: _F64


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
def _belief(s: Any, rule: Any, time: int) -> tuple[float, float, float]:
    """Value, its standard deviation and rate at any time, without changing the belief."""
    if s.kind == NOTHING:
        return math.nan, math.nan, math.nan
    if rule.analogue == 0:
        return s.value, math.nan, math.nan
    variance = _variance(s, rule)
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
def _hold(s: Any, time: int, value: float) -> None:
    """A good sample of a tag that is only held."""
    s.kind = FIRM
    s.time = time
    s.value = value


@kernel
def _newest(s: Any, rule: Any) -> int:
    """The time before which a sample is late. Gated samples count where there is a ring to put it into."""
    return int(s.gated_time) if s.streak > 0 and rule.rewind > 0 else int(s.time)


@kernel
def _slot(k: int, tag: int, tags: int) -> int:
    """Where the ring keeps sample k of a tag."""
    chunk = (k & (RING - 1)) // CHUNK
    return (chunk * tags + tag) * CHUNK + (k & (CHUNK - 1))


@kernel
def _keep_slot(k: int, tag: int, tags: int) -> int:
    """Where the belief before sample k of a tag is kept."""
    return (k & (RING - 1)) // KEEP_EVERY * tags + tag


@kernel
def _soil(dirty: _U8, slot: int, size: int) -> None:
    """Mark the pages of the entry in a slot as changed."""
    dirty[slot * size >> PAGE_SHIFT] = 1
    dirty[slot * size + size - 1 >> PAGE_SHIFT] = 1


@kernel
def _keep(kept: _Void, dirty: _U8, slot: int, s: Any) -> None:
    """Keep a belief."""
    kept[slot] = s
    _soil(dirty, slot, STATE_SIZE)


@kernel
def _forget(s: Any) -> None:
    """The clock was set back: nothing is believed any more; what was learnt of noise and NIS stays."""
    s.kind = NOTHING
    s.streak = 0
    s.folded = 0


@kernel
def _place(memory: Memory, tag: int, time: int) -> int:
    """Which sample of its tag a late one becomes; -1 where it is too late for that."""
    s, rule, tags = memory.state[tag], memory.rules[tag], len(memory.state)
    behind = s.time - time
    if time < s.time and not 0 < behind <= rule.rewind:  # below 0: too far apart for 64 bits
        return -1
    oldest = max((s.folded - 1) // KEEP_EVERY * KEEP_EVERY - RING + KEEP_EVERY, 0)
    place = s.folded
    while place > oldest and memory.samples[_slot(place - 1, tag, tags)].time > time:
        place -= 1
    if place > oldest:
        return int(place)
    first = memory.kept[_keep_slot(oldest, tag, tags)]
    known = s.folded > 0 and (first.kind == NOTHING or time >= _newest(first, rule))
    return oldest if known else -1


@kernel
def _refold(memory: Memory, rows: Rows, row: int, place: int, begun: Any) -> bool:
    """Put a late sample into its place and fold all after it again, from the newest belief kept before it.

    Whether this leaves more beliefs begun anew than there were: the newest of them is written down then.
    """
    tag, tags = rows.tag[row], len(memory.state)
    s, rule = memory.state[tag], memory.rules[tag]
    folded, resets, found = s.folded, s.resets, False
    start = place // KEEP_EVERY * KEEP_EVERY
    memory.state[tag] = memory.kept[_keep_slot(start, tag, tags)]
    # What goes into the place at hand; what was there moves on by one. Beyond the newest there is none.
    moved_time, moved_value = rows.time[row], rows.value[row]
    moved_mark = GOOD_MARK if rows.status[row] >> SEVERITY_SHIFT == 0 else 0
    for k in range(start, folded + 1):
        slot = _slot(k, tag, tags)
        sample = memory.samples[slot]
        time, value, mark = sample.time, sample.value, sample.mark
        if k >= place:
            if k & (KEEP_EVERY - 1) == 0:
                _keep(memory.kept, memory.kept_dirty, _keep_slot(k, tag, tags), s)
            time, moved_time = moved_time, time
            value, moved_value = moved_value, value
            mark, moved_mark = moved_mark, mark
            sample.time = time
            sample.value = value
            _soil(memory.samples_dirty, slot, SAMPLE_SIZE)
        held = s.value
        s.folded = k + 1
        outcome = _filter(s, rule, time, value, mark & GOOD_MARK != 0)
        if k == place:
            rows.reasons[row] |= _INNOVATION if outcome == GATED else 0
            rows.estimate[row], rows.std[row], rows.rate[row] = _belief(s, rule, time)
        if outcome == RESET and mark & RESET_MARK == 0:
            begun.time, begun.before, begun.after = time, held, s.value
            found = True
        if k >= place:
            sample.mark = mark & GOOD_MARK | (RESET_MARK if outcome == RESET else 0)
    begun.tag = tag
    return found and bool(s.resets > resets)


@kernel
def fold(memory: Memory, rows: Rows, begun: _Void) -> int:  # noqa: C901, PLR0912 - as in `judge`: calls cost more than the branches
    """All rows in order; fills the last columns; how many beliefs began anew (at most one a row)."""
    # Arrays are taken out of the tuples once: each passing on of one counts its references.
    state, rules, samples, kept, samples_dirty, kept_dirty = memory
    tags, times, values, statuses, reasons, estimate, std, rate = rows
    count = 0
    for row in range(len(tags)):
        tag, time, value = tags[row], times[row], values[row]
        s, rule = state[tag], rules[tag]
        level = statuses[row] >> SEVERITY_SHIFT
        if reasons[row] & _CLOCK_BACK:
            _forget(s)
        if level < 2 and abs(value) < VALUE_MAX:
            in_order = s.kind == NOTHING or time >= _newest(s, rule)
            if rule.analogue == 0:
                if in_order and level == 0:
                    _hold(s, time, value)
            elif in_order:
                held = s.value
                if rule.rewind > 0:
                    k = s.folded
                    if k & (KEEP_EVERY - 1) == 0:
                        _keep(kept, kept_dirty, _keep_slot(k, tag, len(state)), s)
                    slot = _slot(k, tag, len(state))
                    sample = samples[slot]
                    sample.time = time
                    sample.value = value
                    sample.mark = GOOD_MARK if level == 0 else 0
                    _soil(samples_dirty, slot, SAMPLE_SIZE)
                    s.folded = k + 1
                became = _filter(s, rule, time, value, level == 0)
                estimate[row], std[row], rate[row] = _belief(s, rule, time)
                if became == GATED:
                    reasons[row] |= _INNOVATION
                elif became == RESET:
                    if rule.rewind > 0:
                        samples[_slot(s.folded - 1, tag, len(state))].mark |= RESET_MARK
                    note = begun[count]
                    note.tag, note.time, note.before, note.after = tag, time, held, s.value
                    count += 1
                continue
            elif rule.rewind > 0:
                place = _place(memory, tag, time)
                if place >= 0:
                    count += _refold(memory, rows, row, place, begun[count])
                    continue
        estimate[row], std[row], rate[row] = _belief(s, rule, time)
    return count


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
