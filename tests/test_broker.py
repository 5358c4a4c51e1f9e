"""The demo's broker: a real one, on the loopback only, in both protocol versions, gone with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import psutil
import pytest
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient

from twinloop.errors import LinkError
from twinloop.simulate.broker import running_broker
from twinloop.simulate.lifeline import Child

ORPHANS_S = 2.0

PARENT = """
import asyncio
from twinloop.simulate.broker import running_broker
from twinloop.simulate.lifeline import Child

async def main():
    async with running_broker() as (ports, broker):
        plant = await Child.start(
            "plant", "twinloop.simulate.plantside",
            "--mqtt-port", str(ports.v5), "--reactors", "1", "--seed", "1",
        )
        await plant.expect("ready", 60)
        print(broker.pid, plant.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def client(version: MQTTProtocolVersion) -> AsyncClient:
    return AsyncClient(f"test-{version}", protocol=version)


async def test_a_message_published_in_one_version_arrives_in_the_other() -> None:
    async with running_broker() as (ports, _):
        old, new = client(MQTTProtocolVersion.MQTTv311), client(MQTTProtocolVersion.MQTTv5)
        await old.connect("127.0.0.1", ports.v311)
        await new.connect("127.0.0.1", ports.v5)
        await new.subscribe("reactor/+/sensor/+", qos=1)
        # the first publication to a topic nobody had subscribed to must not end the publisher
        for topic in ("elsewhere", "reactor/R101/sensor/temperature"):
            await asyncio.wait_for((await old.publish(topic, b"85.5", qos=1)).wait(), 5)

        async with asyncio.timeout(5):
            heard = await anext(new.messages())

        assert (heard.topic, heard.payload) == ("reactor/R101/sensor/temperature", b"85.5")
        await old.disconnect()
        await new.disconnect()


async def test_the_broker_listens_on_the_loopback_and_nowhere_else() -> None:
    async with running_broker() as (ports, broker):
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(broker.pid).net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }

        assert listening == {("127.0.0.1", ports.v311), ("127.0.0.1", ports.v5)}


async def test_leaving_the_context_ends_the_process() -> None:
    async with running_broker() as (_, broker):
        process = psutil.Process(broker.pid)

    assert not process.is_running()


async def test_a_child_that_ends_early_says_so_with_its_last_words() -> None:
    child = await Child.start("MQTT broker", "twinloop.simulate.no_such_module")

    with pytest.raises(LinkError, match=r"MQTT broker ended unexpectedly .*no_such_module"):
        await child.expect("listening", 20)
    await child.stop()


async def test_children_are_gone_within_two_seconds_of_a_parent_killed_with_sigkill() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(parent.stdout.readline(), 60)).split()]
    children = [psutil.Process(pid) for pid in pids]
    assert len(children) == 2

    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    begun = time.monotonic()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, ORPHANS_S)

    assert not alive, f"still running after {time.monotonic() - begun:.1f} s"
