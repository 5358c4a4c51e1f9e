"""Everything that is served, put together: pages, API, live socket, health and metrics, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from twinloop.web.access import Access
from twinloop.web.api import THREADS, api_router
from twinloop.web.figures import WebFigures, encoder_of
from twinloop.web.files import Files
from twinloop.web.guard import GRANT, Guard
from twinloop.web.live import Hub, LiveLimits, live_router
from twinloop.web.login import login_routes
from twinloop.web.look import Look
from twinloop.web.problems import problem

__all__ = ["WebOptions", "make_app"]


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What an app is made by, beside what it shows.

    Attributes:
        access: who may look.
        live: how much live sockets are given.
    """

    access: Access
    live: LiveLimits = field(default_factory=LiveLimits)


def make_app(look: Look, options: WebOptions) -> FastAPI:
    """The whole web part; its hub runs for as long as its lifespan.

    Args:
        look: what is shown.
        options: to whom, and how much.
    """
    figures = WebFigures(look.registry)
    hub = Hub(look, figures, has_login=options.access.has_login, limits=options.live)
    app = FastAPI(
        title=f"twinloop: {look.config.plant}",
        version=version("twinloop"),
        openapi_url=None,  # the API describes itself
        docs_url=None,
        redoc_url=None,
        lifespan=_running(hub),
    )
    app.add_middleware(Guard, access=options.access, figures=figures)
    app.add_exception_handler(HTTPException, _in_words)
    app.include_router(api_router(look), prefix="/api/v1")
    app.include_router(live_router(hub, look))
    health = _Health(look)
    app.add_route("/healthz", health.healthz, include_in_schema=False)
    app.add_route("/readyz", health.readyz, include_in_schema=False)
    app.add_route("/metrics", health.metrics, include_in_schema=False)
    app.router.routes.extend(login_routes(options.access))
    app.add_route("/{path:path}", Files().serve, include_in_schema=False)
    return app


def _running(hub: Hub) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Who asks much waits; the twin's loop shares the interpreter with those that answer. All who may ask
        # at once have a thread, so that none of them waits for another's.
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        task = asyncio.create_task(hub.run(), name="hub")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan


async def _in_words(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, HTTPException):
        raise error
    return problem(error.status_code, str(error.detail), error.headers)


class _Health:
    """What orchestrators and Prometheus ask for."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._one_at_a_time = CapacityLimiter(1)

    def _state(self) -> tuple[bool, dict[str, Any]]:
        twin = self._look.twin
        return twin.healthz() if twin is not None else (False, {"status": "starting"})

    async def healthz(self, request: Request) -> Response:
        """Whether the loop turns; who is not logged in learns no more than that."""
        well, words = self._state()
        shown = words if request.scope[GRANT] is not None else {"status": words["status"]}
        return JSONResponse(shown, 200 if well else 503)

    async def readyz(self, request: Request) -> Response:
        """Whether it is worth asking anything."""
        del request
        well, words = self._state()
        headers = None if well else {"Retry-After": "1"}
        return JSONResponse({"status": "ready" if well else words["status"]}, 200 if well else 503, headers)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        encode, kind = encoder_of(request.headers.get("accept", ""))
        # Not of the API's threads: the figures are wanted most when those hang.
        body = await to_thread.run_sync(encode, self._look.registry, limiter=self._one_at_a_time)
        return Response(body, headers={"Content-Type": kind})
