"""The MQTT source against a real mosquitto, over MQTT 5 and 3.1.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage

from support.mosquitto import Mosquitto, mosquitto
from support.services import free_port
from support.tls import make_certificates
from twinloop.batch import NO_TIME, Received
from twinloop.errors import ConfigError, LinkError
from twinloop.records import DeadLetter, DeadLetters, DeadReason, Samples
from twinloop.sources.mqtt.client import MqttOptions, MqttSource, Protocol
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.sources.mqtt.url import parse_url
from twinloop.sources.source import Delivery
from twinloop.status import StatusCode
from twinloop.tags import Refusal
from twinloop.tls import tls_context

TOPICS = TopicMap([TopicRule(TopicPattern("reactor/{asset}/sensor/{tag}"))])
PROTOCOLS: tuple[Protocol, ...] = ("5", "3.1.1")
PATIENCE_S = 15.0
T0 = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class Series:
    """An intake that numbers every series of known assets and refuses the asset X999 and the unit furlong."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self.time = T0
        self.asked = 0

    def series(self, address: str, unit: str) -> int | Refusal:
        self.asked += 1
        if "X999" in address:
            return Refusal(DeadReason.UNKNOWN_TAG, f"{address}: no such tag")
        if unit == "furlong":
            return Refusal(DeadReason.WRONG_UNIT, "furlong is no temperature")
        if (address, unit) not in self.keys:
            self.keys.append((address, unit))
        return self.keys.index((address, unit))

    def now_ns(self) -> int:
        self.time += 1
        return self.time


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One broker for the tests that leave it as they found it."""
    with mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


def options(port: int, **changes: Any) -> MqttOptions:
    """The usual options, towards a port."""
    usual = MqttOptions(name="field", host="127.0.0.1", port=port, topics=TOPICS, client_id="twin")
    return replace(usual, **changes)


async def publish(port: int, *messages: tuple[str, bytes], qos: int = 1, retain: bool = False) -> None:
    """Publish and return once the broker has them."""
    client = AsyncClient("plant", protocol=MQTTProtocolVersion.MQTTv5)
    await client.connect("127.0.0.1", port)
    receipt = await client.publish_many(
        PublishMessage(topic, payload, qos=qos, retain=retain) for topic, payload in messages
    )
    await receipt.wait()
    await client.disconnect()


def message(tag: str, value: object, **more: object) -> tuple[str, bytes]:
    """A JSON message of R101."""
    return f"reactor/R101/sensor/{tag}", json.dumps({"value": value, **more}).encode()


async def hear(deliveries: AsyncIterator[Delivery], count: int, *, ack: bool = True) -> list[Delivery]:
    """Deliveries until `count` samples and dead letters were in them."""
    heard: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(delivery.samples for delivery in heard) + len(letters(heard)) < count:
            heard.append(await anext(deliveries))
            if ack:
                heard[-1].ack()
    return heard


def samples(deliveries: Sequence[Delivery]) -> Received:
    """All samples of some deliveries, in order."""
    records = [record for delivery in deliveries for record in delivery.records]
    return Received.concat([record.unpack() for record in records if isinstance(record, Samples)])


def letters(deliveries: Sequence[Delivery]) -> list[DeadLetter]:
    """All dead letters of some deliveries, in order."""
    records = [record for delivery in deliveries for record in delivery.records]
    return [letter for record in records if isinstance(record, DeadLetters) for letter in record.letters]


async def enter(source: MqttSource) -> None:
    """Connect and leave again."""
    async with source.connect():
        pass


async def lost(deliveries: AsyncIterator[Delivery]) -> str:
    """The sentence with which the deliveries end."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            async for _ in deliveries:
                pass
        except LinkError as error:
            return str(error)
    raise AssertionError("the deliveries ended as if the source were exhausted")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_value_unit_status_and_source_time_arrive_as_sent(
    broker: Mosquitto, protocol: Protocol, qos: int
) -> None:
    intake = Series()
    source = MqttSource(options(broker.port, protocol=protocol, qos=qos, clean_start=True), intake)
    async with source.connect() as deliveries:
        await publish(
            broker.port,
            message("temperature", 85.25, unit="degC", timestamp="2026-01-01T01:00:00.000000007+01:00"),
            message("pressure", 2, unit="bar", timestamp=1_767_225_600_500, quality="BadSensorFailure"),
            message("temperature", 85.5, unit="degC", quality="Uncertain"),
            qos=min(qos, 1),
        )
        received = samples(await hear(deliveries, 3))
    assert received.value.tolist() == [85.25, 2.0, 85.5]
    assert received.source_time.tolist() == [T0 + 7, T0 + 500_000_000, NO_TIME]
    assert received.status.tolist() == [0, StatusCode.BAD_SENSOR_FAILURE, StatusCode.UNCERTAIN]
    assert received.reasons.tolist() == [0, 0, 0]
    assert [intake.keys[index] for index in received.series] == [
        ("reactor/R101/sensor/temperature", "degC"),
        ("reactor/R101/sensor/pressure", "bar"),
        ("reactor/R101/sensor/temperature", "degC"),
    ]
    assert (received.arrival_time > T0).all()
    assert set(received.server_time.tolist()) == {NO_TIME}


