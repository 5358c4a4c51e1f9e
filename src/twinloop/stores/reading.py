"""Rows of segments and of the outputs not yet sealed, as questions read them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twinloop.errors import QueryError
from twinloop.records import Outputs
from twinloop.stores.footers import (
    Identity,
    brief,
    each_part,
    footer,
    identity,
    is_damage,
    read_segment,
    recent_groups,
)
from twinloop.stores.rows import Entry
from twinloop.stores.segments import Listing, Segment

__all__ = [
    "DamagedSegment",
    "Unsealed",
    "bounds",
    "meeting",
    "of_tag",
    "read_parts",
    "read_rows",
    "read_whole",
    "with_time",
    "within",
]

_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_PORTION_BYTES: Final = 16 << 20
"""Of outputs as they are in the log: some 280,000 samples."""
_ENTRY_BYTES: Final = 200
_SNAPSHOT_BYTES: Final = 2_000


class Unsealed:
    """Entries in portions that fit into memory.

    Attributes:
        is_torn: whether something is missing before what came: the log was trimmed, or is damaged.
        has_gap: whether it is torn, or nothing came so far, which may mean the same.
    """

    def __init__(self, read: Callable[[int], Iterable[Entry]], after: int) -> None:
        self._read = read
        self._after = after
        self.is_torn = False
        self.has_gap = True

    def portions(self) -> Iterator[list[Entry]]:
        """All entries, ascending, some at a time."""
        portion: list[Entry] = []
        size, expected = 0, self._after + 1
        for offset, outputs in self._read(self._after):
            if offset <= self._after:
                continue
            self.is_torn = self.is_torn or offset != expected
            expected = offset + 1
            portion.append((offset, outputs))
            size += _size(outputs)
            if size >= _PORTION_BYTES:
                yield portion
                portion, size = [], 0
        if portion:
            yield portion
        self.has_gap = self.is_torn or expected == self._after + 1


def _size(outputs: Outputs) -> int:
    """About the bytes of outputs; dead letters may be large, and many."""
    columns = sum(map(len, outputs.samples)) + sum(map(len, outputs.fills))
    letters = sum(len(letter.raw) + _ENTRY_BYTES for letter in outputs.dead)
    told = _ENTRY_BYTES * (1 + len(outputs.events)) + _SNAPSHOT_BYTES * len(outputs.snapshots)
    return columns + letters + told


def meeting(listing: Listing, kind: str, low: int, high: int) -> list[Segment]:
    """Segments that may hold a row of [low, high)."""
    found = []
    for segment in listing.of(kind):
        with _reading(segment) as known:
            if brief(segment, known).meets(low, high):
                found.append(segment)
    return found


class DamagedSegment(Exception):  # noqa: N818 - caught here, never seen by a caller
    """A segment cannot be read."""

    def __init__(self, segment: Segment, why: Exception, known: Identity | None) -> None:
        super().__init__(f"{segment.path}: damaged ({why})")
        self.segment = segment
        self.identity = known


@contextlib.contextmanager
def _reading(segment: Segment) -> Iterator[Identity]:
    """Tell a damaged segment from one that is gone; gives the file's identity, to be asked for once."""
    known = identity(segment)
    try:
        yield known
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_damage(error):
            raise DamagedSegment(segment, error, known) from error
        raise QueryError(f"{segment.path}: cannot be read: {error}") from error


def read_rows(segment: Segment, columns: list[str], tag: int, low: int, high: int) -> pa.Table:
    """The row groups of a segment that may hold a tag's rows of [low, high)."""
    with _reading(segment) as known:
        groups = footer(segment, known).groups_with(tag, low, high)
        return recent_groups(segment, groups, columns, known)


def read_parts(segment: Segment) -> Iterator[pa.Table]:
    """All rows of a segment, some at a time."""
    with _reading(segment):
        yield from each_part(segment)


def read_whole(segment: Segment) -> pa.Table:
    """All rows of a segment."""
    with _reading(segment):
        return read_segment(segment)


def of_tag(rows: pa.Table, tag: int, low: int, high: int) -> pa.Table:
    """A tag's rows of [low, high) among rows sorted by (tag, time)."""
    tags = rows["tag"].to_numpy()
    first, last = np.searchsorted(tags, np.array([tag, tag + 1], tags.dtype))  # else all tags are widened
    first, last = first + np.searchsorted(rows["time"].to_numpy()[first:last], [low, high])
    return rows.slice(int(first), int(last - first))


def within(rows: pa.Table, low: int, high: int, asset: str | None) -> pa.Table:
    """Rows of [low, high), of one asset or of all."""
    time = rows["time"].to_numpy()
    picked = (time >= low) & (time < high)
    if asset is not None:
        picked &= pc.equal(rows["asset"], asset).to_numpy()
    return rows.filter(pa.array(picked))


def bounds(start: int | None, end: int | None) -> tuple[int, int]:
    """Both ends as numbers, open ones as far out as there are any."""
    return (_LOWEST if start is None else start, _HIGHEST if end is None else end)


def with_time(rows: pa.Table) -> pa.Table:
    """Rows with `time` as a timestamp, first."""
    return rows.set_column(0, "time", rows["time"].cast(pa.timestamp("ns", tz="UTC")))
