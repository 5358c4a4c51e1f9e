"""What says what there is: the OpenAPI document, a page that shows it, and the plant file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from twinloop.web.api.answering import as_object
from twinloop.web.api.desk import Desk
from twinloop.web.api.models import components
from twinloop.web.api.plantfile import hidden
from twinloop.web.api.problems import Problem

__all__ = ["Documents"]

_log = logging.getLogger("twinloop.web")

_ABOUT = """Everything a running twin knows and has stored, in the words of `twinloop query`.

Rows come as JSON, CSV or an Arrow stream, as `Accept` or `format` asks for. A page has `limit` rows at most;
where there are more, a `Link` header leads to the next. Times are ISO 8601 or relative to now (`-1h`), and in
answers end in `Z`. Errors are `application/problem+json` (RFC 9457)."""


class Documents:
    """Endpoints that need no twin.

    Args:
        desk: whose process it is.
        routes: gives what the OpenAPI document is about.
    """

    def __init__(self, desk: Desk, routes: Callable[[], Sequence[BaseRoute]]) -> None:
        self._desk = desk
        self.routes = routes
        self._made: dict[str, Any] | None = None
        self._plant = _plant_text(desk)

    async def openapi(self, request: Request) -> Response:
        """This description, as OpenAPI 3.1."""
        if self._made is None:
            self._made = get_openapi(
                title="twinloop", version=version("twinloop"), description=_ABOUT, routes=self.routes()
            )
            self._made["components"] = {"schemas": components()}
        server = request.url.path.removesuffix("/openapi.json")
        return as_object({**self._made, "servers": [{"url": server}]})

    async def plant(self) -> Response:
        """The plant file this twin was started with, with every secret hidden."""
        if self._plant is None:
            raise Problem(503, "the plant file cannot be read, so nobody knows what in it is secret")
        return Response(self._plant.encode(), 200, {"Cache-Control": "no-store"}, "text/yaml")

    async def page(self) -> Response:
        """A page that shows the OpenAPI document and tries it out."""
        return _static("docs.html", "text/html")

    async def script(self) -> Response:
        """The page's own code."""
        return _static("docs.js", "text/javascript")

    async def style(self) -> Response:
        """How the page looks."""
        return _static("docs.css", "text/css")


def _plant_text(desk: Desk) -> str | None:
    """As the twin was started with: the file may be another one later."""
    try:
        return hidden(desk.look.path.read_bytes())
    except (OSError, ValueError) as error:
        _log.warning("web: the plant file cannot be shown: %s", error)
        return None


def _static(name: str, media: str) -> Response:
    data = (files("twinloop.web") / "static" / name).read_bytes()
    return Response(data, 200, {"Cache-Control": "no-cache"}, media)
