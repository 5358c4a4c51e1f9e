"""Validation: every sample judged by its tag's rules, statuses only ever lowered, each with its reasons.

Plain rules, one pass, O(1) a sample and tag whatever the window. docs/VALIDATION.md gives each check's
formula, its grade and why; `validate_kernel` is the compiled loop.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME, Batch
from twinloop.pages import Pages, take_up, whole
from twinloop.records import Event, EventKind, Tick
from twinloop.stages.stage import converted, units_of
from twinloop.stages.validate_kernel import judge
from twinloop.stages.validate_layout import (
    VERSION,
    Kept,
    decoded,
    fresh_pages,
    fresh_state,
    laid_out,
    memory_of,
    places_of,
    rules_of,
)
from twinloop.stages.validate_state import (
    CLOCK_BACK_NOTE,
    NOT_JUDGED,
    NOTE,
    REBASELINED_NOTE,
    Rows,
)
from twinloop.stages.validate_times import BACK_SAMPLES
from twinloop.status import Reason, StatusCode, format_reasons
from twinloop.tags import TagTable
from twinloop.timetext import time_text

__all__ = ["ValidateStage"]

_words: Final = functools.lru_cache(maxsize=4096)(format_reasons)
_NAMES: Final = ("Good", "Uncertain", "Bad", "")
_VALUES: Final = ("good_time", "good_value", "judged", "changed", "held", "quantum", "usual", "run")
"""What the state says of values, beside their statistics."""
_STATISTICS: Final = ("origin", "mean", "m2", "count", "head")
_STEP_SLACK_NS: Final = 1_000_000_000

U8 = npt.NDArray[np.uint8]


class ValidateStage:
    """Judges samples against their tag's rules and notices tags that fall silent (a `Stage`, `Paged`).

    A sample's verdict depends on the samples and ticks before it, never on how they were cut into
    batches. A duplicate (time, value and status of one of the tag's last `remember` samples) leaves the
    batch, counted.

    Args:
        table: the tags; it is read once.

    Attributes:
        received: samples given to `step` since the state began.
        duplicates: samples the last `step` left out as duplicates.
        duplicates_total: the same since the state began.
    """

    def __init__(self, table: TagTable) -> None:
        self.received = 0
        self.duplicates = 0
        self.duplicates_total = 0
        self._names = list(table.names)
        self._units = units_of(table)
        self._active = table.active
        self._rules = rules_of(table)
        self._state = fresh_state(len(table))
        self._pages = fresh_pages(places_of(self._rules))
        self._memory = memory_of(self._state, self._pages)
        self._began = self._ticked = NO_TIME

    @property
    def stale(self) -> U8:
        """How silent each tag is, shape (n_tags,): 0 fresh, 1 Uncertain, 2 Bad. A copy."""
        return self._state["stale"].copy()

    @property
    def severity(self) -> U8:
        """Severity of each tag's newest sample, shape (n_tags,); Good where there was none. A copy."""
        return self._state["severity"].copy()

    @property
    def stale_status(self) -> npt.NDArray[np.uint32]:
        """The status silence alone gives each tag, shape (n_tags,); Good where it is fresh."""
        codes = np.array(
            [StatusCode.GOOD, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, StatusCode.BAD_NO_COMMUNICATION],
            np.uint32,
        )
        silent = codes[self._state["stale"]]
        waiting = np.uint32(StatusCode.BAD_WAITING_FOR_INITIAL_DATA)
        return np.where(self._state["newest"] == NO_TIME, waiting, silent)

    @property
    def pages(self) -> Mapping[str, Pages]:
        """Windows, outliers in a row and remembered samples; see `Paged`."""
        return self._pages

    def step(self, batch: Batch, events: list[Event], *, live: bool = True) -> Batch:
        """The samples with time, value, status and reasons as judged; duplicates are left out.

        Args:
            batch: the samples.
            events: what a person should know is added.
            live: whether they were heard as they came to be; else they prove nothing about a clock.

        Raises:
            IndexError: a row's tag is not in the table (a bug of an earlier stage).
        """
        n = len(batch)
        self.received += n
        self.duplicates = 0
        if n == 0:
            return batch
        if batch.tag.min() < 0 or batch.tag.max() >= len(self._rules):
            raise IndexError(f"tag index outside 0..{len(self._rules) - 1}")
        # Copies: the caller's columns may be read-only memory of the log, and stay as they were.
        rows = Rows(
            tag=batch.tag.copy(),
            time=batch.time.copy(),
            value=batch.value.copy(),
            status=batch.status.copy(),
            reasons=batch.reasons.copy(),
            arrival=batch.arrival.copy(),
            keep=np.ones(n, np.bool_),
        )
        notes = np.empty(2 * n, NOTE)
        written = judge(rows, self._memory, self._rules, notes, live)
        events.extend(self._event(*note) for note in notes[:written].tolist())
        judged = batch.with_columns(
            time=rows.time, value=rows.value, status=rows.status, reasons=rows.reasons
        )
        self.duplicates = n - int(np.count_nonzero(rows.keep))
        self.duplicates_total += self.duplicates
        return judged.take(rows.keep) if self.duplicates else judged

    def tick(self, tick: Tick, events: list[Event]) -> None:
        """Find tags without a sample for `stale`: Uncertain, and Bad after twice as long.

        Age is the tick minus the newest arrival. A tag that never had a sample is waited for from the
        first tick on and goes Bad at once when `stale` is over.
        """
        state, limit = self._state, self._rules["stale_ns"]
        self._ticked = tick.time
        self._began = tick.time if self._began == NO_TIME else min(self._began, tick.time)
        # A tick follows what arrived before it: where it is older by more, this host's clock was set back.
        heard = state["arrival"] != NO_TIME
        ahead = heard & (state["arrival"] - np.where(heard, limit, 0) > tick.time)
        state["arrival"][ahead] = tick.time
        never = state["newest"] == NO_TIME
        age = tick.time - self._heard()
        watched = self._active & (limit > 0)
        over = watched & (age >= limit)
        level = over.astype(np.uint8) + (over & (never | (age - limit >= limit)))
        turned = (level > 0) != (state["stale"] > 0)
        state["stale"] = level
        severity = np.where(never, NOT_JUDGED, state["severity"])
        now = np.where(level > 0, np.maximum(np.where(never, 0, severity), level), severity)
        # Silence is news also where the severity stays: a Bad tag that falls silent is Bad for two reasons.
        changed = np.flatnonzero(self._active & ((now != state["reported"]) | turned))
        events.extend(self._silence(int(index), tick.time, int(now[index])) for index in changed)
        state["reported"][changed] = now[changed]

    def renew(self, tags: npt.ArrayLike, time_ns: npt.ArrayLike) -> None:
        """Take note that tags were heard to be unchanged: their age is renewed, no sample is added.

        Args:
            tags: indices, shape (n,); one may come more than once.
            time_ns: when, one time for all or one each.
        """
        np.maximum.at(self._state["arrival"], np.asarray(tags, np.int64), np.asarray(time_ns, np.int64))

    def started(self, time_ns: int) -> None:
        """Let the time since the last tick not count as silence: the twin was not there to hear.

        Every tag is waited for anew; one that was silent already is as silent as it was.
        """
        state = self._state
        silent = (state["stale"] > 0) & (self._ticked != NO_TIME)
        age = np.where(silent, np.maximum(self._ticked - self._heard(), 0), 0)
        state["arrival"] = time_ns - age
        state["back_run"] = 0

    def clock_set(self, time_ns: int, by_ns: int) -> None:
        """Let this host's clock, set to `time_ns` by `by_ns`, make no tag older or younger.

        Arrivals of the clock before move with it. Those of the new one, heard before the change was
        noticed, are told by their time: before a clock set forward, or in the future of one set back,
        there can only be the old one's. A silent tag has none of the new one.
        """
        state = self._state
        arrival = state["arrival"]
        old = arrival <= time_ns - by_ns if by_ns > 0 else arrival > time_ns + _STEP_SLACK_NS
        old |= state["stale"] > 0
        state["arrival"] = np.where(old & (arrival != NO_TIME), arrival + by_ns, arrival)
        state["back_run"] = 0
        self._began += by_ns if self._began != NO_TIME else 0
        self._ticked += by_ns if self._ticked != NO_TIME else 0

    def _heard(self) -> npt.NDArray[np.int64]:
        """Since when each tag is silent: its newest arrival, or when it was first waited for."""
        arrival: npt.NDArray[np.int64] = self._state["arrival"]
        return np.where(arrival == NO_TIME, self._began, arrival)

    def snapshot(self) -> bytes:
        """The whole state; restoring it and the same input give the same output, bit for bit."""
        return whole(self)

    def restore(self, state: bytes) -> None:
        """Take up a state; see `adopt`.

        Raises:
            ValueError: the bytes are not a state of this stage and version, or know more tags.
        """
        take_up(self, state)

    def small(self) -> bytes:
        """The state but for `pages`; see `Paged`."""
        kept = Kept(
            version=VERSION,
            began=self._began,
            ticked=self._ticked,
            received=self.received,
            duplicates=self.duplicates_total,
            places={name: counts.tobytes() for name, counts in places_of(self._rules).items()},
            units=self._units,
            state=self._state.tobytes(),
        )
        return msgspec.msgpack.encode(kept)

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        """Take up a state; tags new since then start afresh, as do statistics whose window changed.

        Where `remember` changed, the newest that find room are remembered. Of a tag whose unit changed its
        times are kept and its values forgotten.

        Raises:
            ValueError: it is not a state of this stage and version, or knows more tags.
        """
        kept, old, places = decoded(small)
        n = len(old)
        if n > len(self._rules):
            raise ValueError(f"the state knows {n} tags, the plant file only {len(self._rules)}")
        pages = laid_out(arrays, old, places, places_of(self._rules))
        state = fresh_state(len(self._rules))
        turned = np.flatnonzero(converted(kept.units, self._units))
        for field in _STATISTICS:
            old[field][turned] = 0
        for field in _VALUES:
            old[field][turned] = state[field][turned]
        for field in state.dtype.names or ():  # by fields: no byte between them is left to chance
            state[field][:n] = old[field]
        self._state, self._pages = state, pages
        self._memory = memory_of(state, pages)
        self._began, self._ticked = kept.began, kept.ticked
        self.received = kept.received
        self.duplicates = 0
        self.duplicates_total = kept.duplicates

    def _event(  # noqa: PLR0917 - the fields of a note
        self, kind: int, tag: int, time: int, left: int, reasons: int, before: float, after: float
    ) -> Event:
        name = self._names[tag]
        if kind == CLOCK_BACK_NOTE:
            why = f"{BACK_SAMPLES} late samples in a row kept their pace: its source's clock was set back"
            return Event(time, name, EventKind.CLOCK_BACK, time_text(left), time_text(time), why)
        if kind == REBASELINED_NOTE:
            k = int(self._rules["rebaseline"][tag])
            why = f"{k} outliers in a row: the level has moved, statistics begin anew"
            return Event(time, name, EventKind.REBASELINED, f"{before:.6g}", f"{after:.6g}", why)
        return Event(time, name, EventKind.STATUS, _NAMES[int(before)], _NAMES[int(after)], _words(reasons))

    def _silence(self, index: int, time: int, now: int) -> Event:
        """The event of a tag that fell silent, or is heard again without a new sample."""
        one = self._state[index]
        reasons = int(one["reasons"]) | (int(Reason.STALE) if one["stale"] else 0)
        before, after = _NAMES[int(one["reported"])], _NAMES[now]
        return Event(time, self._names[index], EventKind.STATUS, before, after, _words(reasons))
