"""What a twin's outputs amount to so far: the newest sample of every tag, what was judged how, the news.

The loop's thread only leaves outputs here; whoever asks works off what has gathered, all of it at once. That
costs a tenth of doing it output by output, and most of it on the asking thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.batch import NO_TIME, Batch
from twinloop.records import Event, EventKind, Outputs, Snapshot
from twinloop.seen_kernel import take_in
from twinloop.status import GOOD, SEVERITY_SHIFT, Reason, Severity, StatusCode
from twinloop.stores.latest import stale_status
from twinloop.web.look import Counts, TagsNow

__all__ = ["Seen"]

_EVENTS_KEPT: Final = 1000
_GATHERED: Final = 20_000
"""Rows after which they are worked off where they come in, as nobody asks: some 1 MB, some milliseconds."""
_BITS: Final = 32
_SILENT: Final = np.array(
    [GOOD, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, StatusCode.BAD_NO_COMMUNICATION], np.uint32
)
_COLUMNS: Final = ("tag", "time", "arrival", "value", "estimate", "estimate_std", "status", "reasons")
_STALE: Final = np.uint32(Reason.STALE)


class Seen:
    """Takes outputs on the loop's thread, answers on any other; what it says of a tag is what `latest` says.

    Args:
        indices: tag index by full name.
        size: one more than the largest.
    """

    def __init__(self, indices: Mapping[str, int], size: int) -> None:
        self._since_ns = time.time_ns()
        self._indices = indices
        self._lock = threading.Lock()
        self._waiting: deque[Outputs] = deque()
        self._gathered = 0
        nothing = np.full(size, np.nan)
        self._now = TagsNow(
            time=np.full(size, NO_TIME, np.int64),
            arrival=np.full(size, NO_TIME, np.int64),
            value=nothing,
            estimate=nothing.copy(),
            std=nothing.copy(),
            status=np.full(size, StatusCode.BAD_WAITING_FOR_INITIAL_DATA, np.uint32),
            reasons=np.zeros(size, np.uint32),
        )
        # Silence, as in `twinloop.stores.latest`: by the order in which the fold saw it and the samples.
        self._heard = np.full(size, -1, np.int64)
        self._silent = np.full(size, GOOD, np.uint32)
        self._silent_at = np.full(size, -1, np.int64)
        self._shown: TagsNow | None = None
        self._severities = np.zeros((size, len(Severity)), np.int64)
        self._reasons = np.zeros((size, _BITS), np.int64)
        self._snapshots: dict[str, Snapshot] = {}
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._told: Sequence[Event] | None = None
        self._add_samples([Outputs(-1, 0, Batch.empty().buffers())])  # compiled before anybody waits for it

    def hear(self, outputs: Outputs) -> None:
        """Take outputs, in the order of the fold; on the loop's thread, and in next to no time."""
        self._waiting.append(outputs)
        self._gathered += (
            1 + len(outputs.snapshots) + (len(outputs.samples[0]) // 4 if outputs.samples else 0)
        )
        if self._gathered > _GATHERED:
            self._catch_up()

    def begin(self, silence: npt.NDArray[np.uint8], covers: int) -> None:
        """Take up how silent each tag was (0 not, 1 Uncertain, 2 Bad) before the outputs of an offset."""
        with self._lock:
            self._shown = None
            self._silent[:] = _SILENT[silence]
            self._silent_at[:] = np.where(silence > 0, covers - 1, -1)

    def take_up(self, rows: pa.Table) -> None:
        """Take stored samples, by `SAMPLE_SCHEMA`, for the tags that nothing was heard of since the start."""
        self._catch_up()
        tag = rows["tag"].to_numpy()
        columns = {
            "time": rows["time"].to_numpy(),
            "arrival": rows["arrival_ms"].to_numpy() * 1_000_000,
            "value": rows["value"].to_numpy(zero_copy_only=False),
            "estimate": rows["estimate"].to_numpy(zero_copy_only=False),
            "std": rows["estimate_std"].to_numpy(zero_copy_only=False),
            "status": rows["status"].to_numpy(),
            "reasons": rows["reasons"].to_numpy(),
        }
        with self._lock:
            self._shown = None
            picked = tag < len(self._now.time)
            picked[picked] = self._now.time[tag[picked]] == NO_TIME
            for name, column in columns.items():
                getattr(self._now, name)[tag[picked]] = column[picked]

    def now(self) -> TagsNow:
        """The newest sample of every tag; one that never had any is Bad, waiting for initial data.

        The same object while nothing is new; its columns cannot be written.
        """
        self._catch_up()
        with self._lock:
            if self._shown is None:
                self._shown = self._copied()
            return self._shown

    def _copied(self) -> TagsNow:
        made = {name: getattr(self._now, name).copy() for name in TagsNow.__slots__}
        is_silent = self._silent_at > self._heard
        if is_silent.any():
            silent = np.where(is_silent, self._silent, np.uint32(GOOD))
            lower = silent >> SEVERITY_SHIFT > made["status"] >> SEVERITY_SHIFT
            made["status"] = np.where(lower, silent, made["status"])
            made["reasons"] |= np.where(silent != GOOD, _STALE, np.uint32(0))
        for column in made.values():
            column.flags.writeable = False
        return TagsNow(**made)

    def counts(self) -> Counts:
        """What was judged how since the start."""
        self._catch_up()
        with self._lock:
            return Counts(self._since_ns, self._severities.copy(), self._reasons.copy())

    def snapshots(self) -> Mapping[str, Snapshot]:
        """The newest snapshot of each asset that has one; the same object while nothing is new."""
        self._catch_up()
        with self._lock:
            return self._snapshots

    def events(self) -> Sequence[Event]:
        """The newest events, oldest first; the same object while nothing is new."""
        self._catch_up()
        with self._lock:
            if self._told is None:
                self._told = tuple(self._events)
            return self._told

    def _catch_up(self) -> None:
        """Work off what has gathered."""
        with self._lock:
            self._gathered = 0
            gathered = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not gathered:
                return
            told = [outputs for outputs in gathered if outputs.events or outputs.snapshots]
            with_samples = [outputs for outputs in gathered if outputs.samples]
            if with_samples:
                self._add_samples(with_samples)
            if with_samples or told:
                self._shown = None
            for outputs in told:
                for event in outputs.events:
                    self._add_event(event, outputs.covers)
                if outputs.snapshots:  # another one: who was given the one before looks through it
                    self._snapshots = self._snapshots | {each.asset: each for each in outputs.snapshots}

    def _add_samples(self, gathered: Sequence[Outputs]) -> None:
        """Rows of all outputs as one batch: columns lie one after the other, so their bytes are joined."""
        joined = [b"".join(parts) for parts in zip(*(outputs.samples for outputs in gathered), strict=True)]
        batch = Batch.from_buffers(joined)
        covers = np.array([outputs.covers for outputs in gathered], np.int64)
        ends = np.cumsum([len(outputs.samples[0]) // 4 for outputs in gathered])
        rows = tuple(getattr(batch, name) for name in _COLUMNS)
        now = tuple(getattr(self._now, name) for name in TagsNow.__slots__)
        take_in(rows, covers, ends, now, self._heard, self._severities, self._reasons)

    def _add_event(self, event: Event, covers: int) -> None:
        self._events.append(event)
        self._told = None
        index = self._indices.get(event.subject) if event.kind is EventKind.STATUS else None
        if index is not None:
            self._silent[index] = stale_status(event.after, event.why)
            self._silent_at[index] = covers
