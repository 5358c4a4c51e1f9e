"""Memory of a process that runs for months: little is kept, and little is looked at again."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

__all__ = ["few_arenas", "give_back", "settled"]

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_LARGE_BYTES: Final = 256 << 10


@contextmanager
def settled() -> Iterator[None]:
    """Within it the garbage collector does not look again at what was there on entering.

    After the start of a twin these are a quarter of a million objects, most of libraries, and a look at all
    of them stops every thread for a fraction of a second, again and again.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def few_arenas() -> None:
    """Let all threads allocate from few arenas, where the C library is glibc; call it before threads start.

    With one arena a thread, each keeps what its largest moment took. Large blocks have pages of their own,
    whatever glibc would learn from those freed before, and Arrow's come from the C library, too: freed, they
    are the system's again, and between small ones they would leave holes that nothing fits.
    """
    if (mallopt := _of_the_c_library("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Return to the system what Arrow and the C library hold unused; costs milliseconds."""
    pa.default_memory_pool().release_unused()
    if (trim := _of_the_c_library("malloc_trim")) is not None:
        trim(0)


def _of_the_c_library(name: str) -> Any:
    """A function that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None)
