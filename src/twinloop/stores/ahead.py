"""The newest sample of every tag while the store lags behind: live values do not wait for a backlog.

A store that was away catches up in the order of the log, and meanwhile a question about the newest values
would have to read everything it lacks. So they are kept here as outputs come, beside the output log, which
can be written when the store cannot, and are asked from there. Derived data: what is missing is made anew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from twinloop.stores.latest import Latest, latest_path, remove_old
from twinloop.stores.rows import Entry
from twinloop.stores.segments import list_segments
from twinloop.stores.writing import TEMPORARY

__all__ = ["Ahead", "newest_ahead"]

_log = logging.getLogger("twinloop.store")

_NAME: Final = re.compile(r"latest-(\d{16})\.parquet")


def newest_ahead(directory: Path, covered: int) -> tuple[int, Path] | None:
    """The newest state kept in a directory and the offset it covers; None where the store is further."""
    found = [
        # The whole name: one that is being written stands beside it with a longer one.
        (int(match[1]), path)
        for path in directory.glob("latest-*")
        if (match := _NAME.fullmatch(path.name))
    ]
    return max((each for each in found if each[0] > covered), default=None)


class Ahead:
    """Follows the output log's end for a store that does not; one thread at a time.

    Args:
        directory: where its state is kept: the output log's.
        store: the store's directory.
        names: full tag names by index.
    """

    def __init__(self, directory: Path, store: Path, names: Sequence[str]) -> None:
        self._directory = directory
        self._store = store
        self._names = names
        self._latest = Latest(names)
        self._kept: list[Path] = []
        self._failed = False
        for path in directory.glob(f"latest-*{TEMPORARY}"):  # a kill left it
            path.unlink(missing_ok=True)

    def begin(self, covered: int) -> int | None:
        """Take up what is known, from here or from the store; see `Follower.begin`."""
        found = newest_ahead(self._directory, covered - 1)
        try:
            if found is not None:
                self._latest = Latest(self._names)
                self._latest.load(found[1])
                return found[0]
            listing = list_segments(self._store)
            self._latest = Latest.at(self._store, self._names, listing)
        except (OSError, ValueError, pa.ArrowException) as error:
            _log.debug("%s: the newest values cannot be taken up: %s", self._store, error)
            if found is not None:
                found[1].unlink(missing_ok=True)
            return None
        return listing.covered if listing.covered >= covered else None

    def add(self, entries: Sequence[Entry]) -> None:
        """Take up the outputs that follow."""
        self._latest.add(entries)

    def save(self, covered: int) -> None:
        """Keep what is known up to an offset; the state kept before stays for those who read it."""
        path = latest_path(self._directory, covered)
        try:
            self._latest.save(path)
        except OSError as error:
            if not self._failed:
                _log.warning("%s: the newest values cannot be kept: %s", self._directory, error)
            self._failed = True
            return
        self._failed = False
        self._kept = [*self._kept[-1:], path]
        remove_old(self._directory, self._kept)
