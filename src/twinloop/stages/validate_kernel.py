"""The compiled loop of `validate`: one record after the other, one state entry a tag.

docs/VALIDATION.md gives each check's formula; the order of the checks is that of `judge`. What a tag knows of
times is in `validate_times`, what is kept of it in `validate_state`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.kernel import kernel
from twinloop.pages import PAGE_SHIFT
from twinloop.stages.validate_state import (
    CLOCK_BACK_NOTE,
    NOT_JUDGED,
    REBASELINED_NOTE,
    STATUS_NOTE,
    Memory,
    Rows,
)
from twinloop.stages.validate_times import (
    append,
    begin_pass,
    clock_is_back,
    fingerprint,
    insert,
    keeps_pace,
    placed,
)
from twinloop.status import Reason, StatusCode

__all__ = ["judge"]

_Void = npt.NDArray[np.void]
_F64 = npt.NDArray[np.float64]

# The enumerations as plain numbers: what the compiler can freeze into the code.
_SHIFT: Final = 30
_BAD: Final = int(StatusCode.BAD)
_UNCERTAIN: Final = int(StatusCode.UNCERTAIN)
_OUT_OF_RANGE: Final = int(StatusCode.BAD_OUT_OF_RANGE)
_UNITS_EXCEEDED: Final = int(StatusCode.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED)
_NON_FINITE: Final = int(Reason.NON_FINITE)
_RANGE: Final = int(Reason.RANGE)
_WARN_RANGE: Final = int(Reason.WARN_RANGE)
_RATE: Final = int(Reason.RATE)
_SPIKE: Final = int(Reason.SPIKE)
_ZSCORE: Final = int(Reason.ZSCORE)
_STUCK: Final = int(Reason.STUCK)
_LATE: Final = int(Reason.LATE)
_SAME_TIME: Final = int(Reason.SAME_TIME)
_SOURCE_STATUS: Final = int(Reason.SOURCE_STATUS)
_CLOCK_BACK: Final = int(Reason.CLOCK_BACK)
_DOUBTED_ON_THE_WAY: Final = int(Reason.CLOCK | Reason.RETAINED)
_LEAST_COUNT: Final = 10
_STEPS: Final = 100
_PACES: Final = 32  # good values the tag's pace is learnt over
_USUAL: Final = 5.0
_CLIP: Final = 2.0
_F64_SHIFT: Final = PAGE_SHIFT - 3  # from an index of a float64 to its page
_ROUNDING: Final = 4.0 * float(np.finfo(np.float64).eps)


@kernel
def _lowered(status: int, to: int) -> int:
    """`to` where it is worse than `status`; a status at least as bad keeps its own code."""
    return to if (status >> _SHIFT) < (to >> _SHIFT) else status


@kernel
def _at_sight(rule: Any, value: float, status: int, reasons: int) -> tuple[int, int]:
    """Status and reasons by what the sample alone tells: source status, finiteness, ranges."""
    explained = (reasons & _DOUBTED_ON_THE_WAY) != 0 and status == _UNCERTAIN
    if status >> _SHIFT != 0 and not explained:
        reasons |= _SOURCE_STATUS
    if not np.isfinite(value):
        return _lowered(status, _BAD), reasons | _NON_FINITE
    if value < rule.low or value > rule.high:
        return _lowered(status, _OUT_OF_RANGE), reasons | _RANGE
    if value < rule.warn_low or value > rule.warn_high:
        return _lowered(status, _UNITS_EXCEEDED), reasons | _WARN_RANGE
    return status, reasons


@kernel
def _spike_limit(s: Any, rule: Any) -> float:
    """The largest step from the last good value that is no spike."""
    limit: float = rule.spike
    if rule.spike_fraction < np.inf:
        least = rule.least_magnitude
        if np.isnan(least):
            centre = s.origin + s.mean
            least = np.sqrt(centre * centre + s.m2 / max(s.count, 1))
        of = max(abs(s.good_value), least)
        by_noise = rule.noise_step
        if np.isnan(by_noise):
            by_noise = _USUAL * s.usual
        relative = max(rule.spike_fraction * of, by_noise)
        if relative > 0.0:  # a fraction of nothing forbids nothing
            limit = min(limit, relative)
    return limit


@kernel
def _is_far(s: Any, rule: Any, value: float) -> bool:
    """Whether a value lies beyond `zscore` deviations of the window, which it is not in."""
    if s.count < max(2, min(_LEAST_COUNT, rule.window)):
        return False
    scale = max(np.sqrt(s.m2 / (s.count - 1)), rule.noise)
    if s.quantum < np.inf:
        scale = max(scale, s.quantum)
    # Without any scale (a constant, no noise given) there is nothing to measure a distance by.
    return bool(scale > 0.0 and abs((value - s.origin) - s.mean) > rule.zscore * scale)


@kernel
def _against_history(s: Any, rule: Any, at: int, value: float, reasons: int) -> int:
    """Reason bits of RATE, SPIKE and ZSCORE against the last good value and the window."""
    if s.good_time == NO_TIME:
        return 0
    found = 0
    step = abs(value - s.good_value)
    too_fast = step > rule.rate_limit * ((at - s.good_time) * 1e-9)
    # A sample moved by a nanosecond has no elapsed time to divide by; unless all are, gone through again.
    if too_fast and (reasons & _SAME_TIME == 0 or (s.shift > 0 and at - s.good_time > s.moved)):
        found |= _RATE
    aged = rule.stale_ns > 0 and at - s.judged > rule.stale_ns and not too_fast
    if not aged and step > _spike_limit(s, rule):
        found |= _SPIKE
    # After a gap longer than the window it would be held against another time's values.
    if at - s.judged > rule.window * max(rule.every_ns, s.pace):
        s.count = s.head = 0
    elif _is_far(s, rule, value):
        found |= _ZSCORE
    return found


@kernel
def _recount(s: Any, rule: Any, ring: _F64) -> None:
    """Statistics of the filled part of the window from scratch, in two passes."""
    n, start = s.count, rule.ring
    s.origin = ring[start]
    total = 0.0
    for j in range(n):
        total += ring[start + j] - s.origin
    s.mean = total / n
    squares = 0.0
    for j in range(n):
        away = (ring[start + j] - s.origin) - s.mean
        squares += away * away
    s.m2 = squares


@kernel
def _enter(s: Any, rule: Any, oldest: float, value: float) -> None:
    """Let a good value into the statistics, and the oldest out where the window is full.

    Source: Welford 1962 for the growing window; the sliding form replaces the pair (old, new) at once.
    """
    if s.count == 0:
        s.origin, s.mean, s.m2 = value, 0.0, 0.0
    new = value - s.origin
    before = s.mean
    if s.count < rule.window:
        s.count += 1
        s.mean = before + (new - before) / s.count
        s.m2 += (new - before) * (new - s.mean)
    else:
        old = oldest - s.origin
        s.mean = before + (new - old) / s.count
        s.m2 = max(s.m2 + (new - old) * ((new - s.mean) + (old - before)), 0.0)
    s.head = s.head + 1 if s.head + 1 < rule.window else 0


@kernel
def _accept(s: Any, at: int, value: float) -> None:
    """Make a sample the last good one."""
    if s.good_time != NO_TIME:
        step = abs(value - s.good_value)
        if step > _ROUNDING * max(abs(value), abs(s.good_value)):
            s.quantum = min(s.quantum, step)
        apart = float(at - s.good_time)
        s.pace = apart if s.pace == 0.0 else s.pace + (min(apart, 4 * s.pace) - s.pace) / _PACES
    s.good_time = at
    s.good_value = value
    s.run = 0


@kernel
def _suspect(s: Any, rule: Any, memory: Memory, value: float) -> bool:
    """Keep one more outlier of a row; whether the level has moved, and statistics began anew there."""
    ring, suspects = memory.ring, memory.suspects
    suspects[rule.suspects + s.run] = value
    memory.suspects_dirty[(rule.suspects + s.run) >> _F64_SHIFT] = 1
    s.run += 1
    if s.run < rule.rebaseline:
        return False
    n = min(rule.window, rule.rebaseline)
    newest = rule.suspects + rule.rebaseline - n
    for j in range(n):
        ring[rule.ring + j] = suspects[newest + j]
        memory.ring_dirty[(rule.ring + j) >> _F64_SHIFT] = 1
    s.count = n
    s.head = n % rule.window
    _recount(s, rule, ring)
    return True


@kernel
def _go_by_new_clock(s: Any, note: Any, tag: int, time: int, reasons: int) -> None:
    """Begin anew with a source's clock that was set back: what came before is of another time."""
    _note(note, CLOCK_BACK_NOTE, tag, time, reasons, 0.0, 0.0)
    note.left = s.newest
    s.good_time = s.judged = s.changed = NO_TIME
    s.held = np.nan
    s.count = s.head = s.run = 0


