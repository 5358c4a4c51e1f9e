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

from twinloop.errors import LogError, StoreBusy
from twinloop.log.log import Log
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.loop.metrics import Cycle, Metrics
from twinloop.loop.supervise import LinkPhase, Supervisor
from twinloop.records import (
    Outputs,
    Record,
    Tick,
    decode_outputs,
    decode_record,
    encode_outputs,
    encode_record,
)
from twinloop.sources.clock import Clock
from twinloop.stores.store import Store

__all__ = ["Loop", "Parts"]

_log = logging.getLogger("twinloop.loop")

CHECKPOINT_EVERY_S: Final = 60.0
STOP_WITHIN_S: Final = 8.0
_FOLD_AT_ONCE: Final = 256
_STORE_AT_ONCE: Final = 2000
_STORE_PAUSE_S: Final = 0.2


@dataclass(slots=True)
class Parts:
    """Everything a loop runs on; made by `twinloop.build`.

    Attributes:
        log: received records; outputs: what folding them gave.
        fold: the state.
        store: history, a reader of `outputs`.
        checkpoints: where the fold's state is kept; None to begin anew each time.
        clock: gives the ticks; None where a source brings its own (replay).
    """

    log: Log
    outputs: Log
    fold: Fold
    store: Store
    metrics: Metrics
    checkpoints: Checkpoints | None = None
    clock: Clock | None = None


