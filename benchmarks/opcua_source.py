"""CPU per sample of the OPC UA source, beside asyncua's own Subscription with a handler.

    python benchmarks/opcua_source.py [--nodes 1000] [--seconds 5]

The server is a child process. Both clients take the same traffic one after the other: every node
changing once a second, and every node changing as fast as the server writes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.client import Client

from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSource

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.uaserver import FakeIntake, ua_server


def serve(pipe: Connection, nodes: int, period_s: float) -> None:
    """The server process: writes every node each `period_s` until told to stop."""

    async def run() -> None:
        async with ua_server() as server:
            names = [f"n{place}" for place in range(nodes)]
            for name in names:
                await server.add(name)
            pipe.send(server.url)
            value = 0.0
            due = time.monotonic()
            while not pipe.poll():
                value += 1.0
                for name in names:
                    await server.write(name, value)
                due = max(due + period_s, time.monotonic())
                await asyncio.sleep(max(0.001, due - time.monotonic()))

    asyncio.run(run())


class Counter:
    """The least a handler can do: asyncua calls it once a value."""

    def __init__(self) -> None:
        self.samples = 0

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        """Count."""
        self.samples += 1


async def baseline(url: str, nodes: int, seconds: float) -> tuple[int, float]:
    """Samples and CPU seconds of asyncua's Subscription."""
    async with Client(url) as client:
        counter = Counter()
        subscription = await client.create_subscription(500, counter)
        wanted = [client.get_node(f"ns=2;s=n{place}") for place in range(nodes)]
        await subscription.subscribe_data_change(wanted, queuesize=100, sampling_interval=ua.Double(0.0))
        await asyncio.sleep(1)
        before, cpu = counter.samples, time.process_time()
        await asyncio.sleep(seconds)
        return counter.samples - before, time.process_time() - cpu


async def ours(url: str, nodes: int, seconds: float) -> tuple[int, float]:
    """Samples and CPU seconds of `OpcuaSource`, records made and acknowledged."""
    wanted = tuple(OpcuaNode(f"ns=2;s=n{place}", f"A.n{place}") for place in range(nodes))
    source = OpcuaSource(OpcuaOptions(name="bench", url=url, nodes=wanted), FakeIntake())
    samples = 0

    async def take(deliveries: Any) -> None:
        nonlocal samples
        async for delivery in deliveries:
            samples += delivery.samples
            delivery.ack()

    async with source.connect() as deliveries:
        taking = asyncio.create_task(take(deliveries))
        await asyncio.sleep(1)
        before, cpu = samples, time.process_time()
        await asyncio.sleep(seconds)
        figures = samples - before, time.process_time() - cpu
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    return figures


def main() -> None:
    """Print one line a case and client, and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nodes", type=int, default=1_000)
    arguments.add_argument("--seconds", type=float, default=5.0)
    asked = arguments.parse_args()
    for label, period_s in (("1 Hz", 1.0), ("as fast as possible", 0.0)):
        cost = {}
        for name, client in (("asyncua Subscription", baseline), ("twinloop", ours)):
            near, far = multiprocessing.Pipe()
            server = multiprocessing.Process(target=serve, args=(far, asked.nodes, period_s), daemon=True)
            server.start()
            samples, cpu = asyncio.run(client(near.recv(), asked.nodes, asked.seconds))
            near.send("stop")
            server.join(10)
            assert samples, f"{name} received nothing"
            cost[name] = cpu / samples * 1e6
            rate, core = samples / asked.seconds, cpu / asked.seconds
            figures = f"{rate:9.0f} samples/s {cost[name]:7.2f} us/sample {core:6.1%} of a core"
            print(f"{label:20} {name:21} {figures}")
        print(f"{label:20} asyncua / twinloop = {cost['asyncua Subscription'] / cost['twinloop']:.1f}")


if __name__ == "__main__":
    main()
