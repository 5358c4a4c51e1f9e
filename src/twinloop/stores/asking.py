"""A question put to segments and to what is not sealed yet, again until files hold still.

Segments are listed first, then the output log is read after the last sealed offset: each row is in one
of the two. Should the log have been trimmed in between, or a segment merged, the question is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from twinloop.errors import LogError, QueryError
from twinloop.stores.footers import Identity, identity
from twinloop.stores.reading import DamagedSegment
from twinloop.stores.rest import Beyond, Rest
from twinloop.stores.rows import Entry
from twinloop.stores.segments import Listing, Segment, list_segments

__all__ = ["ATTEMPTS", "Asker"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
ATTEMPTS: Final = 5


class Asker:
    """Asks over a store's directory and the outputs not yet sealed; safe to use from many threads.

    Args:
        directory: the store's; it need not exist yet.
        unsealed: the output log's entries after an offset, ascending.
    """

    def __init__(self, directory: Path, unsealed: Callable[[int], Iterable[Entry]]) -> None:
        self._directory = directory
        self._unsealed = unsealed
        self._damaged: set[tuple[Segment, Identity | None]] = set()
        self._rest = Rest(unsealed)

    def ask(self, question: Callable[[Listing, Beyond], _T]) -> _T:
        """The answer over all rows, sealed or not, asked again while trims or merges interfere.

        The question reads what it wants of the segments first: a merge may remove them soon. What follows
        is whole, however many seals happen meanwhile, as long as the log gives it without a gap.
        """
        attempt = 0
        while attempt < ATTEMPTS:
            attempt += 1
            listing = self.listed()
            beyond = Beyond(self._unsealed, listing.covered, self._rest)
            try:
                answer = question(listing, beyond)
                if beyond.has_gap and self._has_moved(listing):
                    continue
            except FileNotFoundError:
                logger.debug("a segment was merged while it was read, asking again")
            except DamagedSegment as damaged:
                attempt -= 1  # there are only so many
                self._damaged.add((damaged.segment, damaged.identity))
                logger.warning("%s; its rows are left out", damaged)
            except LogError:
                if not self._has_moved(listing) or attempt == ATTEMPTS:
                    raise
            else:
                return answer
        raise QueryError(f"{self._directory}: its files change faster than they can be read")

    def listed(self) -> Listing:
        """The segments, without those that are known to be damaged and still the same files."""
        there = tuple(self._damaged)  # another thread may find one meanwhile
        ignored = [each for each, known in there if known is None or known == _identity_of(each)]
        return list_segments(self._directory, ignored)

    def clear(self) -> None:
        """Let go of the memory held."""
        self._rest.clear()

    def _has_moved(self, listing: Listing) -> bool:
        return self.listed().covered != listing.covered


def _identity_of(segment: Segment) -> Identity | None:
    try:
        return identity(segment)
    except OSError:
        return None
