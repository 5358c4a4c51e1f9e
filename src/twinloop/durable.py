"""Files that are there whole or not at all, whenever the process or the power goes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["place_file", "sync_directory"]


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
