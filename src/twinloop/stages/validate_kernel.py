"""The compiled loop of `validate`: one record after the other, one state entry a tag.

Everything the loop calls stands in this file, because the on-disk cache notices only its own file.
docs/VALIDATION.md gives each check's formula; the order of the checks is that of `judge`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.kernel import kernel
from twinloop.status import Reason, StatusCode

__all__ = [
    "NOTE",
    "NOT_JUDGED",
    "REBASELINED_NOTE",
    "REMEMBERED",
    "RULE",
    "SEEN",
    "STATE",
    "Memory",
    "Rows",
    "judge",
]

REMEMBERED: Final = 32
"""Samples a tag remembers, to know a redelivered one: more than a broker sends without an ack (20)."""

NOT_JUDGED: Final = 3
"""Severity of a tag that nothing has been said about yet."""

STATUS_NOTE: Final = 0
REBASELINED_NOTE: Final = 1

RULE: Final = np.dtype(
    [
        ("low", "<f8"),
        ("high", "<f8"),
        ("warn_low", "<f8"),
        ("warn_high", "<f8"),
        ("rate_limit", "<f8"),  # per second; inf is off
        ("spike", "<f8"),  # inf is off
        ("spike_fraction", "<f8"),  # inf is off
        ("least_magnitude", "<f8"),  # what a fraction is taken of near zero; NaN: the window's RMS
        ("noise", "<f8"),  # 0 where not given
        ("noise_step", "<f8"),  # the largest step noise makes; NaN: _USUAL of the tag's usual steps
        ("zscore", "<f8"),  # inf is off
        ("stuck_ns", "<i8"),  # 0 is off
        ("stale_ns", "<i8"),  # 0 is off
        ("ring", "<i8"),  # where the tag's window begins in Memory.ring
        ("window", "<i8"),
        ("every_ns", "<i8"),
        ("suspects", "<i8"),  # where the tag's outliers begin in Memory.suspects
        ("rebaseline", "<i8"),  # 0 is off
    ],
    align=True,
)

STATE: Final = np.dtype(
    [
        ("newest", "<i8"),  # newest time as received; NO_TIME before any sample
        ("newest_at", "<i8"),  # newest time given out: `newest`, or some ns later (SAME_TIME)
        ("arrival", "<i8"),  # newest arrival, or renewal
        ("good_time", "<i8"),
        ("good_value", "<f8"),
        ("judged", "<i8"),  # time of the last sample compared with the last good one
        ("changed", "<i8"),  # since when the value is what it is
        ("held", "<f8"),
        ("origin", "<f8"),  # statistics are kept relative to this, so that an offset costs no digits
        ("mean", "<f8"),
        ("m2", "<f8"),  # sum of squared distances from the mean
        ("quantum", "<f8"),  # smallest change between good values ever seen; inf before any
        ("usual", "<f8"),  # mean size of a step from sample to sample, over about _STEPS
        ("pace", "<f8"),  # mean time between good values, ns, over about _PACES; 0 before any
        ("count", "<i4"),
        ("head", "<i4"),
        ("run", "<i4"),  # outliers in a row
        ("remembered", "<i4"),
        ("reasons", "<u4"),  # of the last sample
        ("severity", "<u1"),  # of the last sample
        ("reported", "<u1"),  # the severity the last event spoke of
        ("stale", "<u1"),
    ],
    align=True,
)

SEEN: Final = np.dtype([("time", "<i8"), ("value", "<f8"), ("status", "<u4")], align=True)

NOTE: Final = np.dtype(
    [
        ("kind", "<i4"),
        ("tag", "<i4"),
        ("time", "<i8"),
        ("reasons", "<u4"),
        ("before", "<f8"),  # severity, or the mean left
        ("after", "<f8"),  # severity, or the mean begun
    ],
    align=True,
)

_Void = npt.NDArray[np.void]
_F64 = npt.NDArray[np.float64]


class Rows(NamedTuple):
    """The columns of a batch; all but `tag` and `arrival` are written in place. Shapes (n,)."""

    tag: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    value: _F64
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]
    arrival: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]


class Memory(NamedTuple):
    """What is kept between batches.

    Attributes:
        state: one `STATE` a tag.
        ring: good values of all tags, `window` of each.
        suspects: the outliers of the present run of all tags, `rebaseline` of each.
        seen: the last samples of each tag as `SEEN`, shape (n_tags, REMEMBERED).
    """

    state: _Void
    ring: _F64
    suspects: _F64
    seen: _Void


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
_DOUBTED_ON_THE_WAY: Final = int(Reason.CLOCK | Reason.RETAINED)
_LEAST_COUNT: Final = 10
_STEPS: Final = 100
_PACES: Final = 32  # good values the tag's pace is learnt over
_USUAL: Final = 5.0
_CLIP: Final = 2.0
_ROUNDING: Final = 4.0 * float(np.finfo(np.float64).eps)


@kernel
def _lowered(status: int, to: int) -> int:
    """`to` where it is worse than `status`; a status at least as bad keeps its own code."""
    return to if (status >> _SHIFT) < (to >> _SHIFT) else status


@kernel
def _equal(entry: Any, value: float, status: int) -> bool:
    """Whether a remembered sample says the same; an empty value equals an empty one."""
    same = entry.value == value or (np.isnan(entry.value) and np.isnan(value))
    return bool(same and entry.status == status)


@kernel
def _placed(  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    s: Any, seen: _Void, tag: int, time: int, value: float, status: int
) -> int:
    """The first time from `time` on that the tag has not given out; NO_TIME for a duplicate.

    Only for a time that is not after all given out.
    """
    kept = min(s.remembered, REMEMBERED)
    if time >= s.newest:
        # More samples than are remembered may share one time: what follows the newest is free.
        for j in range(kept):
            if seen[tag, j].time >= time and _equal(seen[tag, j], value, status):
                return NO_TIME
        return int(s.newest_at) + 1
    at = time
    j = 0
    while j < kept:
        if seen[tag, j].time == at:
            if _equal(seen[tag, j], value, status):
                return NO_TIME
            at += 1
            j = 0
        else:
            j += 1
    return at


@kernel
def _forgotten(s: Any, seen: _Void, tag: int, time: int) -> bool:
    """Whether a time is older than all that is remembered: a burst of redelivery must not push it out."""
    oldest = time
    for j in range(REMEMBERED):
        oldest = min(oldest, seen[tag, j].time)
    return s.remembered >= REMEMBERED and oldest >= time


@kernel
def _remember(s: Any, entry: Any, at: int, value: float, status: int) -> None:
    """Keep a sample as it was received, in place of the oldest kept."""
    entry.time = at
    entry.value = value
    entry.status = status
    # Counts on to 2 * REMEMBERED and back to REMEMBERED: full stays full, and nothing overflows.
    s.remembered = s.remembered + 1 if s.remembered + 1 < 2 * REMEMBERED else REMEMBERED


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
    # A sample moved by a nanosecond has no elapsed time to divide by.
    if too_fast and reasons & _SAME_TIME == 0:
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
def _suspect(s: Any, rule: Any, ring: _F64, suspects: _F64, value: float) -> bool:
    """Keep one more outlier of a row; whether the level has moved, and statistics began anew there."""
    suspects[rule.suspects + s.run] = value
    s.run += 1
    if s.run < rule.rebaseline:
        return False
    n = min(rule.window, rule.rebaseline)
    newest = rule.suspects + rule.rebaseline - n
    for j in range(n):
        ring[rule.ring + j] = suspects[newest + j]
    s.count = n
    s.head = n % rule.window
    _recount(s, rule, ring)
    return True


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
def judge(  # noqa: C901, PLR0912 - parted further, the calls would cost more than the checks
    rows: Rows, memory: Memory, rules: _Void, notes: _Void
) -> int:
    """Judge rows in order; the number of notes written (at most two a row)."""
    # Arrays are taken out of the tuples once, and go only to the calls that are rare: each passing on of
    # an array counts its references, which costs more than the checks.
    tags, times, values, statuses, marks, arrivals, keep = rows
    states, ring, suspects, seen = memory
    written = 0
    for i in range(len(tags)):
        tag, time, value, given = int(tags[i]), int(times[i]), values[i], int(statuses[i])
        s, rule = states[tag], rules[tag]
        late = time < s.newest
        at = time if time > s.newest_at else _placed(s, seen, tag, time, value, given)
        # The newest sample once more is a sign of life; an older one is only a redelivery.
        if at != NO_TIME or time == s.newest:
            s.arrival = max(s.arrival, arrivals[i])
        if at == NO_TIME:
            keep[i] = False
            continue
        if not late or not _forgotten(s, seen, tag, time):
            _remember(s, seen[tag, s.remembered % REMEMBERED], at, value, given)
        s.newest = max(s.newest, time)
        s.newest_at = max(s.newest_at, at)
        reasons = int(marks[i]) | (_SAME_TIME if at != time else 0) | (_LATE if late else 0)
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
                if _suspect(s, rule, ring, suspects, value):
                    # The sample that proves the new level is its first good one.
                    found = 0
                    _accept(s, at, value)
                    _note(notes[written], REBASELINED_NOTE, tag, at, reasons, left, s.origin + s.mean)
                    written += 1
            elif clean and not found:
                slot = rule.ring + s.head
                _enter(s, rule, ring[slot], value)
                ring[slot] = value
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
