"""Who is logged in: random names that a browser keeps in a cookie, known here by their hashes."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Sessions"]

_MOST: Final = 1000
_NAME_BYTES: Final = 32


class Sessions:
    """Sessions that end after a while, when told, or with the process; safe from many threads.

    Args:
        lifetime_s: how long one lasts.
        clock: seconds that only go forward.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lifetime_s = lifetime_s
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[bytes, float] = {}

    def begin(self) -> str:
        """A new session's name, not to be guessed; of too many the oldest ends."""
        name = secrets.token_urlsafe(_NAME_BYTES)
        now_s = self._clock()
        with self._lock:
            self._ends = {key: end_s for key, end_s in self._ends.items() if end_s > now_s}
            while len(self._ends) >= _MOST:
                self._ends.pop(next(iter(self._ends)))
            self._ends[_key(name)] = now_s + self.lifetime_s
        return name

    def holds(self, name: str) -> bool:
        """Whether a session has begun and not ended."""
        with self._lock:
            return self._ends.get(_key(name), float("-inf")) > self._clock()

    def end(self, name: str) -> None:
        """End a session; nothing where there is none."""
        with self._lock:
            self._ends.pop(_key(name), None)


def _key(name: str) -> bytes:
    """Looked up by its hash, a name cannot be felt for by how long the look takes."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
