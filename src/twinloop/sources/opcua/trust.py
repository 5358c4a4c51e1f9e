"""Pinning a server's certificate, for `twinloop trust`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asyncua.ua.uaerrors import UaError
from cryptography import x509

from twinloop.errors import LinkError
from twinloop.sources.opcua.certificates import Pins, describe
from twinloop.sources.opcua.foreign import foreign_bytes
from twinloop.sources.opcua.options import OpcuaOptions, translate
from twinloop.sources.opcua.secure import own_files, server_certificate
from twinloop.sources.opcua.session import quieten

__all__ = ["Pinned", "pin_server"]

Description = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Pinned:
    """What was pinned.

    Attributes:
        certificate: the server's, trusted from now on.
        before: the one that was pinned until now; None where there was none.
        path: the pin's file.
        own: the file of this client's certificate.
    """

    certificate: x509.Certificate
    before: x509.Certificate | None
    path: Path
    own: Path


def _unseen(_: Description) -> None:
    pass


async def pin_server(options: OpcuaOptions, show: Callable[[Description], None] = _unseen) -> Pinned:
    """Pin the certificate that the server shows now; durable when it returns, and `run` heeds it at once.

    Args:
        options: the source's.
        show: is called with what the certificate says before it is pinned.

    Raises:
        LinkError: the server cannot be reached or lacks the endpoint, or the pin cannot be written.
    """
    quieten()
    pins = Pins(options.security.pins or Path())
    path = pins.path(options.name)
    try:
        own, _ = await asyncio.to_thread(own_files, options)
        async with asyncio.timeout(options.connect_timeout_s):
            shown = await server_certificate(options)
        with foreign_bytes():
            description = describe(shown)
    except (UaError, OSError) as error:  # TimeoutError is an OSError
        raise translate(error, options) from error
    show(description)
    try:
        before = pins.load(options.name)
    except (OSError, ValueError):  # damaged: the new one replaces it
        before = None
    try:
        pins.pin(options.name, shown)
    except OSError as error:
        raise LinkError(f"{options.name}: {path} cannot be written ({error.strerror})") from error
    return Pinned(shown, before, path, own)
