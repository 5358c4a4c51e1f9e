"""The synchronisation loop: sources into the log, the log through the fold, outputs to their readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from twinloop.errors import LogGap
from twinloop.log.log import Log
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.deliver import StoreReader
from twinloop.loop.fold import Fold
from twinloop.loop.keep import Keeper, Reached
from twinloop.loop.metrics import Cycle, Metrics
from twinloop.loop.supervise import Append, LinkPhase, Supervisor
from twinloop.records import (
    ClockSet,
    Loss,
    Outputs,
    Record,
    Started,
    Tick,
    decode_outputs,
    decode_record,
    encode_outputs,
    encode_record,
)
from twinloop.sources.clock import Clock
from twinloop.stores.store import Follower, Store

__all__ = ["Loop", "Parts"]

_log = logging.getLogger("twinloop.loop")

CHECKPOINT_EVERY_S: Final = 60.0
CHECKPOINT_AT_MOST_EVERY_S: Final = 1.0
HEAR_OUT_S: Final = 3.0
STOP_WITHIN_S: Final = 8.0
_FOLD_AT_ONCE: Final = 64
_COUNTABLE: Final = 1 << 26  # a larger gap was left on purpose, behind a damaged file
_LOOK_S: Final = 0.05


@dataclass(slots=True)
class Parts:
    """Everything a loop runs on; made by `twinloop.build`.

    Attributes:
        log: received records; outputs: what folding them gave.
        new_fold: makes a fold that knows nothing yet.
        store: history, a reader of `outputs`.
        checkpoints: where the fold's state is kept; None to begin anew each time.
        clock: gives the ticks; None where a source brings its own (replay).
        follower: keeps the newest values while the store lags; None for nobody.
    """

    log: Log
    outputs: Log
    new_fold: Callable[[], Fold]
    store: Store
    metrics: Metrics
    checkpoints: Checkpoints | None = None
    clock: Clock | None = None
    follower: Follower | None = None


@dataclass(slots=True)
class _Progress:
    """How far the fold is, with the newest record's bytes, and who waits for it."""

    folded: int = -1
    newest: bytes | None = None
    caught_up_s: float = field(default_factory=time.monotonic)
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def reached(self) -> Reached:
        return Reached(self.folded, self.newest)

    def reach(self, offset: int, data: bytes | None = None) -> None:
        self.folded, self.newest = offset, data
        ready = [future for upto, future in self.waiting if upto <= offset]
        self.waiting = [(upto, future) for upto, future in self.waiting if upto > offset]
        for future in ready:
            if not future.done():
                future.set_result(None)

    async def wait_for(self, offset: int) -> None:
        if offset <= self.folded:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((offset, future))
        await future


