"""Outputs that no segment has yet, decoded once and kept between questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from twinloop.stores.reading import Unsealed, of_tag, within
from twinloop.stores.rows import SAMPLE_SCHEMA, SCHEMAS, Entry, by_time, first_stored, tables

__all__ = ["Beyond", "Rest"]

_KINDS: Final = ("samples", "fills", "events", "snapshots")
"""Not dead letters: their bytes may be many."""
_KEPT_ROWS: Final = 2_000_000
"""Some 120 MB. A store that is further behind is asked seldom; then its backlog is read each time."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows, by kind, of entries up to `last`."""

    last: int
    rows: Mapping[str, pa.Table]

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


class Rest:
    """The output log after what is sealed, brought up to date by each question; for many threads.

    Args:
        read: the output log's entries after an offset, ascending.
    """

    def __init__(self, read: Callable[[int], Iterable[Entry]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._after = self._upto = -1

    def rows(self, kind: str, covered: int, tag: int | None = None) -> tuple[list[pa.Table], bool]:
        """Rows of a kind after what the segments cover, and whether there is a gap, as `Unsealed` has it.

        They come in parts, oldest entries first, each in the order of a segment's. With a tag, parts may hold
        that tag's rows only.

        Raises:
            LogError: the log cannot be read, or no longer leads from there on.
        """
        found: list[pa.Table] = []
        with self._lock:
            self._let_go(covered)
            kept = sum(map(len, self._parts))
            unsealed = Unsealed(self._read, self._upto)
            for entries in unsealed.portions():
                if kept > _KEPT_ROWS:
                    found.append(tables(entries, [kind], tag)[kind])
                    continue
                part = _Part(entries[-1][0], tables(entries, _KINDS))
                kept += len(part)
                self._upto = part.last
                self._keep(part)
            parts = self._parts
            if unsealed.is_torn:  # what is missing may be there the next time
                self._forget(covered)
        return [*(part.rows[kind] for part in parts), *found], unsealed.has_gap

    def clear(self) -> None:
        """Let go of the memory held."""
        with self._lock:
            self._forget(-1)

    def _let_go(self, covered: int) -> None:
        """Of what the segments hold; of all, where they hold less or more than is known here."""
        if not self._after <= covered <= self._upto:
            self._forget(covered)
        self._parts = [part for part in self._parts if part.last > covered]
        self._after = covered

    def _forget(self, covered: int) -> None:
        self._parts = []
        self._after = self._upto = covered

    def _keep(self, part: _Part) -> None:
        """As one with those before it that are not much larger: so there are never many."""
        if not len(part):
            return
        parts = list(self._parts)  # another list: an answer may still go by the one there is
        while parts and len(parts[-1]) <= 2 * len(part):
            before = parts.pop()
            rows = {kind: _both(kind, before.rows[kind], part.rows[kind]) for kind in _KINDS}
            part = _Part(part.last, rows)
        self._parts = [*parts, part]


def _both(kind: str, before: pa.Table, after: pa.Table) -> pa.Table:
    both = pa.concat_tables([before, after])
    return first_stored(both) if SCHEMAS[kind] is SAMPLE_SCHEMA else by_time(both)


class Beyond(Unsealed):
    """What is not sealed, as one question reads it: from what was kept, or entry by entry.

    Args:
        read: the output log's entries after an offset, ascending.
        covered: the offset up to which the segments hold everything.
        rest: what is kept between questions.
    """

    def __init__(self, read: Callable[[int], Iterable[Entry]], covered: int, rest: Rest) -> None:
        super().__init__(read, covered)
        self._covered = covered
        self._rest = rest

    def of_tag(self, kind: str, tag: int, low: int, high: int, columns: list[str]) -> list[pa.Table]:
        """A tag's rows of [low, high), in parts. Raises as `Rest.rows` does."""
        found, self.has_gap = self._rest.rows(kind, self._covered, tag)
        return [self._new(of_tag(rows, tag, low, high)).select(columns) for rows in found]

    def of_all(self, kind: str, low: int, high: int, columns: list[str]) -> list[pa.Table]:
        """The same of all tags, each part sorted by (tag, time)."""
        found, self.has_gap = self._rest.rows(kind, self._covered)
        return [self._new(within(rows, low, high, None)).select(columns) for rows in found]

    def told(self, kind: str) -> Iterator[pa.Table]:
        """Rows of a kind without tags, in parts. Raises as `Rest.rows` does."""
        if kind not in _KINDS:
            for entries in self.portions():
                yield tables(entries, [kind])[kind]
            return
        found, self.has_gap = self._rest.rows(kind, self._covered)
        for rows in found:
            yield self._new(rows)

    def _new(self, rows: pa.Table) -> pa.Table:
        """Without those sealed, as a part may be in part; of two with one time the sealed one is first."""
        return rows.filter(pc.greater(rows["offset"], self._covered))
