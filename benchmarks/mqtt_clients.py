"""Which MQTT client? Same broker, same load, messages a second and CPU a message, side by side.

    python benchmarks/mqtt_clients.py [--messages 40000] [--qos 1] [--protocol 5]

Each client runs in a process of its own, subscribed with Receive Maximum 1000 and, for QoS 1, its
acknowledgement held back until the message was taken from it (as the log demands). The publisher is a
third process that writes prepared packets into the broker's socket, so that it costs next to nothing.
Packages that are not installed are left out. The ratio compares CPU a message with the cheapest client.
`twinloop` is our whole source on the chosen client, so it does more: decoding, times, columns, records.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import json
import queue
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TOPIC = "reactor/R101/sensor/temperature"
PAYLOAD = b'{"value":85.25,"unit":"degC","timestamp":"2026-01-01T00:00:00.250Z","quality":"Good"}'
RECEIVE_MAXIMUM = 1000
TIMEOUT_S = 60.0


async def receive_mqttium(port: int, count: int, qos: int, protocol: int) -> None:
    """Take `count` messages with mqttium, acknowledging each by hand."""
    from mqttium import MQTTProtocolVersion
    from mqttium.api import AsyncClient

    window = RECEIVE_MAXIMUM if protocol == 5 else None
    client = AsyncClient(
        "bench", protocol=MQTTProtocolVersion(protocol), manual_ack=True, max_inbound_inflight=window
    )
    await client.connect("127.0.0.1", port)
    await client.subscribe(TOPIC, qos=qos)
    ready()
    async for message in client.messages():
        if qos:
            await client.ack(message)
        count -= 1
        if not count:
            break
    await client.disconnect()


async def receive_gmqtt(port: int, count: int, qos: int, protocol: int) -> None:
    """Take `count` messages with gmqtt; it can hold acknowledgements back under MQTT 5 only."""
    gmqtt: Any = importlib.import_module("gmqtt")
    options: dict[str, Any] = {"receive_maximum": RECEIVE_MAXIMUM} if protocol == 5 else {}
    client = gmqtt.Client("bench", optimistic_acknowledgement=False, **options)
    subscribed, finished = asyncio.Event(), asyncio.Event()
    left = count

    def taken(_client: Any, _topic: str, _payload: bytes, _qos: int, _properties: Any) -> int:
        nonlocal left
        left -= 1
        if not left:
            finished.set()
        return 0

    async def held_back(*message: Any) -> int:
        return taken(*message)

    # A coroutine is awaited before the acknowledgement; QoS 0 has none to hold back.
    client.on_message = held_back if qos else taken
    client.on_subscribe = lambda *_: subscribed.set()
    await client.connect("127.0.0.1", port, version=protocol)
    client.subscribe(TOPIC, qos=qos)
    await subscribed.wait()
    ready()
    await finished.wait()
    await client.disconnect()


async def receive_paho(port: int, count: int, qos: int, protocol: int) -> None:
    """Take `count` messages with paho, its network thread feeding a bounded queue."""
    paho: Any = importlib.import_module("paho.mqtt.client")
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        "bench",
        protocol=paho.MQTTProtocolVersion(protocol),
        manual_ack=True,
    )
    properties = None
    if protocol == 5:
        properties = paho.Properties(paho.PacketTypes.CONNECT)
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
    taken: queue.Queue[Any] = queue.Queue(10_000)
    subscribed: queue.Queue[bool] = queue.Queue()
    client.on_message = lambda _client, _data, message: taken.put(message)
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.connect("127.0.0.1", port, properties=properties)
    client.loop_start()
    client.subscribe(TOPIC, qos)
    subscribed.get()
    ready()
    for _ in range(count):
        message = taken.get()
        if qos:
            client.ack(message.mid, message.qos)
    client.disconnect()
    client.loop_stop()


async def receive_twinloop(port: int, count: int, qos: int, protocol: int) -> None:
    """Take `count` messages with our own source: client, decoding, columns, record, acknowledgement."""
    from twinloop.sources.mqtt.client import MqttOptions, MqttSource
    from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
    from twinloop.tags import Refusal

    class Intake:
        def series(self, address: str, unit: str) -> int | Refusal:
            return len(address) + len(unit)

        def now_ns(self) -> int:
            return time.time_ns()

    options = MqttOptions(
        name="bench",
        host="127.0.0.1",
        port=port,
        topics=TopicMap([TopicRule(TopicPattern("reactor/{asset}/sensor/{tag}"))]),
        client_id="bench",
        protocol="5" if protocol == 5 else "3.1.1",
        qos=qos,
        clean_start=True,
    )
    async with MqttSource(options, Intake()).connect() as deliveries:
        ready()
        while count > 0:
            delivery = await anext(deliveries)
            delivery.ack()
            count -= delivery.samples


RECEIVERS: dict[str, Callable[[int, int, int, int], Awaitable[None]]] = {
    "mqttium": receive_mqttium,
    "gmqtt": receive_gmqtt,
    "paho": receive_paho,
    "twinloop": receive_twinloop,
}


def ready() -> None:
    """Tell the parent that the subscription stands; the CPU clock starts here."""
    global _started  # noqa: PLW0603 - one measurement a process
    print("ready", flush=True)
    _started = (time.perf_counter(), time.process_time())


_started = (0.0, 0.0)


def child(name: str, port: int, count: int, qos: int, protocol: int) -> None:
    """Run one receiver and print what it took."""
    asyncio.run(asyncio.wait_for(_run(RECEIVERS[name](port, count, qos, protocol)), TIMEOUT_S))
    seconds, cpu = time.perf_counter() - _started[0], time.process_time() - _started[1]
    print(json.dumps({"rate": count / seconds, "cpu_us": cpu / count * 1e6}), flush=True)


async def _run(work: Awaitable[None]) -> None:
    await work


def publish(port: int, count: int, qos: int) -> None:
    """Write `count` prepared PUBLISH packets (MQTT 3.1.1), reading acknowledgements as they come."""
    name = TOPIC.encode()
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04load")
        link.recv(4)
        link.setblocking(qos == 0)
        owed = 0
        for first in range(0, count, 200):
            block = b"".join(
                _packet(name, qos, 1 + i % 60_000) for i in range(first, min(first + 200, count))
            )
            owed += 4 * min(200, count - first) if qos else 0
            link.setblocking(True)
            link.sendall(block)
            # At most a few hundred unacknowledged: a real publisher has a window too.
            while owed > 4 * 400:
                owed -= len(link.recv(65_536))
        while owed:
            owed -= len(link.recv(65_536))
        link.sendall(b"\xe0\x00")


def _packet(name: bytes, qos: int, identifier: int) -> bytes:
    body = struct.pack(">H", len(name)) + name + (struct.pack(">H", identifier) if qos else b"") + PAYLOAD
    length = len(body)
    return bytes([0x30 | qos << 1, length & 0x7F | 0x80, length >> 7]) + body


def measure(name: str, port: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Rate and CPU of one client; publisher and client each a process."""
    numbers = [str(port), str(arguments.messages), str(arguments.qos), str(arguments.protocol)]
    receiver = subprocess.Popen(
        [sys.executable, __file__, "--child", name, *numbers], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline().strip() == "ready", f"{name} did not subscribe"
    sender = subprocess.Popen([sys.executable, __file__, "--publish", *numbers])
    line = receiver.stdout.readline()
    assert line, f"{name} did not get all messages within {TIMEOUT_S:g} s"
    result: dict[str, float] = json.loads(line)
    sender.wait()
    receiver.wait()
    return result


@contextlib.contextmanager
def broker() -> Any:
    """A mosquitto that drops nothing, on a free port."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        sys.exit("mosquitto is not installed: apt install mosquitto")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n"
        )
        process = subprocess.Popen([program, "-c", str(config)])
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Print one line a client."""
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        name, *numbers = sys.argv[2:]
        child(name, *map(int, numbers))
        return
    if len(sys.argv) > 1 and sys.argv[1] == "--publish":
        port, count, qos, _ = map(int, sys.argv[2:])
        publish(port, count, qos)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--protocol", type=int, choices=(4, 5), default=5)
    arguments = parser.parse_args()
    present = [name for name in RECEIVERS if importlib.util.find_spec(name)]
    with broker() as port:
        results = {name: measure(name, port, arguments) for name in present}
    best = min(result["cpu_us"] for result in results.values())
    print(f"QoS {arguments.qos}, protocol {arguments.protocol}, {arguments.messages} messages")
    for name, result in sorted(results.items(), key=lambda item: item[1]["cpu_us"]):
        print(
            f"  {name:8} {result['rate']:9,.0f} messages/s {result['cpu_us']:7.1f} us CPU a message"
            f"   x{result['cpu_us'] / best:.1f}"
        )


if __name__ == "__main__":
    main()
