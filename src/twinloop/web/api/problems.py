"""Errors as RFC 9457 problems: what is wrong and what helps, in words; never how we failed.

400 it can be read and not be answered      404 no such tag, asset or page     405 another method
406 a format nobody has                     413, 415 a body that is not taken   422 it cannot be read
500 a bug of ours                           503 not now: Retry-After says when
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from twinloop.errors import LogError, StoreBusy, TwinloopError
from twinloop.web.problems import MEDIA_TYPE, problem

__all__ = ["MEDIA_TYPE", "Problem", "answered", "problem_of", "unknown"]

_log = logging.getLogger("twinloop.web")

_SHOWN: Final = 120
_LOG_AGAIN_S: Final = 5.0

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Problem(Exception):  # noqa: N818 - an answer as good as any
    """What a request is answered with in place of what it asked for.

    Args:
        status: HTTP's.
        detail: what is wrong and what helps, in words.
        headers: more of them.
        errors: where the request is wrong, each with `where` and `detail`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def response(self) -> Response:
        """The problem, as it goes out."""
        return problem(self.status, self.detail, self.headers, self.errors)


def unknown(what: str, name: str, known: Sequence[str]) -> Problem:
    """That there is no such tag or asset, with the nearest there is."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return Problem(404, f"no {what} {_short(name)}{hint}")


def problem_of(error: Exception) -> Problem:
    """The problem that an error of any kind is to who asked; a bug is logged here and told to nobody."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _unreadable(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, StoreBusy | LogError):
        after_s = error.retry_after_s if isinstance(error, StoreBusy) else _LOG_AGAIN_S
        return Problem(503, str(error), headers={"Retry-After": str(max(1, math.ceil(after_s)))})
    if isinstance(error, TwinloopError):
        return Problem(400, str(error))
    _log.error("web: a request could not be answered: %r", error, exc_info=error)
    return Problem(500, "a bug of twinloop's own: its log has what happened")


async def answered(handler: Handler, request: Request) -> Response:
    """What a handler answers, or the problem that kept it from that."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - whatever it is, who asked gets a problem and no trace
        return problem_of(error).response()


def _unreadable(error: RequestValidationError) -> Problem:
    """What of a request cannot be read, each with its place."""
    errors = []
    for each in error.errors():
        where = ".".join(str(part) for part in each["loc"] if part not in {"query", "path", "body"})
        errors.append({"where": where, "detail": str(each["msg"])})
    detail = "; ".join(f"{each['where']}: {each['detail']}" for each in errors)
    return Problem(422, detail, errors=errors)


def _short(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
