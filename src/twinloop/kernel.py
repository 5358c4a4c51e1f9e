"""Compiled per-sample loops: the one place that knows which compiler.

A kernel walks records in order, so its result cannot depend on how many records it was given at once,
and a tag may come twice in a batch at irregular times. `fastmath` stays off: bit for bit matters more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

__all__ = ["kernel"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def kernel(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A compiled form of a loop over arrays, cached on disk between runs.

    The cache notices a change in the function's own file only: keep what a kernel calls beside it.
    """
    return cast("Callable[_P, _R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
