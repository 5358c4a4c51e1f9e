"""What goes to stderr: one line a message, as text or JSON; libraries only when asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, TextIO

__all__ = ["configure"]

_LIBRARIES: Final = ("asyncio", "asyncua", "mqttium", "numba")


class _Text(logging.Formatter):
    """`2026-11-23T06:25:29.123Z warning field: ...`, one line whatever the message holds."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().replace("\n", "\n    ")
        line = f"{_stamp(record)} {record.levelname.lower():<7} {message}"
        if record.exc_info and self._tracebacks:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry, ensure_ascii=False)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at the time: a live screen puts itself in its place."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _stamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def configure(style: str, *, debug: bool = False) -> None:
    """Send twinloop's messages to stderr; a library's only with `debug`.

    Args:
        style: `text` or `json`.
        debug: show debug messages, the libraries' own and tracebacks.
    """
    handler = _Stderr()
    handler.setFormatter(_Json() if style == "json" else _Text(tracebacks=debug))
    ours = logging.getLogger("twinloop")
    ours.handlers = [handler]
    ours.propagate = False
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [handler] if debug else [logging.NullHandler()]
        library.propagate = False
    root = logging.getLogger()
    root.handlers = [handler] if debug else [logging.NullHandler()]
