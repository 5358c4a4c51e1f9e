"""Validation: every sample judged by its tag's rules, statuses only ever lowered, each with its reasons.

Plain rules, one pass, O(1) a sample and tag whatever the window. docs/VALIDATION.md gives each check's
formula, its grade and why; `validate_kernel` is the compiled loop.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME, Batch
from twinloop.records import Event, EventKind, Tick
from twinloop.stages.stage import converted, units_of
from twinloop.stages.validate_kernel import (
    NOT_JUDGED,
    NOTE,
    REBASELINED_NOTE,
    REMEMBERED,
    RULE,
    SEEN,
    STATE,
    Memory,
    Rows,
    judge,
)
from twinloop.status import Reason, StatusCode, format_reasons
from twinloop.tags import TagTable

__all__ = ["ValidateStage"]

_VERSION: Final = 3
_words: Final = functools.lru_cache(maxsize=4096)(format_reasons)
_NAMES: Final = ("Good", "Uncertain", "Bad", "")
_LEAST_OF_SPAN: Final = 0.05
_NOISE_STEP: Final = 4.0 * np.sqrt(2.0)
"""Deviations of a difference of two readings that noise alone does not reach."""
_RULES_AS_THEY_ARE: Final = (
    "low",
    "high",
    "warn_low",
    "warn_high",
    "rate_limit",
    "spike",
    "spike_fraction",
    "zscore",
    "stuck_ns",
    "stale_ns",
)

_VALUES: Final = ("good_time", "good_value", "judged", "changed", "held", "quantum", "usual", "run")
"""What the state says of values, beside their statistics."""

U8 = npt.NDArray[np.uint8]


class _Kept(msgspec.Struct, frozen=True, array_like=True, tag="validate"):
    """What `snapshot` writes: numbers and column bytes."""

    version: int
    began: int
    received: int
    duplicates: int
    window: bytes
    rebaseline: bytes
    units: list[str]
    state: bytes
    ring: bytes
    suspects: bytes
    seen: bytes


class ValidateStage:
    """Judges samples against their tag's rules and notices tags that fall silent (a `Stage`).

    A sample's verdict depends on the samples and ticks before it, never on how they were cut into
    batches. A duplicate (time, value and status of one of the tag's last 32 samples) leaves the batch,
    counted.

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
        self._rules = _rules(table)
        self._memory = _fresh(self._rules)
        self._began = NO_TIME

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
    def _state(self) -> npt.NDArray[Any]:
        return self._memory.state

    def step(self, batch: Batch, events: list[Event]) -> Batch:
        """The samples with time, value, status and reasons as judged; duplicates are left out.

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
        written = judge(rows, self._memory, self._rules, notes)
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
        self._began = tick.time if self._began == NO_TIME else min(self._began, tick.time)
        # A tick follows what arrived before it: where it is older by more, this host's clock was set back.
        heard = state["arrival"] != NO_TIME
        ahead = heard & (state["arrival"] - np.where(heard, limit, 0) > tick.time)
        state["arrival"][ahead] = tick.time
        never = state["newest"] == NO_TIME
        age = tick.time - np.where(never, np.maximum(state["arrival"], self._began), state["arrival"])
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

    def renew(self, tags: npt.ArrayLike, time_ns: int) -> None:
        """Take note that tags were heard to be unchanged: their age is renewed, no sample is added."""
        indices = np.asarray(tags, np.int64)
        self._state["arrival"][indices] = np.maximum(self._state["arrival"][indices], time_ns)

    def snapshot(self) -> bytes:
        """The whole state; restoring it and the same input give the same output, bit for bit."""
        memory, rules = self._memory, self._rules
        kept = _Kept(
            version=_VERSION,
            began=self._began,
            received=self.received,
            duplicates=self.duplicates_total,
            window=rules["window"].tobytes(),
            rebaseline=rules["rebaseline"].tobytes(),
            units=self._units,
            state=memory.state.tobytes(),
            ring=memory.ring.tobytes(),
            suspects=memory.suspects.tobytes(),
            seen=memory.seen.tobytes(),
        )
        return msgspec.msgpack.encode(kept)

    def restore(self, state: bytes) -> None:
        """Take up a state; tags new since then start afresh, as do statistics whose window changed.

        Of a tag whose unit changed its times are kept and its values forgotten.

        Raises:
            ValueError: the bytes are not a state of this stage and version, or know more tags.
        """
        kept, old, window, rebaseline = _decoded(state)
        n = len(window)
        if n > len(self._rules):
            raise ValueError(f"the state knows {n} tags, the plant file only {len(self._rules)}")
        memory, fresh = _fresh(self._rules), _fresh(self._rules)
        memory.state[:n] = old.state
        memory.seen[:n] = old.seen
        _carry(old.ring, window, memory.ring, self._rules["window"][:n])
        _carry(old.suspects, rebaseline, memory.suspects, self._rules["rebaseline"][:n])
        turned = converted(kept.units, self._units)
        forgotten = np.flatnonzero(turned | (window != self._rules["window"][:n]))
        for field in ("origin", "mean", "m2", "count", "head"):
            memory.state[field][forgotten] = 0
        for field in _VALUES:
            memory.state[field][:n][turned] = fresh.state[field][:n][turned]
        memory.state["run"][np.flatnonzero(rebaseline != self._rules["rebaseline"][:n])] = 0
        self._memory = memory
        self._began = kept.began
        self.received = kept.received
        self.duplicates = 0
        self.duplicates_total = kept.duplicates

    def _event(  # noqa: PLR0917 - the fields of a note
        self, kind: int, tag: int, time: int, reasons: int, before: float, after: float
    ) -> Event:
        name = self._names[tag]
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


def _rules(table: TagTable) -> npt.NDArray[Any]:
    """The table's rules as the kernel reads them, shape (n_tags,)."""
    rules = np.zeros(len(table), RULE)
    for name in _RULES_AS_THEY_ARE:
        rules[name] = table.column(name)
    rules["noise"] = np.nan_to_num(table.column("noise"), nan=0.0)
    rules["noise_step"] = _NOISE_STEP * table.column("noise")
    rules["window"] = np.maximum(table.column("window"), 1)
    rules["every_ns"] = table.column("every_ns")
    rules["rebaseline"] = np.maximum(table.column("rebaseline"), 0)
    rules["ring"] = _starts(rules["window"])
    rules["suspects"] = _starts(rules["rebaseline"])
    # A boolean that was 0 a hundred times and becomes 1 is news, not an outlier.
    rules["zscore"][~table.column("analogue")] = np.inf
    span = rules["high"] - rules["low"]
    warn_span = rules["warn_high"] - rules["warn_low"]
    span = np.where(np.isfinite(span), span, warn_span)
    rules["least_magnitude"] = np.where(np.isfinite(span), _LEAST_OF_SPAN * span, np.nan)
    return rules


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each of several runs laid end to end begins."""
    return np.cumsum(lengths) - lengths


def _fresh(rules: npt.NDArray[Any]) -> Memory:
    """The memory of tags that nothing was heard of yet."""
    state = np.zeros(len(rules), STATE)
    for field in ("newest", "newest_at", "arrival", "good_time", "judged", "changed"):
        state[field] = NO_TIME
    state["held"] = np.nan
    state["quantum"] = np.inf
    state["reported"] = NOT_JUDGED
    return Memory(
        state=state,
        ring=np.zeros(int(rules["window"].sum())),
        suspects=np.zeros(int(rules["rebaseline"].sum())),
        seen=np.zeros((len(rules), REMEMBERED), SEEN),
    )


def _decoded(
    state: bytes,
) -> tuple[_Kept, Memory, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A snapshot's parts: itself, its memory, window and rebaseline of each tag. Raises ValueError."""
    try:
        kept = msgspec.msgpack.decode(state, type=_Kept)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a state of the validation: {error}") from error
    if kept.version != _VERSION:
        raise ValueError(f"a validation state of version {kept.version}, this is version {_VERSION}")
    window = np.frombuffer(kept.window, np.int64)
    rebaseline = np.frombuffer(kept.rebaseline, np.int64)
    memory = Memory(
        state=np.frombuffer(kept.state, STATE),
        ring=np.frombuffer(kept.ring, np.float64),
        suspects=np.frombuffer(kept.suspects, np.float64),
        seen=np.frombuffer(kept.seen, SEEN).reshape(-1, REMEMBERED),
    )
    lengths = (len(memory.state), len(memory.seen), len(rebaseline), len(kept.units))
    filled = (len(memory.ring) == window.sum(), len(memory.suspects) == rebaseline.sum())
    if set(lengths) != {len(window)} or not all(filled):
        raise ValueError("a validation state whose parts differ in length")
    return kept, memory, window, rebaseline


def _carry(
    old: npt.NDArray[np.float64],
    old_lengths: npt.NDArray[np.int64],
    new: npt.NDArray[np.float64],
    new_lengths: npt.NDArray[np.int64],
) -> None:
    """Copy the runs whose length is as it was from one row of runs to another."""
    if np.array_equal(old_lengths, new_lengths):
        new[: len(old)] = old
        return
    old_starts, new_starts = _starts(old_lengths), _starts(new_lengths)
    for index in np.flatnonzero(old_lengths == new_lengths):
        length = old_lengths[index]
        new[new_starts[index] :][:length] = old[old_starts[index] :][:length]
