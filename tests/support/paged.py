"""A part of the fold whose state is pages, and folds made of it, for tests of what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from test_fold import new_fold
from twinloop.loop.fold import Fold
from twinloop.pages import PAGE_SHIFT, Pages

__all__ = ["Ring", "paged_fold", "ring_of"]

SLOTS: Final = 16


class Ring:
    """The last numbers of each of some rows, and how many were noted; a `Paged` part.

    Where it had another number of rows, what it takes up lies elsewhere than before.
    """

    def __init__(self, rows: int = 300) -> None:
        self._ring = Pages("<f8", (rows, SLOTS))
        self._head = Pages("<i8", rows)
        self._count = 0

    @property
    def pages(self) -> Mapping[str, Pages]:
        return {"ring": self._ring, "head": self._head}

    def note(self, row: int, number: float) -> None:
        slot = int(self._head.array[row]) % SLOTS
        self._ring.array[row, slot] = number
        self._head.array[row] += 1
        self._ring.dirty[8 * (row * SLOTS + slot) >> PAGE_SHIFT] = 1
        self._head.dirty[8 * row >> PAGE_SHIFT] = 1
        self._count += 1

    def small(self) -> bytes:
        return b"%d %d" % (len(self._head.array), self._count)

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        rows, count = (int(word) for word in small.split())
        self._count = count
        if rows == len(self._head.array):
            self._ring.fill(arrays["ring"])
            self._head.fill(arrays["head"])
            return
        kept = min(rows, len(self._head.array))
        self._ring.array[:kept] = np.frombuffer(arrays["ring"], "<f8").reshape(-1, SLOTS)[:kept]
        self._head.array[:kept] = np.frombuffer(arrays["head"], "<i8")[:kept]
        for pages in self.pages.values():
            pages.soil()


def paged_fold(rows: int = 300) -> Fold:
    """A fold that has a `Ring` for its only state."""
    fold = new_fold()
    fold._parts = {"ring": Ring(rows)}
    return fold


def ring_of(fold: Fold) -> Ring:
    """The ring of a `paged_fold`."""
    part = fold._parts["ring"]
    assert isinstance(part, Ring)
    return part
