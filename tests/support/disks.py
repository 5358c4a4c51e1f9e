"""A small disk of its own for one directory, that can be filled, emptied and made read-only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.services import missing
from support.twin import eventually

__all__ = ["Disk", "small_disk"]


class Disk:
    """A mounted disk.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave not one byte free."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        """Undo `fill`."""
        self._ballast.unlink()

    def read_only(self) -> None:
        """Refuse every write from now on; waits until no file is open for writing."""
        eventually(lambda: _mount("-o", "remount,ro", str(self.path)), bool)

    def writable(self) -> None:
        """Undo `read_only`."""
        assert _mount("-o", "remount,rw", str(self.path))


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Disk]:
    """A disk of a size (`8m`) mounted on a directory; skips the test where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(path)):
        missing("a small disk", "mounting needs root")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)