@dataclass(slots=True)
class _Progress:
    """How far the fold is, and who waits for it."""

    folded: int = -1
    caught_up_s: float = field(default_factory=time.monotonic)
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    def reach(self, offset: int) -> None:
        self.folded = offset
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
        supervisors: called with `append` to make the keepers of the sources.
    """

    def __init__(
        self,
        parts: Parts,
        supervisors: Callable[[Callable[[Record, int], Awaitable[int]]], Sequence[Supervisor]],
    ) -> None:
        self._parts = parts
        self._progress = _Progress()
        self._listeners: list[Callable[[Outputs], None]] = []
        self._output: Awaitable[int] | None = None
        self._samples_in_cycle = 0
        self._outputs_cover = -1
        self._delivered = -1
        self.last_cycle_s = time.monotonic()
        self.supervisors = list(supervisors(self.append))

    def append(self, record: Record, time_ns: int) -> Awaitable[int]:
        """Put a record into the log; awaiting gives its offset once durable."""
        return self._parts.log.append(encode_record(record), time_ns)

    def listen(self, listener: Callable[[Outputs], None]) -> None:
        """Call `listener` with the outputs of every record folded from now on; it must not block."""
        self._listeners.append(listener)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or every source has ended; then finish what was received.

        Raises:
            TwinloopError: a part that cannot be done without failed (a log that cannot be written).
        """
        self._resume()
        fold = asyncio.create_task(self._fold(), name="fold")
        store = asyncio.create_task(self._store(), name="store")
        keep = asyncio.create_task(self._checkpoint_now_and_then(), name="checkpoints")
        clock = asyncio.create_task(self._cycles(), name="clock") if self._parts.clock else None
        sources = [asyncio.create_task(each.run(), name=each.name) for each in self.supervisors]
        ended = asyncio.create_task(_until_stopped(stop, sources), name="stop")
        vital = [task for task in (fold, store, keep, clock, ended) if task]
        try:
            done, _ = await asyncio.wait(vital, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._stop_hearing([task for task in (clock, *sources) if task])
            await self._finish(fold, store)
        finally:
            for task in (*vital, *sources):
                task.cancel()
            await asyncio.gather(*vital, *sources, return_exceptions=True)
            await self._close()

    def _resume(self) -> None:
        """Take up the newest checkpoint and find how far the outputs already go."""
        parts = self._parts
        checkpoint = parts.checkpoints.load() if parts.checkpoints else None
        first = parts.log.stats().first_offset
        if checkpoint is not None:
            parts.fold.restore(checkpoint.state)
            self._progress.folded = checkpoint.offset
        if self._progress.folded < first - 1:
            _log.warning(
                "the log begins at offset %d, after the newest checkpoint: what lies between is lost to "
                "the fold",
                first,
            )
            self._progress.folded = first - 1
        outputs = parts.outputs.stats()
        if outputs.last_offset >= outputs.first_offset:
            _, newest = parts.outputs.read(outputs.last_offset - 1, 1)[0]
            self._outputs_cover = decode_outputs(newest).covers

    async def _fold(self) -> None:
        log = self._parts.log
        while True:
            await log.wait(self._progress.folded)
            for offset, data in log.read(self._progress.folded, _FOLD_AT_ONCE):
                self._step(offset, decode_record(data))
            if self._progress.folded == log.stats().last_offset:
                self._progress.caught_up_s = time.monotonic()
            await asyncio.sleep(0)

    def _step(self, offset: int, record: Record) -> None:
        outputs = self._parts.fold.step(offset, record)
        if offset > self._outputs_cover and not outputs.is_empty:
            self._output = self._parts.outputs.append(encode_outputs(outputs), outputs.time)
        severities = _severities(outputs)
        self._parts.metrics.outputs(outputs, severities)
        self._samples_in_cycle += sum(severities)
        for listener in self._listeners:
            listener(outputs)
        self._progress.reach(offset)

    async def _cycles(self) -> None:
        clock = self._parts.clock
        while clock is not None:
            due = await clock.next()
            began = time.monotonic()
            behind = self._progress.folded < self._parts.log.stats().last_offset
            lag_s = began - self._progress.caught_up_s if behind else 0.0
            offset = await self.append(due.tick, due.tick.time)
            await self._progress.wait_for(offset)
            if self._output is not None:
                await self._output
            self._count_cycle(due.tick, time.monotonic() - began, due.jitter_ns / 1e9, lag_s)

    def _count_cycle(self, tick: Tick, duration_s: float, jitter_s: float, lag_s: float) -> None:
        samples, self._samples_in_cycle = self._samples_in_cycle, 0
        metrics = self._parts.metrics
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
        for name, log in (("received", self._parts.log), ("outputs", self._parts.outputs)):
            stats = log.stats()
            metrics.log(name, size_bytes=stats.size_bytes, last_offset=stats.last_offset)
        metrics.store(self._parts.outputs.stats().last_offset - self._parts.store.covered)

    async def _store(self) -> None:
        parts = self._parts
        first = parts.outputs.stats().first_offset
        if parts.store.covered < first - 1:
            _log.warning("outputs before offset %d are gone and not in the store", first)
        delivered = max(parts.store.covered, first - 1)
        troubled = False
        while True:
            await parts.outputs.wait(delivered)
            entries = parts.outputs.read(delivered, _STORE_AT_ONCE)
            try:
                decoded = [(offset, decode_outputs(data)) for offset, data in entries]
                await asyncio.to_thread(parts.store.write, decoded)
            except StoreBusy as busy:
                if not troubled:
                    _log.warning("store: %s; trying again until it works", busy)
                troubled = True
                await asyncio.sleep(busy.retry_after_s)
                continue
            if troubled:
                _log.info("store: writing again")
                troubled = False
            delivered = self._delivered = entries[-1][0]
            parts.outputs.release(parts.store.covered)
            if len(entries) < _STORE_AT_ONCE:
                await asyncio.sleep(_STORE_PAUSE_S)

    async def _checkpoint_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        """Keep the state with the offset it covers, once the outputs up to there are safe."""
        checkpoints = self._parts.checkpoints
        if checkpoints is None:
            self._parts.log.release(self._progress.folded)
            return
        offset, state, output = self._progress.folded, self._parts.fold.snapshot(), self._output
        if output is not None:
            await output
        await self._parts.outputs.sync()
        await asyncio.to_thread(checkpoints.save, offset, state)
        self._parts.log.release(offset)

    async def _stop_hearing(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN_S / 2) if tasks else (set(), set())
        for task in late:
            _log.warning("%s did not close in time", task.get_name())
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S / 4):
                for each in self.supervisors:
                    await each.drained()

    async def _finish(self, fold: asyncio.Task[None], store: asyncio.Task[None]) -> None:
        """Fold and store what was received; what does not fit into the time waits in the log."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                last = self._parts.log.stats().last_offset
                await _or_failure(self._progress.wait_for(last), fold)
                if self._output is not None:
                    await self._output
                newest = self._parts.outputs.stats().last_offset
                while max(self._delivered, self._parts.store.covered) < newest:
                    if store.done():
                        store.result()
                    await asyncio.sleep(_STORE_PAUSE_S / 4)
        except TimeoutError:
            _log.warning("stopped with work left; it stands in the log and goes on at the next start")
        await self._checkpoint()

    async def _close(self) -> None:
        parts = self._parts
        await asyncio.to_thread(parts.store.close)
        parts.outputs.release(parts.store.covered)
        await parts.log.close()
        await parts.outputs.close()


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


async def _or_failure(wanted: Awaitable[None], worker: asyncio.Task[None]) -> None:
    """Await `wanted`, or raise what the worker it depends on raised."""
    waiting = asyncio.ensure_future(wanted)
    await asyncio.wait({waiting, worker}, return_when=asyncio.FIRST_COMPLETED)
    if worker.done() and not waiting.done():
        waiting.cancel()
        worker.result()
        raise LogError("the fold stopped before everything was folded")
    await waiting
