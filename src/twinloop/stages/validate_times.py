"""The compiled part of `validate` that knows times: which were given out, and whether a clock was set back.

A tag remembers its last samples in a circle of `remember` places, in ascending time, each as the time it was
given out with and a print of value and status. In order, a sample is put at the end; a late one is looked up
by halving and put in its place. A clock set back goes through times a second time, of which those forgotten
may have been given out: they are moved by more than any sample before. docs/VALIDATION.md states the rules.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.kernel import kernel
from twinloop.pages import PAGE_SHIFT

__all__ = [
    "BACK_LEAST_NS",
    "BACK_SAMPLES",
    "BACK_SPAN_NS",
    "append",
    "begin_pass",
    "clock_is_back",
    "fingerprint",
    "insert",
    "keeps_pace",
    "placed",
]

BACK_SAMPLES: Final = 10
"""So many late samples in a row, and the source's clock may have been set back."""
BACK_LEAST_NS: Final = 60_000_000_000
"""A sample late by no more says nothing of the clock; in so short a time it heals by itself."""
BACK_SPAN_NS: Final = 2_000_000_000
"""The row must have taken so long to arrive: over less, nobody can tell a clock's pace from a backlog's."""
_PACE_SHARE: Final = 4  # by a quarter of its arrivals' span a row's times may be off

_ENTRY_SHIFT: Final = PAGE_SHIFT - 4
"""Remembered samples are of 16 bytes."""
_EMPTY: Final = 0x7FF8_0000_0000_0000
_FIRST_FACTOR: Final = 0xFF51_AFD7_ED55_8CCD
_SECOND_FACTOR: Final = 0xC4CE_B9FE_1A85_EC53

_Void = npt.NDArray[np.void]
_U8 = npt.NDArray[np.uint8]


@kernel
def fingerprint(bits: Any, value: float, status: int) -> Any:
    """A print of a value (its bits as uint64) and a status: equal values of one status have equal ones.

    Of one status no two values share a print; the scattering of the status is the finaliser of MurmurHash3.
    """
    if np.isnan(value):
        bits = np.uint64(_EMPTY)  # an empty value equals an empty one
    elif value == 0.0:
        bits = np.uint64(0)  # and 0 equals -0
    if status == 0:
        return bits
    mixed = np.uint64(status)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(_FIRST_FACTOR)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(_SECOND_FACTOR)
    return bits ^ mixed ^ (mixed >> np.uint64(33))


@kernel
def _slot(s: Any, rule: Any, index: int) -> int:
    """The place of a tag's n-th remembered sample, by time."""
    at = s.first + index
    return int(rule.seen + (at - rule.remember if at >= rule.remember else at))


@kernel
def _found(s: Any, rule: Any, seen: _Void, time: int) -> int:
    """How many of a tag's remembered samples are older than a time."""
    low, high = 0, int(s.remembered)
    while low < high:
        middle = (low + high) >> 1
        if seen[_slot(s, rule, middle)].time < time:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _forgotten(s: Any, rule: Any, seen: _Void) -> int:
    """Up to which time some that were given out may be forgotten; NO_TIME where none is."""
    if s.remembered < rule.remember:
        return int(s.lost)
    return max(int(s.lost), int(seen[_slot(s, rule, 0)].time))


@kernel
def placed(s: Any, rule: Any, seen: _Void, time: int, mark: int, wary: bool) -> tuple[int, int]:  # noqa: FBT001, PLR0917 - a kernel takes no keywords
    """The first time from `time` on that is free, NO_TIME for a duplicate; and how many are older.

    Only for a time that is not after all given out. Once a clock was set back, or where it may have been
    (`wary`), a time not remembered is free only if it cannot have been forgotten; else the first free one
    is `shift` later, which is more than any sample was moved by before.
    """
    index = _found(s, rule, seen, time)
    at = time
    if index == 0 and time == s.newest:
        # More samples than are remembered may share the newest time: those forgotten were given out, too.
        oldest = int(seen[_slot(s, rule, 0)].time)
        if oldest <= s.newest_at:
            at = oldest
    lost, shift = int(s.lost), int(s.shift)
    if wary:
        lost, shift = _forgotten(s, rule, seen), int(s.back_shift)
    shifted = time + shift  # without a clock set back that is `time`: all are free that are not remembered
    while index < s.remembered:
        entry = seen[_slot(s, rule, index)]
        if entry.time != at:
            if at > lost or at >= shifted:
                break
            at = min(int(entry.time), shifted)
            continue
        if entry.print == mark:
            return NO_TIME, index
        at += 1
        index += 1
    if at <= lost:
        at = max(at, shifted)
    s.moved = max(s.moved, at - time)
    return at, index


