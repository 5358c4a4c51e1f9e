"""The first rows of a long answer, without holding the rest: a page of history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twinloop.stores.footers import brief
from twinloop.stores.reading import meeting, read_parts, within
from twinloop.stores.rest import Beyond
from twinloop.stores.rows import SCHEMAS, by_time
from twinloop.stores.segments import Listing, Segment

__all__ = ["Told", "Where", "first_parts", "first_told"]

Where = Callable[[pa.Table], npt.NDArray[np.bool_]]
"""Which rows of a table count."""

_KEPT_PARTS: Final = 16
_MOST_BYTES: Final = 32 << 20
"""Of dead letters, each of which may be as large as `max_payload` lets it be."""


def first_parts(
    segments: Sequence[Segment], read: Callable[[Segment], pa.Table], most: int | None
) -> list[pa.Table]:
    """One tag's rows of some segments, in the order of those; the first `most` times are whole.

    Segments are read by time, until what is left of them comes after those.
    """
    if most is None:
        return [read(segment) for segment in segments]
    found: dict[Segment, pa.Table] = {}
    times = np.empty(0, np.int64)
    for segment in sorted(segments, key=lambda each: brief(each).time_min):
        if len(times) >= most and brief(segment).time_min > times[-1]:
            break
        rows = read(segment)
        times = np.union1d(times, rows["time"].to_numpy())[:most]
        found[segment] = rows
    return [found[segment] for segment in segments if segment in found]


class Told(NamedTuple):
    """Rows, and whether more were left out because these are too large already."""

    rows: pa.Table
    more: bool


def first_told(
    listing: Listing, beyond: Beyond, kind: str, span: tuple[int, int], *, most: int, where: Where
) -> Told:
    """The first `most` rows of a kind without tags in a span, by time and then as they were stored.

    Of dead letters there are fewer where their bytes come to more than some `_MOST_BYTES`.
    """
    head = _Head(kind, most)
    for segment in sorted(meeting(listing, kind, *span), key=lambda each: brief(each).time_min):
        if brief(segment).time_min > head.until:
            break
        for rows in read_parts(segment):
            head.add(_picked(rows, span, where))
    for rows in beyond.told(kind, *span):
        head.add(_picked(rows, span, where))
    return Told(head.rows(), head.is_cut)


def _picked(rows: pa.Table, span: tuple[int, int], where: Where) -> pa.Table:
    rows = within(rows, *span, None)
    return rows.filter(pa.array(where(rows))) if len(rows) else rows


class _Head:
    """Keeps the first rows of those it is given.

    Attributes:
        until: rows after this time can be none of them.
        is_cut: whether rows were left out for their size.
    """

    def __init__(self, kind: str, most: int) -> None:
        self._most = most
        self._parts = [SCHEMAS[kind].empty_table()]
        self.until = np.iinfo(np.int64).max
        self.is_cut = False

    def add(self, rows: pa.Table) -> None:
        """Take up some rows."""
        time = rows["time"].to_numpy()
        self._parts.append(rows.filter(pa.array(time <= self.until)))
        size = sum(part.nbytes for part in self._parts)
        many = len(self._parts) >= _KEPT_PARTS or sum(map(len, self._parts)) > self._most
        if many or size > 2 * _MOST_BYTES:
            self._parts = [self.rows()]

    def rows(self) -> pa.Table:
        """What was kept, in order."""
        rows = by_time(pa.concat_tables(self._parts)).slice(0, self._most)
        fits = _fitting(rows)
        self.is_cut = self.is_cut or fits < len(rows)
        if len(rows) == self._most or fits < len(rows):
            rows = rows.slice(0, fits)
            self.until = int(rows["time"][-1].as_py())
        return rows


def _fitting(rows: pa.Table) -> int:
    """How many rows, at least one, come to no more than the bytes an answer may have."""
    if "raw" not in rows.schema.names or not len(rows):
        return len(rows)
    size = np.cumsum(pc.binary_length(rows["raw"]).to_numpy(), dtype=np.int64)
    return max(1, int(np.searchsorted(size, _MOST_BYTES, "right")))
