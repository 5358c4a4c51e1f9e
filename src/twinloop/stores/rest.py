"""Samples and fills of the output log that no segment has yet, decoded once and kept between questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from twinloop.stores.reading import Unsealed, of_tag, within
from twinloop.stores.rows import Entry, first_stored, tables

__all__ = ["Beyond", "Rest", "RestOfTag"]

_KEPT_ROWS: Final = 2_000_000
"""Some 120 MB. A store that is further behind is asked seldom; then its backlog is read each time."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of the entries up to `last`, sorted by (tag, time)."""

    last: int
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class RestOfTag:
    """A tag's rows that are in no segment.

    Attributes:
        rows: in parts, oldest entries first, each sorted by time.
        has_gap: as of `Unsealed`.
    """

    rows: list[pa.Table]
    has_gap: bool


class Beyond(Unsealed):
    """What is not sealed, as one question reads it: entry by entry, or a tag's rows from what was kept.

    Args:
        read: the output log's entries after an offset, ascending.
        covered: the offset up to which the segments hold everything.
        rests: rows kept between questions, by kind.
    """

    def __init__(
        self, read: Callable[[int], Iterable[Entry]], covered: int, rests: Mapping[str, Rest]
    ) -> None:
        super().__init__(read, covered)
        self._covered = covered
        self._rests = rests

    def of_tag(self, kind: str, tag: int, low: int, high: int, columns: list[str]) -> list[pa.Table]:
        """A tag's rows of [low, high), in parts. Raises as `Rest.of_tag` does."""
        rest = self._rests[kind].of_tag(tag, self._covered, low, high)
        self.has_gap = rest.has_gap
        return [rows.select(columns) for rows in rest.rows]

    def of_all(self, kind: str, low: int, high: int, columns: list[str]) -> list[pa.Table]:
        """The same of all tags, sorted by (tag, time)."""
        rest = self._rests[kind].of_all(self._covered, low, high)
        self.has_gap = rest.has_gap
        return [rows.select(columns) for rows in rest.rows]


class Rest:
    """One kind of rows, brought up to date by each question; safe to use from many threads.

    Args:
        kind: `samples` or `fills`.
        read: the output log's entries after an offset, ascending.
    """

    def __init__(self, kind: str, read: Callable[[int], Iterable[Entry]]) -> None:
        self._kind = kind
        self._read = read
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._after = self._upto = -1

    def of_tag(self, tag: int, covered: int, low: int, high: int) -> RestOfTag:
        """A tag's rows of [low, high) that stand after what the segments cover.

        Raises:
            LogError: the log cannot be read, or no longer leads from there on.
        """
        return self._rows(covered, tag, lambda rows: of_tag(rows, tag, low, high))

    def of_all(self, covered: int, low: int, high: int) -> RestOfTag:
        """The same of all tags, sorted by (tag, time)."""
        return self._rows(covered, None, lambda rows: within(rows, low, high, None))

    def _rows(self, covered: int, tag: int | None, pick: Callable[[pa.Table], pa.Table]) -> RestOfTag:
        found: list[pa.Table] = []
        with self._lock:
            self._let_go(covered)
            kept = sum(len(part.rows) for part in self._parts)
            unsealed = Unsealed(self._read, self._upto)
            for entries in unsealed.portions():
                if kept > _KEPT_ROWS:
                    found.append(pick(tables(entries, [self._kind], tag)[self._kind]))
                    continue
                rows = tables(entries, [self._kind])[self._kind]
                kept += len(rows)
                self._upto = entries[-1][0]
                self._keep(_Part(self._upto, rows))
            parts = self._parts
            if unsealed.is_torn:  # what is missing may be there the next time
                self._forget(covered)
        found = [*(pick(part.rows) for part in parts), *found]
        # A part that is sealed in part holds rows of before; of two with one time, those are the first.
        return RestOfTag(
            [rows.filter(pc.greater(rows["offset"], covered)) for rows in found], unsealed.has_gap
        )

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
        if not len(part.rows):
            return
        while self._parts and len(self._parts[-1].rows) <= 2 * len(part.rows):
            before = self._parts.pop()
            part = _Part(part.last, first_stored(pa.concat_tables([before.rows, part.rows])))
        self._parts.append(part)
