"""One session with an OPC UA server: opened, asked within the server's limits, and closed for certain.

asyncua carries channel, encryption and session. Requests go through `RawSession`, which hands answers
over as bytes for `values`, and leaves publishing to the source: asyncua's own publish loop never
waits for a slow consumer, swallows messages that it cannot parse, and acknowledges before anything is
on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import numpy as np
from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_session import UaSession
from asyncua.common.shortcuts import Shortcuts
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.foreign import readable
from twinloop.sources.opcua.foreign import foreign_bytes
from twinloop.sources.opcua.options import TOO_MUCH, OpcuaOptions, status_name
from twinloop.sources.opcua.secure import GuardedClient, explain, secure
from twinloop.sources.opcua.values import Rows, decode_values

__all__ = ["RawSession", "Session", "open_session", "quieten"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_NO_LIMIT: Final = 0
# Even where more is allowed: asyncua builds a request in one go, and the loop has other work meanwhile.
_DEFAULT_CHUNK: Final = 1_000
_CLOSE_TIMEOUT_S: Final = 2.0
_NAMESPACES: Final = ua.NodeId(ua.Int32(ObjectIds.Server_NamespaceArray))
_LIMIT_NODES: Final = (
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    ObjectIds.Server_ServerCapabilities_MaxMonitoredItemsPerSubscription,
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds,
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
)


class RawSession(UaSession):
    """asyncua's session, with answers as bytes and without its publish loop."""

    def ensure_publish_loop(self) -> None:
        """Start nothing: the source publishes at the pace of the log."""

    async def publish_raw(self, acks: list[ua.SubscriptionAcknowledgement]) -> Buffer:
        """The answer to one Publish request, behind its response header; waits as long as it takes."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = acks
        with foreign_bytes():
            return _body(await self._send_request(request, timeout=0))

    async def read_raw(self, nodes: Sequence[ua.NodeId]) -> Rows:
        """The Value attributes of some nodes, read by the server now; `handle` is the position."""
        request = ua.ReadRequest()
        request.Parameters.MaxAge = 0
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value) for node in nodes
        ]
        body = _body(await self._send_request(request))
        data = body.read(len(body))
        count = int.from_bytes(data[:4], "little", signed=True)
        if count != len(nodes):
            raise UaError(f"asked for {len(nodes)} nodes, got {count}")
        rows, _ = decode_values(data, count, handles=False, start=4)
        return rows

    async def republish_raw(self, subscription: int, sequence: int) -> bytes:
        """A notification message once more, as its bytes."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = ua.IntegerId(subscription)
        request.Parameters.RetransmitSequenceNumber = ua.Counter(sequence)
        with foreign_bytes():
            body = _body(await self._send_request(request))
            return body.read(len(body))

    async def history_raw(
        self, details: ua.ReadRawModifiedDetails, nodes: Sequence[tuple[ua.NodeId, bytes]]
    ) -> bytes:
        """What a HistoryRead answers, behind its response header; nodes with their continuation points."""
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = details
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        no: Any = False  # asyncua types the field as a class of its own, and has true for its default
        request.Parameters.ReleaseContinuationPoints = no
        request.Parameters.NodesToRead = [
            ua.HistoryReadValueId(NodeId=node, ContinuationPoint=point or None) for node, point in nodes
        ]
        with foreign_bytes():
            body = _body(await self._send_request(request))
            return body.read(len(body))


def _body(data: Buffer) -> Buffer:
    nodeid_from_binary(data)
    header = struct_from_binary(ua.ResponseHeader, data)
    header.ServiceResult.check()
    return data


