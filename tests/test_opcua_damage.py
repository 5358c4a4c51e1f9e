"""A server that answers nonsense: the link ends with a sentence, the program goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from support.uaproxy import Network, network
from support.uaserver import FakeIntake, UaServer, ua_server
from twinloop.errors import LinkError
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSource

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDS = {"refused", "silent", "well"}
_OPENED = 3_000
"""Bytes by which a session is certainly open and its nodes are attached."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[UaServer]:
    async with ua_server() as running:
        for name in ("a", "b"):
            await running.add(name, 1.0)
        yield running


def harm(seed: int) -> Callable[[bytes, int], bytes]:
    """Damage from some byte on: bytes changed, thrown away, put in, or nothing but noise."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    begin = draw.randrange(_OPENED) if draw.random() < 0.7 else draw.randrange(40)
    kind = draw.choice(["change", "change", "change", "drop", "insert", "noise"])

    def damage(data: bytes, before: int) -> bytes:
        at = max(begin - before, 0)
        if at >= len(data):
            return data
        made = bytearray(data)
        if kind == "change":
            for _ in range(draw.randint(1, 6)):
                made[draw.randrange(at, len(made))] = draw.choice(
                    [0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)]
                )
        elif kind == "drop":
            del made[at : at + draw.randint(1, 40)]
        elif kind == "insert":
            made[at:at] = draw.randbytes(draw.randint(1, 40))
        else:
            made[at:] = draw.randbytes(len(made) - at)
        return bytes(made)

    return damage


async def attempt(way: Network, server: UaServer, seed: int) -> str:
    """One connection over a damaged network; how it ended."""
    way.damage = harm(seed)
    asked = OpcuaOptions(
        name="dcs",
        url=way.url,
        nodes=(OpcuaNode("ns=2;s=a", "R101.a"), OpcuaNode(f"nsu={UaServer.URI};s=b", "R101.b")),
        publishing_interval_s=0.02,
        connect_timeout_s=0.5,
        keepalive_s=0.1,
        retry_s=0.05,
        reread_after_s={"ns=2;s=a": 0.05},
    )
    try:
        async with asyncio.timeout(8), OpcuaSource(asked, FakeIntake()).connect() as deliveries:
            for value in range(4):
                await server.write("a", float(seed + value))
                async with asyncio.timeout(0.5):
                    (await anext(deliveries)).ack()
    except LinkError as error:
        return "refused" if str(error).isprintable() else f"not fit to be shown: {error!r}"
    except TimeoutError:
        return "silent"  # what a watchdog of data age is for
    return "well"


async def attempts(server: UaServer, seeds: range) -> dict[str, int]:
    ends: dict[str, int] = {}
    async with network(server.url) as way:
        for seed in seeds:
            end = await attempt(way, server, seed)
            ends[end] = ends.get(end, 0) + 1
    return ends


async def test_damaged_answers_end_the_link_and_never_the_program(server: UaServer) -> None:
    ends = await attempts(server, range(40))
    assert ends.keys() <= ENDS
    assert ends["refused"] > 10


@pytest.mark.long
async def test_many_damaged_answers_end_the_link_and_never_the_program(server: UaServer) -> None:
    ends = await attempts(server, range(1_000, 1_400))
    assert ends.keys() <= ENDS
    assert ends["refused"] > 100
