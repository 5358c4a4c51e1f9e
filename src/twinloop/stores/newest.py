"""The newest rows of all tags, followed between questions: from the segments, then output by output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from twinloop.errors import LogError
from twinloop.stores.ahead import newest_ahead
from twinloop.stores.asking import ATTEMPTS, Asker
from twinloop.stores.latest import Latest
from twinloop.stores.reading import Unsealed
from twinloop.stores.rest import Beyond
from twinloop.stores.rows import Entry
from twinloop.stores.segments import Listing

__all__ = ["Newest"]


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest rows, of all outputs up to an offset, and what the store covered then."""

    upto: int
    covered: int
    latest: Latest


class Newest:
    """The newest rows, brought up to date by each question; safe to use from many threads.

    Args:
        asker: asks the store.
        directory: the store's.
        names: full tag names by index.
        unsealed: the output log's entries after an offset, ascending.
        ahead: where the newest values are kept while the store lags; None for nowhere.
    """

    def __init__(
        self,
        asker: Asker,
        directory: Path,
        names: Sequence[str],
        unsealed: Callable[[int], Iterable[Entry]],
        ahead: Path | None,
    ) -> None:
        self._asker = asker
        self._directory = directory
        self._names = names
        self._unsealed = unsealed
        self._ahead = ahead
        self._lock = threading.Lock()
        self._known: _Known | None = None

    def rows(self) -> pa.Table:
        """As `Latest.rows`: the same table until there is something new."""
        with self._lock:
            return self._brought_up().rows()

    def received(self) -> pa.Table:
        """As `Latest.received`."""
        with self._lock:
            return self._brought_up().received()

    def clear(self) -> None:
        """Let go of the memory held."""
        self._known = None

    def _brought_up(self) -> Latest:
        self._known = self._followed() or self._ahead_of_store() or self._asker.ask(self._begun)
        return self._known.latest

    def _followed(self) -> _Known | None:
        """What was known before, brought up to date; None where the log no longer leads there."""
        known, self._known = self._known, None  # half brought up to date it is of no use
        if known is None:
            return None
        unsealed = Unsealed(self._unsealed, known.upto)
        upto = known.upto
        try:
            for entries in unsealed.portions():
                known.latest.add(entries)
                upto = entries[-1][0]
        except LogError:
            return None
        covered = self._asker.listed().covered
        whole = covered <= upto if upto == known.upto else not unsealed.has_gap
        return _Known(upto, covered, known.latest) if whole and covered >= known.covered else None

    def _begun(self, listing: Listing, beyond: Beyond) -> _Known:
        """The newest rows of the segments and of what is not sealed."""
        latest, upto = Latest.at(self._directory, self._names, listing, self._asker.listed), listing.covered
        for entries in beyond.portions():
            latest.add(entries)
            upto = entries[-1][0]
        return _Known(upto, listing.covered, latest)

    def _ahead_of_store(self) -> _Known | None:
        """The newest rows from what is kept while the store lags; None where nothing is, or nothing newer."""
        if self._ahead is None:
            return None
        for _ in range(ATTEMPTS):
            covered = self._asker.listed().covered
            found = newest_ahead(self._ahead, covered)
            if found is None:
                return None
            latest, upto = Latest(self._names), found[0]
            unsealed = Unsealed(self._unsealed, upto)
            try:
                latest.load(found[1])
                for entries in unsealed.portions():
                    latest.add(entries)
                    upto = entries[-1][0]
            except (OSError, ValueError, pa.ArrowException, LogError):
                continue  # a newer one took its place
            covered = self._asker.listed().covered
            if covered <= found[0]:
                return _Known(upto, covered, latest)
        return None
