"""The page that asks for a name and a password, and what it is sent to."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from twinloop.web.access import Access, TooManyError
from twinloop.web.guard import asking_of

__all__ = ["login_routes"]

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in to twinloop</title>
<link rel="stylesheet" href="/login.css">
</head>
<body>
<main>
<h1>Log in to twinloop</h1>
{said}<form method="post" action="/login">
<input type="hidden" name="next" value="{next}">
{fields}<button type="submit">Log in</button>
</form>
</main>
</body>
</html>
"""
_NAME: Final = """\
<label for="username">User name</label>
<input id="username" name="username" autocomplete="username" autocapitalize="none" required autofocus>
"""
_ENTRY: Final = """\
<label for="password">{label}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
"""


def login_routes(access: Access) -> list[Route]:
    """`/login` and `/logout`; a stranger does not learn there whose twin it is."""
    login = _Login(access)
    return [
        Route("/login", login.show, methods=["GET"]),
        Route("/login", login.enter, methods=["POST"]),
        Route("/logout", login.leave, methods=["POST"]),
    ]


class _Login:
    def __init__(self, access: Access) -> None:
        self._access = access
        self._one_at_a_time = CapacityLimiter(1)

    async def show(self, request: Request) -> Response:
        following = _within(request.query_params.get("next", "/"))
        asking = asking_of(request.scope)
        if not self._access.has_login or self._access.sessions.holds(self._access.session_of(asking.cookie)):
            return RedirectResponse(following, 303)
        return self._page(200, following)

    async def enter(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        username, password, following = (form.get(key, [""])[0] for key in ("username", "password", "next"))
        following = _within(following)
        address = asking_of(request.scope).address
        try:
            session = await to_thread.run_sync(
                self._access.log_in, username, password, address, limiter=self._one_at_a_time
            )
        except TooManyError as error:
            return self._page(429, following, f"Too many logins failed: wait {error.wait_s} s.", error.wait_s)
        if not session:
            what = "User name or password is wrong." if self._access.has_password else "The token is wrong."
            return self._page(401, following, what)
        response = RedirectResponse(following, 303)
        self._set_cookie(response, session, round(self._access.sessions.lifetime_s))
        return response

    async def leave(self, request: Request) -> Response:
        self._access.sessions.end(self._access.session_of(asking_of(request.scope).cookie))
        response = RedirectResponse("/login", 303)
        self._set_cookie(response, "", 0)
        return response

    def _set_cookie(self, response: Response, session: str, lifetime_s: int) -> None:
        response.set_cookie(
            self._access.cookie_name,
            session,
            max_age=lifetime_s,
            httponly=True,
            samesite="lax",  # a link in a mail leads in; nothing acts by GET
            secure=self._access.has_tls,
        )

    def _page(self, status: int, following: str, said: str = "", wait_s: int = 0) -> Response:
        label = "Password" if self._access.has_password else "Token"
        page = _PAGE.format(
            said=f'<p role="alert">{escape(said)}</p>\n' if said else "",
            next=escape(following),
            fields=(_NAME if self._access.has_password else "") + _ENTRY.format(label=label),
        )
        return HTMLResponse(page, status, headers={"Retry-After": str(wait_s)} if wait_s else None)


def _within(path: str) -> str:
    """A path of this server: nobody is led elsewhere by a link to the login.

    >>> _within("/tags?search=a"), _within("//evil.example"), _within("https://evil.example")
    ('/tags?search=a', '/', '/')
    """
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith(("//", "/login")) else "/"
