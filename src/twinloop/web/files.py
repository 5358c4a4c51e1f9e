"""The page's own files, from the package, read once: no request looks into a folder.

A call to the system lets go of the interpreter, and beside a busy loop it takes milliseconds to get it back:
what has to be looked up for a page is looked up before anybody asks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from twinloop.web.bundle import bundled

__all__ = ["STATIC", "Files"]

STATIC: Final = Path(__file__).parent / "static"
SCRIPTS: Final = "js/main.js"
"""It and what it imports is served as `app.js`."""
SHEETS: Final = ("vendor/uPlot.min.css", "style.css", "views.css")
"""They are served as `app.css`."""
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file: its bytes, what they are, and a tag that is theirs."""

    body: bytes
    kind: str
    tag: str


class Files:
    """Files of a folder, as they are when this is made: one edited later is served by the next start.

    A browser asks each time and is told that nothing changed.

    Args:
        folder: the folder.

    Raises:
        OSError: one cannot be read.
        ValueError: the scripts cannot be put together.
    """

    def __init__(self, folder: Path = STATIC) -> None:
        bodies = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        bodies["app.js"] = bundled(folder / SCRIPTS)
        bodies["app.css"] = b"\n".join(bodies[name] for name in SHEETS)
        bodies[""] = bodies["index.html"]
        self._files = {name: _file(name or "index.html", body) for name, body in bodies.items()}

    async def serve(self, request: Request) -> Response:
        """The file of a request's path; that of none is `index.html`.

        Raises:
            HTTPException: there is none.
        """
        found = self._files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404, "there is no such page")
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        if found.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type=found.kind)


def _file(name: str, body: bytes) -> _File:
    """A file; its tag is of the content, as the times of files in a wheel say nothing."""
    kind = _TYPES.get(Path(name).suffix, "text/plain; charset=utf-8")
    return _File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
