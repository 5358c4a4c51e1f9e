"""The subscriptions and monitored items of one session, made anew or taken over from the session before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaStatusCodeError

from twinloop.sources.opcua.options import OpcuaOptions, status_name
from twinloop.sources.opcua.publish import Notification, Publisher, decode_republished
from twinloop.sources.opcua.session import Session

__all__ = ["Items", "Left"]

_log = logging.getLogger(__name__)

_SILENT_KEEPALIVES: Final = 3
_LONGEST_SILENCE_S: Final = 86_400.0
_FULL: Final = "BadTooManyMonitoredItems"


@dataclass(frozen=True, slots=True)
class Left:
    """What a session whose connection was lost has left at the server.

    Attributes:
        until_s: the server keeps it at most so long, by the event loop's clock.
        items: subscription and item by place.
        room: free items by subscription.
        patience_s: longest silence by subscription.
        following: number of the message to come by subscription.
    """

    until_s: float
    items: dict[int, tuple[int, int]]
    room: dict[int, int]
    patience_s: dict[int, float]
    following: dict[int, int]


class Items:
    """Subscriptions and their monitored items, by the nodes' places in the options.

    Args:
        options: intervals and queue sizes asked for.
        session: an open session.
        publisher: is told which subscriptions there are.

    Attributes:
        places: subscription and item of each monitored node, by its place.
    """

    def __init__(self, options: OpcuaOptions, session: Session, publisher: Publisher) -> None:
        self._options = options
        self._session = session
        self._publisher = publisher
        self.places: dict[int, tuple[int, int]] = {}
        self._room: dict[int, int] = {}
        self._patience_s: dict[int, float] = {}
        self._told_of_thinning = False

    async def create(self, ids: Mapping[int, ua.NodeId], places: Sequence[int]) -> dict[int, str]:
        """Monitor nodes; those that the server refuses, with its reason. Raises what asyncua raises."""
        refused: dict[int, str] = {}
        await self._drop([place for place in places if place in self.places])
        usable = list(places)
        while usable:
            subscription = await self._with_room()
            room = self._room[subscription]
            batch, usable = usable[:room], usable[room:]
            requests = [self._request(place, ids[place]) for place in batch]
            answers = await self._session.create_items(subscription, requests)
            full: list[int] = []
            for place, answer in zip(batch, answers, strict=True):
                code = int(answer.StatusCode.value)
                if not code >> 31:
                    self._created(subscription, place, answer)
                elif status_name(code) == _FULL:
                    full.append(place)
                else:
                    refused[place] = f"the server refuses to monitor it ({status_name(code)})"
            if full and len(full) < len(batch):
                self._room[subscription] = 0
                usable = full + usable
            else:
                refused |= dict.fromkeys(full, f"the server refuses to monitor it ({_FULL})")
        return refused

    def _request(self, place: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        parameters = ua.MonitoringParameters()
        parameters.ClientHandle = ua.IntegerId(place)
        parameters.SamplingInterval = ua.Duration(self._options.sampling_interval_s * 1000)
        parameters.QueueSize = ua.Counter(self._options.queue_size)
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor = ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value)
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters = parameters
        return request

    def _created(self, subscription: int, place: int, answer: ua.MonitoredItemCreateResult) -> None:
        self.places[place] = (subscription, int(answer.MonitoredItemId))
        self._room[subscription] -= 1
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

    async def _drop(self, places: Sequence[int]) -> None:
        """Remove the items of nodes that were monitored and then vanished."""
        by_subscription: dict[int, list[int]] = {}
        for place in places:
            subscription, item = self.places.pop(place)
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

    async def ensure(self) -> None:
        """Have a subscription even where no node could be monitored: its keep-alives watch the server."""
        if not self._room:
            await self._new_subscription()

    async def _new_subscription(self) -> int:
        made = await self._session.create_subscription()
        subscription = int(made.SubscriptionId)
        self._room[subscription] = self._session.items_per_subscription or 1 << 31
        alive_s = made.RevisedPublishingInterval / 1000 * max(1, made.RevisedMaxKeepAliveCount)
        if not 0 < alive_s < _LONGEST_SILENCE_S:
            alive_s = self._options.keepalive_s
        self._patience_s[subscription] = _SILENT_KEEPALIVES * alive_s
        self._publisher.watch(subscription, self._patience_s[subscription])
        return subscription

    # --- taken over --------------------------------------------------------------------------------

    def left(self, now_s: float) -> Left | None:
        """What a later session may take over, once this one's connection is lost."""
        if not self.places:
            return None
        following = dict(self._publisher.following)
        until_s = now_s + self._options.session_timeout_s
        return Left(until_s, dict(self.places), dict(self._room), dict(self._patience_s), following)

    async def adopt(self, left: Left) -> dict[int, list[int]] | None:
        """Take over what an earlier session left; by subscription, the messages to ask for again.

        None where the server does not hand over everything: then nothing was taken over, and what the
        server did not say is to be had from its history. Raises what asyncua raises when the link is gone.
        """
        ids = list(left.room)
        if asyncio.get_running_loop().time() > left.until_s:
            return None
        try:
            answers = await self._session.transfer(ids)
        except UaStatusCodeError as error:
            _log.info("%s: no subscription is handed over (%s)", self._options.name, status_name(error.code))
            return None
        codes = [int(answer.StatusCode.value) for answer in answers]
        bad = [code for code in codes if code >> 31]
        if bad:
            _log.info("%s: a subscription is not handed over (%s)", self._options.name, status_name(bad[0]))
            moved = [each for each, code in zip(ids, codes, strict=True) if not code >> 31]
            if moved:
                await self._session.delete_subscriptions(moved)
            return None
        self.places = dict(left.items)
        self._room, self._patience_s = dict(left.room), dict(left.patience_s)
        for subscription, patience_s in left.patience_s.items():
            self._publisher.watch(subscription, patience_s, left.following.get(subscription))
        return {
            each: sorted(int(number) for number in answer.AvailableSequenceNumbers or ())
            for each, answer in zip(ids, answers, strict=True)
        }

    async def republished(self, available: Mapping[int, Sequence[int]]) -> AsyncGenerator[Notification, None]:
        """What an earlier session did not acknowledge, in order, as the server sends it again."""
        for subscription, numbers in available.items():
            for number in numbers:
                try:
                    data = await self._session.raw.republish_raw(subscription, number)
                except UaStatusCodeError as error:
                    if status_name(error.code) != "BadMessageNotAvailable":
                        raise
                    continue  # the next message shows that one is missing
                notification = decode_republished(data, subscription)
                self._publisher.count(notification)
                yield notification
