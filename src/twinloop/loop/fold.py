"""The fold: `state, outputs = step(state, record)`. Nothing else changes the twin.

No clock, no I/O, no randomness: live, recovered and replayed runs over the same records agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec
import numpy as np

from twinloop.batch import Batch
from twinloop.errors import LogError
from twinloop.loop.digest import state_digest
from twinloop.loop.state import Change, ChangedArray, State
from twinloop.pages import Paged, Pages
from twinloop.records import (
    Alive,
    ClockSet,
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
    Started,
    Thinned,
    Tick,
)
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.timetext import time_text
from twinloop.twin.twin import Beliefs, Twin

__all__ = ["Fold"]

VERSION: Final = 2
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


class _Small(msgspec.Struct, frozen=True):
    """The small part of the state: of each part that is `Paged` its own small part, of the others all."""

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
        # Whether the pages' marks tell from a state that was taken or taken up; else from zeros.
        self._followed = False
        self._parts: dict[str, _Keepable | Paged] = {
            "validate": validate,
            "impute": impute,
            "estimate": estimate,
            "twin": twin,
        }

    def step(self, offset: int, record: Record) -> Outputs:  # noqa: PLR0911 - one a kind of record
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
        if isinstance(record, Started):
            return self._started(offset, record)
        if isinstance(record, ClockSet):
            return self._clock_set(offset, record)
        return self._alive(offset, record)

    def _samples(self, offset: int, record: Samples) -> Outputs:
        events: list[Event] = []
        dead: list[DeadLetter] = []
        received = record.unpack()
        batch = self._route.step(received, dead)
        batch = self.validate.step(batch, events, live=record.live)
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
        tags = self._route.lookup(series)
        self.validate.renew(tags[tags >= 0], arrival[tags >= 0])
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
            why = "1 cycle" if tick.missed == 1 else f"{tick.missed} cycles"
            why += " fell out before this one"
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

    def _started(self, offset: int, started: Started) -> Outputs:
        """The time the twin was away is no silence of its tags."""
        why = f"away since {time_text(self._time)}" if self._time else "for the first time"
        event = Event(started.time, "twin", EventKind.STARTED, why=why)
        self.validate.started(started.time)
        if self._time:
            self.twin.started(self._time, started.time)
        self._time = started.time  # the clock may have been set back meanwhile
        return self._outputs(offset, started.time, events=[event])

    def _clock_set(self, offset: int, clock: ClockSet) -> Outputs:
        """No time went by: what is kept by this host's clock moves with it."""
        before, after = time_text(clock.time - clock.by_ns), time_text(clock.time)
        why = f"this host's clock was set {'forward' if clock.by_ns > 0 else 'back'}"
        event = Event(clock.time, "clock", EventKind.CLOCK_SET, before, after, why)
        self.validate.clock_set(clock.time, clock.by_ns)
        self.twin.clock_set(clock.by_ns)
        self._time = clock.time
        return self._outputs(offset, clock.time, events=[event])

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
        """The whole state, copied; `restore` of it and the same records give the same outputs."""
        return self.state().encode()

    def state(self) -> State:
        """The whole state; its arrays are the fold's own memory, good until the next step."""
        arrays = {name: pages.array.reshape(-1).view(np.uint8).data for name, pages in self._pages()}
        return State(self._small(), arrays)

    def digest(self) -> str:
        """SHA-256 of the whole state: the same for every fold that had the same records."""
        return state_digest(self.state())

    def change(self) -> Change:
        """A copy of what changed since the last `change` or `adopt`; from here on changes count anew.

        Whoever cannot keep it calls `soil`: else those pages would be missing in all that follows.
        """
        arrays = []
        for name, pages in self._pages():
            numbers, data = pages.changed()
            arrays.append(ChangedArray(name, pages.nbytes, numbers.astype(np.uint32), data))
            pages.clean()
        change = Change(not self._followed, self._time, self._small(), tuple(arrays))
        self._followed = True
        return change

    def soil(self) -> None:
        """Nothing taken so far is to be relied on: the next `change` is whole."""
        for _, pages in self._pages():
            pages.soil()
        self._followed = False

    @property
    def time(self) -> int:
        """The newest time folded, ns since epoch UTC, by this host's clock as last set; 0 before any."""
        return self._time

    def restore(self, state: bytes) -> None:
        """Take up what `snapshot` gave; raises as `adopt` does."""
        try:
            found = State.decode(state)
        except msgspec.MsgspecError as error:
            raise LogError(f"the checkpoint's state cannot be taken up: {error}") from error
        self.adopt(found)
        self.soil()

    def adopt(self, state: State) -> None:
        """Take up a state; the next `change` is what happened since.

        Raises:
            LogError: it is of another version or cannot be read; nothing can be said of what was
                taken up then, so make a new fold.
        """
        try:
            found = msgspec.msgpack.decode(state.small, type=_Small)
            _check_version(found.version)
            for name, part in self._parts.items():
                if name in found.parts:
                    _take_up(part, found.parts[name], f"{name}/", state)
        except LogError:
            raise
        except Exception as error:  # a state a part stumbles over must not stop each start anew
            raise LogError(f"the checkpoint's state cannot be taken up: {error!r}") from error
        self._time = found.time
        self._followed = True

    def _pages(self) -> Iterator[tuple[str, Pages]]:
        for name, part in self._parts.items():
            if isinstance(part, Paged):
                yield from ((f"{name}/{array}", pages) for array, pages in part.pages.items())

    def _small(self) -> bytes:
        parts = {
            name: part.small() if isinstance(part, Paged) else part.snapshot()
            for name, part in self._parts.items()
        }
        return msgspec.msgpack.encode(_Small(VERSION, self._time, parts))


def _check_version(version: int) -> None:
    if version != VERSION:
        raise LogError(f"the checkpoint's state has version {version}, not {VERSION}")


def _take_up(part: _Keepable | Paged, small: bytes, prefix: str, state: State) -> None:
    if isinstance(part, Paged):
        mine = {
            name.removeprefix(prefix): data for name, data in state.arrays.items() if name.startswith(prefix)
        }
        part.adopt(small, mine)
    else:
        part.restore(small)
