"""The work of one session: attach the nodes, publish or poll, retry what is lost, reread what is silent."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.errors import LinkError
from twinloop.records import Record
from twinloop.sources.opcua.gaps import LATEST_AHEAD_NS, Gaps, times_of
from twinloop.sources.opcua.history import History
from twinloop.sources.opcua.items import Items, Left
from twinloop.sources.opcua.kept import Kept
from twinloop.sources.opcua.nodes import NodeAddress
from twinloop.sources.opcua.options import OpcuaOptions, status_name, translate
from twinloop.sources.opcua.publish import Notification, Publisher
from twinloop.sources.opcua.session import Session
from twinloop.sources.opcua.table import NodeTable, unit_of
from twinloop.sources.opcua.values import Rows
from twinloop.sources.source import Delivery, Intake

__all__ = ["LiveLink", "Memory", "Stream", "placed"]

_log = logging.getLogger(__name__)

_DELIVERIES: Final = 16
"""Deliveries kept for a slow consumer; then Publish requests are withheld and the server queues."""
_KEEP_S: Final = 10.0
"""How often what is kept is written."""


class Stream:
    """Deliveries on their way to the consumer, then the error that ended them; bounded."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Delivery | Exception] = asyncio.Queue()
        self._room = asyncio.Semaphore(_DELIVERIES)

    async def put(self, delivery: Delivery) -> None:
        """Hand over a delivery; waits while the consumer has enough."""
        await self._room.acquire()
        self._queue.put_nowait(delivery)

    def fail(self, error: Exception) -> None:
        """End the stream, behind what has been put."""
        self._queue.put_nowait(error)

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        item = await self._queue.get()
        if isinstance(item, Exception):
            self._queue.put_nowait(item)
            raise item
        self._room.release()
        return item


@dataclasses.dataclass(slots=True)
class Memory:
    """What a source knows from one session to the next.

    Attributes:
        addresses: the configured nodes' addresses.
        kept: what outlives the process, too.
        lost: addresses known to be lost, with why.
        left: what the last session left at the server, where its connection was lost.
    """

    addresses: Sequence[NodeAddress]
    kept: Kept
    lost: dict[str, str] = dataclasses.field(default_factory=dict)
    left: Left | None = None


