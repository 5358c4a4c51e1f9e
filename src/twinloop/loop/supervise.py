"""The one owner of reconnection: connect, watch the data's age, back off, connect again.

A failure is logged once and its recovery once, however many attempts lie between; every change of a link
enters the log as a record, so that the fold knows it too. A link that comes and goes is no recovery: only one
that has held for a while begins anew with the shortest waiting time and may be logged again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any, Final

from twinloop.errors import LinkError
from twinloop.foreign import readable
from twinloop.records import DeadLetter, DeadLetters, DeadReason, Link, LinkState, Record, Tick
from twinloop.sources.source import Delivery, Renewable, Source

__all__ = ["Backoff", "LinkFigures", "LinkPhase", "Supervisor"]

_log = logging.getLogger("twinloop.sources")

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
STEADY_S: Final = 60.0
_STEADY_AT_LEAST_S: Final = 8.0
_STEADY_WAITS: Final = 8.0
_RESTLESS: Final = 5
_IN_FLIGHT: Final = 64
_LAST_WORDS_S: Final = 1.0
_LAST_PAUSE_S: Final = 0.05
_SETTLE_S: Final = 1.0
_MOST_SAID: Final = 100
_FIRST: Final = asyncio.FIRST_COMPLETED

Append = Callable[[Record, int], Awaitable[int]]


@unique
class LinkPhase(StrEnum):
    """Where a source's link is, for metrics and the page."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    ENDED = "ended"


@dataclass(slots=True)
class LinkFigures:
    """Counters of one source; everything heard is counted.

    Attributes:
        phase: where the link is.
        attempts, connects: connection attempts and successes.
        samples, dead_letters, deliveries: handed to the log since the start.
        newest_ns: arrival of the newest delivery by this host's clock; 0 before any.
        problem: the last failure in words; empty while up.
    """

    phase: LinkPhase = LinkPhase.CONNECTING
    attempts: int = 0
    connects: int = 0
    samples: int = 0
    dead_letters: int = 0
    deliveries: int = 0
    newest_ns: int = 0
    problem: str = ""


@dataclass(slots=True)
class Backoff:
    """Waiting times between attempts: within 1 s at first, doubled to at most 30 s, jittered.

    Jitter keeps many twins from storming one broker that came back.

    Attributes:
        waited_s: the last waiting time given out.
    """

    first_s: float = FIRST_RETRY_S
    longest_s: float = LONGEST_RETRY_S
    draw: Callable[[], float] = field(default=random.random)
    waited_s: float = 0.0
    _step: int = 0

    def next_s(self) -> float:
        """The next waiting time: half to all of the present step."""
        step_s = min(self.first_s * 2.0**self._step, self.longest_s)
        self._step = min(self._step + 1, 16)
        self.waited_s = step_s * (0.5 + 0.5 * self.draw())
        return self.waited_s

    def begin(self, step: int = 0) -> None:
        """Go on with a step: 0 is the first, each later one twice as long."""
        self._step = min(step, 16)