@kernel
def begin_pass(s: Any, rule: Any, seen: _Void) -> None:
    """Let times be gone through once more, by a clock proved to be set back."""
    s.lost = _forgotten(s, rule, seen)
    s.shift = s.back_shift


@kernel
def _write(seen: _Void, dirty: _U8, slot: int, time: int, mark: int) -> None:
    entry = seen[slot]
    entry.time = time
    entry.print = mark
    dirty[slot >> _ENTRY_SHIFT] = 1


@kernel
def append(s: Any, rule: Any, seen: _Void, dirty: _U8, at: int, mark: int) -> None:  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    """Remember a sample later than all remembered, in place of the oldest where there is no more room."""
    if s.remembered < rule.remember:
        slot = _slot(s, rule, s.remembered)
        s.remembered += 1
    else:
        slot = rule.seen + s.first
        if s.shift > 0:
            s.lost = max(s.lost, seen[slot].time)
        s.first = s.first + 1 if s.first + 1 < rule.remember else 0
    _write(seen, dirty, slot, at, mark)
    s.highest = at


@kernel
def insert(s: Any, rule: Any, seen: _Void, dirty: _U8, index: int, at: int, mark: int) -> None:  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    """Remember a sample after `index` older ones; `newest` and `newest_at` are those with it.

    Where there is no more room the oldest is forgotten, and a sample older than all is not remembered: it
    would push out what is needed. While the larger half is of a clock that was since set back, the latest
    of that is forgotten instead, so that there is room for the new clock's samples.
    """
    if s.remembered == rule.remember:
        if index == 0 and at < s.newest:
            if s.shift > 0:
                s.lost = max(s.lost, at)
            return
        ahead = 0
        if s.highest > s.newest_at:
            ahead = s.remembered - _found(s, rule, seen, s.newest_at + 1)
        latest = 2 * ahead > rule.remember
        if s.shift > 0:
            s.lost = max(s.lost, seen[_slot(s, rule, s.remembered - 1 if latest else 0)].time)
        s.remembered -= 1
        if not latest:
            s.first = s.first + 1 if s.first + 1 < rule.remember else 0
            index -= 1
    s.remembered += 1
    if index < s.remembered - 1 - index:
        s.first = s.first - 1 if s.first > 0 else rule.remember - 1
        for j in range(index):
            older = seen[_slot(s, rule, j + 1)]
            _write(seen, dirty, _slot(s, rule, j), older.time, older.print)
    else:
        for j in range(s.remembered - 1, index, -1):
            newer = seen[_slot(s, rule, j - 1)]
            _write(seen, dirty, _slot(s, rule, j), newer.time, newer.print)
    _write(seen, dirty, _slot(s, rule, index), at, mark)
    s.highest = max(s.highest, at)


@kernel
def keeps_pace(s: Any, time: int, arrival: int) -> bool:
    """Whether a late sample fits a row that may prove a clock set back: its time runs as its arrivals do."""
    if s.back_run == 0 or time < s.back_time or s.newest - time <= BACK_LEAST_NS:
        return False
    took = arrival - s.back_arrival
    return bool(took >= 0 and abs(took - (time - s.back_from)) <= took // _PACE_SHARE)


@kernel
def clock_is_back(s: Any, time: int, arrival: int) -> bool:
    """Take note of one more late sample of a live source; whether its clock is proved to be set back.

    It is when `BACK_SAMPLES` in a row are late by more than `BACK_LEAST_NS`, their times do not descend, and
    from first to last as much time went by as between their arrivals. A backlog's times run faster.
    """
    if s.newest - time <= BACK_LEAST_NS:
        s.back_run = 0
        return False
    if s.back_run > 0 and time >= s.back_time:
        s.back_time = time
        s.back_run = min(s.back_run + 1, BACK_SAMPLES)
        took = arrival - s.back_arrival
        if s.back_run < BACK_SAMPLES or 0 <= took < BACK_SPAN_NS:
            return False
        if took > 0 and keeps_pace(s, time, arrival):
            s.back_run = 0
            return True
    s.back_run = 1
    s.back_shift = s.moved + 1
    s.back_time = s.back_from = time
    s.back_arrival = arrival
    return False
