"""MQTT source: a subscription of MQTT 5 or 3.1.1 that acknowledges only what is durable.

The client library is mqttium (benchmarks/mqtt_clients.py compares): one of the two fastest, with
acknowledgement by hand in both protocol versions, bounded queues that stop it from reading the socket,
and no reconnection of its own. QoS 2 is subscribed to as QoS 1, on purpose: the first half of its
handshake takes a message from the broker before our log has it. The broker then delivers at least once
and the fold folds a duplicate once, which is the same effect without the gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from mqttium import MQTTError, MQTTProtocolVersion, QoS
from mqttium.api import AsyncClient, SubscribeOptions
from mqttium.types import Properties

from twinloop.errors import ConfigError, LinkError
from twinloop.sources.mqtt.errors import Peer, is_unexplained_close, link_error
from twinloop.sources.mqtt.intake import MessageReader
from twinloop.sources.mqtt.seen import Seen
from twinloop.sources.mqtt.session import MAX_HEARD, NO_TOPIC, Session
from twinloop.sources.mqtt.topics import TopicMap
from twinloop.sources.source import Delivery, Intake, Reading

__all__ = ["MqttOptions", "MqttSource", "Protocol"]

Protocol = Literal["5", "3.1.1"]

_CLOSE_S: Final = 3.0
_PATIENT_S: Final = 86_400.0
_MIB: Final = 1024 * 1024
# What a broker may send us in one packet, and what may wait unread. MQTT 5 brokers are told and keep
# longer packets to themselves; those of 3.1.1 cannot be told, so that the longest there is must fit.
_PACKET_BYTES: Final = 16 * _MIB
_PROTOCOL_BYTES: Final = 256 * _MIB
_OVERHEAD_BYTES: Final = 128 * 1024
# Longer than the longest time between two attempts to connect, ours or another client's.
_SOON_S: Final = 60.0
_HABIT: Final = 3
# mosquitto, and others after it, send this many unacknowledged messages to a client of 3.1.1.
_WINDOW_311: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """All that one MQTT source needs to know.

    Attributes:
        name: the source's name in the plant file.
        host, port: where the broker listens.
        topics: what to subscribe to and which tags it means.
        client_id: must be this source's alone at the broker; the session hangs on it.
        tls: makes the context for TLS (see `tls_context`), at each connection, so that a certificate renewed
            meanwhile is taken up; None for plain TCP.
        certificate: whether the context shows a client certificate.
        username, password: None for neither; the password is in no repr and no message.
        protocol: MQTT version.
        qos: 0, 1 or 2; 2 is subscribed to as 1 (see the module).
        clean_start: forget the broker's session, with what it kept, at each connection.
        session_expiry_s: how long the broker keeps the session without us (MQTT 5).
        receive_maximum: messages of QoS 1 the broker may send before an acknowledgement (MQTT 5). Leave it
            at the most there is: mosquitto 2.0 oversteps smaller ones (its issue 2301) once messages
            queue up, which ends the connection. Memory is bounded by not reading, not by this.
        keepalive_s: how long the connection may be silent before it is probed; 0 never.
        connect_timeout_s: for the connection and again for the subscription.
        max_payload: bytes; longer payloads are dead letters.
        expected: full names of the tags this source should feed, for `check`.

    Raises:
        ConfigError: a value is out of its range.
    """

    name: str
    host: str
    port: int
    topics: TopicMap
    client_id: str
    tls: Callable[[], ssl.SSLContext] | None = None
    certificate: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: Protocol = "5"
    qos: int = 1
    clean_start: bool = False
    session_expiry_s: int = 24 * 3600
    receive_maximum: int = 65_535
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0
    max_payload: int = _MIB
    expected: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key, fits, wanted in (
            ("protocol", self.protocol in {"5", "3.1.1"}, '"5" or "3.1.1"'),
            ("qos", self.qos in {0, 1, 2}, "0, 1 or 2"),
            ("client_id", bool(self.client_id), "a text that is not empty"),
            ("receive_maximum", 1 <= self.receive_maximum <= 65_535, "1 to 65535"),
            ("keepalive", 0 <= self.keepalive_s <= 65_535, "0 to 65535 seconds"),
            ("session_expiry", 0 <= self.session_expiry_s <= 0xFFFF_FFFF, "0 to 4294967295 seconds"),
            ("max_payload", 1 <= self.max_payload <= _PROTOCOL_BYTES, "1 byte to 256 MiB"),
            ("topics", bool(self.topics.rules), "at least one topic"),
            ("password", self.password is None or self.username is not None, "given with a `username`"),
        ):
            if not fits:
                raise ConfigError(f"sources.{self.name}.{key}: must be {wanted}")

    @property
    def where(self) -> str:
        """Name and address, as messages begin."""
        scheme = "mqtts" if self.tls else "mqtt"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}: {scheme}://{host}:{self.port}"

    @property
    def peer(self) -> Peer:
        """Whom messages are about."""
        return Peer(self.where, self.client_id, self.tls is not None, self.certificate)


class _Closes:
    """Whether the broker keeps closing our connections soon after it accepts them, without a word.

    That is how a client of the same id shows at brokers that do not say so (mosquitto 2.0): each ends the
    other's connection. A broker that restarts is away in between, and then stays.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def note(self, error: BaseException, lasted_s: float | None) -> bool:
        """Whether this one makes it a habit; `lasted_s` is None where the broker had not accepted us."""
        if lasted_s is None or lasted_s > _SOON_S or not is_unexplained_close(error):
            self._in_a_row = 0
        else:
            self._in_a_row += 1
        return self._in_a_row >= _HABIT