class Session:
    """An open session; every request is cut to the server's limits.

    Attributes:
        namespaces: the server's namespace URIs, by index.
        lost: done once the connection is known to be gone; its result says why.
        items_per_subscription: most monitored items of one subscription; 0 for no limit.
        history_nodes: most nodes of one HistoryRead; 0 for no limit.
    """

    def __init__(self, client: Client, raw: RawSession, options: OpcuaOptions) -> None:
        self._client = client
        self._options = options
        self.raw = raw
        self.namespaces: list[str] = []
        self.lost: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.items_per_subscription = _NO_LIMIT
        self.history_nodes = _NO_LIMIT
        self._read_chunk = _DEFAULT_CHUNK
        self._create_chunk = _DEFAULT_CHUNK
        self._browse_chunk = _DEFAULT_CHUNK

    async def on_lost(self, error: BaseException) -> None:
        """Note that the connection is gone (asyncua's callback)."""
        if not self.lost.done():
            self.lost.set_result(error)

    async def learn(self) -> None:
        """Read the namespaces and the server's limits. Raises what asyncua raises."""
        ids = [ua.NodeId(ua.Int32(number)) for number in _LIMIT_NODES]
        namespaces, *limits = await self._attributes([_NAMESPACES, *ids])
        if not isinstance(namespaces, list):
            raise UaError("the server does not say its namespaces")
        self.namespaces = [readable(str(uri)) for uri in namespaces]
        read, create, items, browse, history = (
            int(limit) if isinstance(limit, int) else 0 for limit in limits
        )
        self._read_chunk = min(read or _DEFAULT_CHUNK, _DEFAULT_CHUNK)
        self._create_chunk = min(create or _DEFAULT_CHUNK, _DEFAULT_CHUNK)
        self._browse_chunk = min(browse or _DEFAULT_CHUNK, _DEFAULT_CHUNK)
        self.items_per_subscription = items
        self.history_nodes = history

    async def _attributes(self, nodes: Sequence[ua.NodeId]) -> list[Any]:
        """Values as asyncua decodes them; None for what cannot be read. For small, odd-typed reads."""

        async def read(part: Sequence[ua.NodeId]) -> list[ua.DataValue]:
            return await self.raw.read_attributes(list(part), AttributeIds.Value)

        answers, self._read_chunk = await _chunked(nodes, self._read_chunk, read)
        return [value.Value.Value if value.Value is not None else None for value in answers]

    async def read(self, nodes: Sequence[ua.NodeId]) -> list[Rows]:
        """The nodes' values, a `Rows` per request; `handle` is the position in `nodes`.

        Raises what asyncua raises.
        """
        done = 0

        async def read(part: Sequence[ua.NodeId]) -> list[Rows]:
            nonlocal done
            rows = await self.raw.read_raw(part)
            moved = _shifted(rows, done)
            done += len(part)
            return [moved]

        answers, self._read_chunk = await _chunked(nodes, self._read_chunk, read, count=False)
        return answers

    async def create_items(
        self, subscription: int, requests: Sequence[ua.MonitoredItemCreateRequest]
    ) -> list[ua.MonitoredItemCreateResult]:
        """The server's answer for each item, in order. Raises what asyncua raises."""

        async def create(
            part: Sequence[ua.MonitoredItemCreateRequest],
        ) -> list[ua.MonitoredItemCreateResult]:
            params = ua.CreateMonitoredItemsParameters()
            params.SubscriptionId = ua.IntegerId(subscription)
            params.TimestampsToReturn = ua.TimestampsToReturn.Both
            params.ItemsToCreate = list(part)
            return await self.raw.create_monitored_items(params)

        answers, self._create_chunk = await _chunked(requests, self._create_chunk, create)
        return answers

    async def delete_items(self, subscription: int, items: Sequence[int]) -> None:
        """Remove monitored items, as far as the server still has them."""

        async def delete(part: Sequence[int]) -> list[ua.StatusCode]:
            params = ua.DeleteMonitoredItemsParameters()
            params.SubscriptionId = ua.IntegerId(subscription)
            params.MonitoredItemIds = [ua.IntegerId(item) for item in part]
            return await self.raw.delete_monitored_items(params)

        await _chunked(items, self._create_chunk, delete)

    async def create_subscription(self) -> ua.CreateSubscriptionResult:
        """A new subscription by the options' intervals. Raises what asyncua raises."""
        interval_s = max(self._options.publishing_interval_s, 0.001)
        keepalive = max(1, round(self._options.keepalive_s / interval_s))
        # It must outlive a consumer that is slow for a while: the server queues meanwhile.
        lifetime = max(3 * keepalive, round(self._options.session_timeout_s / interval_s))
        params = ua.CreateSubscriptionParameters()
        params.RequestedPublishingInterval = ua.Duration(interval_s * 1000)
        params.RequestedMaxKeepAliveCount = ua.Counter(keepalive)
        params.RequestedLifetimeCount = ua.Counter(lifetime)
        params.MaxNotificationsPerPublish = ua.Counter(10_000)
        params.PublishingEnabled = True
        with foreign_bytes():
            return await self.raw.create_subscription(params, _ignore)

    async def transfer(self, subscriptions: Sequence[int]) -> list[ua.TransferResult]:
        """Take subscriptions over from a session that is gone; the answer for each."""
        params = ua.TransferSubscriptionsParameters()
        params.SubscriptionIds = [ua.IntegerId(each) for each in subscriptions]
        params.SendInitialValues = False
        with foreign_bytes():
            answers = await self.raw.transfer_subscriptions(params)
        if len(answers or ()) != len(subscriptions):
            raise UaError(f"asked for {len(subscriptions)} subscriptions, got {len(answers or ())}")
        return answers

    async def delete_subscriptions(self, subscriptions: Sequence[int]) -> None:
        """Remove subscriptions, as far as the server still has them."""
        with foreign_bytes():
            await self.raw.delete_subscriptions(list(subscriptions))

    @property
    def broken(self) -> bool:
        """Whether the connection is gone, so that the server may keep the session and its subscriptions."""
        protocol = self._client.uaclient.protocol
        return protocol is None or protocol.is_closed

    async def engineering_units(self, nodes: Sequence[ua.NodeId]) -> list[Any]:
        """Each node's EUInformation where the server has one, else None. Raises what asyncua raises."""

        async def find(part: Sequence[ua.NodeId]) -> list[ua.BrowsePathResult]:
            return await self.raw.translate_browsepaths_to_nodeids([_units_path(node) for node in part])

        paths, self._browse_chunk = await _chunked(nodes, self._browse_chunk, find)
        found = [
            (place, path.Targets[0].TargetId)
            for place, path in enumerate(paths)
            if path.StatusCode.is_good() and path.Targets
        ]
        units: list[Any] = [None] * len(nodes)
        values = await self._attributes([_plain(target) for _, target in found]) if found else []
        for (place, _), value in zip(found, values, strict=True):
            units[place] = value
        return units


