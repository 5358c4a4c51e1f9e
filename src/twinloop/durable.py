"""Files that are there whole or not at all, whenever the process or the power goes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["place_file", "placed", "sync_directory"]


def sync_directory(path: Path) -> None:
    """Return when a directory's names, or a file that is open nowhere else, survive a power cut.

    Raises:
        OSError: the disk would not take it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place_file(path: Path, content: bytes) -> None:
    """Write a file aside, make it durable and rename it into place.

    Raises:
        OSError: the disk would not take it; what was in the place before is still there.
    """
    aside = path.with_name(f"{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Where to write a file aside; it is made durable and renamed into place when all was written.

    The name aside is no other's: of two who write one file at a time, each writes its own, whole, and the
    last to be done stays. Where the writing fails it is gone.

    Raises:
        OSError: the disk would not take it; what was in the place before is still there.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield aside
        sync_directory(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    with suppress(OSError):  # it is whole and in place; some network and foreign disks sync no directory
        sync_directory(path.parent)
