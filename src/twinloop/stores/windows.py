"""Windows of one tag from minutes where they will do, and from samples where they will not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from twinloop.stores.footers import brief
from twinloop.stores.minutes import MINUTE_NS, contested, parts_of
from twinloop.stores.reading import meeting, of_tag, read_rows
from twinloop.stores.rows import MINUTES_SCHEMA, first_stored
from twinloop.stores.segments import Listing, Segment

__all__ = ["WINDOW_COLUMNS", "TagParts", "rolled_up"]

WINDOW_COLUMNS: Final = ["tag", "time", "value", "status", "offset"]


@dataclass(frozen=True, slots=True)
class TagParts:
    """What is known of one tag at one moment.

    Attributes:
        listing: the segments.
        unsealed: its samples that are in none of them, with `WINDOW_COLUMNS`, sorted by time.
        tag: its index.
        columns: of `MINUTES_SCHEMA`, what is wanted of its parts; each that is read takes its time.
    """

    listing: Listing
    unsealed: pa.Table
    tag: int
    columns: Sequence[str] = tuple(MINUTES_SCHEMA.names)

    def between(self, low: int, high: int, every_ns: int) -> pa.Table:
        """Parts by `MINUTES_SCHEMA` that make up the windows of [low, high), ascending, none overlapping.

        Where windows are whole minutes, parts are, too; else they are the windows themselves.
        """
        if every_ns % MINUTE_NS:
            return self._parts_of(self._rows(low, high), every_ns)
        inner_low, inner_high = -(-low // MINUTE_NS) * MINUTE_NS, high // MINUTE_NS * MINUTE_NS
        if inner_low >= inner_high:
            return self._parts_of(self._rows(low, high))
        before, after = self._rows(low, inner_low), self._rows(inner_high, high)
        return pa.concat_tables(
            [self._parts_of(before), self._minutes(inner_low, inner_high), self._parts_of(after)]
        )

    def _minutes(self, low: int, high: int) -> pa.Table:
        """Whole minutes of [low, high)."""
        rolled, alone, plain = rolled_up(self.listing)
        met = meeting(self.listing, "minutes", low, high)
        left = [self._read(each, self.columns, low, high) for each in met if each in alone]
        found = [self._read(each, self.columns, low, high) for each in met if each in rolled]
        rows = [each for each in meeting(self.listing, "samples", low, high) if each in plain]
        found += [self._parts_of(self._read(each, WINDOW_COLUMNS, low, high)) for each in rows]
        found.append(self._parts_of(of_tag(self.unsealed, self.tag, low, high)))
        parts = self._uncontested(_ascending(pa.concat_tables(found).combine_chunks()))
        return _ascending(pa.concat_tables([*left, parts])) if left else parts

    def _parts_of(self, rows: pa.Table, every_ns: int = MINUTE_NS) -> pa.Table:
        return parts_of(rows, every_ns).select(self.columns)

    def _uncontested(self, parts: pa.Table) -> pa.Table:
        """Parts with those whose times overlap made anew of the samples, of which one a time counts."""
        again = contested(parts)
        if not len(again):
            return parts
        keep = ~np.isin(parts["time"].to_numpy(), again)
        rows_again = self._parts_of(self._rows(int(again[0]), int(again[-1]) + MINUTE_NS))
        wanted = np.isin(rows_again["time"].to_numpy(), again)
        kept, read = parts.filter(pa.array(keep)), rows_again.filter(pa.array(wanted))
        return _ascending(pa.concat_tables([kept, read]))

    def _rows(self, low: int, high: int) -> pa.Table:
        """Samples of [low, high), ascending time, one a time."""
        if low >= high:
            return self.unsealed.slice(0, 0)
        met = meeting(self.listing, "samples", low, high)
        parts = [self._read(each, WINDOW_COLUMNS, low, high) for each in met]
        return first_stored(pa.concat_tables([*parts, of_tag(self.unsealed, self.tag, low, high)]))

    def _read(self, segment: Segment, columns: Sequence[str], low: int, high: int) -> pa.Table:
        return of_tag(read_rows(segment, list(columns), self.tag, low, high), self.tag, low, high)


def rolled_up(listing: Listing) -> tuple[set[Segment], set[Segment], set[Segment]]:
    """Segments of minutes to go by, those whose samples are gone, and segments of samples without any.

    A crash or damage can leave both in different ranges: minutes count where they answer for whole segments
    of samples, or where no samples are left.
    """
    samples, minutes = listing.of("samples"), listing.of("minutes")
    rolled, alone, covered = set[Segment](), set[Segment](), set[Segment]()
    at = 0
    for each in minutes:
        while at < len(samples) and samples[at].last < each.first:
            at += 1
        met = []
        ahead = at
        while ahead < len(samples) and samples[ahead].first <= each.last:
            met.append(samples[ahead])
            ahead += 1
        if all(brief(one).gone for one in met):
            alone.add(each)
        elif all(each.first <= one.first and one.last <= each.last for one in met):
            rolled.add(each)
            covered.update(met)
    return rolled, alone, set(samples) - covered


def _ascending(parts: pa.Table) -> pa.Table:
    first, time = parts["first"].to_numpy(), parts["time"].to_numpy()
    if bool(np.all((time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (first[1:] >= first[:-1])))):
        return parts
    return parts.take(pa.array(np.lexsort((first, time))))
