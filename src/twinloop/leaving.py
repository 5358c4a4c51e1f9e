"""Leaving before anything has begun."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["left_at_once"]


@contextmanager
def left_at_once() -> Iterator[None]:
    """SIGINT and SIGTERM end the program with exit code 0 while the context is open.

    For what takes long before anything has been received, and lets no event loop hear of a signal: imports,
    compiling. Outside the main thread, which alone hears signals, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
