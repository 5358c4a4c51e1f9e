"""What serves: the pages where the `web` extra is installed, else health and metrics alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from twinloop.config.web import WebConfig
from twinloop.web.look import Look
from twinloop.web.probe import Probe

if TYPE_CHECKING:
    from twinloop.web.server import WebServer

__all__ = ["served"]

_log = logging.getLogger("twinloop.web")

_NEEDED: Final = ("fastapi", "uvicorn", "websockets")


@contextmanager
def served(look: Look, config: WebConfig) -> Iterator[None]:
    """Serve what there is to see for as long as the context is open.

    Raises:
        StartError: the port is taken or the address is not this host's.
        ConfigError: a file that `config` names cannot be used.
    """
    with closing(_server(look, config)) as server:
        host = f"[{config.host}]" if ":" in config.host.strip("[]") else config.host
        scheme = "https" if config.tls else "http"
        url = f"{scheme}://{host}:{server.port}"
        pages = "" if isinstance(server, Probe) else f"; the pages are at {url}/"
        _log.info("web: %s/healthz and /metrics%s", url, pages)
        yield


def _server(look: Look, config: WebConfig) -> WebServer | Probe:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        _log.info(
            "web: without %s only /healthz and /metrics are served; pages and API need the extra `web`: "
            "pip install 'twinloop[web]'",
            " and ".join(missing),
        )
        return Probe(look, config)
    from twinloop.web.server import WebServer

    return WebServer(look, config)
