"""Reconnection has one owner: it backs off, says a thing once, and acknowledges only what is durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import LinkError, LogError
from twinloop.log.memory import MemoryLog
from twinloop.loop.supervise import Backoff, LinkPhase, Supervisor
from twinloop.records import (
    Alive,
    DeadLetter,
    DeadLetters,
    DeadReason,
    Link,
    LinkState,
    Record,
    decode_record,
    encode_record,
)
from twinloop.sources.source import Delivery, Reading

ALIVE = Alive(1, [0])


@dataclass
class Waits(Backoff):
    """Remembers the waiting times it gave."""

    given: list[float] = field(default_factory=list)

    def next_s(self) -> float:
        self.given.append(super().next_s())
        return self.given[-1]


class Scripted:
    """A source whose every attempt is written down beforehand: an error, or deliveries then an error."""

    name = "field"

    def __init__(self, *attempts: LinkError | list[Delivery | LinkError]) -> None:
        self.attempts = list(attempts)
        self.open = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        attempt = self.attempts.pop(0) if self.attempts else []
        if isinstance(attempt, LinkError):
            raise attempt
        self.open += 1
        try:
            yield self._play(attempt)
        finally:
            self.open -= 1

    async def _play(self, script: list[Delivery | LinkError]) -> AsyncIterator[Delivery]:
        for entry in script:
            if isinstance(entry, LinkError):
                raise entry
            yield entry
        if self.attempts:
            await asyncio.Event().wait()

    async def check(self, timeout_s: float) -> list[Reading]:
        raise NotImplementedError


def supervised(source: Scripted, log: MemoryLog, silence_s: float = 0.0) -> Supervisor:
    backoff = Backoff(first_s=0.001, longest_s=0.002)

    def append(record: Record, time_ns: int) -> Awaitable[int]:
        return log.append(encode_record(record), time_ns)

    return Supervisor(source, append, silence_s=silence_s, backoff=backoff)


def records(log: MemoryLog) -> list[Record]:
    return [decode_record(data) for _, data in log.read(-1)]


async def test_a_refused_link_is_tried_again_until_it_works_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "twinloop")
    refused = LinkError("field: refused; is the broker running?")
    source = Scripted(refused, refused, refused, [Delivery((ALIVE,), lambda: None)])
    log = MemoryLog()
    keeper = supervised(source, log)
    await asyncio.wait_for(keeper.run(), 5)
    assert keeper.figures.attempts == 4
    assert keeper.figures.phase is LinkPhase.ENDED
    assert [type(record) for record in records(log)] == [Link, Link, Alive]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "field: refused; is the broker running?; trying again until it works",
        "field: connected",
    ]


async def test_a_lost_link_leaves_no_session_open_and_is_noted_in_the_log() -> None:
    gone = LinkError("field: the broker went away")
    source = Scripted([Delivery((ALIVE,), lambda: None), gone], [Delivery((ALIVE,), lambda: None)])
    log = MemoryLog()
    await asyncio.wait_for(supervised(source, log).run(), 5)
    assert source.open == 0
    states = [record.state for record in records(log) if isinstance(record, Link)]
    assert states == [LinkState.UP, LinkState.DOWN, LinkState.UP]


class Hanging:
    """Deliveries of a session that never ends by itself, and can be asked for a sign of life."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.asked = asyncio.Event()
        self.more: asyncio.Queue[Delivery] = asyncio.Queue()

    def __aiter__(self) -> Hanging:
        return self

    async def __anext__(self) -> Delivery:
        return await self.more.get()

    async def renew(self) -> None:
        self.asked.set()
        if not self.answers:
            raise LinkError("field: no answer in time")


class Lasting(Scripted):
    """A source with one such session after another."""

    def __init__(self, *sessions: Hanging) -> None:
        super().__init__()
        self.sessions = list(sessions)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        yield self.sessions.pop(0)


async def test_a_silent_plant_whose_link_answers_keeps_its_connection_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "twinloop")
    session = Hanging(answers=True)
    log = MemoryLog()
    keeper = supervised(Lasting(session), log, silence_s=0.01)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        for _ in range(3):
            await session.asked.wait()
            session.asked.clear()
        session.more.put_nowait(Delivery((ALIVE,), lambda: None))
        session.asked.clear()
        await session.asked.wait()
        keeper.stop()
        await running
    assert keeper.figures.connects == 1
    assert [type(record) for record in records(log)] == [Link, Alive]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "field: connected"
    assert all("the link is fine" in line for line in said[1:])
    assert len(said) == 3, "once for each time of silence"


async def test_a_silent_link_that_does_not_answer_is_made_anew() -> None:
    sessions = Hanging(answers=False), Hanging(answers=True)
    log = MemoryLog()
    keeper = supervised(Lasting(*sessions), log, silence_s=0.01)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        await sessions[1].asked.wait()
        keeper.stop()
        await running
    down = [r for r in records(log) if isinstance(r, Link) and r.state is LinkState.DOWN]
    assert [each.why for each in down] == ["field: no answer in time"]


