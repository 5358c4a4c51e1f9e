"""The OPC UA source against a running asyncua server, and against what is no server at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.ua.status_codes import StatusCodes

from support.services import free_port
from support.uacerts import client_certificate
from support.uaserver import FakeIntake, UaServer, collect, of_series, received, ua_server
from twinloop.errors import ConfigError, LinkError
from twinloop.records import Alive, DeadLetters, DeadReason, Link, LinkState, Record
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSecurity, OpcuaSource
from twinloop.tags import Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[UaServer]:
    async with ua_server() as running:
        yield running


def source(url: str, *addresses: str, intake: FakeIntake | None = None, **options: Any) -> OpcuaSource:
    nodes = tuple(OpcuaNode(address, f"R101.{place}", 0.05) for place, address in enumerate(addresses))
    options = {"publishing_interval_s": 0.05, "connect_timeout_s": 5.0, **options}
    return OpcuaSource(OpcuaOptions(name="dcs", url=url, nodes=nodes, **options), intake or FakeIntake())


def links(records: list[Record], state: LinkState) -> list[Link]:
    return [record for record in records if isinstance(record, Link) and record.state == state]


def ns(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1000


@contextmanager
def limited(monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[list[int]]:
    """The server refuses requests for more than `most` nodes; sizes of the ones it carried out."""
    sizes: list[int] = []

    def limit(method: Any, count: Any) -> Any:
        async def limited_method(self: InternalSession, params: Any, *rest: Any) -> Any:
            if count(params) > most:
                raise ServiceError(StatusCodes.BadTooManyOperations)
            sizes.append(count(params))
            return await method(self, params, *rest)

        return limited_method

    read = limit(InternalSession.read, lambda params: len(params.NodesToRead))
    create = limit(InternalSession.create_monitored_items, lambda params: len(params.ItemsToCreate))
    with monkeypatch.context() as patch:
        patch.setattr(InternalSession, "read", read)
        patch.setattr(InternalSession, "create_monitored_items", create)
        yield sizes


async def test_value_status_and_both_times_arrive_as_written(server: UaServer) -> None:
    node = await server.add("as_written")
    async with source(server.url, node).connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        await server.write("as_written", 21.5, status=0x4090_0480, source=START)
        rows = received(await collect(deliveries, lambda got: len(received(got)) == 1))
    assert rows.value.tolist() == [21.5]
    assert rows.status.tolist() == [0x4090_0480]
    assert rows.source_time.tolist() == [ns(START)]
    assert rows.server_time[0] > rows.source_time[0]
    assert rows.reasons.tolist() == [1 << 13]  # the info bits say that the server's queue overflowed


async def test_rapid_writes_all_arrive_in_order(server: UaServer) -> None:
    node = await server.add("rapid", -1.0)
    async with source(server.url, node, publishing_interval_s=1.0).connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        for step in range(24):
            await server.write("rapid", float(step), source=START + timedelta(milliseconds=10 * step))
        rows = received(await collect(deliveries, lambda got: len(received(got)) == 24))
    assert rows.value.tolist() == [float(step) for step in range(24)]
    assert rows.source_time.tolist() == [ns(START + timedelta(milliseconds=10 * step)) for step in range(24)]


async def test_numbers_of_every_kind_become_float64(server: UaServer) -> None:
    kinds = {"Boolean": True, "Byte": 200, "Int16": -3, "UInt32": 4_000_000_000, "Int64": -5, "Float": 0.5}
    nodes = [await server.add(f"kind_{kind}", value, ua.VariantType[kind]) for kind, value in kinds.items()]
    async with source(server.url, *nodes).connect() as deliveries:
        records = await collect(deliveries, lambda got: len(received(got)) == len(kinds))
    values = {int(row): of_series(records, row).value[0] for row in range(len(kinds))}
    assert values == {place: float(value) for place, value in enumerate(kinds.values())}


async def test_a_bad_null_is_a_sample_without_a_value(server: UaServer) -> None:
    node = await server.add("null")
    async with source(server.url, node).connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        await server.write("null", None, status=0x8031_0000)
        rows = received(await collect(deliveries, lambda got: len(received(got)) == 1))
    assert rows.value[0] != rows.value[0]
    assert rows.status.tolist() == [0x8031_0000]


async def test_a_text_is_a_dead_letter_and_its_address_is_lost_until_a_number_comes(server: UaServer) -> None:
    node = await server.add("text", "closed", ua.VariantType.String)
    made = source(server.url, node)
    async with made.connect() as deliveries:
        records = await collect(deliveries, lambda got: any(isinstance(r, DeadLetters) for r in got))
    await server.remove("text")
    await server.add("text", 4.0)
    async with made.connect() as deliveries:
        later = await collect(deliveries, lambda got: len(received(got)) == 1)
    (letter,) = [letter for r in records if isinstance(r, DeadLetters) for letter in r.letters]
    assert (letter.reason, letter.origin) == (DeadReason.NOT_NUMERIC, node)
    assert b"closed" in letter.raw
    assert "not a number" in links(records, LinkState.ADDRESS_LOST)[0].why
    assert [link.address for link in links(later, LinkState.ADDRESS_FOUND)] == [node]


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_missing_node_is_named_once_and_found_when_it_appears(server: UaServer, mode: str) -> None:
    there = await server.add(f"there_{mode}", 1.0)
    missing = f"ns=2;s=late_{mode}"
    made = source(server.url, there, missing, mode=mode, retry_s=0.1)
    async with made.connect() as deliveries:
        first = await collect(deliveries, lambda got: len(received(got)) == 1)
        await server.add(f"late_{mode}", 7.0)
        later = await collect(deliveries, lambda got: len(received(got)) == 1)
    assert [link.address for link in links(first + later, LinkState.ADDRESS_LOST)] == [missing]
    assert "BadNodeIdUnknown" in links(first, LinkState.ADDRESS_LOST)[0].why
    assert [link.address for link in links(later, LinkState.ADDRESS_FOUND)] == [missing]
    assert received(later).value.tolist() == [7.0]


async def test_a_loss_is_reported_once_over_many_sessions(server: UaServer) -> None:
    there = await server.add("often", 1.0)
    made = source(server.url, there, "ns=2;s=never")
    counts = []
    for _ in range(2):
        async with made.connect() as deliveries:
            records = await collect(deliveries, lambda got: len(received(got)) == 1)
            counts.append(len(links(records, LinkState.ADDRESS_LOST)))
    assert counts == [1, 0]


async def test_a_namespace_uri_finds_its_index_and_an_unknown_one_costs_its_node(
    server: UaServer,
) -> None:
    await server.add("by_uri", 3.0)
    nodes = (f"nsu={UaServer.URI};s=by_uri", "nsu=urn:nowhere;s=by_uri")
    async with source(server.url, *nodes).connect() as deliveries:
        records = await collect(deliveries, lambda got: len(received(got)) == 1)
    assert received(records).value.tolist() == [3.0]
    (lost,) = links(records, LinkState.ADDRESS_LOST)
    assert (lost.address, lost.why) == (nodes[1], "the server has no namespace urn:nowhere")


async def test_a_node_without_a_tag_goes_to_the_dead_letters_with_its_value(server: UaServer) -> None:
    node = await server.add("untagged", 6.5)
    refusal = Refusal(DeadReason.WRONG_UNIT, "degC is no pressure")
    intake = FakeIntake({(node, ""): refusal})
    async with source(server.url, node, intake=intake).connect() as deliveries:
        records = await collect(deliveries, lambda got: any(isinstance(r, DeadLetters) for r in got))
    (letter,) = [letter for r in records if isinstance(r, DeadLetters) for letter in r.letters]
    assert (letter.raw, letter.reason, letter.detail) == (b"6.5", refusal.reason, refusal.detail)


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_requests_shrink_until_the_server_takes_them(
    server: UaServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [await server.add(f"many_{mode}_{place}", float(place)) for place in range(40)]
    with limited(monkeypatch, most=7) as sizes:
        async with source(server.url, *nodes, mode=mode).connect() as deliveries:
            records = await collect(deliveries, lambda got: len(received(got)) == 40)
    assert sorted(received(records).value.tolist()) == [float(place) for place in range(40)]
    assert max(sizes) <= 7


async def test_a_quarantined_node_is_left_alone_however_many_requests_a_poll_takes(
    server: UaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await server.add("beside_a_missing_one")
    with limited(monkeypatch, 1):
        asked: list[str] = []
        read = InternalSession.read

        async def noted(self: InternalSession, params: Any, *rest: Any) -> Any:
            if len(params.NodesToRead) == 1:
                asked.append(str(params.NodesToRead[0].NodeId.Identifier))
            return await read(self, params, *rest)

        monkeypatch.setattr(InternalSession, "read", noted)
        async with source(
            server.url, "ns=2;s=not_there", node, mode="poll", retry_s=60
        ).connect() as deliveries:
            await collect(deliveries, lambda got: len([one for one in got if isinstance(one, Alive)]) == 3)
    assert asked.count("beside_a_missing_one") >= 4
    assert asked.count("not_there") == 1


async def test_polling_emits_changes_once_and_says_that_the_rest_is_alive(server: UaServer) -> None:
    nodes = [await server.add("poll_moves", 0.0), await server.add("poll_rests", 5.0)]
    async with source(server.url, *nodes, mode="poll").connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 2)
        for step in range(1, 4):
            await server.write("poll_moves", float(step))
            records = await collect(deliveries, lambda got: len(received(got)) == 1)
            assert of_series(records, 0).value.tolist() == [float(step)]
        records = await collect(deliveries, lambda got: any(isinstance(r, Alive) for r in got))
    assert not len(of_series(records, 1))
    assert 1 in next(record.series for record in records if isinstance(record, Alive))


async def test_a_silent_subscribed_node_is_read_once_and_renews_its_age(server: UaServer) -> None:
    node = await server.add("silent", 5.0)
    made = source(server.url, node, reread_after_s={node: 0.1})
    async with made.connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        records = await collect(deliveries, lambda got: any(isinstance(r, Alive) for r in got))
    assert not len(received(records))
    assert [record.series for record in records if isinstance(record, Alive)] == [[0]]


async def test_a_slow_consumer_loses_nothing_within_the_servers_queue(server: UaServer) -> None:
    node = await server.add("slow", -1.0)
    made = source(server.url, node, publishing_interval_s=0.01, queue_size=200)
    async with made.connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        for step in range(100):  # far more messages than the source keeps for its consumer
            await server.write("slow", float(step))
            await asyncio.sleep(0.005)  # paces the writes over many publishings; nothing waits for it
        rows = received(await collect(deliveries, lambda got: len(received(got)) == 100))
    assert rows.value.tolist() == [float(step) for step in range(100)]


async def test_check_reads_each_node_once_and_says_what_is_wrong(server: UaServer) -> None:
    good = await server.add("check_good", 2.5)
    text = await server.add("check_text", "x", ua.VariantType.String)
    readings = await source(server.url, good, "ns=2;s=check_none", "nsu=urn:no;i=1", text).check(5.0)
    assert [(r.tag, r.value, r.status) for r in readings][:2] == [
        ("R101.0", "2.5", "Good"),
        ("R101.1", "", "BadNodeIdUnknown"),
    ]
    assert readings[0].time_ns > 0
    problems = [reading.problem for reading in readings]
    assert problems[0] == ""
    assert all(problem for problem in problems[1:])


async def test_a_stopped_server_is_a_lost_link_and_a_new_one_is_taken_in_again() -> None:
    port = free_port()
    async with ua_server(port) as first:
        made = source(first.url, await first.add("a", 1.0))
        connection = made.connect()
        deliveries = await connection.__aenter__()
        await collect(deliveries, lambda got: len(received(got)) == 1)
    with pytest.raises(LinkError, match=r"dcs: opc\.tcp://127"):
        await collect(deliveries, lambda _: False)
    with pytest.raises(LinkError, match=r"dcs: opc\.tcp://127"):
        await anext(deliveries)
    await connection.__aexit__(None, None, None)
    with pytest.raises(LinkError, match="connection refused"):
        await made.connect().__aenter__()


async def test_a_server_that_stops_publishing_is_a_lost_link(
    server: UaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(server.url, await server.add("mute", 1.0), keepalive_s=0.1)

    async def mute(*_: Any) -> None:
        """Publish nothing, not even that there is nothing."""

    async with made.connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        with monkeypatch.context() as patch:
            patch.setattr(InternalSubscription, "publish_results", mute)
            with pytest.raises(LinkError, match="subscription silent"):
                await collect(deliveries, lambda _: False)


async def test_leaving_while_nothing_arrives_ends_at_once_and_leaves_no_task(server: UaServer) -> None:
    node = await server.add("quiet", 1.0)
    before = asyncio.all_tasks()
    async with asyncio.timeout(5), source(server.url, node).connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
    ours = [
        task for task in asyncio.all_tasks() - before if "twinloop" in repr(task) or "client" in repr(task)
    ]
    assert not ours


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:4840", "must look like opc.tcp://host:4840"),
        ("opc.tcp://:4840", "must look like opc.tcp://host:4840"),
        ("opc.tcp://127.0.0.1:99999", "must look like opc.tcp://host:4840"),
        ("opc.tcp://user:secret@127.0.0.1:{free}/x", "opc.tcp://127.0.0.1:.*/x: connection refused"),
    ],
)
async def test_an_unusable_url_is_one_sentence_without_secrets(url: str, why: str) -> None:
    made = source(url.format(free=free_port()), "i=2258")
    with pytest.raises(LinkError, match=why) as caught:
        await made.connect().__aenter__()
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(made._options)


async def test_something_else_on_the_port_is_no_opc_ua_server() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    other = await asyncio.start_server(swallow, "127.0.0.1", free_port())
    port = other.sockets[0].getsockname()[1]
    async with other:
        made = source(f"opc.tcp://127.0.0.1:{port}", "i=2258", connect_timeout_s=0.3)
        with pytest.raises(LinkError, match=r"no answer within 0\.3 s"):
            await made.connect().__aenter__()


async def test_a_policy_the_server_lacks_is_refused_with_those_it_offers(
    server: UaServer, tmp_path: Path
) -> None:
    certificate, key = client_certificate(tmp_path)
    security = OpcuaSecurity(policy="Basic256Sha256", certificate=certificate, private_key=key)
    with pytest.raises(LinkError, match=r"does not offer .*Basic256Sha256, SignAndEncrypt.*: None$"):
        await source(server.url, "i=2258", security=security).connect().__aenter__()


async def test_a_missing_certificate_file_is_named(server: UaServer, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    security = OpcuaSecurity(policy="Basic256Sha256", certificate=gone, private_key=gone)
    with pytest.raises(LinkError, match=r"there is no file .*gone\.pem"):
        await source(server.url, "i=2258", security=security).connect().__aenter__()


async def test_an_address_that_is_no_node_id_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="'Temperature'"):
        source("opc.tcp://127.0.0.1", "Temperature")
