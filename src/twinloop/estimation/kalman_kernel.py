"""The compiled loop of the filter bank: rows in order, each tag's own irregular times.

`kalman_step` has the filter of one tag. Here is what it is given: each tag's ring of samples and kept
beliefs, from which a late sample is folded in at its place. docs/ESTIMATION.md states the rule.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twinloop.estimation.kalman_state import (
    CHUNK,
    GATED,
    GOOD_MARK,
    KEEP_EVERY,
    NOTHING,
    RESET,
    RESET_MARK,
    RING,
    SAMPLE,
    STATE,
    VALUE_MAX,
)
from twinloop.estimation.kalman_step import belief, hold, newest, noise_variance, update
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
    known = s.folded > 0 and (first.kind == NOTHING or time >= newest(first, rule))
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
        outcome = update(s, rule, time, value, mark & GOOD_MARK != 0)
        if k == place:
            rows.reasons[row] |= _INNOVATION if outcome == GATED else 0
            rows.estimate[row], rows.std[row], rows.rate[row] = belief(s, rule, time)
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
            in_order = s.kind == NOTHING or time >= newest(s, rule)
            if rule.analogue == 0:
                if in_order and level == 0:
                    hold(s, time, value)
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
                became = update(s, rule, time, value, level == 0)
                estimate[row], std[row], rate[row] = belief(s, rule, time)
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
        estimate[row], std[row], rate[row] = belief(s, rule, time)
    return count


@kernel
def look(  # noqa: PLR0917 - a kernel takes columns
    state: Any, rules: Any, time: Any, value: Any, std: Any, rate: Any
) -> None:
    """Every tag's belief at the time asked for it."""
    for tag in range(len(state)):
        value[tag], std[tag], rate[tag] = belief(state[tag], rules[tag], time[tag])


@kernel
def variances(state: Any, rules: Any, out: Any) -> None:
    """Every tag's noise^2 in force; NaN where it is not known yet."""
    for tag in range(len(state)):
        out[tag] = noise_variance(state[tag], rules[tag])
