"""The names in a directory, asked for again and again: one that has not changed is not read again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

__all__ = ["names_in"]

_READINGS: Final = 50
_SETTLED_NS: Final = 1_000_000_000

_seen: dict[Path, tuple[int, frozenset[str]]] = {}
"""Of each directory when it had changed last, and the names in it."""


def names_in(directory: Path) -> frozenset[str]:
    """The names as they stood together at one moment, also while another process makes and removes some.

    Reading a directory is not atomic: a file renamed into it meanwhile may or may not be seen. Two equal
    readings in a row are: whatever stood there between them was seen. One that does not exist has no names.
    As long as there is no change the very same set is given, so it may be compared by identity.
    """
    changed = _changed(directory)
    known = _seen.get(directory)
    if known is not None and known[0] == changed:
        return known[1]
    names = _names(directory)
    for _ in range(_READINGS):
        again = _names(directory)
        if names == again:
            break
        names = again
    # Times of a file system come in steps: a change just after the last one might have the same.
    if changed == _changed(directory) and time.time_ns() - changed > _SETTLED_NS:
        _seen[directory] = changed, names
    return names


def _changed(directory: Path) -> int:
    try:
        return os.stat(directory).st_mtime_ns  # noqa: PTH116 - takes a tenth of the time
    except FileNotFoundError:
        return -1


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))  # noqa: PTH208 - names only, no Path for each
    except FileNotFoundError:
        return frozenset()
