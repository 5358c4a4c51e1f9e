"""Reconnection has one owner: it backs off, says a thing once, and acknowledges only what is durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import LinkError, LogError
from twinloop.log.memory import MemoryLog
from twinloop.loop.supervise import Backoff, LinkPhase, Supervisor
from twinloop.records import Alive, Link, LinkState, Record, decode_record, encode_record
from twinloop.sources.source import Delivery, Reading

ALIVE = Alive(1, [0])


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
