"""One MQTT connection's traffic: what was heard, gathered for a few ms, and what is owed to the broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from mqttium import MQTTError, NotConnectedError, ProtocolError
from mqttium.api import AsyncClient
from mqttium.types import Message

from twinloop.sources.mqtt.intake import Heard, MessageReader
from twinloop.sources.source import Delivery

__all__ = ["MAX_HEARD", "NO_TOPIC", "Session"]

_log = logging.getLogger(__name__)

MAX_HEARD: Final = 5_000
"""Messages in one delivery, and as many again in the client's queue; then the socket is left unread."""
_MAX_HEARD_BYTES: Final = 4 * 1024 * 1024
_GATHER_S: Final = 0.005
_GATHER_BUSY_S: Final = 0.02
_BUSY: Final = 20
"""Messages in one delivery: then the next gathers longer, and what a record costs is shared by more."""
_ACKS_A_TURN: Final = 256
_STALE: Final = "not an active inbound acknowledgement"
_CAUSE_S: Final = 1.0
_SETTLE_S: Final = 0.5
_ACKNOWLEDGE: Final = "mqtt-acknowledge"
NO_TOPIC: Final = "twinloop/sign/of/life"
"""Never subscribed to: taking it back is a packet that the broker answers, and nothing more."""


class Session:
    """An iterator of deliveries over one connected client, until the connection ends.

    Args:
        client: a client in iterator mode with acknowledgement by hand, connected before `start`.
        reader: turns messages into records.
        now_ns: this host's clock.
        window: how many unacknowledged messages the broker sends before it waits for us.
        keepalive_s: what the broker was told; 0 for none.
        translate: the error to raise for what ended the connection.
        renew: has the broker answer a request, or raises what the client library raises.
    """

    def __init__(
        self,
        client: AsyncClient,
        reader: MessageReader,
        now_ns: Callable[[], int],
        *,
        window: int,
        keepalive_s: int,
        translate: Callable[[BaseException], Exception],
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._reader = reader
        self._now_ns = now_ns
        self._window = window
        self._keepalive_s = keepalive_s
        self._translate = translate
        self._renew = renew
        self._heard: list[Heard] = []
        self._heard_bytes = 0
        self._some = asyncio.Event()  # something was heard, or the connection ended
        self._enough = asyncio.Event()  # not worth waiting for more
        self._room = asyncio.Event()  # the pump may hear more
        self._was_full = False  # of late, the pump had to wait
        self.full = asyncio.Event()
        """The pump had to wait once: the broker has more for us than we hold unread."""
        self._owed = 0  # heard with QoS 1 and not yet acknowledged
        self._acks: deque[Sequence[Message]] = deque()
        self._acks_due = asyncio.Event()
        self._acks_sent = asyncio.Event()
        self._acks_sent.set()
        self._ended = False
        self._cause: BaseException | None = None
        self._cause_known = asyncio.Event()
        self._delivered_s = float("-inf")
        self._was_many = False
        self._tasks: list[asyncio.Task[Any]] = []
        client.on_disconnect = self._note_cause

    def start(self) -> None:
        """Begin to hear and to acknowledge."""
        self._tasks = [
            asyncio.create_task(self._hear(), name="mqtt-hear"),
            asyncio.create_task(self._acknowledge(), name=_ACKNOWLEDGE),
            asyncio.create_task(self._stay_known(), name="mqtt-stay-known"),
        ]

    async def settle(self) -> None:
        """Return when the acknowledgements that are due are sent, or cannot be, or the time is up."""
        sent = asyncio.create_task(self._acks_sent.wait())
        watched = {sent, *(task for task in self._tasks if task.get_name() == _ACKNOWLEDGE)}
        await asyncio.wait(watched, timeout=_SETTLE_S, return_when=asyncio.FIRST_COMPLETED)
        sent.cancel()

    async def stop(self) -> None:
        """End the tasks; what is not acknowledged by now never will be on this connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Delivery:
        """The next delivery.

        Raises:
            LinkError: the connection ended and all that was heard is delivered.
            LogError: a new series could not be made durable.
        """
        heard = await self.take()
        records, samples = self._reader.read(heard)
        owed = [message for _, message in heard if message.qos]

        def ack() -> None:
            if owed:
                self._acks.append(owed)
                self._acks_due.set()
                self._acks_sent.clear()

        return Delivery(records, ack, samples)

    async def renew(self) -> None:
        """Return when the broker has answered: then silence is the plant's own.

        Raises:
            LinkError: it does not, or no longer lets us subscribe.
        """
        try:
            await self._renew()
        except (MQTTError, OSError) as error:
            raise self._translate(self._cause or error) from None

    async def take(self) -> list[Heard]:
        """What was heard since the last call, in order; waits until there is something.

        Raises:
            LinkError: the connection ended and all that was heard is taken.
        """
        loop = asyncio.get_running_loop()
        await self._some.wait()
        if not self._heard:
            raise await self._lost()
        gather_s = _GATHER_BUSY_S if self._was_many else _GATHER_S
        wait_s = self._delivered_s + gather_s - loop.time()
        if wait_s > 0 and not self._enough.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._enough.wait()
        self._delivered_s = loop.time()
        heard, self._heard, self._heard_bytes = self._heard, [], 0
        self._was_many = len(heard) >= _BUSY
        if not self._ended:
            self._some.clear()
            self._enough.clear()
        self._room.set()
        return heard

    async def _hear(self) -> None:
        """Move messages from the client's queue into ours, without a turn of the loop for each."""
        try:
            async for message in self._client.messages():
                self._heard.append(Heard(self._now_ns(), message))
                self._heard_bytes += len(message.payload)
                self._owed += message.qos > 0
                self._some.set()
                full = len(self._heard) >= MAX_HEARD or self._heard_bytes >= _MAX_HEARD_BYTES
                if full or self._owed >= self._window:
                    self._enough.set()
                if full:
                    self._room.clear()
                    self._was_full = True
                    self.full.set()
                    await self._room.wait()
        finally:
            self._ended = True
            self._some.set()
            self._enough.set()

    async def _acknowledge(self) -> None:
        """Send the acknowledgements that are due, oldest first, until the connection is gone.

        Without them the broker falls silent sooner or later: whatever else ends this ends the session.
        """
        sent = 0
        try:
            while True:
                await self._acks_due.wait()
                self._acks_due.clear()
                while self._acks:
                    for message in self._acks[0]:
                        await self._acknowledge_one(message)
                        self._owed -= 1
                        sent += 1
                        if not sent % _ACKS_A_TURN:
                            await asyncio.sleep(0)
                    self._acks.popleft()
                self._acks_sent.set()
        except (NotConnectedError, OSError):
            pass  # the client says why it ended
        except Exception as error:  # noqa: BLE001 - else the broker falls silent and nobody knows why
            _log.debug("an acknowledgement that cannot be sent", exc_info=True)
            self.fail(error)
        finally:
            self._acks_sent.set()

    async def _acknowledge_one(self, message: Message) -> None:
        """Acknowledge; nothing where the broker sent it twice meanwhile and the first word did for both."""
        try:
            await self._client.ack(message)
        except ProtocolError as error:
            if _STALE not in str(error):
                raise

    async def _stay_known(self) -> None:
        """Tell the broker that we live while its answer to the client's ping stands behind what is unread.

        Until it has read that answer the client sends no other ping, and the broker would hang up on us in
        the middle of a pause. Taking back a subscription that does not exist is a packet and nothing more.
        """
        signs: set[asyncio.Task[None]] = set()
        try:
            while self._keepalive_s:
                await asyncio.sleep(self._keepalive_s / 2)
                if self._was_full:
                    self._was_full = not self._room.is_set()
                    sign = asyncio.create_task(self._sign_of_life())
                    signs.add(sign)
                    sign.add_done_callback(signs.discard)
        finally:
            for sign in signs:
                sign.cancel()

    async def _sign_of_life(self) -> None:
        with contextlib.suppress(MQTTError, OSError):
            await self._client.unsubscribe(NO_TOPIC)

    def fail(self, error: BaseException) -> None:
        """End the iterator with an error after what was heard, though the connection may live."""
        self._note_cause(error)
        self._ended = True
        self._some.set()
        self._enough.set()

    def _note_cause(self, error: BaseException | None) -> None:
        self._cause = error
        self._cause_known.set()

    async def _lost(self) -> Exception:
        # The client reports why just after its iterator has ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CAUSE_S):
                await self._cause_known.wait()
        return self._translate(self._cause or MQTTError("Connection closed"))
