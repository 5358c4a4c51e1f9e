"""The fold: `state, outputs = step(state, record)`. Nothing else changes the twin.

No clock, no I/O, no randomness: live, recovered and replayed runs over the same records agree bit for bit.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
import numpy as np

from twinloop.batch import Batch
from twinloop.errors import LogError
from twinloop.loop.digest import state_digest
from twinloop.records import (
    Alive,
    DeadLetter,
    DeadLetters,
    Event,
    EventKind,
    Link,
    LinkState,
    Loss,
    Outputs,
    Record,
    Samples,
    Snapshot,
    Thinned,
    Tick,
)
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.twin.twin import Beliefs, Twin

__all__ = ["Fold"]

VERSION: Final = 1
_NIS_TELLS: Final = 20  # samples: a mean over fewer says more about chance than about the filter
_LINK_EVENTS: Final = {
    LinkState.UP: EventKind.LINK_UP,
    LinkState.DOWN: EventKind.LINK_DOWN,
    LinkState.ADDRESS_LOST: EventKind.ADDRESS_LOST,
    LinkState.ADDRESS_FOUND: EventKind.ADDRESS_FOUND,
}


class _Keepable(Protocol):
    def snapshot(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


class _State(msgspec.Struct, frozen=True):
    version: int
    time: int
    parts: dict[str, bytes]


class Fold:
    """All stages, the filters and the twin, stepped together.

    Args:
        route, validate, impute, estimate: the stages, in the order samples pass them; `impute` reads the
            model's values from the twin's own `model_value`.
        twin: the models, driven by ticks.
    """

    def __init__(
        self,
        route: RouteStage,
        validate: ValidateStage,
        impute: ImputeStage,
        estimate: EstimateStage,
        twin: Twin,
    ) -> None:
        self._route = route
        self.validate = validate
        self._impute = impute
        self.estimate = estimate
        self.twin = twin
        self._time = 0
        self._parts: dict[str, _Keepable] = {
            "validate": validate,
            "impute": impute,
            "estimate": estimate,
            "twin": twin,
        }

    def step(self, offset: int, record: Record) -> Outputs:
        """Fold one record; the outputs say all that came of it."""
        if isinstance(record, Samples):
            return self._samples(offset, record)
        if isinstance(record, Tick):
            return self._tick(offset, record)
        if isinstance(record, DeadLetters):
            newest = max((letter.time for letter in record.letters), default=self._time)
            return self._outputs(offset, newest, dead=record.letters)
        if isinstance(record, Link):
            return self._link(offset, record)
        if isinstance(record, Loss):
            return self._loss(offset, record)
        return self._alive(offset, record)

    def _samples(self, offset: int, record: Samples) -> Outputs:
        events: list[Event] = []
        dead: list[DeadLetter] = []
        received = record.unpack()
        batch = self._route.step(received, dead)
        batch = self.validate.step(batch, events)
        fills = self._impute.step(batch)
        batch = self.estimate.step(batch, events)
        if record.thinned is not None:
            self._thinned(offset, record.thinned, record.newest(self._time), events)
        return self._outputs(
            offset,
            record.newest(self._time),
            batch,
            fills,
            events=events,
            dead=dead,
            duplicates=self.validate.duplicates,
        )

    def _thinned(self, offset: int, thinned: Thinned, time_ns: int, events: list[Event]) -> None:
        """What a full log left out arrived all the same: it renews ages, and is told once a file."""
        series, arrival = np.array(thinned.series, np.int32), np.array(thinned.arrival, np.int64)
        for each in np.unique(arrival).tolist():
            self.validate.renew(self._route.tags_of(series[arrival == each]), each)
        if thinned.samples:
            where = f"offsets {thinned.first} to {offset}"
            why = f"{thinned.samples} samples of {where} were left out to make room"
            events.append(Event(time_ns, "log received", EventKind.THINNED, why=why))

    def _tick(self, offset: int, tick: Tick) -> Outputs:
        events: list[Event] = []
        self.validate.tick(tick, events)
        self.estimate.tick(tick, events)
        snapshots = self.twin.tick(tick, self._beliefs(), events)
        fills = self._impute.tick(tick, self.validate.stale)
        if tick.missed:
            why = f"{tick.missed} cycles fell out before this one"
            events.append(Event(tick.time, "cycle", EventKind.OVERRUN, why=why))
        return self._outputs(offset, tick.time, fills=fills, events=events, snapshots=snapshots)

    def _beliefs(self) -> Beliefs:
        bank = self.estimate.bank
        return Beliefs(
            value=bank.value,
            std=bank.std,
            rate=bank.rate,
            time_ns=bank.time_ns,
            nis=np.where(bank.nis_count >= _NIS_TELLS, bank.nis, np.nan),
            stale=self.validate.stale,
            severity=self.validate.severity,
        )

    def _link(self, offset: int, link: Link) -> Outputs:
        subject = f"{link.source}: {link.address}" if link.address else link.source
        kind = _LINK_EVENTS[link.state]
        event = Event(link.time, subject, kind, after=link.state.value, why=link.why)
        return self._outputs(offset, link.time, events=[event])

    def _loss(self, offset: int, loss: Loss) -> Outputs:
        count = f"{loss.entries} entries" if loss.entries else "an unknown number of entries"
        reader = "were not folded" if loss.log == "received" else "are missing in the store"
        why = f"{count} {reader}: offsets {loss.first} to {loss.last} were dropped to make room or damaged"
        event = Event(loss.time, f"log {loss.log}", EventKind.LOST, why=why)
        return self._outputs(offset, loss.time, events=[event])

    def _alive(self, offset: int, alive: Alive) -> Outputs:
        tags = self._route.tags_of(np.array(alive.series, np.int32))
        self.validate.renew(tags, alive.time)
        return self._outputs(offset, alive.time)

    def _outputs(
        self,
        offset: int,
        time_ns: int,
        batch: Batch | None = None,
        fills: Batch | None = None,
        *,
        events: list[Event] | None = None,
        snapshots: list[Snapshot] | None = None,
        dead: list[DeadLetter] | None = None,
        duplicates: int = 0,
    ) -> Outputs:
        self._time = max(self._time, time_ns)
        return Outputs(
            covers=offset,
            time=self._time,
            samples=batch.buffers() if batch is not None and len(batch) else [],
            fills=fills.buffers() if fills is not None and len(fills) else [],
            events=events or [],
            snapshots=snapshots or [],
            dead=dead or [],
            duplicates=duplicates,
        )

    def snapshot(self) -> bytes:
        """The whole state; `restore` of it and the same records give the same outputs."""
        parts = {name: part.snapshot() for name, part in self._parts.items()}
        return msgspec.msgpack.encode(_State(VERSION, self._time, parts))

    def digest(self) -> str:
        """SHA-256 of the whole state: the same for every fold that had the same records."""
        return state_digest(self.snapshot())

    @property
    def time(self) -> int:
        """The newest time folded, ns since epoch UTC; 0 before any."""
        return self._time

    def restore(self, state: bytes) -> None:
        """Take up a state.

        Raises:
            LogError: it is of another version or cannot be read; nothing can be said of what was
                taken up then, so make a new fold.
        """
        try:
            found = msgspec.msgpack.decode(state, type=_State)
            if found.version != VERSION:
                raise LogError(f"the checkpoint's state has version {found.version}, not {VERSION}")
            for name, part in self._parts.items():
                if name in found.parts:
                    part.restore(found.parts[name])
        except (ValueError, msgspec.MsgspecError) as error:
            raise LogError(f"the checkpoint's state cannot be taken up: {error}") from error
        self._time = found.time
