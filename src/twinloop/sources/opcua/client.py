"""Intake from OPC UA servers: subscriptions by exception, or polling at each tag's own period.

    plant file -> OpcuaOptions -> OpcuaSource.connect() -> deliveries of Samples, Alive, DeadLetters, Link

The parts: `options` what is wanted and errors in words, `nodes` NodeIds, `session` one
session, `link` the work in it, `publish` the publish loop, `values` bytes to columns,
`table` columns to records.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
from asyncua import ua
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.batch import NO_TIME
from twinloop.sources.opcua.kept import Kept
from twinloop.sources.opcua.link import LiveLink, Memory, placed
from twinloop.sources.opcua.nodes import NodeAddress
from twinloop.sources.opcua.options import OpcuaNode, OpcuaOptions, OpcuaSecurity, status_name, translate
from twinloop.sources.opcua.session import Session, open_session
from twinloop.sources.opcua.table import ADDRESS_CODES, unit_of
from twinloop.sources.opcua.values import Rows
from twinloop.sources.source import Delivery, Intake, Reading
from twinloop.status import severity_name

__all__ = ["OpcuaNode", "OpcuaOptions", "OpcuaSecurity", "OpcuaSource"]


class OpcuaSource:
    """One OPC UA server as a source of samples.

    What is kept of every value: the number, all 32 bits of its status code, source and server time. A
    value without a number and without an address problem (a null with Bad status) is a sample of NaN. Texts,
    arrays and structures go to the dead letters, and their address is reported lost. A node that the
    server does not know or show is reported once, and tried again every `retry_s`; the rest go on.

    A slow consumer makes the source withhold Publish requests: the server then keeps `queue_size` values a
    node and sets the overflow bit where it had to give up older ones, which arrives as reason OVERFLOW.

    Args:
        options: what to take in, and how.
        intake: series and time.

    Raises:
        ConfigError: an address is no NodeId.
    """

    def __init__(self, options: OpcuaOptions, intake: Intake) -> None:
        self._options = options
        self._intake = intake
        self._addresses = [NodeAddress.parse(node.address) for node in options.nodes]
        self._memory: Memory | None = None

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        return self._options.name

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        """One attempt to connect; yields deliveries until the link is lost.

        NodeIds are resolved anew by the server's present namespaces. `ack` acknowledges the notification
        message to the server with the next Publish request, so the server can let go of it. What it still has
        when a connection is lost is asked for again, where the server hands its subscriptions over to the
        next session; else the gap is filled from its history.

        Raises:
            LinkError: the server cannot be reached, refuses, or (from the iterator) went away.
        """
        if self._memory is None:
            self._memory = Memory(self._addresses, _kept(self._options))
        async with open_session(self._options) as session:
            link = LiveLink(self._options, session, self._intake, self._memory)
            async with link.running() as deliveries:
                yield deliveries

    async def check(self, timeout_s: float) -> list[Reading]:
        """Read every node once, in a session of its own; what is wrong with a node stands in its reading.

        Raises:
            LinkError: the server cannot be reached or refuses, or does not answer within `timeout_s`.
        """
        options = dataclasses.replace(
            self._options, connect_timeout_s=min(timeout_s, self._options.connect_timeout_s)
        )
        try:
            async with asyncio.timeout(timeout_s), open_session(options) as session:
                return await _read_once(options, self._addresses, session, _kept(options).namespaces)
        except (UaError, OSError) as error:  # TimeoutError is an OSError
            raise translate(error, options) from error


def _kept(options: OpcuaOptions) -> Kept:
    addresses = [node.address for node in options.nodes]
    return Kept(options.kept, options.endpoint, addresses, writable=not options.reading)


async def _read_once(
    options: OpcuaOptions, addresses: Sequence[NodeAddress], session: Session, known: Mapping[int, str]
) -> list[Reading]:
    readings = [Reading(node.address, node.tag) for node in options.nodes]
    ids: dict[int, ua.NodeId] = {}
    for place, address in enumerate(addresses):
        try:
            ids[place] = address.resolve(session.namespaces, known)
        except LookupError as error:
            readings[place] = dataclasses.replace(readings[place], problem=str(error))
    if not ids:
        return readings
    try:
        units = await session.engineering_units(list(ids.values()))
    except UaStatusCodeError:
        units = [None] * len(ids)
    places = np.fromiter(ids, np.int64)
    for place, information in zip(ids, units, strict=True):
        readings[place] = dataclasses.replace(readings[place], unit=unit_of(information)[0])
    for rows in await session.read(list(ids.values())):
        _fill(readings, placed(rows, places))
    return readings


def _fill(readings: list[Reading], rows: Rows) -> None:
    for handle, value, status, source, server in zip(
        rows.handle, rows.value, rows.status, rows.source, rows.server, strict=True
    ):
        code = int(status)
        problem = ""
        if code & 0xFFFF_0000 in ADDRESS_CODES:
            problem = f"the server says {status_name(code)}"
        readings[handle] = dataclasses.replace(
            readings[handle],
            value="" if np.isnan(value) else repr(float(value)),
            status=severity_name(code) if code & 0xFFFF_0000 == 0 else status_name(code),
            time_ns=int(source if source != NO_TIME else max(server, 0)),
            problem=problem,
        )
    for other in rows.others:
        problem = f"it holds {other.kind}, not a number"
        readings[other.handle] = dataclasses.replace(
            readings[other.handle], status=status_name(other.status), problem=problem
        )
