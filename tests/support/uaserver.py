"""An asyncua server on a free port of 127.0.0.1, and an intake that remembers what it was asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from asyncua import ua
from asyncua.server.server import Server

from support.services import free_port
from twinloop.batch import Received
from twinloop.records import Record, Samples
from twinloop.sources.source import Delivery
from twinloop.tags import Refusal

__all__ = ["FakeIntake", "UaServer", "collect", "of_series", "received", "ua_server"]

_PATIENCE_S = 10.0


class UaServer:
    """A running server; nodes live in namespace 2, `urn:twinloop:test`."""

    URI = "urn:twinloop:test"

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    async def add(self, name: str, value: Any = 0.0, kind: ua.VariantType = ua.VariantType.Double) -> str:
        """A variable `ns=2;s=NAME`; returns its NodeId text."""
        folder = self.server.get_objects_node()
        await folder.add_variable(
            ua.NodeId(ua.String(name), ua.Int16(2)),
            name,
            value,
            varianttype=kind,
        )
        return f"ns=2;s={name}"

    async def write(
        self,
        name: str,
        value: Any,
        *,
        status: int = 0,
        source: datetime | None = None,
        kind: ua.VariantType = ua.VariantType.Double,
    ) -> None:
        """Write a value with status and source time, as a device driver would."""
        now: Any = datetime.now(UTC)
        taken: Any = source or now  # asyncua types times as a class of its own, and takes datetimes
        data = ua.DataValue(
            ua.Variant(value, kind) if value is not None else ua.Variant(),
            ua.StatusCode(ua.UInt32(status)),
            SourceTimestamp=taken,
            ServerTimestamp=now,
        )
        await self.server.write_attribute_value(ua.NodeId(ua.String(name), ua.Int16(2)), data)

    async def certify(self, certificate: tuple[Path, Path] | None) -> None:
        """From now on take Basic256Sha256, SignAndEncrypt, and nothing else; or no security with None.

        A new server for each would take seconds, as asyncua builds its address space anew.
        """
        policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
        self.server.set_security_policy([policy if certificate else ua.SecurityPolicyType.NoSecurity])
        if certificate:
            await self.server.load_certificate(certificate[0])
            await self.server.load_private_key(certificate[1])
        self.server.iserver.endpoints.clear()
        self.server._policies.clear()
        await self.server._setup_server_nodes()
        assert self.server.bserver is not None
        self.server.bserver.set_policies(self.server._policies)

    async def remove(self, name: str) -> None:
        """Delete a variable."""
        await self.server.delete_nodes([self.server.get_node(ua.NodeId(ua.String(name), ua.Int16(2)))])


@asynccontextmanager
async def ua_server(port: int = 0) -> AsyncIterator[UaServer]:
    """A server that runs inside, and is stopped on leaving."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    server = Server()
    await server.init()
    url = f"opc.tcp://127.0.0.1:{port or free_port()}/"
    server.set_endpoint(url)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await server.register_namespace(UaServer.URI)
    async with server:
        yield UaServer(server, url)


@dataclass
class FakeIntake:
    """An `Intake` in memory: series are numbered as they come, `refuse` says which are not."""

    refuse: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    known: dict[tuple[str, str], int] = field(default_factory=dict)

    def series(self, address: str, unit: str) -> int | Refusal:
        refusal = self.refuse.get((address, unit))
        return refusal or self.known.setdefault((address, unit), len(self.known))

    def now_ns(self) -> int:
        return time.time_ns()


async def collect(deliveries: AsyncIterator[Delivery], until: Callable[[list[Record]], bool]) -> list[Record]:
    """Records of the stream, acknowledged, until they are enough; fails after a while."""
    records: list[Record] = []
    async with asyncio.timeout(_PATIENCE_S):
        while not until(records):
            delivery = await anext(deliveries)
            records += delivery.records
            delivery.ack()
    return records


def received(records: Iterable[Record]) -> Received:
    """All samples of some records, in order."""
    parts = [record.unpack() for record in records if isinstance(record, Samples)]
    return Received.concat(parts)


def of_series(records: Iterable[Record], series: int) -> Received:
    """The samples of one series, in order."""
    rows = received(records)
    return rows.take(np.flatnonzero(rows.series == series))
