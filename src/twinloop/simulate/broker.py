"""The demo's own MQTT broker: rumqttd (in the iotcore wheel) as a child process on the loopback only.

rumqttd speaks one protocol version a port, so there are two: 3.1.1 and 5. Run as
`python -m twinloop.simulate.broker` it chooses free ports, says `{"listening": {"v4": ..., "v5": ...}}` on
standard output once both accept connections, and ends with its parent (see `lifeline`).
"""

from __future__ import annotations

import logging
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.simulate.lifeline import Child, end_with_parent, tell_parent

__all__ = ["BrokerPorts", "broker_config", "free_ports", "running_broker"]

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 15.0

# The log of one subscription filter holds at most segments * size: 10 MiB, hours of a small demo plant.
# A log for "#" from the start and no dynamic filters: a publication always has a log to go to, and a
# thousand topics do not make a thousand logs.
_CONFIG: Final = """\
id = 0

[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
initialized_filters = ["#"]
"""
_LISTENER: Final = """
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 65536
max_inflight_count = 200
dynamic_filters = false
"""


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Where the broker listens on the loopback, by MQTT version.

    Attributes:
        v311: the port for MQTT 3.1.1.
        v5: the port for MQTT 5.
    """

    v311: int
    v5: int


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def broker_config(ports: BrokerPorts) -> str:
    """The rumqttd configuration (TOML) of a broker on the loopback with bounded memory."""
    listeners = (("v4", ports.v311), ("v5", ports.v5))
    return _CONFIG + "".join(
        _LISTENER.format(version=version, host=HOST, port=port) for version, port in listeners
    )


@asynccontextmanager
async def running_broker() -> AsyncIterator[tuple[BrokerPorts, Child]]:
    """A broker that accepts connections; it is gone when the context is left.

    Raises:
        LinkError: it could not be started.
    """
    child = await Child.start("MQTT broker", "twinloop.simulate.broker")
    try:
        ports = await child.expect("listening", START_TIMEOUT_S)
        yield BrokerPorts(v311=ports["v4"], v5=ports["v5"]), child
    finally:
        await child.stop()


def _say_when_listening(ports: BrokerPorts) -> None:
    for port in (ports.v311, ports.v5):
        while True:
            try:
                socket.create_connection((HOST, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
    tell_parent({"listening": {"v4": ports.v311, "v5": ports.v5}})


def main() -> int:
    """Run the broker until the parent ends."""
    # Only here, in the child: the extension is large and nothing else needs it.
    from iotcore.iotcore import IotCoreBroker

    end_with_parent()
    logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
    ports = BrokerPorts(*free_ports(2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rumqttd.toml"
        path.write_text(broker_config(ports), encoding="utf-8")
        broker = IotCoreBroker(config_path=str(path))  # reads the file now
    threading.Thread(target=_say_when_listening, args=(ports,), daemon=True).start()
    broker.run_forever()
    return 1  # rumqttd has no way to stop: coming here means that it failed


if __name__ == "__main__":
    sys.exit(main())