async def test_what_is_no_sample_is_a_dead_letter_with_its_bytes_its_topic_and_the_reason(
    broker: Mosquitto,
) -> None:
    sent = [
        ("reactor/R101/sensor/temperature", b"\xff\xfe garbage", DeadReason.UNDECODABLE),
        ("reactor/R101/sensor/temperature", b'{"value": "hot"}', DeadReason.NOT_NUMERIC),
        ("reactor/R101/sensor/temperature", b'{"value": 1, "timestamp": "noon"}', DeadReason.BAD_TIMESTAMP),
        ("reactor/R101/sensor/temperature", b'{"value": 1, "quality": "nice"}', DeadReason.BAD_QUALITY),
        ("reactor/R101/sensor/temperature", b'{"value": 1, "unit": "furlong"}', DeadReason.WRONG_UNIT),
        ("reactor/X999/sensor/temperature", b'{"value": 1}', DeadReason.UNKNOWN_TAG),
        (
            "reactor/R101/sensor/temperature",
            b'{"value": 1, "note": "' + b"x" * 999 + b'"}',
            DeadReason.TOO_LARGE,
        ),
        ("reactor//sensor/temperature", b'{"value": 1}', DeadReason.UNKNOWN_TAG),
    ]
    source = MqttSource(options(broker.port, max_payload=900, clean_start=True), Series())
    async with source.connect() as deliveries:
        await publish(broker.port, *((topic, payload) for topic, payload, _ in sent))
        dead = letters(await hear(deliveries, len(sent)))
    assert [(letter.origin, letter.raw, letter.reason) for letter in dead] == sent
    assert {letter.source for letter in dead} == {"field"}
    assert all(letter.detail and letter.time > T0 for letter in dead)


