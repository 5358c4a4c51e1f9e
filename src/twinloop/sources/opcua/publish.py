"""Publishing at the consumer's pace: notifications as columns, acknowledged once they are durable."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_from_binary
from asyncua.ua.uaerrors import UaStatusCodeError

from twinloop.errors import LinkError, PayloadError
from twinloop.records import DeadReason
from twinloop.sources.opcua.options import status_name
from twinloop.sources.opcua.session import RawSession
from twinloop.sources.opcua.values import Rows, decode_values

__all__ = ["Notification", "Publisher", "decode_notification", "decode_republished"]

_DATA_CHANGE: Final = ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_TRANSFERRED: Final = 0x002D_0000  # GoodSubscriptionTransferred
_STATUS_CHANGE: Final = ObjectIds.StatusChangeNotification_Encoding_DefaultBinary
# More than one Publish request waits at the server, so that it need not wait for the network's round trip.
_SPARE_REQUESTS: Final = 1


@dataclass(slots=True)
class Notification:
    """One answer to a Publish request.

    Attributes:
        subscription: the subscription's id.
        sequence: number of the message; 0 for a keep-alive, which needs no acknowledgement.
        number: the same, for a keep-alive that of the message to come.
        rows: values, one entry a data change notification.
        status: code of a status change of the subscription itself, or None.
        undecodable: bytes that could not be read, with what was wrong.
        missing: messages of the subscription between this one and the one before that never came.
    """

    subscription: int
    sequence: int = 0
    number: int = 0
    rows: list[Rows] = field(default_factory=list)
    status: int | None = None
    undecodable: list[tuple[bytes, PayloadError]] = field(default_factory=list)
    missing: int = 0


def decode_notification(data: bytes) -> Notification:
    """The parameters of a Publish response, OPC 10000-4, 5.13.5 (behind its response header).

    Never raises: what cannot be read, whole or in part, is kept in `undecodable`.
    """
    made = Notification(0)
    try:
        made.subscription, available = struct.unpack_from("<Ii", data)
    except struct.error as error:
        made.undecodable.append((data, _unreadable(0, error)))
        return made
    # MoreNotifications, a byte, tells nothing: the next request brings them.
    return _decode_message(made, data, 8 + 4 * max(available, 0) + 1)


def decode_republished(data: bytes, subscription: int) -> Notification:
    """The notification message of a Republish response, OPC 10000-4, 5.13.6. Never raises, as above."""
    return _decode_message(Notification(subscription), data, 0)


def _decode_message(made: Notification, data: bytes, position: int) -> Notification:
    try:
        made.number, _, parts = struct.unpack_from("<Iqi", data, position)
        made.sequence = made.number if parts > 0 else 0
        position += 16
        for _ in range(parts):
            position = _decode_part(made, data, position)
    except PayloadError as error:
        made.undecodable.append((data, error))
    except Exception as error:  # noqa: BLE001 - foreign bytes make asyncua raise nearly anything
        made.undecodable.append((data, _unreadable(position, error)))
    return made


def _unreadable(position: int, error: Exception) -> PayloadError:
    detail = f"a publish response cannot be read from byte {position} on: {error}"
    return PayloadError(DeadReason.UNDECODABLE, detail)


def _decode_part(made: Notification, data: bytes, position: int) -> int:
    """Take one extension object of NotificationData; the position after it."""
    buffer = Buffer(data, position)
    size = len(buffer)
    kind: object = nodeid_from_binary(buffer).Identifier
    position += size - len(buffer)
    encoding: int
    length: int
    encoding, length = struct.unpack_from("<Bi", data, position)
    begin, end = position + 5, position + 5 + length
    if encoding != 1 or length < 4 or end > len(data):
        raise PayloadError(DeadReason.UNDECODABLE, "a notification has no readable body")
    body = data[begin:end]
    if kind == _DATA_CHANGE:
        try:
            made.rows.append(decode_values(body, struct.unpack_from("<i", body)[0], handles=True, start=4)[0])
        except PayloadError as error:
            made.undecodable.append((body, error))
    elif kind == _STATUS_CHANGE:
        made.status = struct.unpack_from("<I", body)[0]
    else:
        detail = f"a notification of type {kind!r} was not asked for"
        made.undecodable.append((body, PayloadError(DeadReason.UNDECODABLE, detail)))
    return end


class Publisher:
    """Keeps Publish requests at the server and yields what comes back, in order.

    While nobody takes the next notification no new request is sent: the server then queues `queue_size`
    values a node, and marks what it had to give up with the overflow bit.

    Args:
        raw: the session.
        describe: `SOURCE: URL`, the head of error texts.
        pause_s: how long a request that the server refused for now is not repeated.

    Attributes:
        following: by subscription, the number of the message to come.
    """

    def __init__(self, raw: RawSession, describe: str, pause_s: float = 0.5) -> None:
        self._raw = raw
        self._pause_s = max(pause_s, 0.01)
        self._describe = describe
        self._acks: list[ua.SubscriptionAcknowledgement] = []
        self._patience: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        self._fewer = 0
        self.following: dict[int, int] = {}

    def watch(self, subscription: int, silence_s: float, following: int | None = None) -> None:
        """Expect a message from a subscription at least every `silence_s` seconds.

        Args:
            subscription: its id.
            silence_s: the longest silence.
            following: number of its next message, where that is known.
        """
        self._patience[subscription] = silence_s
        if following is not None:
            self.following[subscription] = following
        self._heard[subscription] = asyncio.get_running_loop().time()

    def acknowledge(self, subscription: int, sequence: int) -> None:
        """Tell the server with the next request that a message is safe. Never raises."""
        self._acks.append(
            ua.SubscriptionAcknowledgement(
                SubscriptionId=ua.IntegerId(subscription), SequenceNumber=ua.Counter(sequence)
            )
        )

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Every notification, in the order the server sent them.

        Raises:
            LinkError: a subscription is silent or was ended by the server.
            UaError, OSError: as asyncua raises them.
        """
        clock = asyncio.get_running_loop().time
        waiting: deque[asyncio.Task[Buffer]] = deque()
        try:
            while True:
                while len(waiting) < max(1, len(self._patience) + _SPARE_REQUESTS - self._fewer):
                    waiting.append(asyncio.create_task(self._request()))
                body = await self._first(waiting)
                if body is None:
                    self._patient()
                    await asyncio.sleep(self._pause_s)
                    continue
                notification = decode_notification(body.read(len(body)))
                self._note(notification)
                before = clock()
                yield notification
                # While the consumer was busy nobody asked, so the server's silence does not count.
                paused = clock() - before
                self._heard = {known: heard + paused for known, heard in self._heard.items()}
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _request(self) -> Buffer:
        acks, self._acks = self._acks, []
        try:
            return await self._raw.publish_raw(acks)
        except UaStatusCodeError:
            self._acks = acks + self._acks  # none of them was taken
            raise

    async def _first(self, waiting: deque[asyncio.Task[Buffer]]) -> Buffer | None:
        """The oldest request's answer; None where it only has to be asked again."""
        await asyncio.wait({waiting[0]}, timeout=min(self._patience.values(), default=None))
        if not waiting[0].done():
            raise LinkError(f"{self._describe}: subscription silent: the server answers no publish request")
        try:
            return waiting.popleft().result()
        except UaStatusCodeError as error:
            name = status_name(error.code)
            if name == "BadTooManyPublishRequests" and waiting:
                self._fewer += 1
            elif name != "BadTimeout":
                raise
            return None

    def _note(self, notification: Notification) -> None:
        now = asyncio.get_running_loop().time()
        if notification.status is not None and notification.status >> 31:
            name = status_name(notification.status)
            raise LinkError(f"{self._describe}: the server ended the subscription ({name})")
        if notification.status == _TRANSFERRED:
            raise LinkError(f"{self._describe}: another client has taken the subscription over")
        if notification.subscription in self._heard:
            self._heard[notification.subscription] = now
            self.count(notification)
        self._patient()

    def _patient(self) -> None:
        now = asyncio.get_running_loop().time()
        for subscription, patience in self._patience.items():
            if now - self._heard[subscription] > patience:
                raise LinkError(f"{self._describe}: subscription silent for {patience:g} s")

    def count(self, notification: Notification) -> None:
        """Set `missing` by the number the subscription's message should have; numbers go round at 2**32."""
        known, number = self.following.get(notification.subscription), notification.number
        ahead = (number - known) % (1 << 32) if known is not None else 0
        if not number or ahead >= 1 << 31:  # sent again
            return
        notification.missing = ahead
        self.following[notification.subscription] = (
            number % 0xFFFF_FFFF + 1 if notification.sequence else number
        )
