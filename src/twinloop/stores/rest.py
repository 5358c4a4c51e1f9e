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
_KEPT_BYTES: Final = 96 << 20
"""Some 1.5 million samples. A store further behind is asked seldom; then its backlog is read each time."""

Pick = Callable[[pa.Table], pa.Table]
"""Of rows of some entries, those that a question wants."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows, by kind, of entries up to `last`."""

    last: int
    rows: Mapping[str, pa.Table]
    size: int

    @classmethod
    def of(cls, last: int, rows: Mapping[str, pa.Table]) -> _Part:
        return cls(last, rows, sum(table.nbytes for table in rows.values()))


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

    def rows(
        self, kind: str, covered: int, pick: Pick, tag: int | None = None
    ) -> tuple[list[pa.Table], bool]:
        """Rows of a kind after what the segments cover, and whether there is a gap, as `Unsealed` has it.

        They come in parts, oldest entries first, each in the order of a segment's. Of a backlog, which is not
        kept, only what is picked is in memory, some entries at a time.

        Args:
            kind: of rows.
            covered: what the segments cover.
            pick: what is wanted of a part.
            tag: spares making rows of other tags, where only one is wanted.

        Raises:
            LogError: the log cannot be read, or no longer leads from there on.
        """
        found: list[pa.Table] = []
        with self._lock:
            self._let_go(covered)
            kept = sum(part.size for part in self._parts)
            unsealed = Unsealed(self._read, self._upto)
            for entries in unsealed.portions():
                if kept > _KEPT_BYTES:
                    found.append(pick(tables(entries, [kind], tag)[kind]))
                    continue
                part = _Part.of(entries[-1][0], tables(entries, _KINDS))
                kept += part.size
                self._upto = part.last
                self._keep(part)
            parts = self._parts
            if unsealed.is_torn:  # what is missing may be there the next time
                self._forget(covered)
        return [*(pick(part.rows[kind]) for part in parts), *found], unsealed.has_gap

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
        if not any(map(len, part.rows.values())):
            return
        parts = list(self._parts)  # another list: an answer may still go by the one there is
        while parts and parts[-1].size <= 2 * part.size:
            before = parts.pop()
            rows = {kind: _both(kind, before.rows[kind], part.rows[kind]) for kind in _KINDS}
            part = _Part.of(part.last, rows)
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

        def pick(rows: pa.Table) -> pa.Table:
            return self._new(of_tag(rows, tag, low, high)).select(columns)

        found, self.has_gap = self._rest.rows(kind, self._covered, pick, tag)
        return found

    def of_all(self, kind: str, low: int, high: int, columns: list[str]) -> list[pa.Table]:
        """The same of all tags, each part sorted by (tag, time)."""

        def pick(rows: pa.Table) -> pa.Table:
            return self._new(within(rows, low, high, None)).select(columns)

        found, self.has_gap = self._rest.rows(kind, self._covered, pick)
        return found

    def told(self, kind: str, low: int, high: int, asset: str | None = None) -> Iterator[pa.Table]:
        """Rows of a kind without tags of [low, high), in parts. Raises as `Rest.rows` does."""
        if kind not in _KINDS:
            for entries in self.portions():
                yield within(tables(entries, [kind])[kind], low, high, asset)
            return

        def pick(rows: pa.Table) -> pa.Table:
            return self._new(within(rows, low, high, asset))

        found, self.has_gap = self._rest.rows(kind, self._covered, pick)
        yield from found

    def _new(self, rows: pa.Table) -> pa.Table:
        """Without those sealed, as a part may be in part; of two with one time the sealed one is first."""
        return rows.filter(pc.greater(rows["offset"], self._covered))
