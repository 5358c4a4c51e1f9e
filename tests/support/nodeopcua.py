"""A node-opcua server, installed by npm into `.services/`, started and stopped by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.npm import installed
from support.services import free_port

__all__ = ["NodeServer", "install", "node_server"]

_SOURCE = Path(__file__).parent / "nodeopcua"
_START_TIMEOUT_S = 40.0


class NodeServer:
    """A running server; its nodes are `nsu=urn:plant;s=NAME`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, index: int) -> None:
        self._process = process
        self.url = url
        self.index = index

    async def tell(self, op: str, **rest: Any) -> Any:
        """Have one command carried out; see server.js. Returns its answer, where it has one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **rest}).encode() + b"\n")
        await self._process.stdin.drain()
        answer = await _line(self._process)
        assert answer.get("ok"), answer
        return answer.get("answer")

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._process.kill()


def install() -> Path:
    """The folder with node-opcua in it; installed at the first use. Skips where that cannot be."""
    return installed(_SOURCE, "node-opcua")


@asynccontextmanager
async def node_server(
    pki: Path,
    *,
    port: int = 0,
    users: Mapping[str, str] | None = None,
    anonymous: bool = True,
    trust: bool = True,
    limit: int = 0,
    **more: Any,
) -> AsyncIterator[NodeServer]:
    """A server on 127.0.0.1 that runs inside; its own certificate and the clients' are kept in `pki`.

    With a `limit` it refuses requests for more nodes or items than that. `more` goes to server.js as it is.
    """
    folder = install()
    port = port or free_port()
    options = {
        "port": port,
        "pki": str(pki),
        "users": users or {},
        "anonymous": anonymous,
        "trust": trust,
        "limit": limit,
        **more,
    }
    _give_key(pki)
    _give_key(pki.with_name(f"{pki.name}-users"))
    process = await asyncio.create_subprocess_exec(
        "node",
        str(_SOURCE / "server.js"),
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Node looks for modules beside the script; ours are in the cache.
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
    )
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            first = await _line(process)
        assert first.get("ready"), first
        yield NodeServer(process, f"opc.tcp://127.0.0.1:{port}", first["index"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _give_key(pki: Path) -> None:
    """A private key where node-opcua would otherwise take seconds to make one in JavaScript."""
    path = pki / "own" / "private" / "private_key.pem"
    if path.exists():
        return
    path.parent.mkdir(parents=True)
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(encoded)


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next JSON line; node-opcua prints notices of its own between them."""
    assert process.stdout is not None
    while True:
        line = await process.stdout.readline()
        if not line:
            return {"why": "the server ended"}
        if line.startswith(b"{"):
            answer: dict[str, Any] = json.loads(line)
            return answer


if __name__ == "__main__":
    # Called before the tests, so that no test waits for the registry.
    with contextlib.suppress(pytest.skip.Exception, pytest.fail.Exception):
        install()