class MqttSource:
    """A `Source` that hears one broker; see `twinloop.sources.source` for its promises.

    Args:
        options: where and what.
        intake: series and clock.
    """

    def __init__(self, options: MqttOptions, intake: Intake) -> None:
        self._options = options
        self._intake = intake
        self._reader = MessageReader(options.name, options.topics, intake, options.max_payload)
        self._closes = _Closes()

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        return self._options.name

    def connect(self) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """One attempt to connect and subscribe; deliveries coalesce what came in the last few ms.

        The first message after a pause is delivered at once; under load a delivery waits up to 5 ms, and
        where thousands come a second 20 ms, since the one before: so they are not thousands of records.

        Raises:
            LinkError: on entering, when the broker cannot be reached or refuses us or a topic; from the
                iterator when the connection ends, after what was heard before has been delivered.
        """
        topics = self._options.topics.subscriptions
        return _open(self._options, topics, self._reader, self._intake, self._closes)

    async def check(self, timeout_s: float) -> list[Reading]:
        """Listen until every expected tag was heard or the time is up, with a clean session of its own.

        Raises:
            LinkError: the broker cannot be reached, refuses, or goes away.
        """
        own_id = f"{self._options.client_id}-check-{secrets.token_hex(4)}"
        options = replace(
            self._options,
            client_id=own_id,
            clean_start=True,
            session_expiry_s=0,
            qos=0,
            connect_timeout_s=min(timeout_s, self._options.connect_timeout_s),
        )
        seen = Seen(options.topics, options.expected)
        connected = False
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(timeout_s),
                _open(options, options.topics.unshared, self._reader, self._intake, _Closes()) as session,
            ):
                connected = True
                while not seen.complete:
                    for arrival, message in await session.take():
                        for outcome in self._reader.outcomes(message):
                            seen.add(arrival, outcome)
        if not connected:
            late = TimeoutError(f"{timeout_s:g} s")
            raise link_error(options.peer, late)
        return seen.readings(timeout_s)


