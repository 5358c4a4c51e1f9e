"""Taking a port, or saying why it cannot be had; and the certificate that is shown there."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any, Final
from weakref import WeakSet

from twinloop.config.web import WebConfig
from twinloop.errors import ConfigError, StartError
from twinloop.tls import server_context

__all__ = ["Door", "listen", "shown_context"]

CONNECTIONS: Final = 500
PATIENCE_S: Final = 30.0
_UNSENT_BYTES: Final = 128 << 10


class Door(socket.socket):
    """A listening socket that lets in only so many at a time, before they have said anything.

    Each open connection takes a file's number, and of those the twin needs some, too.
    """

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self._inside: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """Let one in. Raises BlockingIOError where there is no room: it is closed again."""
        connection, address = super().accept()
        if sum(each.fileno() >= 0 for each in self._inside) >= CONNECTIONS:
            connection.close()
            raise BlockingIOError(errno.EAGAIN, "there is no room for another connection")
        self._inside.add(connection)
        return connection, address


def listen(host: str, port: int) -> Door:
    """A socket that listens; what connects to it inherits that a peer that takes nothing is given up on.

    Raises:
        StartError: the port is taken or the address is not this host's.
    """
    try:
        family, kind, protocol, _, address = _address(host, port)
        listener = Door(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _bound_what_waits(listener)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> StartError:
    """The error for a port that cannot be had."""
    return StartError(
        f"web: {host}:{port} cannot be listened on ({error.strerror or error}); "
        "is another twinloop running? `web: {port: ...}` in the plant file chooses another port, "
        "for the demo --port does"
    )


def _address(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    """Of a name with addresses of both kinds that of IPv4, as `localhost` is mostly meant."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda each: each[0] != socket.AF_INET)  # type: ignore[return-value]


def _bound_what_waits(listener: socket.socket) -> None:
    """Bound what the system holds for a peer, and for how long it is taken: where it can be told."""
    for name, value in (("TCP_USER_TIMEOUT", round(1000 * PATIENCE_S)), ("TCP_NOTSENT_LOWAT", _UNSENT_BYTES)):
        option = getattr(socket, name, None)
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def shown_context(config: WebConfig) -> ssl.SSLContext | None:
    """What the server shows; None for no TLS.

    Raises:
        ConfigError: a file cannot be used.
    """
    if config.tls is None:
        return None
    try:
        return server_context(config.tls.cert, config.tls.key)
    except ConfigError as error:
        raise ConfigError(f"web.{error}") from None