def _ignore(_: ua.PublishResult) -> None:
    """Stands where asyncua wants a callback that its publish loop would call."""


def _plain(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _units_path(node: ua.NodeId) -> ua.BrowsePath:
    step = ua.RelativePathElement()
    step.ReferenceTypeId = ua.NodeId(ua.Int32(ObjectIds.HasProperty))
    no: Any = False  # asyncua types the field as a class of its own that cannot be made
    step.IsInverse = no
    step.TargetName = ua.QualifiedName("EngineeringUnits", 0)
    path = ua.BrowsePath()
    path.StartingNode = node
    path.RelativePath.Elements = [step]
    return path


def _shifted(rows: Rows, by: int) -> Rows:
    others = tuple(
        type(other)(other.handle + by, other.kind, other.raw, other.status) for other in rows.others
    )
    return Rows(rows.handle + np.int64(by), rows.value, rows.status, rows.source, rows.server, others)


async def _chunked(
    things: Sequence[T],
    chunk: int,
    ask: Callable[[Sequence[T]], Awaitable[list[R]]],
    *,
    count: bool = True,
) -> tuple[list[R], int]:
    """All answers, and the chunk size that worked: halved whenever the server found it too much.

    There is an answer for each thing, unless `count` is false.
    """
    answers: list[R] = []
    begin = 0
    while begin < len(things):
        part = things[begin : begin + chunk]
        try:
            with foreign_bytes():
                answer = await ask(part)
        except UaStatusCodeError as error:
            if status_name(error.code) not in TOO_MUCH or len(part) == 1:
                raise
            chunk = max(1, len(part) // 2)
            continue
        if len(answer) != len(part) and count:
            raise UaError(f"asked for {len(part)}, got {len(answer)}")
        answers += answer
        begin += len(part)
    return answers, chunk


@asynccontextmanager
async def open_session(options: OpcuaOptions) -> AsyncIterator[Session]:
    """An open session that has learnt the server's limits; closed on leaving, whatever happened.

    Raises:
        LinkError: the server cannot be reached or refuses.
    """
    quieten()
    client = GuardedClient(options)
    raw = RawSession(client.uaclient)
    client.uaclient.session = raw
    client.nodes = Shortcuts(raw)
    session = Session(client, raw, options)
    client.connection_lost_callback = session.on_lost
    try:
        async with asyncio.timeout(options.connect_timeout_s):
            await secure(client, options)
            with foreign_bytes():
                await client.connect()
                await session.learn()
    except (UaError, OSError) as error:  # TimeoutError is an OSError
        await _close(client)
        raise await explain(error, options) from error
    except BaseException:
        await _close(client)
        raise
    try:
        yield session
    finally:
        await _close(client)


async def _close(client: Client) -> None:
    """Session, channel, socket and asyncua's tasks are gone when this returns, within seconds."""
    renewal = client._renew_channel_task  # noqa: SLF001 - else its failure is reported at exit, by asyncio
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await client.disconnect()
    client.disconnect_socket()
    if renewal is not None and renewal.done() and not renewal.cancelled():
        renewal.exception()


def quieten() -> None:
    """Keep asyncua's tracebacks off the operator's log, unless somebody asked for them."""
    theirs = logging.getLogger("asyncua")
    if theirs.level == logging.NOTSET:
        theirs.setLevel(logging.CRITICAL + 1)
