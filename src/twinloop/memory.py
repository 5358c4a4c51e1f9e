"""Native memory given back to the system: what a large seal needed for a second is not kept for days."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import pyarrow as pa

__all__ = ["few_arenas", "give_back"]

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def few_arenas() -> None:
    """Let all threads allocate from few arenas, where the C library is glibc; call it before threads start.

    With one arena a thread, each keeps what its largest moment took.
    """
    if (mallopt := _of_the_c_library("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return to the system what Arrow and the C library hold unused; costs milliseconds."""
    pa.default_memory_pool().release_unused()
    if (trim := _of_the_c_library("malloc_trim")) is not None:
        trim(0)


def _of_the_c_library(name: str) -> Any:
    """A function that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None)
