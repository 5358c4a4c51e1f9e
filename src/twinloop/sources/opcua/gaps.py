"""Which nodes have a gap in time, between what was heard before an outage and what is heard after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.sources.opcua.kept import Kept
from twinloop.sources.opcua.values import Rows

__all__ = ["LATEST_AHEAD_NS", "Gap", "Gaps", "times_of"]

I64 = npt.NDArray[np.int64]

LATEST_AHEAD_NS: Final = 600_000_000_000
"""A time further ahead of its arrival is a clock's mistake: no gap can be measured by it."""


class Gap(NamedTuple):
    """A stretch of time in which values of a node may be missing; both ends are times it was heard.

    Attributes:
        place: the node's place in the options.
        start, end: ns since epoch UTC.
        value, status: what was heard at the end, bits and code: history has it, too.
        cut: whether it began earlier than history is asked for.
    """

    place: int
    start: int
    end: int
    value: int = 0
    status: int = 0
    cut: bool = False


class Gaps:
    """Finds a node's gap by the first value of a session, and remembers it until it is closed.

    Args:
        kept: what was heard before; open gaps are kept there, too.
        longest_ns: no gap is longer: what lies further back is given up.

    Attributes:
        some: set while there are gaps to take.
    """

    def __init__(self, kept: Kept, longest_ns: int) -> None:
        self._kept = kept
        self._longest_ns = longest_ns
        self._met = np.zeros(len(kept.heard), bool)
        self._found: dict[int, Gap] = {}
        self.some = asyncio.Event()

    def see(self, rows: Rows, times: I64, arrival: int) -> None:
        """Live values came: the first of a node ends its gap. To be called before they are handed on.

        Args:
            rows: values of configured nodes.
            times: when they were true.
            arrival: this host's time, ns.
        """
        places, first = np.unique(rows.handle, return_index=True)
        first = first[~self._met[places]]
        for row in first.tolist():
            place, time = int(rows.handle[row]), int(times[row])
            self._met[place] = True
            start = int(self._kept.heard[place])
            if self._kept.gap[place] != NO_TIME:
                start = int(self._kept.gap[place])
                self._kept.gap[place] = NO_TIME
            if start == NO_TIME or not start < time <= arrival + LATEST_AHEAD_NS:
                continue
            cut = time - start > self._longest_ns
            start = max(start, time - self._longest_ns)
            self._kept.gap[place] = start
            value, status = int(rows.value.view(np.int64)[row]), int(rows.status[row])
            self._found[place] = Gap(place, start, time, value, status, cut)
            self.some.set()

    def expect(self, places: Iterable[int]) -> None:
        """Values of some nodes may have been lost: the next one ends a gap."""
        self._met[list(places)] = False

    def spare(self, places: Iterable[int]) -> None:
        """Nothing of some nodes was lost: the next value ends no gap, unless one was open already."""
        whole = [place for place in places if self._kept.gap[place] == NO_TIME]
        self._met[whole] = True

    def take(self) -> list[Gap]:
        """The gaps found and not taken yet."""
        found = list(self._found.values())
        self._found.clear()
        self.some.clear()
        return found

    def put_back(self, gaps: Iterable[Gap]) -> None:
        """Gaps taken are to be taken again, from where they begin now; one found since reaches further."""
        self._found = {gap.place: gap for gap in gaps} | self._found
        if self._found:
            self.some.set()

    def __contains__(self, place: object) -> bool:
        return place in self._found

    def filled(self, place: int, until: int) -> None:
        """A gap is filled, durably, up to a time."""
        self._kept.gap[place] = max(int(self._kept.gap[place]), until)

    def close(self, places: Iterable[int]) -> None:
        """Gaps are filled, or cannot be."""
        self._kept.gap[list(places)] = NO_TIME


def times_of(rows: Rows, arrival: int) -> I64:
    """The times rows stand at in a server's history: the source's, else the server's, else the arrival."""
    server = np.where(rows.server == NO_TIME, arrival, rows.server)
    return np.where(rows.source == NO_TIME, server, rows.source)
