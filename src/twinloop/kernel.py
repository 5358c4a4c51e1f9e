"""Compiled per-sample loops: the one place that knows which compiler.

A kernel walks records in order, so its result cannot depend on how many records it was given at once,
and a tag may come twice in a batch at irregular times. `fastmath` stays off: bit for bit matters more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba
import numba.core.caching
import numpy as np
from numba.core.dispatcher import Dispatcher

__all__ = ["kernel"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_log = logging.getLogger("twinloop.start")

_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}
_caching: Any = numba.core.caching


def kernel(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A compiled form of a loop over arrays, cached on disk between runs.

    The cache notices a change in the function's own file, in the files of the kernels which that imports by
    name, of those which these import and so on, and in the constants all of them import. Where no directory
    can be written (neither beside the file nor in the user's cache) or what is there cannot be read, it is
    compiled at each start instead.
    """
    compiled = numba.njit(**_OPTIONS)(function)
    with contextlib.suppress(RuntimeError, OSError):  # nowhere to write
        compiled._cache = _Cache(function)  # noqa: SLF001 - what `njit(cache=True)` does, with our own
    return cast("Callable[_P, _R]", compiled)


class _Files(_caching.CompileResultCacheImpl):  # type: ignore[misc]
    """Names the files by what was compiled.

    numba writes its index before the code it points to, under a number that repeats: a second process (or
    a start after a kill in between) could take old code for new.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._made_from = _made_from(function)
        super().__init__(function)

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}-{self._made_from}"


class _Cache(_caching.FunctionCache):  # type: ignore[misc]
    """A cache whose files cannot stop the program: torn by a power cut, on a full disk, not ours."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 - a torn pickle may raise anything
            with contextlib.suppress(OSError):
                self.flush()
        if found is None:
            _tell_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@functools.cache
def _tell_once() -> None:
    """Say why nothing happens for a while."""
    _log.info("compiling for this machine, once: that takes 10 to 20 s")


def _made_from(function: Callable[..., Any]) -> str:
    """A print of what goes into the code: options, source files, numbers it freezes. Raises OSError."""
    frozen = (int, float, np.dtype)
    parts: dict[str, tuple[list[tuple[str, str]], bytes]] = {}
    waiting = [function]
    while waiting:
        each = waiting.pop()
        path = each.__code__.co_filename
        if path in parts:
            continue
        names = sorted(each.__globals__.items())
        constants = [(name, repr(value)) for name, value in names if isinstance(value, frozen)]
        parts[path] = (constants, Path(path).read_bytes())
        waiting += [value.py_func for _, value in names if isinstance(value, Dispatcher)]
    made_from = [part for _, part in sorted(parts.items())]
    return hashlib.sha256(repr((_OPTIONS, made_from)).encode()).hexdigest()[:16]
