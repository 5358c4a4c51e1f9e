"""What stands before every request: host, origin, login, size; and the headers every answer has."""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twinloop.web.access import Access, Asking, Grant, TooManyError
from twinloop.web.figures import WebFigures
from twinloop.web.problems import problem
from twinloop.web.sending import MOST_UNSENT, PIECE, Room, hang_up_of, send_in_pieces

__all__ = ["GRANT", "Guard", "asking_of"]

_log = logging.getLogger("twinloop.web")

GRANT: Final = "twinloop.grant"
"""Where a request's scope has its `Grant`; None on a page that needs none and was asked for without."""

LONGEST_HEADERS: Final = 32 << 10
LARGEST_BODY: Final = 8 << 20
LARGEST_FORM: Final = 16 << 10
BODY_WITHIN_S: Final = 30.0
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN: Final = frozenset({"/healthz", "/readyz", "/login", "/logout", "/login.css"})
_FORMS: Final = frozenset({"/login", "/logout"})
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class _RefusedError(Exception):
    """A request ends here, with an answer."""

    def __init__(self, why: str, response: Response) -> None:
        super().__init__(why)
        self.why = why
        self.response = response


class Guard:
    """Lets through who may look and answers all others; nothing of a request but its path reaches a log.

    Args:
        app: what it stands before.
        access: the rules.
        figures: where refusals are counted.
    """

    def __init__(self, app: ASGIApp, access: Access, figures: WebFigures) -> None:
        self._app = app
        self._access = access
        self._figures = figures
        self._unsent = Room(MOST_UNSENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one live socket."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        answering = _Answering(send, receive, scope, self._unsent)
        try:
            self._admit(scope)
            heard = _Heard(receive, scope) if scope["type"] == "http" else receive
            await self._app(scope, heard, answering)
            if answering.had_no_room:
                self._figures.refused.labels("slow").inc()
        except _RefusedError as refused:
            self._figures.refused.labels(refused.why).inc()
            _log.debug("web: %s refused: %s", _short(scope["path"]), refused.why)
            await _give(refused.response, scope, receive, answering)
        except Exception:  # noqa: BLE001 - a mistake in one answer must not end the others
            _log.exception("web: %s failed", _short(scope["path"]))
            if not answering.begun:
                response = problem(500, "this is a mistake in twinloop; its log says more")
                await _give(response, scope, receive, answering)

    def _admit(self, scope: Scope) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size + len(scope["query_string"]) + len(scope["path"]) > LONGEST_HEADERS:
            raise _RefusedError("size", problem(431, f"headers have {LONGEST_HEADERS} bytes at most"))
        asking = asking_of(scope)
        if not self._access.knows_host(asking.hosts):
            text = (
                "this server does not answer to that host name; `web: {names: [...]}` in the plant file can"
            )
            raise _RefusedError("host", problem(421, text))
        acts = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if acts and not self._access.knows_origin(asking):
            raise _RefusedError("origin", problem(403, "pages of other servers may not do this"))
        scope[GRANT] = self._grant(scope, asking)
        if scope["type"] == "http":
            _check_size(scope)

    def _grant(self, scope: Scope, asking: Asking) -> Grant | None:
        is_open = scope["path"] in _OPEN
        try:
            grant = self._access.grant(asking)
        except TooManyError as error:
            if is_open:
                return None
            headers = {"Retry-After": str(error.wait_s)}
            raise _RefusedError("rate", problem(429, str(error), headers)) from None
        if grant is None and not is_open:
            raise _RefusedError("login", _login_first(scope))
        return grant


def asking_of(scope: Scope) -> Asking:
    """What of a request says who asks."""
    headers = Headers(scope=scope)
    client = scope.get("client")
    return Asking(
        address=client[0] if client else "",
        hosts=headers.getlist("host"),
        origin=headers.get("origin", ""),
        site=headers.get("sec-fetch-site", ""),
        authorization=headers.get("authorization", ""),
        cookie="; ".join(headers.getlist("cookie")),
    )


def _login_first(scope: Scope) -> Response:
    """The login page for a person with a browser, else 401."""
    if scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        path = scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)
    return problem(401, "log in first, or show the token", {"WWW-Authenticate": "Bearer"})


def _check_size(scope: Scope) -> None:
    length = Headers(scope=scope).get("content-length", "")
    if length.isdigit() and int(length[:20]) > _largest(scope):
        raise _RefusedError("size", problem(413, f"a request has {_largest(scope)} bytes at most"))


def _largest(scope: Scope) -> int:
    return LARGEST_FORM if scope["path"] in _FORMS else LARGEST_BODY


class _Heard:
    """A request's body, of bounded size and in bounded time."""

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self._receive = receive
        self._left = self._most = _largest(scope)
        self._is_whole = False
        self._until_s: float | None = None

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self._until_s is None:  # nobody is late while nobody listens
            self._until_s = asyncio.get_running_loop().time() + BODY_WITHIN_S
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the request did not come to its end in time") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, f"a request has {self._most} bytes at most")
        self._is_whole = not message.get("more_body", False)
        return message


class _Answering:
    """Sends an answer with the headers that every answer has, where there is room for what waits."""

    def __init__(self, send: Send, receive: Receive, scope: Scope, unsent: Room) -> None:
        self._send = send
        self._receive = receive
        self._hang_up = hang_up_of(scope.get("state", {}))
        self._unsent = unsent
        self._start: Message | None = None
        self.begun = False
        self.had_no_room = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        if message["type"] == "http.response.start":
            self._start = message  # it waits for the body: whether there is room for that is told by then
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            self.begun = True
            await self._send(message)

    async def _body(self, message: Message) -> None:
        if self.had_no_room:
            return
        body: bytes = message.get("body", b"")
        counted = len(body) if len(body) > PIECE else 0
        if not self._unsent.take(counted):
            await self._no_room()
            return
        try:
            await self._begin()
            await send_in_pieces(
                body,
                more=message.get("more_body", False),
                send=self._send,
                receive=self._receive,
                hang_up=self._hang_up,
            )
        finally:
            self._unsent.give_back(counted)

    async def _begin(self) -> None:
        if self._start is not None:
            self.begun, start, self._start = True, self._start, None
            await self._send(start)

    async def _no_room(self) -> None:
        """Others take their answers too slowly for another long one to wait here."""
        if self.begun:
            raise MemoryError("no room for the rest of an answer")
        text = "too much waits for others who take it slowly: ask again in a moment, or for less"
        instead = problem(503, text, {"Retry-After": "5"})
        await self({"type": "http.response.start", "status": 503, "headers": instead.raw_headers})
        await self({"type": "http.response.body", "body": bytes(instead.body)})
        self.had_no_room = True


async def _give(response: Response, scope: Scope, receive: Receive, send: _Answering) -> None:
    """Answer in the app's place: also to who asks for a socket."""
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    if "websocket.http.response" in scope.get("extensions", {}):
        start = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": bytes(response.body)})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _short(path: str) -> str:
    return repr(path[:200])