class Loop:
    """Runs the parts until told to stop, then folds and stores everything received.

    Args:
        parts: what to run on.
        supervisors: called with `append` to make the supervisors of the sources.

    Attributes:
        parts: what it runs on.
        delivery: brings outputs into the store.
    """

    def __init__(self, parts: Parts, supervisors: Callable[[Append], Sequence[Supervisor]]) -> None:
        self.parts = parts
        self.fold = parts.new_fold()
        self.delivery = StoreReader(parts.outputs, parts.store, self._lost_outputs, parts.follower)
        self._progress = _Progress()
        self._listeners: list[Callable[[Outputs], None]] = []
        self._output: asyncio.Future[int] | None = None
        self._told: asyncio.Future[int] | None = None
        self._samples_in_cycle = 0
        self._outputs_cover = -1
        self._keeper = Keeper(parts.checkpoints, parts.log)
        self.last_cycle_s = time.monotonic()
        self._all_supervisors = list(supervisors(self.append))
        self.supervisors = [each for each in self._all_supervisors if not each.quiet]

    def append(self, record: Record, time_ns: int) -> Awaitable[int]:
        """Put a record into the log; awaiting gives its offset once durable."""
        return self.parts.log.append(encode_record(record), time_ns)

    def listen(self, listener: Callable[[Outputs], None]) -> None:
        """Call `listener` with the outputs of every record folded from now on; it must not block."""
        self._listeners.append(listener)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or every source has ended; then finish what was received.

        After `stop` that takes at most `STOP_WITHIN_S`: what does not fit stands in the log and goes on at
        the next start. Sources that ended by themselves are folded and stored to their end.

        Raises:
            TwinloopError: a part that cannot be done without failed (a log that cannot be written).
        """
        workers: list[asyncio.Task[None]] = []
        sources: list[asyncio.Task[None]] = []
        try:
            self._resume()
            workers += [
                asyncio.create_task(self._fold(), name="fold"),
                asyncio.create_task(self.delivery.run(), name="store"),
                asyncio.create_task(self._checkpoint_now_and_then(), name="checkpoints"),
            ]
            clock = asyncio.create_task(self._cycles(self._began()), name="clock")
            sources += [asyncio.create_task(each.run(), name=each.name) for each in self._all_supervisors]
            ended = asyncio.create_task(_until_stopped(stop, sources), name="stop")
            workers += [clock, ended]
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            deadline_s = time.monotonic() + STOP_WITHIN_S if stop.is_set() else None
            clock.cancel()
            await self._hear_out(sources)
            await self._finish(workers[:2], stop, deadline_s)
        finally:
            for task in (*workers, *sources):
                task.cancel()
            await asyncio.gather(*workers, *sources, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Let go of the store and the logs; for a loop that never ran, too."""
        self._keeper.hurry()
        try:
            await self.delivery.close()
        finally:
            await self.parts.log.close()
            await self.parts.outputs.close()

    def _resume(self) -> None:
        """Take up the newest checkpoint and find how far the outputs already go."""
        parts = self.parts
        self.fold, self._progress.folded = self._keeper.restore(self.fold, parts.new_fold)
        first = parts.log.stats().first_offset
        if self._progress.folded < 0 < first:
            _log.warning("without a checkpoint, folding begins at the log's oldest entry, offset %d", first)
            self._progress.folded = first - 1
        newest = parts.outputs.newest()
        if newest is not None:
            self._outputs_cover = decode_outputs(newest).covers

    async def _fold(self) -> None:
        log = self.parts.log
        while True:
            await log.wait(self._progress.folded)
            try:
                entries = log.read(self._progress.folded, _FOLD_AT_ONCE)
            except LogGap as gap:
                self._skip(gap)
                continue
            for offset, data in entries:
                self._step(offset, data)
            if self._progress.folded == log.stats().last_offset:
                self._progress.caught_up_s = time.monotonic()
            if self.parts.checkpoints is None:
                log.release(self._progress.folded)
            # A full output log holds the fold back; else its entries would gather in memory.
            await self._written()
            await asyncio.sleep(0)

    def _skip(self, gap: LogGap) -> None:
        """Fold on after records that are gone.

        Those whose outputs are written were told of before: the record of it follows, unless nothing does.
        """
        if gap.last > self._outputs_cover or gap.last >= self.parts.log.stats().last_offset:
            self._tell("received", gap)
        self._progress.reach(gap.last)

    def _lost_outputs(self, gap: LogGap) -> None:
        self._tell("outputs", gap)

    def _tell(self, log: str, gap: LogGap) -> None:
        """A loss is a record: the fold makes the event, and a replay makes it again."""
        count = gap.last - gap.first + 1
        now = time.time_ns()
        loss = Loss(now, log, gap.first, gap.last, count if count < _COUNTABLE else 0)
        _log.error("%s; going on after them", gap)
        self._told = asyncio.ensure_future(self.append(loss, now))

    async def _written(self) -> None:
        """Return when the newest outputs are in their log; a waiter that is cancelled leaves them alone."""
        if self._output is not None:
            await asyncio.shield(self._output)

    def _step(self, offset: int, data: bytes) -> None:
        outputs = self.fold.step(offset, decode_record(data))
        if offset > self._outputs_cover and not outputs.is_empty:
            entry = self.parts.outputs.append(encode_outputs(outputs), outputs.time)
            self._output = asyncio.ensure_future(entry)
        severities = _severities(outputs)
        self.parts.metrics.outputs(outputs, severities)
        self._samples_in_cycle += sum(severities)
        for listener in self._listeners:
            listener(outputs)
        self._progress.reach(offset, data)

    def _began(self) -> Awaitable[int] | None:
        """Put the start into the log, before what the sources will hear."""
        if self.parts.clock is None:  # a replay's time is not that of its day
            return None
        now = time.time_ns()
        return self.append(Started(now), now)

    async def _cycles(self, started: Awaitable[int] | None) -> None:
        clock = self.parts.clock
        if clock is None or started is None:
            await asyncio.Event().wait()
            return
        await started
        while True:
            due = await clock.next()
            if isinstance(due, ClockSet):
                _log.warning("this host's clock was set by %+.3f s", due.by_ns / 1e9)
                await self.append(due, due.time)
                continue
            began = time.monotonic()
            behind = self._progress.folded < self.parts.log.stats().last_offset
            lag_s = began - self._progress.caught_up_s if behind else 0.0
            offset = await self.append(due.tick, due.tick.time)
            await self._progress.wait_for(offset)
            await self._written()
            self._count_cycle(due.tick, time.monotonic() - began, due.jitter_ns / 1e9, lag_s)

    def _count_cycle(self, tick: Tick, duration_s: float, jitter_s: float, lag_s: float) -> None:
        samples, self._samples_in_cycle = self._samples_in_cycle, 0
        metrics = self.parts.metrics
        metrics.cycle(Cycle(tick.time, duration_s, jitter_s, lag_s, samples, tick.missed))
        self.last_cycle_s = time.monotonic()
        now = time.time_ns()
        for each in self.supervisors:
            figures = each.figures
            age_s = (now - figures.newest_ns) / 1e9 if figures.newest_ns else float("nan")
            metrics.source(
                each.name,
                up=figures.phase is LinkPhase.UP,
                samples=figures.samples,
                age_s=age_s,
                attempts=figures.attempts,
            )
        for name, log in (("received", self.parts.log), ("outputs", self.parts.outputs)):
            metrics.log(name, log.stats())
        metrics.store(self.delivery.lag)

    async def _checkpoint_now_and_then(self) -> None:
        await self._keeper.merge()  # what a row of short runs has left
        while True:
            # A full log can let go only of what two checkpoints cover.
            pressed = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self.parts.log.pressed(), CHECKPOINT_EVERY_S)
                pressed = True
            await self._checkpoint()
            await self._keeper.merge(pressed=pressed)
            await asyncio.sleep(CHECKPOINT_AT_MOST_EVERY_S)

    async def _checkpoint(self) -> None:
        """Keep the state with the offset it covers, once the outputs up to there are safe."""
        await self._keeper.keep(self.fold, lambda: self._progress.reached, self._safe)

    async def _safe(self) -> None:
        await self._written()
        await self.parts.outputs.sync()

    async def _hear_out(self, sources: Sequence[asyncio.Task[None]]) -> None:
        """Take what the sources have heard already, let them close, and wait until all is durable."""
        for each in self._all_supervisors:
            each.stop()
        _, late = await asyncio.wait(sources, timeout=HEAR_OUT_S) if sources else (set(), set())
        for task in late:
            _log.warning("%s did not close in time", task.get_name())
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAR_OUT_S):
                for each in self._all_supervisors:
                    await each.drained()

    async def _finish(
        self, workers: Sequence[asyncio.Task[None]], stop: asyncio.Event, deadline_s: float | None
    ) -> None:
        """Fold and store what was received, as far as the time goes; a worker's failure is raised.

        Without a deadline, as sources ended by themselves, there is all the time until `stop` is set.
        """
        left_s = None if deadline_s is None else max(0.5, deadline_s - time.monotonic())
        try:
            async with asyncio.timeout(left_s) as limit:
                while not self._is_done(leaving=limit.when() is not None):
                    if stop.is_set() and limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + STOP_WITHIN_S)
                    for task in workers:
                        if task.done():
                            task.result()
                    await asyncio.sleep(_LOOK_S)
                self._keeper.hurry()
                await self._checkpoint()
        except TimeoutError:
            _log.warning("stopped with work left; it stands in the log and goes on at the next start")

    def _is_done(self, *, leaving: bool) -> bool:
        """Whether what was received is folded and stored; who leaves waits for no store that is away."""
        folded = self._progress.folded >= self.parts.log.stats().last_offset
        written = self._output is None or self._output.done()
        stored = self.delivery.taken >= self.parts.outputs.stats().last_offset
        return folded and written and (stored or (leaving and self.delivery.is_refused))


def _severities(outputs: Outputs) -> list[int]:
    if not outputs.samples:
        return [0, 0, 0]
    severity = outputs.batch().status >> np.uint32(30)
    counts = np.bincount(np.minimum(severity, 2).astype(np.int64), minlength=3)
    return [int(count) for count in counts]


async def _until_stopped(stop: asyncio.Event, sources: Sequence[asyncio.Task[None]]) -> None:
    """Return when asked to stop or when every source has ended; a source's bug is raised."""
    stopping = asyncio.create_task(stop.wait())
    pending: set[asyncio.Task[None]] = set(sources)
    try:
        while pending:
            watched: set[asyncio.Task[object]] = {stopping, *pending}
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            pending -= done
            if stopping in done:
                return
        if not sources:
            await stopping
    finally:
        stopping.cancel()
