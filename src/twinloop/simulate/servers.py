"""How the demo plant is heard: readings published over MQTT 5 and served over OPC UA, on the loopback."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Final

import msgspec
from asyncua import ua
from asyncua.server.server import Server
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage, ReconnectPolicy

from twinloop.errors import LinkError
from twinloop.simulate.broker import HOST, free_ports
from twinloop.simulate.sensors import FIELD, INSTRUMENTS, Readings
from twinloop.status import StatusCode, severity_name

__all__ = ["NAMESPACE", "FieldPublisher", "PlantServer", "connected_publisher", "running_server", "topic"]

NAMESPACE: Final = "urn:twinloop:demo-plant"
NAMESPACE_INDEX: Final = 2  # 0 is OPC UA's own, 1 the server's
PORT_ATTEMPTS: Final = 5
AT_LEAST_ONCE: Final = 1


def topic(asset: str, tag: str) -> str:
    """Where a reading is published."""
    return f"reactor/{asset}/sensor/{tag}"


def _moment(time_ns: int) -> ua.DateTime:
    return ua.DateTime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(
        microsecond=time_ns % 1_000_000_000 // 1000
    )


def _node_id(name: str) -> ua.NodeId:
    return ua.NodeId(ua.String(name), ua.Int16(NAMESPACE_INDEX))


def _browse_name(name: str) -> ua.QualifiedName:
    return ua.QualifiedName(ua.String(name), ua.UInt16(NAMESPACE_INDEX))


class FieldPublisher:
    """Publishes the field instruments' readings at QoS 1, as JSON with value, unit, timestamp and quality.

    Args:
        client: connected; it reconnects by itself.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._units = {each.tag: each.unit for each in FIELD}
        self.published = 0

    async def publish(self, readings: Readings, time_ns: int) -> None:
        """Hand all field readings to the broker; without a connection they wait, bounded, in the client."""
        timestamp = _moment(time_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        messages = []
        for (asset, tag), reading in readings.items():
            if tag not in self._units:
                continue
            payload = msgspec.json.encode(
                {
                    "value": reading.value,
                    "unit": self._units[tag],
                    "timestamp": timestamp,
                    "quality": severity_name(reading.status),
                }
            )
            messages.append(PublishMessage(topic(asset, tag), payload, qos=AT_LEAST_ONCE))
        await self._client.publish_many(messages)
        self.published += len(messages)


@asynccontextmanager
async def connected_publisher(port: int) -> AsyncIterator[FieldPublisher]:
    """A publisher connected to the broker's MQTT 5 port on the loopback.

    Raises:
        OSError: the broker cannot be reached.
    """
    client = AsyncClient(
        "demo-plant",
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect=ReconnectPolicy(initial_delay=0.2, max_delay=5.0),
    )
    try:
        await client.connect(HOST, port)
        yield FieldPublisher(client)
    finally:
        await client.disconnect()


class PlantServer:
    """An OPC UA server with a folder a reactor and a variable an instrument.

    The nodes are `ns=2;s=Reactor.<asset>.Temperature.PV` and so on; namespace 2 is `NAMESPACE`.
    """

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._nodes: dict[tuple[str, str], ua.NodeId] = {}
        self.port = port

    async def add(self, assets: Sequence[str]) -> None:
        """Make the nodes, waiting for their first reading."""
        waiting = ua.DataValue(None, ua.StatusCode(ua.UInt32(StatusCode.BAD_WAITING_FOR_INITIAL_DATA)))
        plant = await self._server.nodes.objects.add_folder(_node_id("Reactor"), _browse_name("Reactor"))
        for asset in assets:
            name = f"Reactor.{asset}"
            folder = await plant.add_folder(_node_id(name), _browse_name(asset))
            for instrument in INSTRUMENTS:
                if not instrument.node:
                    continue
                node_id = _node_id(f"{name}.{instrument.node}")
                await folder.add_variable(node_id, _browse_name(instrument.node), 0.0, ua.VariantType.Double)
                await self._server.write_attribute_value(node_id, waiting)
                self._nodes[asset, instrument.tag] = node_id

    async def show(self, readings: Readings, time_ns: int) -> None:
        """Set every node that has a reading: value, status and source time."""
        moment = _moment(time_ns)
        for key, reading in readings.items():
            node_id = self._nodes.get(key)
            if node_id is None:
                continue
            value = ua.DataValue(
                ua.Variant(reading.value, ua.VariantType.Double),
                ua.StatusCode(ua.UInt32(reading.status)),
                SourceTimestamp=moment,
                ServerTimestamp=moment,
            )
            await self._server.write_attribute_value(node_id, value)


@asynccontextmanager
async def running_server(assets: Sequence[str]) -> AsyncIterator[PlantServer]:
    """An OPC UA server on a free port of the loopback, without security, with nodes for `assets`.

    Raises:
        LinkError: no port could be had.
    """
    # asyncua reports every client that comes and goes badly; this server is only a prop
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    server = Server()
    await server.init()
    server.set_server_name("twinloop demo plant")
    await server.set_application_uri(f"{NAMESPACE}:server")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    assert index == NAMESPACE_INDEX, f"asyncua gave namespace {index}"  # noqa: S101 - the node names rest on it
    port = await _listen(server)
    try:
        plant = PlantServer(server, port)
        await plant.add(assets)
        yield plant
    finally:
        await server.stop()


async def _listen(server: Server) -> int:
    for _ in range(PORT_ATTEMPTS):
        [port] = free_ports(1)
        server.set_endpoint(f"opc.tcp://{HOST}:{port}")
        try:
            await server.start()
        except OSError:
            continue  # somebody took the port in between
        return port
    raise LinkError(f"the demo's OPC UA server found no free port on {HOST}")
