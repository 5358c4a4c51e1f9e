"""The page's own files, from the package: no other folder is ever looked into."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from twinloop.web.bundle import bundled, modules_of

__all__ = ["STATIC", "Files"]

STATIC: Final = Path(__file__).parent / "static"
BUNDLE: Final = "app.js"
ENTRY: Final = "js/main.js"
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
        self._modules: Sequence[Path] | None = None

    async def serve(self, request: Request) -> Response:
        """The file of a request's path; a folder's is its `index.html`.

        Raises:
            HTTPException: there is none.
        """
        name = request.path_params["path"]
        path = self._folder / BUNDLE if name == BUNDLE else self._path(name)
        if path is None:
            raise HTTPException(404, "there is no such page")
        known = self._bundle(path) if name == BUNDLE else self._read(path)
        headers = {"ETag": known.tag, "Cache-Control": "no-cache"}
        if known.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        kind = _TYPES.get(path.suffix, "text/plain; charset=utf-8")
        return Response(known.body, headers=headers, media_type=kind)

    def _bundle(self, path: Path) -> _Known:
        """The page's scripts as one, put together anew when one of them has changed."""
        entry = self._folder / ENTRY
        if self._modules is None or self._stamp() != self._known[path].stamp:
            self._modules = modules_of(entry)
            self._known[path] = _Known(self._stamp(), *_tagged(bundled(entry)))
        return self._known[path]

    def _stamp(self) -> tuple[int, int]:
        stats = [path.stat() for path in self._modules or ()]
        return max(stat.st_mtime_ns for stat in stats), sum(stat.st_size for stat in stats)

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
            known = self._known[path] = _Known(stamp, *_tagged(path.read_bytes()))
        return known


def _tagged(body: bytes) -> tuple[bytes, str]:
    """Bytes and their tag, which is of the content: the times of files in a wheel say nothing."""
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
