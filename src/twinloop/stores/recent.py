"""What was asked for last is asked for again: a bounded memory of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """The values used last, as many as fit into a number of bytes; safe to use from many threads.

    Args:
        limit: bytes.
        weigh: how many a value takes.
    """

    def __init__(self, limit: int, weigh: Callable[[_Value], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._held = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        """The value, if it is still there."""
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value in place of those not used for longest; one that alone is too large is not kept."""
        weight = self._weigh(value)
        with self._lock:
            if key in self._kept or weight > self._limit:
                return
            self._kept[key] = value
            self._held += weight
            while self._held > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._held -= self._weigh(oldest)

    def drop(self, which: Callable[[_Key], bool]) -> None:
        """Let go of the values of some keys."""
        with self._lock:
            for key in [each for each in self._kept if which(each)]:
                self._held -= self._weigh(self._kept.pop(key))
