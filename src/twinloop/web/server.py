"""The HTTP server, on a thread and an event loop of its own: it answers whatever the twin's loop does."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Transport
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from twinloop.config.web import WebConfig, WebTlsConfig
from twinloop.errors import ConfigError
from twinloop.tls import renew
from twinloop.web.access import Access
from twinloop.web.listening import listen, shown_context
from twinloop.web.look import Look

if TYPE_CHECKING:
    from twinloop.web.live import LiveLimits

__all__ = ["WebServer"]

_log = logging.getLogger("twinloop.web")

LEAVE_WITHIN_S: Final = 0.5
RENEW_EVERY_S: Final = 60.0
KEEP_ALIVE_S: Final = 15
HANDSHAKE_WITHIN_S: Final = 15.0
_HEADER_BYTES: Final = 32 << 10
_MESSAGE_BYTES: Final = 4 << 10
_PING_EVERY_S: Final = 20.0
_PONG_WITHIN_S: Final = 40.0


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose servers wait for a TLS handshake no longer than for a request: else a minute."""

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """As every loop's."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = HANDSHAKE_WITHIN_S
        return await super().create_server(*args, **options)


class WebServer:
    """Serves a `Look`; the port is taken when this returns, and what asks before all is ready waits.

    Args:
        look: what is shown.
        config: where and to whom.
        live: how much live sockets are given; the usual by default.

    Raises:
        StartError: the port is taken or the address is not this host's.
        ConfigError: a file that `config` names cannot be used.
    """

    def __init__(self, look: Look, config: WebConfig, live: LiveLimits | None = None) -> None:
        self._look = look
        self._live = live
        self._tls = config.tls
        self._context = shown_context(config)
        self._socket = listen(config.host, config.port)
        self.port = int(self._socket.getsockname()[1])
        self._access = self._access_of(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = False
        self._transports: WeakSet[Transport] = WeakSet()
        self._thread = Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def _access_of(self, config: WebConfig) -> Access:
        try:
            return Access(config, self.port)
        except ConfigError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Stop: within a second all connections are closed."""
        self._leaving = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(self._leave)
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(self._serve())
        except (Exception, SystemExit):  # noqa: BLE001 - the twin must not end with its pages
            _log.exception("web: the server has failed; the twin goes on without it")
        finally:
            self._socket.close()  # who asks is refused, and does not wait for nobody

    async def _serve(self) -> None:
        from uvicorn import Config, Server  # taking the port does not wait for these

        from twinloop.web.app import WebOptions, make_app
        from twinloop.web.live import LiveLimits
        from twinloop.web.patient import REQUEST_WITHIN_S, patient_with

        app = make_app(self._look, WebOptions(self._access, self._live or LiveLimits()))
        config = Config(
            app,
            http=patient_with(self._transports, REQUEST_WITHIN_S),
            ws="websockets-sansio",
            ws_max_size=_MESSAGE_BYTES,
            ws_ping_interval=_PING_EVERY_S,
            ws_ping_timeout=_PONG_WITHIN_S,
            ws_per_message_deflate=False,
            lifespan="on",
            log_config=None,
            log_level="info",  # below that, libraries would log headers, and with them secrets
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        config.load()
        config.ssl = self._context
        self._server = Server(config)
        self._loop = asyncio.get_running_loop()
        if self._leaving:
            return
        renewing = asyncio.create_task(self._renew(), name="certificates")
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            renewing.cancel()

    def _leave(self) -> None:
        self._server.should_exit = True
        asyncio.get_running_loop().call_later(LEAVE_WITHIN_S, self._hang_up)

    def _hang_up(self) -> None:
        """End what has not ended by itself: peers that take nothing, answers under way."""
        for transport in list(self._transports):
            transport.abort()

    async def _renew(self) -> None:
        """Show a renewed certificate without a restart."""
        if self._tls is None or self._context is None:
            return
        before = _stamp(self._tls)
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            stamp = _stamp(self._tls)
            if stamp == before:
                continue
            before = stamp
            try:
                renew(self._context, self._tls.cert, self._tls.key)
                _log.info("web: the certificate was renewed")
            except ConfigError as error:
                _log.warning("web.%s; the one before is shown until they can be used", error)


def _stamp(tls: WebTlsConfig) -> list[int]:
    found = []
    for path in (tls.cert, tls.key):
        with suppress(OSError):
            found.append(path.stat().st_mtime_ns)
    return found