async def test_a_link_that_comes_and_goes_waits_longer_each_time_and_is_not_said_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when two programs with one client id end each other's connection after each delivery."""
    caplog.set_level(logging.INFO, "twinloop")
    gone = LinkError("field: the broker closed the connection")
    sessions: list[list[Delivery | LinkError]] = [[Delivery((ALIVE,), lambda: None), gone] for _ in range(8)]
    backoff = Waits(first_s=0.001, longest_s=0.064, draw=lambda: 1.0)
    log = MemoryLog()

    def append(record: Record, time_ns: int) -> Awaitable[int]:
        return log.append(encode_record(record), time_ns)

    keeper = Supervisor(Scripted(*sessions, []), append, backoff=backoff)
    await asyncio.wait_for(keeper.run(), 5)
    assert backoff.given == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.064]
    links = [record for record in records(log) if isinstance(record, Link)]
    assert len(links) == 17, "each is a record"
    said = [record.getMessage() for record in caplog.records]
    lost = "field: the broker closed the connection; trying again until it works"
    assert said == ["field: connected", *[lost, "field: connected again"] * 4, lost], "then no more"


async def test_after_the_first_loss_the_first_wait_is_the_shortest_however_long_it_took_to_connect() -> None:
    refused, gone = LinkError("field: refused"), LinkError("field: gone")
    backoff = Waits(first_s=0.001, longest_s=0.064, draw=lambda: 1.0)
    log = MemoryLog()

    def append(record: Record, time_ns: int) -> Awaitable[int]:
        return log.append(encode_record(record), time_ns)

    source = Scripted(refused, refused, refused, [gone], refused, [])
    await asyncio.wait_for(Supervisor(source, append, backoff=backoff).run(), 5)
    assert backoff.given == [0.001, 0.002, 0.004, 0.001, 0.002]


async def test_problems_that_alternate_are_said_once_each(caplog: pytest.LogCaptureFixture) -> None:
    one, other = LinkError("field: reset"), LinkError("field: no certificate")
    log = MemoryLog()
    await asyncio.wait_for(supervised(Scripted(one, other, one, other, one, []), log).run(), 5)
    assert len([record for record in caplog.records if "trying again" in record.getMessage()]) == 2


async def test_a_quiet_source_leaves_no_trace_but_its_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "twinloop")
    log = MemoryLog()

    def append(record: Record, time_ns: int) -> Awaitable[int]:
        return log.append(encode_record(record), time_ns)

    await asyncio.wait_for(
        Supervisor(Scripted([Delivery((ALIVE,), lambda: None)]), append, quiet=True).run(), 5
    )
    assert records(log) == [ALIVE]
    assert not caplog.records


async def test_silence_ends_a_session_whatever_the_socket_says() -> None:
    source = Scripted([Delivery((ALIVE,), lambda: None)], [])
    log = MemoryLog()
    await asyncio.wait_for(supervised(source, log, silence_s=0.02).run(), 5)
    down = [r for r in records(log) if isinstance(r, Link) and r.state is LinkState.DOWN]
    assert "nothing was heard" in down[0].why


async def test_a_delivery_is_acknowledged_only_after_it_is_durable() -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def durable() -> int:
        await gate.wait()
        order.append("durable")
        return 0

    source = Scripted([Delivery((ALIVE,), lambda: order.append("ack"))])
    keeper = Supervisor(source, lambda _record, _time: asyncio.ensure_future(durable()))
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(running, 5)
    await asyncio.wait_for(keeper.drained(), 5)
    assert order.index("ack") > order.index("durable")


async def test_what_the_log_could_not_take_is_never_acknowledged() -> None:
    acked: list[int] = []

    async def broken() -> int:
        raise LogError("disk full")

    source = Scripted([Delivery((ALIVE,), lambda: acked.append(1))])
    keeper = Supervisor(source, lambda _record, _time: asyncio.ensure_future(broken()))
    with pytest.raises(LogError):
        await asyncio.wait_for(keeper.run(), 5)
    assert not acked


@given(st.lists(st.floats(0, 1), min_size=12, max_size=40))
def test_waits_begin_within_a_second_grow_and_never_pass_thirty(draws: list[float]) -> None:
    chance = iter(draws)
    backoff = Backoff(draw=lambda: next(chance))
    waits = [backoff.next_s() for _ in draws]
    assert waits[0] <= 1.0
    assert all(0.5 <= wait <= 30.0 for wait in waits)
    assert min(waits[6:]) >= 15.0


async def test_what_the_plant_says_reaches_the_log_printable_and_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letter = DeadLetter(1, "field", "a\x1b[2Jb", b"", DeadReason.UNDECODABLE, "c\rd" + "x" * 65_536)
    log = MemoryLog()
    await supervised(Scripted([Delivery((DeadLetters([letter]),), lambda: None)]), log).run()
    (said,) = [record.getMessage() for record in caplog.records if "dead letter" in record.getMessage()]
    assert said.isprintable()
    assert len(said) < 1_000
    assert "a?[2Jb" in said