class Supervisor:
    """Keeps one source connected and brings what it hears into the log, in order.

    Args:
        source: the source; it makes one attempt at a time and never reconnects itself.
        append: takes a record for the log; awaiting it gives the offset once durable.
        silence_s: when nothing is heard for so long, whatever the socket says, have the source ask its peer
            for a sign of life, or connect again where it cannot; 0 never.
        backoff: waiting times.
        quiet: no link to the plant but a part of ours: its coming and going is neither logged nor recorded.
        nearest: the tag that may be meant by an address that leads to none, or an empty text.
    """

    def __init__(
        self,
        source: Source,
        append: Append,
        *,
        silence_s: float = 0.0,
        backoff: Backoff | None = None,
        quiet: bool = False,
        nearest: Callable[[str], str] | None = None,
    ) -> None:
        self._source = source
        self._append = append
        self._silence_s = silence_s
        self._backoff = backoff or Backoff()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._stop = asyncio.Event()
        self._said: set[DeadReason] = set()
        self._problems: set[str] = set()  # said since the link last held
        self._to_recover = True  # a problem was said, and its end was not
        self._short = 0  # connections in a row that did not hold
        self._idle = False  # silence was said to be the plant's own
        self.quiet = quiet
        self._nearest = nearest
        self.figures = LinkFigures()

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        return self._source.name

    async def run(self) -> None:
        """Connect and go on until `stop` or until the source is exhausted."""
        while not self._stop.is_set():
            self.figures.phase = LinkPhase.CONNECTING
            self.figures.attempts += 1
            try:
                await self._session()
            except LinkError as error:
                await self._lost(str(error))
            else:
                break
            self.figures.phase = LinkPhase.WAITING
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._backoff.next_s())
        self.figures.phase = LinkPhase.ENDED

    def stop(self) -> None:
        """Take what has been heard already, acknowledge it, close the connection, and let `run` return."""
        self._stop.set()

    async def _session(self) -> None:
        async with self._source.connect() as deliveries:
            await self._found()
            holds = asyncio.get_running_loop().call_later(self._steady_after_s(), self._steady)
            stopping = asyncio.create_task(self._stop.wait())
            try:
                await self._listen(aiter(deliveries), stopping)
                await self._settle()
            finally:
                holds.cancel()
                stopping.cancel()

    async def _settle(self) -> None:
        """Wait a little for what was taken to be durable: only a link that is open can acknowledge it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self.drained()

    def _steady_after_s(self) -> float:
        """How long a connection must last to count as one that holds.

        Two programs that share a client id end each other's connection again and again: then each of ours
        lasts as long as the other waits. It must last several times as long as we do.
        """
        return min(max(_STEADY_WAITS * self._backoff.waited_s, _STEADY_AT_LEAST_S), STEADY_S)

    def _steady(self) -> None:
        self._short = 0
        self._problems.clear()
        self._say_found()

    async def _listen(self, stream: AsyncIterator[Delivery], stopping: asyncio.Task[bool]) -> None:
        """Take deliveries until the source's end, or until told to stop."""
        until_s = 0.0
        while (delivery := await self._hear(stream, stopping)) is not None:
            await self._take(delivery)
            self._idle = False
            if stopping.done():
                until_s = until_s or time.monotonic() + _LAST_WORDS_S
                if time.monotonic() > until_s:
                    return

    async def _hear(self, stream: AsyncIterator[Delivery], stopping: asyncio.Task[bool]) -> Delivery | None:
        """The next delivery; None at the source's end, or when stopping and nothing waits to be taken."""
        heard = asyncio.create_task(_next(stream))
        try:
            while not (stopping.done() or heard.done()):
                timeout_s = self._silence_s or None
                done, _ = await asyncio.wait({heard, stopping}, timeout=timeout_s, return_when=_FIRST)
                if not done:
                    await self._find_out(stream, {heard, stopping})
            if not heard.done():
                await asyncio.wait({heard}, timeout=_LAST_PAUSE_S)
            return heard.result() if heard.done() else None
        finally:
            await _cancelled(heard)

    async def _find_out(self, stream: AsyncIterator[Delivery], else_wait_for: set[asyncio.Task[Any]]) -> None:
        """Whether it is the plant that is silent, or the link: raises LinkError where it is the link."""
        if not isinstance(stream, Renewable):
            raise LinkError(f"{self.name}: connected, but nothing was heard for {self._silence_s:g} s")
        renewal = asyncio.create_task(stream.renew())
        try:
            await asyncio.wait({renewal, *else_wait_for}, return_when=_FIRST)
            if renewal.done():
                renewal.result()
                self._say_idle()
        finally:
            await _cancelled(renewal)

    def _say_idle(self) -> None:
        if not self._idle:
            self._idle = True
            _log.info(
                "%s: nothing was heard for %g s, and the link is fine: "
                "is the plant sending, and do the addresses in the plant file fit?",
                self.name,
                self._silence_s,
            )

    async def _take(self, delivery: Delivery) -> None:
        """Append a delivery; the source is acknowledged when its last record is durable."""
        await self._slots.acquire()
        self._count(delivery)
        last: Awaitable[int] | None = None
        for record in delivery.records:
            stamp = record.time if isinstance(record, Tick) else self.figures.newest_ns
            last = self._append(record, stamp)
        if last is None:
            self._slots.release()
            delivery.ack()
            return
        durable = asyncio.ensure_future(last)
        durable.add_done_callback(lambda done: self._durable(done, delivery))

    def _durable(self, done: asyncio.Future[int], delivery: Delivery) -> None:
        self._slots.release()
        if not done.cancelled() and done.exception() is None:
            delivery.ack()

    def _count(self, delivery: Delivery) -> None:
        self.figures.deliveries += 1
        self.figures.samples += delivery.samples
        self.figures.newest_ns = time.time_ns()
        for record in delivery.records:
            if isinstance(record, DeadLetters):
                self.figures.dead_letters += len(record.letters)
                self._say_dead(record.letters)
            elif isinstance(record, Link) and record.state is LinkState.ADDRESS_LOST:
                _log.warning("%s: %s is not read: %s", self.name, record.address, readable(record.why))
            elif isinstance(record, Link) and record.state is LinkState.ADDRESS_FOUND:
                _log.info("%s: %s is read again", self.name, record.address)

    def _say_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Name the first dead letter of each reason; the rest are in the store and in the metrics."""
        for letter in letters:
            if letter.reason not in self._said:
                self._said.add(letter.reason)
                _log.warning(
                    "%s: %s became a dead letter, %s: %s%s (`twinloop query PLANT dead` shows all there are)",
                    self.name,
                    readable(letter.origin),
                    letter.reason,
                    readable(letter.detail),
                    self._hint(letter),
                )

    def _hint(self, letter: DeadLetter) -> str:
        if letter.reason != DeadReason.UNKNOWN_TAG or self._nearest is None:
            return ""
        near = self._nearest(letter.origin)
        return f"; did you mean {near}?" if near else ""

    async def drained(self) -> None:
        """Return when everything taken is durable and acknowledged."""
        taken = 0
        try:
            while taken < _IN_FLIGHT:
                await self._slots.acquire()
                taken += 1
        finally:
            for _ in range(taken):
                self._slots.release()

    async def _found(self) -> None:
        self.figures.phase = LinkPhase.UP
        self.figures.connects += 1
        self.figures.problem = ""
        # Of a link that comes and goes the end of the trouble is said when it holds.
        if self._short < _RESTLESS:
            self._say_found()
        await self._note(LinkState.UP)

    def _say_found(self) -> None:
        if self._to_recover and not self.quiet:
            _log.info("%s: connected%s", self.name, " again" if self.figures.connects > 1 else "")
        self._to_recover = False

    async def _lost(self, problem: str) -> None:
        was_up = self.figures.phase is LinkPhase.UP
        if was_up:
            self._backoff.begin(self._short)
            self._short += 1
        # A link that comes and goes is said some times; then each different cause is, once.
        fresh = problem not in self._problems or (was_up and self._short <= _RESTLESS)
        if fresh:
            if len(self._problems) >= _MOST_SAID:
                self._problems.clear()
            self._problems.add(problem)
            self._to_recover = True
            _log.warning("%s; trying again until it works", problem.rstrip("."))
        if was_up or fresh:
            await self._note(LinkState.DOWN, problem)
        self.figures.problem = problem

    async def _note(self, state: LinkState, why: str = "") -> None:
        if self.quiet:
            return
        now = time.time_ns()
        await self._append(Link(now, self.name, state, why=why), now)


async def _next(stream: AsyncIterator[Delivery]) -> Delivery | None:
    return await anext(stream, None)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Return when a task is over; it is cancelled where it is not."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
