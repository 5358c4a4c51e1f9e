"""The router: unknown keys are refused, questions wait for their turn, whatever happens becomes a problem."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, get_args, get_origin

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from twinloop.config.text import nearest
from twinloop.web.api.problems import Problem, answered

__all__ = ["METHODS", "Turns", "add_rest", "guarded_router"]

METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"]


class Turns:
    """Who may ask the store now: so many at once, so many wait, nobody else.

    Python runs one thread at a time, so more at once would answer none sooner, and take the loop's time.

    Args:
        at_once: how many ask.
        waiting: how many wait.
    """

    def __init__(self, at_once: int, waiting: int = 60) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._here = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and have it.

        Raises:
            Problem: 503, there are enough who wait.
        """
        if self._here >= self._most:
            text = f"{self._here} questions wait already: ask again in a moment"
            raise Problem(503, text, headers={"Retry-After": "1"})
        self._here += 1
        try:
            async with self._free:
                yield
        finally:
            self._here -= 1


Hearing = Callable[[Request], AbstractAsyncContextManager[None]]


def guarded_router(turns: Turns, hearing: Hearing = lambda _: nullcontext()) -> APIRouter:
    """An empty router whose routes take turns and answer errors by problems.

    Args:
        turns: whose turn it is.
        hearing: what a request is heard out in, before it waits for its turn.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()
            known = _keys(self.dependant)

            async def within(request: Request) -> Response:
                _check_keys(request, known)
                async with hearing(request), turns.turn():
                    return await inner(request)

            async def guarded(request: Request) -> Response:
                return await answered(within, request)

            return guarded

    return APIRouter(route_class=Guarded)


def _keys(dependant: Dependant) -> dict[str, bool]:
    """The keys of a query string that an endpoint and what it depends on know, and which may be repeated."""
    keys = {each.alias: _is_list(each.field_info.annotation) for each in dependant.query_params}
    for each in dependant.dependencies:
        keys |= _keys(each)
    return keys


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) is list or any(get_origin(each) is list for each in get_args(annotation))


def _check_keys(request: Request, known: Mapping[str, bool]) -> None:
    """Return where every key is known and none stands twice of which only one would count."""
    seen = set[str]()
    for key, _ in request.query_params.multi_items():
        if key not in known:
            hint = nearest(key, list(known)) or (f"; known are {', '.join(known)}" if known else "")
            raise _key_problem(key, f"unknown key {key[:80]!r}{hint}")
        if key in seen and not known[key]:
            raise _key_problem(key, f"{key} is given twice, and this takes one: ask once for each")
        seen.add(key)


def _key_problem(key: str, text: str) -> Problem:
    return Problem(422, text, errors=[{"where": key[:80], "detail": text}])


def add_rest(router: APIRouter, routes: Sequence[BaseRoute]) -> None:
    """After all other routes, that of what is not there, or is there for another method."""

    async def rest(request: Request) -> Response:
        async def refuse(request: Request) -> Response:
            path = f"/{request.path_params['rest']}"
            if allowed := sorted(_methods(routes, path)):
                said = ", ".join(allowed)
                raise Problem(405, f"{path} takes {said} only", headers={"Allow": said})
            raise Problem(404, f"nothing at {path}; see openapi.json for what there is")

        return await answered(refuse, request)

    router.add_api_route("/{rest:path}", rest, methods=METHODS, include_in_schema=False)


def _methods(routes: Sequence[BaseRoute], path: str) -> set[str]:
    """The methods that a path may be asked by."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, APIRoute) and route.matches(_scope(path))[0] is not Match.NONE:
            found |= route.methods or set()
    return found


def _scope(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
