"""What an outage leaves out is had again: from the server's history, or from subscriptions taken over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from support.nodeopcua import NodeServer, node_server
from support.uaproxy import network
from support.uaserver import FakeIntake, collect, received
from twinloop.errors import LinkError
from twinloop.records import Record, Samples
from twinloop.sources.opcua import history
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSource
from twinloop.sources.opcua.gaps import Gaps
from twinloop.sources.opcua.kept import Kept
from twinloop.sources.opcua.publish import Notification, Publisher
from twinloop.sources.opcua.values import Rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeServer]:
    async with node_server(tmp_path_factory.mktemp("pki")) as running:
        yield running


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps are filled as soon as they are found."""
    monkeypatch.setattr(history, "_SETTLE_S", 0.0)


def source(url: str, data: Path, *names: str, **options: Any) -> OpcuaSource:
    nodes = tuple(OpcuaNode(f"nsu=urn:plant;s={name}", f"R101.{name}", 0.05) for name in names)
    options = {"publishing_interval_s": 0.1, "kept": data / "opcua" / "dcs.json", **options}
    return OpcuaSource(OpcuaOptions(name="dcs", url=url, nodes=nodes, **options), FakeIntake())


async def write(server: NodeServer, name: str, *values: float, hours_ago: float = 0.0) -> None:
    """Values a millisecond apart, with source times that go on."""
    start = datetime.now(UTC) - timedelta(hours=hours_ago)
    rows = [
        {"name": name, "value": value, "source": (start + timedelta(milliseconds=place)).isoformat()}
        for place, value in enumerate(values)
    ]
    await server.tell("writes", rows=rows)


def recalled(records: list[Record]) -> list[float]:
    """Values that came from history."""
    parts = [record.unpack().value for record in records if isinstance(record, Samples) and not record.live]
    return [float(value) for value in np.concatenate([np.empty(0), *parts])]


async def hear(made: OpcuaSource, count: int) -> list[Record]:
    """What a session brings until so many samples are there, all acknowledged."""
    async with made.connect() as deliveries:
        return await collect(deliveries, lambda got: len(received(got)) >= count)


async def test_what_was_missed_between_two_sessions_is_read_from_history(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="missed", value=0, history=1000)
    made = source(server.url, tmp_path, "missed")
    await hear(made, 1)
    await write(server, "missed", *range(1, 21))
    records = await hear(made, 20)
    assert set(received(records).value.tolist()) >= set(range(1, 21))
    # The value heard before the outage may come again, the same in every part, so that the fold drops it.
    values = received(records).value.tolist()
    assert sorted(values) in ([float(value) for value in range(begin, 21)] for begin in (0, 1))
    assert set(recalled(records)) >= set(range(1, 20))


async def test_what_was_missed_while_twinloop_was_down_is_read_from_history(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="down", value=0, history=1000)
    await hear(source(server.url, tmp_path, "down"), 1)
    await write(server, "down", 1, 2, 3)
    records = await hear(source(server.url, tmp_path, "down"), 3)
    assert {1.0, 2.0, 3.0} <= set(received(records).value.tolist())


