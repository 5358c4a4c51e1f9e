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
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.errors import LinkError
from twinloop.records import Record
from twinloop.sources.opcua.nodes import NodeAddress
from twinloop.sources.opcua.options import OpcuaOptions, status_name, translate
from twinloop.sources.opcua.publish import Notification, Publisher
from twinloop.sources.opcua.session import Session
from twinloop.sources.opcua.table import NodeTable, unit_of
from twinloop.sources.opcua.values import Rows
from twinloop.sources.source import Delivery, Intake

__all__ = ["LiveLink", "Stream", "placed"]

_log = logging.getLogger(__name__)

_DELIVERIES: Final = 16
"""Deliveries kept for a slow consumer; then Publish requests are withheld and the server queues."""
_SILENT_KEEPALIVES: Final = 3
_FULL: Final = "BadTooManyMonitoredItems"


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


class LiveLink:
    """The work of one session: attach the nodes, publish or poll, retry, reread."""

    def __init__(
        self,
        options: OpcuaOptions,
        addresses: Sequence[NodeAddress],
        session: Session,
        intake: Intake,
        lost: dict[str, str],
    ) -> None:
        self._options = options
        self._addresses = addresses
        self._session = session
        self._table = NodeTable(options.name, options.nodes, intake, lost)
        self._clock = asyncio.get_running_loop().time
        self._publisher = Publisher(session.raw, f"{options.name}: {options.endpoint}")
        self._ids: dict[int, ua.NodeId] = {}
        self._identified: set[int] = set()
        self._retry_at: dict[int, float] = {}
        self._items: dict[int, tuple[int, int]] = {}
        self._room: dict[int, int] = {}
        self._heard = np.zeros(len(options.nodes))
        self._told_of_thinning = False
        self._stream = Stream()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stream]:
        """The session's work goes on inside; the first failure ends the stream. All is over on leaving."""
        work = self._poll() if self._options.mode == "poll" else self._subscribe()
        tasks = [asyncio.create_task(self._run(job)) for job in (work, self._watch())]
        try:
            yield self._stream
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
        for place in places:
            try:
                self._ids[place] = self._addresses[place].resolve(self._session.namespaces)
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

    async def _read(self, places: Sequence[int]) -> None:
        """Read some nodes now and deliver what is new."""
        answers = await self._session.read([self._ids[place] for place in places])
        index = np.asarray(places, np.int64)
        lost: set[int] = set()
        for rows in answers:
            records, samples, gone = self._table.take(placed(rows, index), repeated=True)
            lost.update(gone)
            await self._deliver(records, samples)
        for place in places:
            if place in lost:
                self._retry_at[place] = self._clock() + self._options.retry_s
            else:
                self._retry_at.pop(place, None)

    # --- subscribe ---------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        await self._attach(range(len(self._addresses)))
        if not self._room:
            await self._new_subscription()
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

    async def _attach(self, places: Iterable[int]) -> None:
        """Monitor nodes; those that the server refuses are quarantined with its reason."""
        usable, records = await self._resolve(list(places))
        await self._identify(usable)
        await self._detach([place for place in usable if place in self._items])
        while usable:
            subscription = await self._with_room()
            room = self._room[subscription]
            batch, usable = usable[:room], usable[room:]
            answers = await self._session.create_items(
                subscription, [self._request(place) for place in batch]
            )
            full: list[int] = []
            for place, answer in zip(batch, answers, strict=True):
                records += self._attached(subscription, place, answer, full)
            if full and len(full) < len(batch):
                self._room[subscription] = 0
                usable = full + usable
            else:
                for place in full:
                    records += self._quarantine(place, f"the server refuses to monitor it ({_FULL})")
        await self._deliver(records)

    def _request(self, place: int) -> ua.MonitoredItemCreateRequest:
        parameters = ua.MonitoringParameters()
        parameters.ClientHandle = ua.IntegerId(place)
        parameters.SamplingInterval = ua.Duration(self._options.sampling_interval_s * 1000)
        parameters.QueueSize = ua.Counter(self._options.queue_size)
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor = ua.ReadValueId(NodeId=self._ids[place], AttributeId=AttributeIds.Value)
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters = parameters
        return request

    def _attached(
        self, subscription: int, place: int, answer: ua.MonitoredItemCreateResult, full: list[int]
    ) -> list[Record]:
        code = int(answer.StatusCode.value)
        if code >> 31:
            name = status_name(code)
            if name == _FULL:
                full.append(place)
                return []
            return self._quarantine(place, f"the server refuses to monitor it ({name})")
        self._items[place] = (subscription, int(answer.MonitoredItemId))
        self._room[subscription] -= 1
        self._retry_at.pop(place, None)
        self._heard[place] = self._clock()
        slower = answer.RevisedSamplingInterval > self._options.sampling_interval_s * 1000
        shorter = answer.RevisedQueueSize < self._options.queue_size
        if (slower or shorter) and not self._told_of_thinning:
            self._told_of_thinning = True
            _log.info(
                "%s: the server may thin what it sends: it looks every %g ms and queues %d values (%s)",
                self._options.name,
                answer.RevisedSamplingInterval,
                answer.RevisedQueueSize,
                self._options.nodes[place].address,
            )
        return []

    async def _detach(self, places: Sequence[int]) -> None:
        """Remove the items of nodes that were monitored and then vanished."""
        by_subscription: dict[int, list[int]] = {}
        for place in places:
            subscription, item = self._items.pop(place)
            by_subscription.setdefault(subscription, []).append(item)
            self._room[subscription] += 1
        for subscription, items in by_subscription.items():
            await self._session.delete_items(subscription, items)

    async def _with_room(self) -> int:
        """A subscription that may take another item."""
        for subscription, room in self._room.items():
            if room > 0:
                return subscription
        return await self._new_subscription()

    async def _new_subscription(self) -> int:
        made = await self._session.create_subscription()
        subscription = int(made.SubscriptionId)
        self._room[subscription] = self._session.items_per_subscription or 1 << 31
        alive_s = made.RevisedPublishingInterval / 1000 * max(1, made.RevisedMaxKeepAliveCount)
        self._publisher.watch(subscription, _SILENT_KEEPALIVES * alive_s)
        return subscription

    async def _publish(self) -> None:
        async with aclosing(self._publisher.notifications()) as notifications:
            async for notification in notifications:
                await self._take(notification)

    async def _take(self, notification: Notification) -> None:
        records: list[Record] = []
        samples = 0
        now = self._clock()
        for rows in notification.rows:
            self._heard[rows.handle[rows.handle < len(self._heard)]] = now
            made, count, gone = self._table.take(rows)
            records += made
            samples += count
            for place in gone:
                self._retry_at[place] = now + self._options.retry_s
        for raw, error in notification.undecodable:
            records.append(self._table.undecodable(raw, error.detail))
        ack = None
        if notification.sequence:
            ack = partial(self._publisher.acknowledge, notification.subscription, notification.sequence)
        await self._deliver(records, samples, ack)

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
            silent = [int(place) for place in due if place in self._items and place not in self._retry_at]
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


def placed(rows: Rows, places: Any) -> Rows:
    """Rows of a read with their nodes' places as handles."""
    others = tuple(dataclasses.replace(other, handle=int(places[other.handle])) for other in rows.others)
    return dataclasses.replace(rows, handle=places[rows.handle], others=others)
