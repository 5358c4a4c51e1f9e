"""A wall clock that can be set while a process runs, by libfaketime; its monotonic clock goes on as it is."""

from __future__ import annotations

from pathlib import Path

from support.services import missing

__all__ = ["HostClock"]


class HostClock:
    """The wall clock of processes that run with `env`; skips the test where libfaketime is not installed.

    Args:
        directory: where the file is kept that says how far the clock is off.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # How often it looks; at every call it would slow a process with two threads down a hundredfold.
            "FAKETIME_CACHE_DURATION": "1",
        }

    def set(self, off_s: int) -> None:
        """Set the clock so far off the true time; whole or not at all, as it is read all the while."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{off_s:+d}s\n")
        aside.replace(self._file)


def _library() -> Path:
    found = next(iter(sorted(Path("/usr/lib").rglob("faketime/libfaketime.so.1"))), None)
    if found is None:
        missing("libfaketime", "install it with `apt install libfaketime`")
    return found
