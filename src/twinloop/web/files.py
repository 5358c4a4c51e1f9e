"""The page's own files, from the package: no other folder is ever looked into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["STATIC", "Files"]

STATIC: Final = Path(__file__).parent / "static"
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
class _Known:
    """A file as it was read: its bytes, and what tells whether it is still the same."""

    stamp: tuple[int, int]
    body: bytes
    tag: str


class Files:
    """Files of a folder, read once and kept; a browser asks each time and is told that nothing changed.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder.resolve()
        self._known: dict[Path, _Known] = {}

    async def serve(self, request: Request) -> Response:
        """The file of a request's path; a folder's is its `index.html`.

        Raises:
            HTTPException: there is none.
        """
        path = self._path(request.path_params["path"])
        if path is None:
            raise HTTPException(404, "there is no such page")
        known = self._read(path)
        headers = {"ETag": known.tag, "Cache-Control": "no-cache"}
        if known.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        kind = _TYPES.get(path.suffix, "text/plain; charset=utf-8")
        return Response(known.body, headers=headers, media_type=kind)

    def _path(self, name: str) -> Path | None:
        try:
            path = (self._folder / (name or "index.html")).resolve()
            return path if path.is_relative_to(self._folder) and path.is_file() else None
        except (OSError, ValueError):  # a name too long, or with a zero byte
            return None

    def _read(self, path: Path) -> _Known:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._known.get(path)
        if known is None or known.stamp != stamp:
            body = path.read_bytes()
            # By content: the times of files in a wheel say nothing.
            known = self._known[path] = _Known(stamp, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        return known