async def test_an_array_with_bad_elements_gives_its_good_samples_and_one_dead_letter(
    broker: Mosquitto,
) -> None:
    source = MqttSource(options(broker.port, clean_start=True), Series())
    payload = b'[{"value": 1}, {"value": "a"}, {"value": 2}, {}, {}, {}]'
    async with source.connect() as deliveries:
        await publish(broker.port, ("reactor/R101/sensor/level", payload))
        heard = await hear(deliveries, 3)
    assert samples(heard).value.tolist() == [1.0, 2.0]
    (letter,) = letters(heard)
    assert letter.raw == payload
    assert "element 1" in letter.detail
    assert "1 more" in letter.detail


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_retained_message_without_its_own_time_is_uncertain_and_marked(
    broker: Mosquitto, protocol: Protocol
) -> None:
    intake = Series()
    topics = TopicMap([TopicRule(TopicPattern("kept/{asset}/{tag}"))])
    await publish(
        broker.port,
        ("kept/R101/a", b'{"value": 1}'),
        ("kept/R101/b", b'{"value": 2, "timestamp": 1767225600}'),
        ("kept/R101/c", b'{"value": 3, "quality": "Bad"}'),
        retain=True,
    )
    source = MqttSource(options(broker.port, topics=topics, protocol=protocol, clean_start=True), intake)
    async with source.connect() as deliveries:
        received = samples(await hear(deliveries, 3))
        await publish(broker.port, ("kept/R101/a", b'{"value": 4}'))
        live = samples(await hear(deliveries, 1))
    by_value = {
        value: (status, reasons)
        for value, status, reasons in zip(
            received.value.tolist(), received.status.tolist(), received.reasons.tolist(), strict=True
        )
    }
    retained = 1 << 12
    assert by_value == {1.0: (0x4000_0000, retained), 2.0: (0, 0), 3.0: (0x8000_0000, retained)}
    assert (live.status.tolist(), live.reasons.tolist()) == ([0], [0])
    await publish(broker.port, *((f"kept/R101/{tag}", b"") for tag in "abc"), retain=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(
    broker: Mosquitto, protocol: Protocol
) -> None:
    source = MqttSource(options(broker.port, protocol=protocol, client_id=f"again-{protocol}"), Series())
    async with source.connect() as deliveries:
        await publish(broker.port, message("temperature", 1.0))
        await hear(deliveries, 1)
        await publish(broker.port, message("temperature", 2.0))
        await hear(deliveries, 1, ack=False)
        # Behind the unacknowledged one, and therefore acknowledged to the broker in vain.
        await publish(broker.port, message("temperature", 3.0))
        await hear(deliveries, 1)
    await publish(broker.port, message("temperature", 4.0))
    async with source.connect() as deliveries:
        received = samples(await hear(deliveries, 3))
    assert received.value.tolist() == [2.0, 3.0, 4.0]


async def test_a_clean_start_forgets_the_session(broker: Mosquitto) -> None:
    source = MqttSource(options(broker.port, clean_start=True, client_id="forgets"), Series())
    async with source.connect() as deliveries:
        await publish(broker.port, message("temperature", 1.0))
        await hear(deliveries, 1, ack=False)
    async with source.connect() as deliveries:
        await publish(broker.port, message("temperature", 2.0))
        assert samples(await hear(deliveries, 1)).value.tolist() == [2.0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_killed_broker_ends_the_deliveries_with_a_link_error_and_a_new_one_is_found(
    tmp_path: Path, protocol: Protocol
) -> None:
    with mosquitto(tmp_path) as own:
        source = MqttSource(options(own.port, protocol=protocol), Series())
        async with source.connect() as deliveries:
            await publish(own.port, message("temperature", 1.0))
            delivered = await hear(deliveries, 1, ack=False)
            own.kill()
            assert "field: mqtt://127.0.0.1:" in await lost(deliveries)
            delivered[0].ack()  # after the loss it does nothing, and harms nothing
        with pytest.raises(LinkError, match=r"connection refused: is the broker running\?"):
            await enter(source)
        own.start()
        async with source.connect() as deliveries:
            await publish(own.port, message("temperature", 2.0))
            assert samples(await hear(deliveries, 1)).value.tolist() == [2.0]


async def test_a_broker_with_persistence_keeps_for_us_what_came_while_we_were_away(tmp_path: Path) -> None:
    with mosquitto(tmp_path, persistence=True) as own:
        source = MqttSource(options(own.port), Series())
        await enter(source)
        await publish(own.port, message("temperature", 1.0), message("temperature", 2.0))
        own.restart()
        async with source.connect() as deliveries:
            assert samples(await hear(deliveries, 2)).value.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_wrong_password_is_said_in_one_sentence_without_the_password(
    tmp_path: Path, protocol: Protocol
) -> None:
    with mosquitto(tmp_path, users={"twin": "right"}) as own:
        wrong = options(own.port, username="twin", password="hunter2", protocol=protocol)
        assert "hunter2" not in repr(wrong)
        for refused in (wrong, options(own.port, protocol=protocol)):
            with pytest.raises(LinkError, match="user name or password refused by the broker") as caught:
                await enter(MqttSource(refused, Series()))
            assert "hunter2" not in str(caught.value)
        await enter(MqttSource(replace(wrong, password="right"), Series()))


async def test_an_unknown_host_is_said_in_one_sentence() -> None:
    source = MqttSource(options(1883, host="no-such-host.invalid"), Series())
    with pytest.raises(LinkError, match="the host name is not known"):
        await enter(source)


async def test_localhost_refusing_on_each_of_its_addresses_is_a_refused_connection() -> None:
    source = MqttSource(options(free_port(), host="localhost"), Series())
    with pytest.raises(LinkError, match="is the broker running"):
        await enter(source)


async def test_a_port_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = MqttSource(options(silent.getsockname()[1], connect_timeout_s=0.2), Series())
        with pytest.raises(LinkError, match="no answer in time"):
            await enter(source)


@asynccontextmanager
async def scripted(connack: int, suback: int = 0, then: bytes = b"") -> AsyncIterator[int]:
    """A peer that answers CONNECT and SUBSCRIBE of MQTT 5 with given codes: what mosquitto never says."""

    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _packet(reader)
        writer.write(bytes([0x20, 3, 0, connack, 0]))
        if not connack:
            identifier = (await _packet(reader))[:2]
            writer.write(bytes([0x90, 4]) + identifier + bytes([0, suback]) + then)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        answered.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await answered.wait()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    _, length = await reader.readexactly(2)
    return await reader.readexactly(length)


async def test_another_client_with_our_id_is_named_as_a_takeover() -> None:
    async with (
        scripted(0, 1, then=bytes([0xE0, 1, 0x8E])) as port,
        MqttSource(options(port), Series()).connect() as deliveries,
    ):
        sentence = await lost(deliveries)
    assert (
        "another client took over the session: two programs use the client id 'twin'; give each" in sentence
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_where_the_broker_only_hangs_up_a_takeover_is_still_suggested(
    broker: Mosquitto, protocol: Protocol
) -> None:
    source = MqttSource(options(broker.port, protocol=protocol), Series())
    async with source.connect() as deliveries, source.connect():
        sentence = await lost(deliveries)
    assert "the broker closed the connection (is client id 'twin' in use by another program?)" in sentence


@pytest.mark.parametrize(
    ("connack", "said"),
    [(0x86, "password refused"), (0x84, "`protocol`"), (0x88, "not available"), (0x99, "code 0x99")],
)
async def test_a_refused_connection_says_why(connack: int, said: str) -> None:
    async with scripted(connack) as port:
        with pytest.raises(LinkError, match=said):
            await enter(MqttSource(options(port), Series()))


async def test_what_the_broker_says_is_shown_printable() -> None:
    said = bytes([0x1F, 0, 5]) + b"a\x1b[2J"
    goodbye = bytes([0xE0, 2 + len(said), 0x8B, len(said)]) + said
    async with (
        scripted(0, 1, then=goodbye) as port,
        MqttSource(options(port), Series()).connect() as deliveries,
    ):
        assert (await lost(deliveries)).endswith("is shutting down (it says: a?[2J)")


async def test_a_refused_subscription_names_the_topic() -> None:
    async with scripted(0, 0x87) as port:
        with pytest.raises(LinkError, match=r"'reactor/\+/sensor/\+' \(not allowed for this user\)"):
            await enter(MqttSource(options(port), Series()))


async def test_tls_is_verified_against_the_authority_of_the_plant_file(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with mosquitto(tmp_path, certificates=certificates) as own:
        trusting = options(own.port, tls=lambda: tls_context(certificates.authority))
        await enter(MqttSource(trusting, Series()))
        with pytest.raises(LinkError, match="certificate is not trusted"):
            await enter(MqttSource(replace(trusting, tls=tls_context), Series()))
        with pytest.raises(LinkError, match="field: mqtt://127"):
            await enter(MqttSource(options(own.port, connect_timeout_s=2), Series()))


async def test_tls_towards_a_port_without_it_is_said_to_be_that(broker: Mosquitto) -> None:
    source = MqttSource(options(broker.port, tls=tls_context, connect_timeout_s=2), Series())
    with pytest.raises(LinkError, match="mqtts://127"):
        await enter(source)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="is encrypted"):
        tls_context(made.authority, made.certificate, made.key)


def test_a_missing_certificate_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        tls_context(tmp_path / "nowhere.pem")
    with pytest.raises(ConfigError, match="nowhere"):
        tls_context(None, tmp_path / "nowhere.pem")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_burst_arrives_whole_and_in_order_in_few_deliveries(
    broker: Mosquitto, protocol: Protocol
) -> None:
    count = 20_000 if protocol == "5" else 2_000
    source = MqttSource(options(broker.port, protocol=protocol, clean_start=True), Series())
    burst = [message("temperature", float(number)) for number in range(count)]
    async with source.connect() as deliveries:
        _, heard = await asyncio.gather(publish(broker.port, *burst), hear(deliveries, count))
    assert samples(heard).value.tolist() == [float(number) for number in range(count)]
    if protocol == "5":
        assert len(heard) < count / 5  # on a busy machine the broker hands them over in small portions


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_long_queue_at_the_broker_arrives_whole_and_in_order(
    broker: Mosquitto, protocol: Protocol
) -> None:
    """More than we hold unread, before the answer to our subscription; mosquitto oversteps windows, too."""
    count = 25_000
    source = MqttSource(options(broker.port, protocol=protocol, client_id=f"away-{protocol}"), Series())
    await enter(source)
    await publish(broker.port, *[message("temperature", float(number)) for number in range(count)])
    async with source.connect() as deliveries:
        heard = await hear(deliveries, count)
    assert samples(heard).value.tolist() == [float(number) for number in range(count)]


async def test_a_broker_that_oversteps_the_window_is_named() -> None:
    two = b"".join(bytes([0x32, 7, 0, 1]) + b"t" + bytes([0, identifier, 0]) + b"1" for identifier in (1, 2))
    async with (
        scripted(0, 1, then=two) as port,
        MqttSource(options(port, receive_maximum=1), Series()).connect() as deliveries,
    ):
        assert (await lost(deliveries)).endswith("as mosquitto 2.0 does: leave it at its default")


@asynccontextmanager
async def repeating(then: Sequence[tuple[int, bool]]) -> AsyncIterator[tuple[int, asyncio.Queue[int]]]:
    """A peer of MQTT 3.1.1 that sends messages by identifier, some again; and the PUBACKs it heard."""
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _packet(reader)
        writer.write(bytes([0x20, 2, 0, 0]))
        writer.write(bytes([0x90, 3]) + (await _packet(reader))[:2] + bytes([1]))
        for mid, again in then:
            topic, payload = message("temperature", mid)
            body = len(topic).to_bytes(2, "big") + topic.encode() + mid.to_bytes(2, "big") + payload
            writer.write(bytes([0x3A if again else 0x32, len(body)]) + body)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while len(packet := await _packet(reader)) == 2:
                heard.put_nowait(int.from_bytes(packet, "big"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_message_sent_twice_before_its_acknowledgement_does_not_end_all_others() -> None:
    async with (
        repeating([(1, False), (1, True), (2, False)]) as (port, acknowledged),
        MqttSource(options(port, protocol="3.1.1"), Series()).connect() as deliveries,
    ):
        await hear(deliveries, 3)
        async with asyncio.timeout(PATIENCE_S):
            while await acknowledged.get() != 2:
                pass


async def test_a_consumer_that_stops_makes_us_stop_reading(broker: Mosquitto) -> None:
    """Unread messages stay at the broker: here at most ours, the client's queue and one lot of packets."""
    count = 30_000
    source = MqttSource(options(broker.port, qos=0, clean_start=True), Series())
    async with source.connect() as deliveries:
        session: Any = deliveries
        await publish(broker.port, *[message("temperature", 1.0)] * count, qos=0)
        async with asyncio.timeout(PATIENCE_S):
            # Until both queues are full.
            while session._room.is_set() or not session._client.stats().delivery.waiters:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
        stats = session._client.stats()
        read = len(session._heard) + stats.delivery.iterator_queued
        assert read <= 10_000
        assert sum(delivery.samples for delivery in await hear(deliveries, count)) == count


async def test_a_consumer_that_stops_for_long_keeps_its_connection(broker: Mosquitto) -> None:
    count, keepalive_s = 30_000, 1
    source = MqttSource(options(broker.port, clean_start=True, keepalive_s=keepalive_s), Series())
    async with source.connect() as deliveries:
        await publish(broker.port, *[message("temperature", place) for place in range(count)])
        # The pause is what is tested: a broker hangs up after one and a half times the keepalive.
        await asyncio.sleep(8 * keepalive_s)
        heard = samples(await hear(deliveries, count))
    assert heard.value.tolist() == [float(place) for place in range(count)]


async def test_a_lone_message_is_delivered_without_waiting_for_company(broker: Mosquitto) -> None:
    """The gathering time counts from the last delivery, so that after a pause there is none."""
    source = MqttSource(options(broker.port, clean_start=True), Series())
    loop = asyncio.get_running_loop()
    async with source.connect() as deliveries:
        session: Any = deliveries
        session._delivered_s = loop.time() - 1.0
        session._enough.wait = _never_awaited
        await publish(broker.port, message("temperature", 1.0))
        assert samples(await hear(deliveries, 1)).value.tolist() == [1.0]


async def _never_awaited() -> None:
    raise AssertionError("it waited")


async def test_series_are_asked_for_once_each(broker: Mosquitto) -> None:
    intake = Series()
    source = MqttSource(options(broker.port, clean_start=True), intake)
    async with source.connect() as deliveries:
        await publish(broker.port, *[message(tag, 1.0, unit="K") for tag in ("a", "b")] * 50)
        await hear(deliveries, 100)
    assert intake.asked == 2


async def test_check_reads_each_expected_tag_and_says_what_is_missing(broker: Mosquitto) -> None:
    topics = TopicMap([TopicRule(TopicPattern("check/{asset}/{tag}"))])
    expected = ("R101.temperature", "R101.pressure", "R101.level")
    await publish(
        broker.port,
        ("check/R101/temperature", b'{"value": 85.25, "unit": "degC", "timestamp": 1767225600}'),
        ("check/R101/pressure", b'{"value": "high"}'),
        ("check/R102/pressure", b'{"value": 1}'),
        retain=True,
    )
    source = MqttSource(options(broker.port, topics=topics, expected=expected), Series())
    temperature, pressure, level = await source.check(0.3)
    assert (temperature.address, temperature.tag) == ("check/R101/temperature", "R101.temperature")
    assert (temperature.value, temperature.unit, temperature.status) == ("85.25", "degC", "Good")
    assert (temperature.time_ns, temperature.problem) == (T0, "")
    assert "'high'" in pressure.problem
    assert level.address == "check/R101/level"
    assert level.problem.startswith("no message within 0.3 s (heard instead: check/R102/pressure")
    await publish(
        broker.port,
        *((f"check/{rest}", b"") for rest in ("R101/temperature", "R101/pressure", "R102/pressure")),
        retain=True,
    )


async def test_check_takes_nothing_from_those_who_share_a_subscription(broker: Mosquitto) -> None:
    topics = TopicMap([TopicRule(TopicPattern("$share/twins/reactor/{asset}/sensor/{tag}"))])
    shared = options(broker.port, topics=topics, expected=("R101.last",), clean_start=True)
    async with MqttSource(shared, Series()).connect() as deliveries:
        checking = asyncio.create_task(MqttSource(shared, Series()).check(PATIENCE_S))
        while not checking.done():
            await publish(broker.port, *[message("temperature", i) for i in range(20)], message("last", 1))
            assert len(samples(await hear(deliveries, 21))) == 21
        assert [reading.problem for reading in await checking] == [""]


async def test_check_of_a_broker_that_accepts_and_says_nothing_ends_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkError, match="no answer in time"):
            await MqttSource(options(port), Series()).check(0.2)


async def test_check_ends_as_soon_as_all_was_heard_and_leaves_the_session_of_run_alone(
    broker: Mosquitto,
) -> None:
    topics = TopicMap([TopicRule(TopicPattern("soon/{asset}/{tag}"))])
    await publish(broker.port, ("soon/R101/temperature", b'{"value": 1}'), retain=True)
    source = MqttSource(options(broker.port, topics=topics, expected=("R101.temperature",)), Series())
    async with source.connect() as deliveries, asyncio.timeout(PATIENCE_S):
        (reading,) = await source.check(10 * PATIENCE_S)
        assert reading.problem == ""
        assert reading.status == "Good"
        await hear(deliveries, 1)
    await publish(broker.port, ("soon/R101/temperature", b""), retain=True)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("mqtt://127.0.0.1", ("127.0.0.1", 1883, False)),
        ("mqtts://broker.example:8884/", ("broker.example", 8884, True)),
        ("mqtt://[::1]:1884", ("::1", 1884, False)),
    ],
)
def test_a_url_gives_host_port_and_tls(url: str, endpoint: tuple[str, int, bool]) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1883",
        "tcp://host",
        "mqtt://",
        "mqtt://h:99999",
        "mqtt://h:0",
        "mqtt://h/topic",
        "mqtt://h?x",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        parse_url(url)


def test_a_password_in_the_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match=re.escape("`username` and `password`")) as caught:
        parse_url("mqtt://twin:hunter2@host")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("qos", 3),
        ("protocol", "3.1"),
        ("client_id", ""),
        ("receive_maximum", 0),
        ("keepalive_s", -1),
        ("max_payload", 0),
        ("password", "alone"),
        ("topics", TopicMap([])),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"sources.field.{key.removesuffix('_s')}"):
        options(1883, **{key: value})