async def test_a_first_start_asks_for_no_history_nor_does_an_unchanged_node(
    server: NodeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.tell("add", name="old", value=0, history=1000)
    await server.tell("add", name="moves", value=0, history=1000)
    await write(server, "old", 1, 2, 3, hours_ago=1)
    asked: list[int] = []
    group = history.History._group

    def noted(self: history.History, gaps: Any) -> Any:
        asked.extend(gap.place for gap in gaps)
        return group(self, gaps)

    monkeypatch.setattr(history.History, "_group", noted)
    made = source(server.url, tmp_path, "old", "moves")
    first = await hear(made, 2)
    assert received(first).value.tolist() == [3.0, 0.0]
    await write(server, "moves", 1, 2)
    await hear(made, 3)
    assert set(asked) == {1}


async def test_a_long_gap_is_read_in_chunks_each_durable_before_the_next(
    server: NodeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_ROWS", 30)
    names = ["chunk1", "chunk2", "chunk3"]
    for name in names:
        await server.tell("add", name=name, value=0, history=1000)
    made = source(server.url, tmp_path, *names)
    await hear(made, 3)
    for name in names:
        await write(server, name, *range(1, 101))
    sizes = []
    records: list[Record] = []
    async with made.connect() as deliveries, asyncio.timeout(20):
        while len(recalled(records)) < 297:
            delivery = await anext(deliveries)
            old = [each for each in delivery.records if isinstance(each, Samples) and not each.live]
            sizes.append(sum(len(each.unpack()) for each in old))
            records += delivery.records
            delivery.ack()
    assert max(sizes) <= 30
    for series in range(3):
        rows = received(records)
        assert set(rows.value[rows.series == series].tolist()) >= set(range(1, 101))


async def test_a_gap_that_was_not_filled_is_filled_by_the_next_process(
    server: NodeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_ROWS", 10)
    await server.tell("add", name="killed", value=0, history=1000)
    await hear(source(server.url, tmp_path, "killed"), 1)
    await write(server, "killed", *range(1, 51))
    part = await hear(source(server.url, tmp_path, "killed"), 12)  # the live value and a chunk or two
    assert len(received(part)) < 50
    await write(server, "killed", 51)
    known = set(received(part).value.tolist())
    async with source(server.url, tmp_path, "killed").connect() as deliveries:
        await collect(deliveries, lambda got: known | set(received(got).value.tolist()) >= set(range(1, 52)))


async def test_a_node_without_history_is_named_once_and_the_others_are_filled(
    server: NodeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.tell("add", name="with", value=0, history=1000)
    await server.tell("add", name="without", value=0)
    made = source(server.url, tmp_path, "with", "without")
    await hear(made, 2)
    with caplog.at_level(logging.INFO):
        for name in ("with", "without"):
            await write(server, name, 1, 2, 3)
        async with made.connect() as deliveries:
            records = await collect(deliveries, lambda got: len(recalled(got)) >= 2)
            await write(server, "without", 4)
            await collect(deliveries, lambda got: 4.0 in received(got).value)
            async with asyncio.timeout(30):  # the line is said when all is done; a log has no event
                while not any("has no history of" in line for line in caplog.messages):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # between two looks
    assert {1.0, 2.0, 3.0} <= set(received(records).value.tolist())
    said = [line for line in caplog.messages if "has no history of" in line]
    assert len(said) == 1
    assert "s=without (Bad" in said[0]


async def test_history_is_not_asked_for_where_the_plant_file_says_so(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="off", value=0, history=1000)
    made = source(server.url, tmp_path, "off", history=False)
    await hear(made, 1)
    await write(server, "off", 1, 2, 3)
    async with made.connect() as deliveries:
        records = await collect(deliveries, lambda got: len(received(got)) == 1)
        await write(server, "off", 4)
        records += await collect(deliveries, lambda got: len(received(got)) == 1)
    assert received(records).value.tolist() == [3.0, 4.0]


async def test_a_gap_is_filled_no_further_back_than_allowed(
    server: NodeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.tell("add", name="bound", history=1000)
    await write(server, "bound", 0, hours_ago=3)
    made = source(server.url, tmp_path, "bound", history_max_s=3600.0)
    await hear(made, 1)
    await write(server, "bound", 1, 2, hours_ago=2)
    await write(server, "bound", 3, 4)
    async with made.connect() as deliveries:
        records = await collect(deliveries, lambda got: 3.0 in recalled(got))
        await write(server, "bound", 5)
        records += await collect(deliveries, lambda got: 5.0 in received(got).value)
    assert not {1.0, 2.0} & set(received(records).value.tolist())
    assert any("away for longer than history_max" in line for line in caplog.messages)


async def test_a_polled_node_has_its_gap_filled_too(server: NodeServer, tmp_path: Path) -> None:
    await server.tell("add", name="polled", value=0, history=1000)
    made = source(server.url, tmp_path, "polled", mode="poll")
    await hear(made, 1)
    await write(server, "polled", 1, 2, 3)
    assert {1.0, 2.0, 3.0} <= set(received(await hear(made, 3)).value.tolist())


async def test_a_subscription_the_server_drops_is_named_and_its_gap_filled(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="dropped", value=0, history=1000)
    made = source(server.url, tmp_path, "dropped", keepalive_s=0.5)
    async with made.connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        await server.tell("drop_subscriptions")
        with pytest.raises(LinkError, match="subscription") as caught:
            await collect(deliveries, lambda _: False)
    assert str(caught.value).startswith("dcs: opc.tcp://127.0.0.1")
    await write(server, "dropped", 1, 2, 3)
    assert {1.0, 2.0, 3.0} <= set(received(await hear(made, 3)).value.tolist())


async def test_after_a_short_loss_the_subscription_is_taken_over_and_nothing_is_missing(
    server: NodeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.tell("add", name="queued", value=0)  # without history
    async with network(server.url) as way:
        made = source(way.url, tmp_path, "queued")
        with caplog.at_level(logging.INFO):
            async with made.connect() as deliveries:
                await collect(deliveries, lambda got: len(received(got)) == 1)
                way.cut()
                with pytest.raises(LinkError, match="connection was lost"):
                    await collect(deliveries, lambda _: False)
            await write(server, "queued", *range(1, 31))
            way.mend()
            async with made.connect() as deliveries:
                records = await collect(deliveries, lambda got: 30.0 in received(got).value)
                await write(server, "queued", 31)
                records += await collect(deliveries, lambda got: 31.0 in received(got).value)
    assert [value for value in received(records).value.tolist() if value] == list(range(1, 32))
    assert any("taken over" in line for line in caplog.messages)
    assert not recalled(records)


async def test_what_was_heard_and_never_acknowledged_is_published_again(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="unacked", value=0)
    async with network(server.url) as way:
        made = source(way.url, tmp_path, "unacked")
        async with made.connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 1)
            await write(server, "unacked", 1, 2)
            lost: list[Record] = []
            while 2.0 not in received(lost).value:
                lost += (await anext(deliveries)).records  # as if the log had never had them
            way.cut()
            with pytest.raises(LinkError):
                await collect(deliveries, lambda _: False)
        way.mend()
        records = await hear(made, 2)
    assert [value for value in received(records).value.tolist() if value] == [1.0, 2.0]


async def test_a_subscription_that_is_not_handed_over_is_made_anew_and_its_gap_filled(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("add", name="anew", value=0, history=1000)
    async with network(server.url) as way:
        made = source(way.url, tmp_path, "anew")
        async with made.connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 1)
            way.cut()
            with pytest.raises(LinkError):
                await collect(deliveries, lambda _: False)
        await server.tell("drop_subscriptions")
        await write(server, "anew", 1, 2, 3)
        way.mend()
        records = await hear(made, 3)
    assert {1.0, 2.0, 3.0} <= set(received(records).value.tolist())


async def test_a_message_is_acknowledged_to_the_server_only_when_it_is_durable(
    server: NodeServer, tmp_path: Path
) -> None:
    await server.tell("drop_subscriptions")
    await server.tell("add", name="ack", value=0)
    async with source(server.url, tmp_path, "ack").connect() as deliveries:
        delivery = await anext(deliveries)
        while not len(received(list(delivery.records))):
            delivery.ack()
            delivery = await anext(deliveries)
        for value in (1, 2, 3):  # many answers from the server, none of them acknowledged
            await write(server, "ack", value)
            await anext(deliveries)
        assert len(await server.tell("unacknowledged")) >= 4
        delivery.ack()
        left, value = [1], 4
        async with asyncio.timeout(10):
            while 1 in left:  # the next Publish request carries it
                await write(server, "ack", value)
                await anext(deliveries)
                value += 1
                left = await server.tell("unacknowledged")
    assert {2, 3, 4} <= set(left)


async def test_numbers_tell_what_never_came_and_go_round() -> None:
    nobody: Any = None  # nothing is sent
    publisher = Publisher(nobody, "dcs")
    publisher.watch(7, 10.0)

    def missing(number: int, *, keepalive: bool = False) -> int:
        notification = Notification(7, 0 if keepalive else number, number)
        publisher.count(notification)
        return notification.missing

    assert [missing(5), missing(6), missing(7, keepalive=True), missing(7)] == [0, 0, 0, 0]
    assert missing(10) == 2
    assert missing(9) == 0  # published again
    assert missing(13, keepalive=True) == 2
    publisher.following[7] = 0xFFFF_FFFF
    assert [missing(0xFFFF_FFFF), missing(1), missing(2)] == [0, 0, 0]


async def test_what_is_kept_survives_and_what_cannot_be_read_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "opcua" / "dcs.json"
    kept = Kept(path, "opc.tcp://h:1", ["a", "b"])
    kept.note(np.array([0, 0]), np.array([5, 3]))
    kept.gap[0] = 4
    kept.namespaces[2] = "urn:plant"
    kept.write(kept.encoded())
    again = Kept(path, "opc.tcp://h:1", ["b", "a"])
    assert (again.heard.tolist()[1], again.gap.tolist()[1]) == (5, 4)
    assert again.namespaces == {2: "urn:plant"}
    assert Kept(path, "opc.tcp://other:1", ["a"]).namespaces == {}
    path.write_bytes(b"{")
    assert Kept(path, "opc.tcp://h:1", ["a"]).namespaces == {}
    assert any("cannot be read" in line for line in caplog.messages)


async def test_a_gap_is_measured_by_sane_times_only() -> None:
    kept = Kept(None, "", ["a", "b", "c"])
    kept.heard[:] = 1_000
    gaps = Gaps(kept, longest_ns=10**18)
    far = 10**18
    times = np.array([2_000, far, 500])
    rows = Rows(np.arange(3), np.zeros(3), np.zeros(3, np.uint32), times, times)
    gaps.see(rows, times, arrival=3_000)
    assert [(gap.place, gap.start, gap.end) for gap in gaps.take()] == [(0, 1_000, 2_000)]
