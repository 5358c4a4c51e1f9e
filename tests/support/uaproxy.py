"""A network between a client and a server, that can be cut and can damage what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["Network", "network"]


class Network:
    """A way to one server.

    Attributes:
        url: where clients connect to.
        carried: bytes brought from the server since the last connection.
        damage: changes what the server sent; told how much came before on this connection.
        connections: how many clients have connected.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._open: set[asyncio.StreamWriter] = set()
        self._up = True
        self.url = ""
        self.damage: Callable[[bytes, int], bytes] | None = None
        self.connections = 0

    def cut(self) -> None:
        """Every connection breaks, and none is made until `mend`. The server is not told."""
        self._up = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """Connections can be made again."""
        self._up = True

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._up:
            writer.transport.abort()
            return
        self.connections += 1
        to_server = await asyncio.open_connection(self._host, self._port)
        self._open |= {writer, to_server[1]}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, to_server[1], harm=False))
                group.create_task(self._pipe(to_server[0], writer, harm=True))
        finally:
            for each in (writer, to_server[1]):
                self._open.discard(each)
                each.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, harm: bool) -> None:
        carried = 0
        with suppress(OSError):
            while data := await reader.read(65_536):
                if harm and self.damage is not None:
                    data = self.damage(data, carried)
                carried += len(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def network(url: str) -> AsyncIterator[Network]:
    """A network to the server at `url` that runs inside."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    made = Network(parts.hostname, parts.port)
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.url = f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}"
    try:
        yield made
    finally:
        made.cut()
        server.close()
        await server.wait_closed()
