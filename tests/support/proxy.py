"""A TCP proxy between a client and a server that counts connections, and can refuse, drop or swallow."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.services import free_port

__all__ = ["Proxy", "proxy"]

_LOOK_S = 0.02


class Proxy:
    """Forwards to 127.0.0.1:`target` from a port of its own.

    Attributes:
        port: where it listens.
        attempts: monotonic seconds of every connection accepted.
        dropping: new connections are closed at once.
        swallowing: bytes are read and go nowhere, both ways; connections stay open.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.attempts: list[float] = []
        self.dropping = False
        self.swallowing = False
        self._stop = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(_LOOK_S)
        self._threads = [threading.Thread(target=self._accept), threading.Thread(target=self._pump)]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """Close every connection there is."""
        for pair in self._pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and its connections."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for each in pair:
                each.close()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.attempts.append(time.monotonic())
            try:
                if self.dropping:
                    raise ConnectionAbortedError
                server = socket.create_connection(("127.0.0.1", self.target), 1.0)
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))

    def _pump(self) -> None:
        while not self._stop.is_set():
            other = {}
            for one, two in list(self._pairs):
                other[one], other[two] = two, one
            ready, _, _ = select.select(list(other), [], [], _LOOK_S)
            for each in ready:
                self._move(each, other[each])

    def _move(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if data and not self.swallowing:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._pairs = [pair for pair in self._pairs if source not in pair]
            source.close()
            target.close()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A running proxy, ended with the block."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
