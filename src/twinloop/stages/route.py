"""The fold's first stage: from a series to its tag, into the tag's unit, at the right time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME, Batch, Received
from twinloop.records import DeadLetter, DeadReason
from twinloop.status import Reason, StatusCode, lower
from twinloop.tags import Refusal, Resolver, SeriesKey

__all__ = ["EARLIEST_SANE_NS", "LATEST_AHEAD_NS", "RouteStage"]

EARLIEST_SANE_NS: Final = 978_307_200_000_000_000
"""2001-01-01: devices whose clock was never set begin at 1970, 1980 or 2000."""
LATEST_AHEAD_NS: Final = 600_000_000_000
"""A source time more than 10 minutes ahead of its arrival is not sane."""

_UNKNOWN: Final = -1
_UNASKED: Final = -2
_NOBODY: Final = Refusal(DeadReason.UNKNOWN_TAG, "the series dictionary has no such number")


class RouteStage:
    """Maps series to tags by the present plant file, so that old records mean what it says today.

    Args:
        resolver: leads an address and unit to a tag.
        key: the series dictionary's `key`, answered from memory.
    """

    def __init__(self, resolver: Resolver, key: Callable[[int], SeriesKey]) -> None:
        self._resolver = resolver
        self._key = key
        self._tag = np.full(64, _UNASKED, np.int32)
        self._factor = np.ones(64)
        self._offset = np.zeros(64)
        self._refusals: dict[int, Refusal] = {}

    def step(self, received: Received, dead: list[DeadLetter]) -> Batch:
        """The samples that lead to a tag, in its unit; the others are added to `dead`."""
        tag = self.lookup(received.series)
        if (tag < 0).any():
            self._bury(received.take(tag < 0), dead)
            received = received.take(tag >= 0)
            tag = tag[tag >= 0]
        time, insane = choose_time(received)
        reasons = received.reasons | np.where(insane, np.uint32(Reason.CLOCK), np.uint32(0))
        with np.errstate(over="ignore"):  # validation looks for what is not finite
            value = received.value * self._factor[received.series] + self._offset[received.series]
        return Batch.raw(
            tag=tag,
            time=time,
            value=value,
            status=lower(received.status, StatusCode.UNCERTAIN, insane),
            reasons=reasons,
            arrival=received.arrival_time,
        )

    def tags_of(self, series: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The tags some series lead to, those that lead nowhere left out."""
        tags = self.lookup(series)
        return tags[tags >= 0]

    def lookup(self, series: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The tag of each series, shape (n,); negative for those that lead nowhere."""
        inside = (series >= 0) & (series < len(self._tag))
        if not inside.all() or (self._tag[series] == _UNASKED).any():
            for index in np.unique(series).tolist():
                self._learn(index)
            inside = (series >= 0) & (series < len(self._tag))
            if not inside.all():
                return np.where(inside, self._tag[np.where(inside, series, 0)], np.int32(_UNKNOWN))
        return self._tag[series]

    def _learn(self, index: int) -> None:
        """Resolve a series not met before; the answer stays for the life of the stage."""
        if 0 <= index < len(self._tag) and self._tag[index] != _UNASKED:
            return
        try:
            answer = self._resolver.resolve(self._key(index))
        except KeyError:  # nobody's number, from a damaged log: not remembered, whatever its size
            return
        if index >= len(self._tag):
            grow = max(index + 1 - len(self._tag), len(self._tag))
            self._tag = np.concatenate([self._tag, np.full(grow, _UNASKED, np.int32)])
            self._factor = np.concatenate([self._factor, np.ones(grow)])
            self._offset = np.concatenate([self._offset, np.zeros(grow)])
        if isinstance(answer, Refusal):
            self._refusals[index] = answer
            self._tag[index] = _UNKNOWN
        else:
            self._tag[index] = answer.tag
            self._factor[index] = answer.factor
            self._offset[index] = answer.offset

    def _bury(self, received: Received, dead: list[DeadLetter]) -> None:
        for row in range(len(received)):
            index = int(received.series[row])
            source, address, unit = (
                self._key(index) if index in self._refusals else ("", f"series {index}", "")
            )
            refusal = self._refusals.get(index, _NOBODY)
            raw = f"{float(received.value[row])!r} {unit}".strip().encode()
            arrival = int(received.arrival_time[row])
            dead.append(DeadLetter(arrival, source, address, raw, refusal.reason, refusal.detail))


def choose_time(
    received: Received,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The time each value was true, and where the source's own time was not sane.

    Source time first, the server's where there is none, else the arrival; a time before 2001 or more
    than 10 minutes ahead of the arrival is not believed, and the arrival stands in its place.
    """
    claimed = np.where(received.source_time == NO_TIME, received.server_time, received.source_time)
    silent = claimed == NO_TIME
    ahead = received.arrival_time > np.iinfo(np.int64).max - LATEST_AHEAD_NS
    limit = np.where(ahead, received.arrival_time, received.arrival_time + LATEST_AHEAD_NS)
    earliest = np.minimum(received.arrival_time, EARLIEST_SANE_NS)  # a replayed file may be that old
    insane = ~silent & ((claimed < earliest) | (claimed > limit))
    return np.where(silent | insane, received.arrival_time, claimed), insane
