"""`/healthz` and `/metrics`, served from a thread of their own so that they answer whatever the loop does."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from twinloop.errors import StartError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Probe"]

_log = logging.getLogger("twinloop.web")

Healthz = Callable[[], tuple[bool, dict[str, Any]]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 32

    def server_bind(self) -> None:
        """Bind without looking the host up by name: that may take seconds on a plant network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        _log.debug("%s %s", self.client_address[0], format % args)

    def address_string(self) -> str:
        return str(self.client_address[0])


class Probe:
    """An HTTP server for orchestrators and Prometheus.

    Args:
        host: address to listen on; beyond loopback a warning says what anyone there can read.
        port: port; 0 takes a free one.
        registry: the metrics.
        healthz: whether all is well, and what to say; called on the server's thread.

    Raises:
        StartError: the port is taken or the address is not this host's.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, healthz: Healthz) -> None:
        application = _application(make_wsgi_app(registry), healthz)
        try:
            self._server = make_server(host, port, application, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            raise StartError(
                f"web: {host}:{port} cannot be listened on ({error.strerror or error}); "
                "is another twinloop running? `web: {port: ...}` in the plant file chooses another port, "
                "for the demo --port does"
            ) from error
        if not _is_loopback(host):
            _log.warning("web: /healthz and /metrics can be read by anyone who reaches %s", host)
        self._thread = Thread(target=self._server.serve_forever, args=(0.2,), name="web", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


def _application(metrics: WSGIApplication, healthz: Healthz) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            return _answer(start, "405 Method Not Allowed", {"error": "only GET and HEAD"})
        if path == "/metrics":
            return metrics(environ, start)
        if path == "/healthz":
            well, words = healthz()
            return _answer(start, "200 OK" if well else "503 Service Unavailable", words)
        if path == "/":
            return _answer(start, "200 OK", {"twinloop": ["/healthz", "/metrics"]})
        return _answer(start, "404 Not Found", {"error": f"nothing at {path}"})

    return application


def _answer(start: StartResponse, status: str, words: dict[str, Any]) -> Iterable[bytes]:
    body = json.dumps(words).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(status, headers)
    return [body]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
