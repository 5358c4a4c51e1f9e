"""`/healthz`, `/readyz` and `/metrics` alone, where the `web` extra is not installed."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Thread, Timer
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from twinloop.config.web import WebConfig
from twinloop.web.access import Access, Asking, TooManyError
from twinloop.web.figures import encoder_of
from twinloop.web.listening import listen, shown_context
from twinloop.web.look import Look

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Probe"]

_log = logging.getLogger("twinloop.web")

REQUEST_WITHIN_S: Final = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[Any, Any]:
        """A connection; with TLS it shakes hands on its own thread."""
        connection, address = self.socket.accept()
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


class _Handler(WSGIRequestHandler):
    """One connection, which has only so long in all: a byte now and then does not prolong it."""

    timeout = REQUEST_WITHIN_S

    def handle(self) -> None:
        """One request and its answer."""
        hanging_up = Timer(REQUEST_WITHIN_S, self._hang_up)
        hanging_up.daemon = True
        hanging_up.start()
        try:
            super().handle()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            _log.debug("web: %s was cut off", self.client_address[0])
        finally:
            hanging_up.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError):
            # Past TLS, whose lock the thread that reads may hold.
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        _log.debug("%s %s", self.client_address[0], format % args)

    def address_string(self) -> str:
        return str(self.client_address[0])


class Probe:
    """An HTTP server for orchestrators and Prometheus; where a login is asked for, it takes the token.

    Args:
        look: what is shown.
        config: where and to whom.

    Raises:
        StartError: the port is taken or the address is not this host's.
        ConfigError: a file that `config` names cannot be used.
    """

    def __init__(self, look: Look, config: WebConfig) -> None:
        context = shown_context(config)
        # Found by no name: that may take seconds on a plant network.
        self._server = _Server((config.host, config.port), _Handler, bind_and_activate=False)
        self._server.socket.close()
        listener = self._server.socket = listen(config.host, config.port)
        self._server.server_address = listener.getsockname()
        self._server.server_name, self._server.server_port = self._server.server_address[:2]  # type: ignore[assignment]
        self._server.setup_environ()
        self._server.context = context
        try:
            access = Access(config, self.port)
        except Exception:
            self._server.server_close()
            raise
        self._server.set_app(_Application(look, access))
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


class _Application:
    def __init__(self, look: Look, access: Access) -> None:
        self._look = look
        self._access = access
        self._registry = look.registry

    def __call__(  # noqa: PLR0911 - one a kind of answer
        self, environ: WSGIEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        asking = Asking(
            address=environ.get("REMOTE_ADDR", ""),
            hosts=[environ["HTTP_HOST"]] if "HTTP_HOST" in environ else [],
            authorization=environ.get("HTTP_AUTHORIZATION", ""),
        )
        if not self._access.knows_host(asking.hosts):
            return _answer(
                start, "421 Misdirected Request", {"error": "not by that host name: see web.names"}
            )
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            return _answer(start, "405 Method Not Allowed", {"error": "only GET and HEAD"})
        try:
            known = self._access.grant(asking) is not None
        except TooManyError as error:
            wait = ("Retry-After", str(error.wait_s))
            return _answer(start, "429 Too Many Requests", {"error": str(error)}, wait)
        if path in {"/healthz", "/readyz"}:
            return self._health(start, whole=known and path == "/healthz")
        if not known:
            challenge = ("WWW-Authenticate", "Bearer")
            return _answer(start, "401 Unauthorized", {"error": "show the token"}, challenge)
        if path == "/metrics":
            return self._figures(environ, start)
        if path == "/":
            return _answer(start, "200 OK", {"twinloop": ["/healthz", "/readyz", "/metrics"]})
        return _answer(start, "404 Not Found", {"error": f"nothing at {path}"})

    def _figures(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        encode, kind = encoder_of(environ.get("HTTP_ACCEPT", ""))
        body = encode(self._registry)
        start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]

    def _health(self, start: StartResponse, *, whole: bool) -> Iterable[bytes]:
        twin = self._look.twin
        well, words = twin.healthz() if twin is not None else (False, {"status": "starting"})
        shown = words if whole else {"status": words["status"]}
        return _answer(start, "200 OK" if well else "503 Service Unavailable", shown)


def _answer(
    start: StartResponse, status: str, words: dict[str, Any], *more: tuple[str, str]
) -> Iterable[bytes]:
    body = json.dumps(words).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *more]
    start(status, [*headers, ("X-Content-Type-Options", "nosniff")])
    return [body]
