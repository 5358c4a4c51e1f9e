"""The laws of a `Source`, and the surroundings to try one in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from twinloop.errors import LinkError
from twinloop.records import DeadReason, Samples, decode_record, encode_record
from twinloop.sources.source import Delivery, Intake, Source
from twinloop.tags import Refusal
from twinloop.testing.laws import AsyncLaw, expect, hold_async

__all__ = ["ScriptedIntake", "check_source"]

MakeSource = Callable[[Intake], Source]
Say = Callable[[int], Awaitable[None]]
_CLOSE_S: Final = 10.0


class ScriptedIntake:
    """An `Intake` that numbers whatever it is asked for, and remembers it.

    Args:
        refuse: addresses that lead to no tag.

    Attributes:
        keys: (address, unit) by the series index given.
    """

    def __init__(self, refuse: Callable[[str], bool] = lambda _: False) -> None:
        self.keys: list[tuple[str, str]] = []
        self._refuse = refuse

    def series(self, address: str, unit: str) -> int | Refusal:
        """See `Intake.series`."""
        if self._refuse(address):
            return Refusal(DeadReason.UNKNOWN_TAG, f"{address}: no such tag")
        if (address, unit) not in self.keys:
            self.keys.append((address, unit))
        return self.keys.index((address, unit))

    def now_ns(self) -> int:
        """This host's clock."""
        return time.time_ns()


def check_source(
    make_source: MakeSource,
    say: Say,
    *,
    finite: bool = False,
    redelivers: bool = False,
    unreachable: MakeSource | None = None,
) -> None:
    """Hold a source to what `twinloop.sources.source.Source` promises, against a real peer.

    Args:
        make_source: a source with the given surroundings; called on an event loop.
        say: makes the peer say that many samples, each for the source to hear, and returns when it has;
            for a file, before the source connects.
        finite: whether the source ends by itself, as a file does.
        redelivers: whether what was not acknowledged comes again at the next connection.
        unreachable: the same source towards a peer that is not there.

    Raises:
        BrokenLawError: a law is broken; the message names it.
    """
    laws = _Laws(make_source, say, finite=finite, unreachable=unreachable)
    kept: list[tuple[str, AsyncLaw]] = [
        ("what the peer says is delivered, and counted", laws.delivers),
        ("series are the intake's, and records come back from their encoding", laws.records),
        ("ack raises nothing, also after the connection is gone", laws.acks),
        ("a source connects again after it was left", laws.again),
    ]
    if finite:
        kept.append(("a source that is exhausted ends without an error", laws.ends))
    else:
        kept.append(("leaving closes within seconds, also when cancelled", laws.leaves))
    if redelivers:
        kept.append(("what was not acknowledged comes again, what was does not", laws.redelivers))
    if unreachable is not None:
        kept.append(("a peer that is not there is a LinkError of one paragraph", laws.unreachable))
    hold_async("source", kept)


class _Laws:
    def __init__(self, make: MakeSource, say: Say, *, finite: bool, unreachable: MakeSource | None) -> None:
        self._make, self._say = make, say
        self._finite, self._unreachable = finite, unreachable

    async def _hear(self, source: Source, count: int, *, ack: bool = True) -> list[Delivery]:
        """Connect, let the peer speak, and take deliveries until as many samples are there."""
        if self._finite:
            await self._say(count)
        async with source.connect() as deliveries:
            if not self._finite:
                await self._say(count)
            return await _take(deliveries, count, ack=ack)

    async def delivers(self, _: Path) -> None:
        heard = await self._hear(self._make(ScriptedIntake()), 25)
        counted = sum(delivery.samples for delivery in heard)
        expect(counted == _rows(heard), f"{_rows(heard)} samples are counted as {counted}")
        expect(counted >= 25, f"the peer said 25 samples, {counted} came")

    async def records(self, _: Path) -> None:
        intake = ScriptedIntake()
        for delivery in await self._hear(self._make(intake), 5):
            for record in delivery.records:
                expect(decode_record(encode_record(record)) == record, f"{record} changes in the log")
                if isinstance(record, Samples):
                    series = record.unpack().series
                    low, high = int(series.min(initial=0)), int(series.max(initial=0))
                    inside = low >= 0 and high < len(intake.keys)
                    expect(inside, f"series {low} to {high}, and the intake gave {len(intake.keys)}")

    async def acks(self, _: Path) -> None:
        source = self._make(ScriptedIntake())
        for delivery in await self._hear(source, 3, ack=False):
            delivery.ack()

    async def again(self, _: Path) -> None:
        source = self._make(ScriptedIntake())
        for _attempt in range(3):
            await self._hear(source, 3)

    async def ends(self, _: Path) -> None:
        await self._say(3)
        async with self._make(ScriptedIntake()).connect() as deliveries:
            heard = [delivery async for delivery in deliveries]
        expect(_rows(heard) >= 3, f"it ended after {_rows(heard)} of 3 samples")

    async def leaves(self, _: Path) -> None:
        source = self._make(ScriptedIntake())
        connected = asyncio.Event()

        async def listen() -> None:
            async with source.connect() as deliveries:
                connected.set()
                async for _delivery in deliveries:
                    pass

        listening = asyncio.create_task(listen())
        await asyncio.wait([listening, asyncio.create_task(connected.wait())], return_when="FIRST_COMPLETED")
        listening.cancel()
        done, _pending = await asyncio.wait([listening], timeout=_CLOSE_S)
        expect(bool(done), f"cancelled, it had not closed after {_CLOSE_S:g} s")
        expect(listening.cancelled(), "it did not hand the cancellation on")

    async def redelivers(self, _: Path) -> None:
        source = self._make(ScriptedIntake())
        async with source.connect() as deliveries:
            await self._say(3)
            await _take(deliveries, 3, ack=False)
        async with source.connect() as deliveries:
            await _take(deliveries, 3, ack=True)
            await self._say(1)
            heard = await _take(deliveries, 1, ack=True)
        expect(_rows(heard) == 1, f"after everything was acknowledged {_rows(heard)} samples came for 1")

    async def unreachable(self, _: Path) -> None:
        if self._unreachable is None:
            return
        try:
            async with self._unreachable(ScriptedIntake()).connect():
                pass
        except LinkError as error:
            expect(bool(str(error)) and "Traceback" not in str(error), f"the text is {str(error)!r}")
            return
        raise AssertionError("it says that it is connected")


async def _take(deliveries: AsyncIterator[Delivery], count: int, *, ack: bool) -> list[Delivery]:
    heard: list[Delivery] = []
    while _rows(heard) < count:
        heard.append(await anext(deliveries))
        if ack:
            heard[-1].ack()
    return heard


def _rows(deliveries: list[Delivery]) -> int:
    records = [record for delivery in deliveries for record in delivery.records]
    return sum(len(record.unpack()) for record in records if isinstance(record, Samples))