@kernel
def _learn_step(s: Any, rule: Any, value: float) -> None:
    """Let one more step into the usual ones; outliers too, else a tag that jumps could never be known.

    The mean begins at zero and weighs each step 1/_STEPS, and no step counts for more than _CLIP spikes, so
    that one glitch of any size raises it by little.
    """
    if not np.isnan(s.held):
        step = abs(value - s.held)
        if step > _USUAL * s.usual:
            step = min(step, _CLIP * _spike_limit(s, rule))
        if step < np.inf:
            s.usual += (step - s.usual) / _STEPS


@kernel
def _is_stuck(s: Any, rule: Any, at: int, value: float) -> bool:
    """Whether the value has not changed for `stuck_ns`."""
    if value != s.held:
        s.held = value
        s.changed = at
        return False
    return bool(rule.stuck_ns > 0 and at - s.changed >= rule.stuck_ns)


@kernel
def _note(note: Any, kind: int, tag: int, time: int, reasons: int, before: float, after: float) -> None:  # noqa: PLR0917 - one argument a field
    """Write down what will become an event."""
    note.kind = kind
    note.tag = tag
    note.time = time
    note.reasons = reasons
    note.before = before
    note.after = after


@kernel
def _report(  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    s: Any, note: Any, tag: int, at: int, status: int, reasons: int
) -> int:
    """Take a verdict as the tag's present one; 1 where that is a change worth a note, else 0."""
    s.severity = min(status >> _SHIFT, 2)
    s.reasons = reasons
    s.stale = 0
    before = s.reported
    s.reported = s.severity
    first_and_good = before == NOT_JUDGED and s.severity == 0
    if s.severity == before or first_and_good:
        return 0
    _note(note, STATUS_NOTE, tag, at, reasons, before, s.severity)
    return 1


