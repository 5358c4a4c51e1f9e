"""The HTTP API: everything a running twin knows and has stored (docs/HTTP.md).

Endpoints that are plain functions block, and run on threads, some at once; those that are coroutines do not.
What asks the store takes other turns than what asks the twin: a store that hangs keeps nobody from the rest;
and so does what is sent in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from twinloop.web.api import models
from twinloop.web.api.current import Current
from twinloop.web.api.desk import Desk
from twinloop.web.api.documents import Documents
from twinloop.web.api.history import History
from twinloop.web.api.intake import Intake
from twinloop.web.api.models import BODY, Said, object_of, plain, problems, rows_of
from twinloop.web.api.provenance import Provenance
from twinloop.web.api.routes import Turns, add_rest, guarded_router
from twinloop.web.look import Look

__all__ = ["THREADS", "api_router"]

_STORE, _TWIN, _SENT = 2, 1, 1
"""How many at once ask the store and the twin, and send in."""
THREADS: Final = _STORE + _TWIN + _SENT
"""What a server's pool must have, so that each has its own whatever the others do: a turn takes one."""


def api_router(look: Look) -> APIRouter:
    """The routes of `/api/v1`, without a prefix; every error of theirs is a problem by RFC 9457.

    Args:
        look: the process they are about. It may still be starting: they say so then.
    """
    desk = Desk(look)
    intake = Intake(desk)
    store, twin = guarded_router(Turns(_STORE)), guarded_router(Turns(_TWIN))
    sent = guarded_router(Turns(_SENT), intake.hearing)
    _add_history(store, History(desk))
    _add(store, "/latest", Current(desk).latest, rows_of(models.Sample), 404)
    _add(store, "/provenance", Provenance(desk).provenance, object_of(models.ProvenanceOf), 404)
    _add_current(twin, Current(desk))
    _add(sent, "/samples", intake.samples, object_of(models.Taken, 202), 403, 413, 415, post=True)
    documents = Documents(desk, lambda: [route for each in (twin, store, sent) for route in each.routes])
    _add_documents(twin, documents)
    router = APIRouter()
    for each in (twin, store, sent):
        router.include_router(each)
    add_rest(router, documents.routes())
    return router


def _add_current(router: APIRouter, current: Current) -> None:
    _add(router, "/", current.index, object_of(models.Index))
    _add(router, "/tags", current.tags, rows_of(models.Tag), 404)
    _add(router, "/assets", current.assets, rows_of(models.AssetNow))
    _add(router, "/assets/{asset}", current.asset, object_of(models.Asset), 404)
    _add(router, "/trouble", current.trouble, rows_of(models.Trouble), 404)
    _add(router, "/health", current.health, object_of(models.HealthNow))
    _add(router, "/pipeline", current.pipeline, object_of(models.Pipeline))


def _add_history(router: APIRouter, history: History) -> None:
    _add(router, "/range", history.range, rows_of(models.Sample), 400, 404)
    _add(router, "/fills", history.fills, rows_of(models.Sample), 400, 404)
    windows = rows_of(models.Window, models.AggregateWindow)
    _add(router, "/window", history.window, windows, 400, 404)
    _add(router, "/events", history.events, rows_of(models.Event), 400, 404)
    _add(router, "/snapshots", history.snapshots, rows_of(models.Snapshot), 400, 404)
    _add(router, "/predictions", history.predictions, rows_of(models.PredictionRow), 400, 404)
    _add(router, "/quality", history.quality, rows_of(models.Quality), 400)
    _add(router, "/dead", history.dead, rows_of(models.DeadLetter), 400)
    _add(router, "/dead/summary", history.dead_summary, rows_of(models.DeadCount), 400)


def _add_documents(router: APIRouter, documents: Documents) -> None:
    _add(router, "/plant", documents.plant, plain("text/yaml", {"type": "object"}, "YAML"))
    for path, endpoint in (
        ("/openapi.json", documents.openapi),
        ("/docs", documents.page),
        ("/docs.js", documents.script),
        ("/docs.css", documents.style),
    ):
        router.add_api_route(path, endpoint, include_in_schema=False, response_class=Response)


def _add(
    router: APIRouter, path: str, endpoint: Callable[..., Any], said: Said, *statuses: int, post: bool = False
) -> None:
    """A route and what it may answer."""
    rows = "Link" in said.get(200, {}).get("headers", {})
    more = {422, 503, *statuses, *([406] if rows else [])}
    summary = (endpoint.__doc__ or "").strip().split("\n")[0].rstrip(".")
    router.add_api_route(
        path,
        endpoint,
        methods=["POST" if post else "GET"],
        status_code=202 if post else 200,
        response_class=Response,
        responses={**said, **problems(*sorted(more))},
        summary=summary,
        operation_id=path.strip("/").replace("/", "_").replace("{", "").replace("}", "") or "index",
        openapi_extra=BODY if post else None,
    )
