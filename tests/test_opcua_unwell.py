"""A server that refuses for now or goes round in circles: it is asked again later, and not without end."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from support.uaserver import FakeIntake
from twinloop.batch import NO_TIME
from twinloop.errors import LinkError
from twinloop.records import Record
from twinloop.sources.opcua import history
from twinloop.sources.opcua.gaps import Gap, Gaps
from twinloop.sources.opcua.history import History
from twinloop.sources.opcua.kept import Kept
from twinloop.sources.opcua.options import OpcuaNode, OpcuaOptions
from twinloop.sources.opcua.publish import Publisher
from twinloop.sources.opcua.table import NodeTable
from twinloop.sources.opcua.values import EPOCH_TICKS

REFUSAL: Any = UaStatusCodeError  # untyped
T0 = 1_700_000_000_000_000_000
NODES = (OpcuaNode("ns=2;s=a", "R.a"), OpcuaNode("ns=2;s=b", "R.b"))


class Refusing:
    """Answers every Publish request at once with the same refusal."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def publish_raw(self, acks: list[ua.SubscriptionAcknowledgement]) -> Buffer:
        self.asked.append(len(acks))
        await asyncio.sleep(0)
        raise REFUSAL(StatusCodes.BadTimeout)


async def test_a_publish_request_refused_at_once_is_repeated_slowly_until_patience_ends() -> None:
    raw: Any = Refusing()
    publisher = Publisher(raw, "dcs", 0.02)
    publisher.watch(7, 0.2)
    publisher.acknowledge(7, 1)
    with pytest.raises(LinkError, match="subscription silent for"):
        async with asyncio.timeout(5):
            await anext(publisher.notifications())
    assert 3 <= len(raw.asked) <= 12
    assert sum(raw.asked) > 1  # what a failed request was to acknowledge goes with the next


def page(count: int, *, status: int = 0, point: bytes = b"", nodes: int = 1) -> bytes:
    """What a HistoryRead answers, each node with values a second apart from T0 on."""
    rows = b"".join(
        struct.pack("<BBdq", 1 | 4, 11, float(row), EPOCH_TICKS + (T0 + row * 10**9) // 100)
        for row in range(count)
    )
    body = struct.pack("<i", count) + rows
    kind = b"\x01\x00" + struct.pack("<H", ObjectIds.HistoryData_Encoding_DefaultBinary)
    part = (
        struct.pack("<Ii", status, len(point)) + point + kind + b"\x01" + struct.pack("<i", len(body)) + body
    )
    return struct.pack("<i", nodes) + part * nodes


class Filling:
    """A gap of two nodes each, filled from a server whose answers the test makes."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.requests = 0
        self.samples = 0
        self.kept = Kept(None, "", [node.address for node in NODES])
        self.kept.gap[:] = self.kept.heard[:] = T0
        self._answer = answer

    async def history_raw(self, _: object, nodes: list[object]) -> bytes:
        self.requests += 1
        return self._answer(len(nodes))

    async def _deliver(self, _: list[Record], samples: int, ack: Callable[[], None]) -> None:
        self.samples += samples
        ack()

    @property
    def open(self) -> list[bool]:
        return [bool(begin != NO_TIME) for begin in self.kept.gap]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not done():  # noqa: ASYNC110 - the log's lines wake nobody
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Filling]:
        options = OpcuaOptions(
            name="dcs", url="opc.tcp://127.0.0.1:1/", nodes=NODES, publishing_interval_s=0, retry_s=0.2
        )
        table = NodeTable("dcs", NODES, FakeIntake(), {})
        for place in (0, 1):
            table.identify(place, "", certain=True)
        gaps = Gaps(self.kept, 10**18)
        gaps.put_back([Gap(0, T0, T0 + 3600 * 10**9), Gap(1, T0 + 120 * 10**9, T0 + 3600 * 10**9)])
        session: Any = SimpleNamespace(history_nodes=0, raw=self)
        ids = {place: ua.NodeId.from_string(node.address) for place, node in enumerate(NODES)}
        made = History(options, session, ids=ids, table=table, gaps=gaps, deliver=self._deliver)
        task = asyncio.create_task(made.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_SETTLE_S", 0.0)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["BadResourceUnavailable", "BadInternalError", "BadTooManyOperations"])
async def test_a_passing_refusal_leaves_the_gaps_open_and_is_asked_again(
    name: str, *, whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    code = getattr(StatusCodes, name)
    well = False

    def answer(nodes: int) -> bytes:
        if well:
            return page(3, nodes=nodes)
        if whole:
            raise REFUSAL(code)
        return page(0, status=code, nodes=nodes)

    async with Filling(answer).running() as filling:
        await filling.until(lambda: "asked again" in caplog.text)
        assert filling.open == [True, True]
        before = filling.requests
        await filling.until(lambda: filling.requests >= before + 2)
        well = True
        await filling.until(lambda: filling.open == [False, False])
    assert filling.samples == 3  # those of the other node lie before its gap
    assert caplog.text.count("asked again") == 1
    assert "has no history" not in caplog.text


@pytest.mark.parametrize("whole", [True, False])
async def test_a_refusal_for_good_closes_the_gaps(*, whole: bool, caplog: pytest.LogCaptureFixture) -> None:
    code = StatusCodes.BadHistoryOperationUnsupported

    def answer(nodes: int) -> bytes:
        if whole:
            raise REFUSAL(code)
        return page(0, status=code, nodes=nodes)

    async with Filling(answer).running() as filling:
        await filling.until(lambda: filling.open == [False, False])
        await filling.until(lambda: "has no history" in caplog.text)


async def test_a_server_that_repeats_its_page_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    def answer(nodes: int) -> bytes:
        return page(10, point=b"P", nodes=nodes)

    history_idle = history._MOST_IDLE
    with caplog.at_level(logging.WARNING):
        async with Filling(answer).running() as filling:
            await filling.until(lambda: "does not go on" in caplog.text)
    assert filling.open == [False, False]
    assert filling.samples <= 10 * 6
    assert filling.requests <= history_idle + 10
    assert "dcs: opc.tcp://127.0.0.1:1" in caplog.text