class LiveLink:
    """The work of one session: attach the nodes, publish or poll, retry, reread, fill gaps."""

    def __init__(self, options: OpcuaOptions, session: Session, intake: Intake, memory: Memory) -> None:
        self._options = options
        self._memory = memory
        self._addresses = memory.addresses
        self._session = session
        self._intake = intake
        self._table = NodeTable(options.name, options.nodes, intake, memory.lost)
        self._clock = asyncio.get_running_loop().time
        self._publisher = Publisher(
            session.raw, f"{options.name}: {options.endpoint}", options.publishing_interval_s
        )
        self._items = Items(options, session, self._publisher)
        self._ids: dict[int, ua.NodeId] = {}
        self._gaps = Gaps(memory.kept, int(options.history_max_s * 1e9))
        self._identified: set[int] = set()
        self._retry_at: dict[int, float] = {}
        self._heard = np.zeros(len(options.nodes))
        self._stream = Stream()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stream]:
        """The session's work goes on inside; the first failure ends the stream. All is over on leaving."""
        work = self._poll() if self._options.mode == "poll" else self._subscribe()
        tasks = [asyncio.create_task(self._run(job)) for job in (work, self._watch(), self._keep())]
        if self._options.history:
            fill = History(
                self._options,
                self._session,
                ids=self._ids,
                table=self._table,
                gaps=self._gaps,
                deliver=self._deliver_history,
            )
            tasks.append(asyncio.create_task(self._run(fill.run())))
        try:
            yield self._stream
        finally:
            if self._session.broken:
                self._memory.left = self._items.left(self._clock()) or self._memory.left
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._memory.kept.write(self._memory.kept.encoded())

    async def _keep(self) -> None:
        """Write what is kept, now and then: it is never ahead of the log, and little behind."""
        kept, pause_s = self._memory.kept, 1.0
        while True:
            await asyncio.sleep(pause_s)
            await asyncio.to_thread(kept.write, kept.encoded())
            pause_s = _KEEP_S

    async def _run(self, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except (UaError, OSError, LinkError) as error:  # TimeoutError is an OSError
            self._stream.fail(translate(error, self._options))
        except Exception as error:  # noqa: BLE001 - a bug: it reaches whoever iterates, unchanged
            self._stream.fail(error)

    async def _watch(self) -> None:
        raise translate(await self._session.lost, self._options)

    # --- nodes -------------------------------------------------------------------------------------

    async def _resolve(self, places: Sequence[int]) -> tuple[list[int], list[Record]]:
        """The places that have a NodeId in this server, and records of those that have not."""
        records: list[Record] = []
        usable: list[int] = []
        kept, namespaces = self._memory.kept, self._session.namespaces
        for sentence in kept.learn(self._addresses, namespaces):
            _log.warning("%s: %s; its nodes are followed", self._options.name, sentence)
        for place in places:
            try:
                self._ids[place] = self._addresses[place].resolve(namespaces, kept.namespaces)
            except LookupError as error:
                records += self._quarantine(place, str(error))
            else:
                usable.append(place)
        return usable, records

    def _quarantine(self, place: int, why: str) -> list[Record]:
        self._retry_at[place] = self._clock() + self._options.retry_s
        self._identified.discard(place)  # a node that is not there cannot have told its unit
        return self._table.lose(place, why)

    async def _identify(self, places: Iterable[int]) -> None:
        """Ask the server for the units of nodes met for the first time, and number their series."""
        new = [place for place in places if place not in self._identified]
        if not new:
            return
        try:
            units = await self._session.engineering_units([self._ids[place] for place in new])
        except UaStatusCodeError as error:
            _log.debug("%s: no engineering units: %s", self._options.name, status_name(error.code))
            units = [None] * len(new)
        for place, information in zip(new, units, strict=True):
            unit, certain = unit_of(information)
            self._table.identify(place, unit, certain=certain)
            self._identified.add(place)

    async def _deliver(
        self, records: list[Record], samples: int = 0, ack: Callable[[], None] | None = None
    ) -> None:
        if records:
            await self._stream.put(Delivery(tuple(records), ack or _nothing, samples))
        elif ack is not None:
            ack()

    async def _deliver_history(self, records: list[Record], samples: int, ack: Callable[[], None]) -> None:
        await self._deliver(records, samples, ack)

    def _see(self, rows: Rows) -> Callable[[], None]:
        """Note live rows, before they are delivered; what is to be done when they are durable."""
        arrival = self._intake.now_ns()
        rows = rows.take(self._table.there(rows))
        times = times_of(rows, arrival)
        sane = times <= arrival + LATEST_AHEAD_NS
        self._gaps.see(rows, times, arrival)
        return partial(self._memory.kept.note, rows.handle[sane], times[sane])

    async def _read(self, places: Sequence[int]) -> None:
        """Read some nodes now and deliver what is new."""
        answers = await self._session.read([self._ids[place] for place in places])
        index = np.asarray(places, np.int64)
        lost: set[int] = set()
        for rows in answers:
            here = placed(rows, index)
            records, samples, gone = self._table.take(here, repeated=True)
            lost.update(gone)
            await self._deliver(records, samples, self._see(here))
        for place in places:
            if place in lost:
                self._retry_at[place] = self._clock() + self._options.retry_s
            else:
                self._retry_at.pop(place, None)

    # --- subscribe ---------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        left, self._memory.left = self._memory.left, None
        taken_over = left is not None and await self._take_over(left)
        await self._attach(place for place in range(len(self._addresses)) if place not in self._items.places)
        await self._items.ensure()
        if taken_over:
            _log.info("%s: the subscriptions of the lost connection were taken over", self._options.name)
        others = [asyncio.create_task(self._retry()), asyncio.create_task(self._reread())]
        publishing = asyncio.create_task(self._publish())
        try:
            done, _ = await asyncio.wait({publishing, *others}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (publishing, *others):
                task.cancel()
            await asyncio.gather(publishing, *others, return_exceptions=True)

    async def _take_over(self, left: Left) -> bool:
        """Go on with the subscriptions of a session whose connection was lost, and with what they kept."""
        available = await self._items.adopt(left)
        if available is None:
            return False
        usable, records = await self._resolve(sorted(left.items))
        await self._identify(usable)
        await self._deliver(records)
        self._gaps.spare(left.items)
        self._heard[list(left.items)] = self._clock()
        async with aclosing(self._items.republished(available)) as notifications:
            async for notification in notifications:
                await self._take(notification)
        return True

    async def _attach(self, places: Iterable[int]) -> None:
        """Monitor nodes; those that the server refuses are quarantined with its reason."""
        usable, records = await self._resolve(list(places))
        await self._identify(usable)
        refused = await self._items.create(self._ids, usable)
        for place in usable:
            if place in refused:
                records += self._quarantine(place, refused[place])
            else:
                self._retry_at.pop(place, None)
                self._heard[place] = self._clock()
        await self._deliver(records)

    async def _publish(self) -> None:
        async with aclosing(self._publisher.notifications()) as notifications:
            async for notification in notifications:
                await self._take(notification)

    async def _take(self, notification: Notification) -> None:
        records: list[Record] = []
        samples = 0
        now = self._clock()
        if notification.missing:
            self._miss(notification)
        durable: list[Callable[[], None]] = []
        for rows in notification.rows:
            self._heard[rows.handle[rows.handle < len(self._heard)]] = now
            durable.append(self._see(rows))
            made, count, gone = self._table.take(rows)
            records += made
            samples += count
            for place in gone:
                self._retry_at[place] = now + self._options.retry_s
        for raw, error in notification.undecodable:
            records.append(self._table.undecodable(raw, error.detail))
        if notification.sequence:
            durable.append(
                partial(self._publisher.acknowledge, notification.subscription, notification.sequence)
            )
        await self._deliver(records, samples, partial(_all, durable))

    def _miss(self, notification: Notification) -> None:
        """Messages never came: what they held is asked of the history, as soon as their nodes are heard."""
        lost = notification.subscription
        places = [place for place, (each, _) in self._items.places.items() if each == lost]
        self._gaps.expect(places)
        _log.warning(
            "%s: %d messages of a subscription never came; its %d nodes may miss values",
            self._options.name,
            notification.missing,
            len(places),
        )

    async def _retry(self) -> None:
        """Try quarantined nodes again, each `retry_s` after it was last found wanting."""
        while True:
            await asyncio.sleep(self._until_retry())
            due = self._due()
            if due:
                await self._session.learn()  # the server may have a new namespace by now
                await self._attach(due)

    def _until_retry(self) -> float:
        first = min(self._retry_at.values(), default=math.inf) - self._clock()
        return max(0.0, min(first, self._options.retry_s))

    def _due(self) -> list[int]:
        now = self._clock()
        return [place for place, at in self._retry_at.items() if at <= now]

    async def _reread(self) -> None:
        """Read subscribed nodes that have been silent for long: unchanged, or gone unnoticed?"""
        wanted = self._options.reread_after_s
        after = np.array([wanted.get(node.address) or math.inf for node in self._options.nodes])
        shortest = after.min(initial=math.inf)
        if math.isinf(shortest):
            return
        while True:
            await asyncio.sleep(shortest / 4)
            now = self._clock()
            due = np.flatnonzero(self._heard + after <= now)
            silent = [
                int(place) for place in due if place in self._items.places and place not in self._retry_at
            ]
            if silent:
                self._heard[silent] = now
                await self._read(silent)

    # --- poll --------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Read each node at its own period; a cycle that comes too late is left out, none is moved."""
        usable, records = await self._resolve(range(len(self._addresses)))
        await self._identify(usable)
        await self._deliver(records)
        periods = np.array([node.every_s for node in self._options.nodes])
        start = self._clock()
        following = {float(period): start for period in np.unique(periods)}
        while following:
            await asyncio.sleep(max(0.0, min(following.values()) - self._clock()))
            now = self._clock()
            due = {period for period, at in following.items() if at <= now}
            await self._poll_once([int(place) for place in np.flatnonzero(np.isin(periods, list(due)))])
            for period in due:
                behind = max(0.0, self._clock() - following[period])
                following[period] += period * (1 + int(behind / period))

    async def _poll_once(self, places: Sequence[int]) -> None:
        now = self._clock()
        ready = [place for place in places if self._retry_at.get(place, now) <= now]
        missing = [place for place in ready if place not in self._ids]
        if missing:
            await self._session.learn()
            found, records = await self._resolve(missing)
            await self._identify(found)
            await self._deliver(records)
        ready = [place for place in ready if place in self._ids]
        if ready:
            await self._read(ready)


def _nothing() -> None:
    """The acknowledgement of a delivery the server needs none for."""


def _all(jobs: Iterable[Callable[[], None]]) -> None:
    for job in jobs:
        job()


def placed(rows: Rows, places: Any) -> Rows:
    """Rows of a read with their nodes' places as handles."""
    others = tuple(dataclasses.replace(other, handle=int(places[other.handle])) for other in rows.others)
    return dataclasses.replace(rows, handle=places[rows.handle], others=others)