@kernel
def judge(  # noqa: C901, PLR0912, PLR0915 - parted further, the calls would cost more than the checks
    rows: Rows,
    memory: Memory,
    rules: _Void,
    notes: _Void,
    live: bool,  # noqa: FBT001 - a kernel takes no keywords
) -> int:
    """Judge rows in order; the number of notes written (at most two a row)."""
    # Arrays are taken out of the tuples once, and go only to the calls that are rare: each passing on of
    # an array counts its references, which costs more than the checks.
    tags, times, values, statuses, marks, arrivals, keep = rows
    states, ring, _, seen, ring_dirty, _, seen_dirty = memory
    bits = values.view(np.uint64)
    written = 0
    for i in range(len(tags)):
        tag, time, value, given = int(tags[i]), int(times[i]), values[i], int(statuses[i])
        s, rule = states[tag], rules[tag]
        mark = fingerprint(bits[i], value, given)
        late = time < s.newest
        last = time > s.highest
        if last:
            at, index = time, 0
        else:
            wary = late and live and keeps_pace(s, time, arrivals[i])
            at, index = placed(s, rule, seen, time, mark, wary)
        # The newest sample once more is a sign of life; an older one is only a redelivery.
        if at != NO_TIME or time == s.newest:
            s.arrival = max(s.arrival, arrivals[i])
        if at == NO_TIME:
            keep[i] = False
            continue
        reasons = int(marks[i]) | (_SAME_TIME if at != time else 0)
        if not late:
            if live:
                s.back_run = 0
            s.newest = time
            s.newest_at = max(s.newest_at, at)
        elif live and clock_is_back(s, time, arrivals[i]):
            late = False
            reasons |= _CLOCK_BACK
            begin_pass(s, rule, seen)
            _go_by_new_clock(s, notes[written], tag, at, reasons)
            written += 1
            s.newest = time
            s.newest_at = at
        else:
            reasons |= _LATE
            s.newest_at = max(s.newest_at, at)
        if last:
            append(s, rule, seen, seen_dirty, at, mark)
        else:
            insert(s, rule, seen, seen_dirty, index, at, mark)
        status, reasons = _at_sight(rule, value, given, reasons)
        if not np.isfinite(value):
            values[i] = np.nan
        elif not late and status >> _SHIFT < 2:
            found = _against_history(s, rule, at, value, reasons)
            _learn_step(s, rule, value)
            if _is_stuck(s, rule, at, value):
                reasons |= _STUCK
                status = _lowered(status, _UNCERTAIN)
            s.judged = at
            clean = status >> _SHIFT == 0
            if found and clean and rule.rebaseline > 0:
                left = s.origin + s.mean
                if _suspect(s, rule, memory, value):
                    # The sample that proves the new level is its first good one.
                    found = 0
                    _accept(s, at, value)
                    _note(notes[written], REBASELINED_NOTE, tag, at, reasons, left, s.origin + s.mean)
                    written += 1
            elif clean and not found:
                slot = rule.ring + s.head
                _enter(s, rule, ring[slot], value)
                ring[slot] = value
                ring_dirty[slot >> _F64_SHIFT] = 1
                _accept(s, at, value)
                if s.head == 0:
                    _recount(s, rule, ring)  # once a turn, so that rounding never adds up
            if found:
                reasons |= found
                status = _lowered(status, _UNCERTAIN)
        times[i], statuses[i], marks[i] = at, status, reasons
        if not late:  # a late one speaks of the past: the tag is what its newest sample says
            written += _report(s, notes[written], tag, at, status, reasons)
    return written