@asynccontextmanager
async def _open(
    options: MqttOptions,
    topics: tuple[str, ...],
    reader: MessageReader,
    intake: Intake,
    closes: _Closes,
) -> AsyncIterator[Session]:
    client = _client(options)
    loop = asyncio.get_running_loop()
    peer = replace(options.peer, topics=topics)
    accepted_s: float | None = None

    def translate(error: BaseException) -> LinkError:
        lasted_s = None if accepted_s is None else loop.time() - accepted_s
        contested = closes.note(error, lasted_s)
        return link_error(peer, error, accepted=accepted_s is not None, contested=contested)

    session = Session(
        client,
        reader,
        intake.now_ns,
        window=options.receive_maximum if options.protocol == "5" else _WINDOW_311,
        keepalive_s=options.keepalive_s,
        translate=translate,
        renew=lambda: _renew(client, options, topics),
    )
    subscribing: asyncio.Task[None] | None = None
    try:
        try:
            tls = _tls(options)
            await client.connect(options.host, options.port, ssl=tls, timeout=options.connect_timeout_s)
            accepted_s = loop.time()
            session.start()
            subscribing = asyncio.create_task(_subscribe(client, session, options, topics))
            await _answered(subscribing, session, options.connect_timeout_s)
        except (MQTTError, OSError) as error:
            raise translate(error) from None
        yield session
        await session.settle()
    finally:
        if subscribing is not None:
            subscribing.cancel()
            await asyncio.wait({subscribing})
        await session.stop()
        with contextlib.suppress(MQTTError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await client.disconnect()


def _tls(options: MqttOptions) -> ssl.SSLContext | None:
    """The context for one connection.

    Raises:
        LinkError: a file of it cannot be used any more.
    """
    try:
        return options.tls() if options.tls else None
    except ConfigError as error:
        raise LinkError(f"{options.where}: {error}") from None


async def _renew(client: AsyncClient, options: MqttOptions, topics: tuple[str, ...]) -> None:
    """Have the broker answer: it subscribes again, which also brings back a subscription it has lost.

    A broker of 3.1.1 would send every retained message again for that: there, a subscription that does
    not exist is taken back, and that the broker answers has to be enough.
    """
    async with asyncio.timeout(options.connect_timeout_s):
        if options.protocol == "5":
            again = replace(_subscription(options), retain_handling=1)
            await client.subscribe([(topic, again) for topic in topics])
        else:
            await client.unsubscribe(NO_TOPIC)


async def _subscribe(
    client: AsyncClient, session: Session, options: MqttOptions, topics: tuple[str, ...]
) -> None:
    """Subscribe, however long the answer stands behind queued messages; a refusal ends the session."""
    try:
        await client.subscribe([(topic, _subscription(options)) for topic in topics], timeout=_PATIENT_S)
    except (MQTTError, OSError) as error:
        session.fail(error)
        raise


async def _answered(subscribing: asyncio.Task[None], session: Session, timeout_s: float) -> None:
    """Wait for the broker's answer, or until the session is full of what it had queued for us.

    The answer stands behind those messages, so that somebody must take them for it to arrive.

    Raises:
        MQTTError, OSError: the subscription was refused, or there was no answer in time.
    """
    full = asyncio.create_task(session.full.wait())
    try:
        watched: set[asyncio.Task[Any]] = {subscribing, full}
        done, _ = await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError("SUBACK timed out")
        if subscribing.done():
            subscribing.result()
    finally:
        full.cancel()


def _client(options: MqttOptions) -> AsyncClient:
    is_5 = options.protocol == "5"
    packet = max(_PACKET_BYTES, options.max_payload + _OVERHEAD_BYTES)
    expiry = Properties({"session_expiry_interval": options.session_expiry_s})
    return AsyncClient(
        options.client_id,
        protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311,
        clean_start=options.clean_start,
        keepalive=options.keepalive_s,
        username=options.username,
        password=options.password,
        connect_properties=expiry if is_5 else None,
        maximum_packet_size=min(packet, _PROTOCOL_BYTES) if is_5 else None,
        max_inbound_inflight=options.receive_maximum if is_5 else None,
        max_iterator_messages=MAX_HEARD,
        max_iterator_bytes=_PROTOCOL_BYTES + _OVERHEAD_BYTES,
        manual_ack=True,
        reconnect=None,
    )


def _subscription(options: MqttOptions) -> SubscribeOptions:
    qos = QoS(min(options.qos, 1))
    # Where the session lived on, the broker has kept what came since: its retained message is old news.
    resumes = options.protocol == "5" and qos and not options.clean_start
    return SubscribeOptions(qos=qos, retain_handling=1 if resumes else 0)
