"""The clock: ticks on a fixed cadence, each with the tiers that are due.

Ticks fall on whole multiples of the period since the epoch, so that a 5 s tier is due at :00, :05, ...
whenever the run began. The cadence is kept by the monotonic clock: nothing drifts, and a wall clock that
is set while running moves the ticks only when it is off by more than `REANCHOR_NS`; a record says so then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from twinloop.records import ClockSet, Tick

__all__ = ["Clock", "Due", "tiers_due"]

REANCHOR_NS: Final = 500_000_000


def tiers_due(after_ns: int, upto_ns: int, tiers: Iterable[int]) -> list[int]:
    """The tiers, ascending, of which a whole multiple lies in (after, upto].

    >>> tiers_due(9_000_000_000, 10_000_000_000, [60_000_000_000, 1_000_000_000, 5_000_000_000])
    [1000000000, 5000000000]
    """
    return sorted(tier for tier in set(tiers) if upto_ns // tier > after_ns // tier)


@dataclass(frozen=True, slots=True)
class Due:
    """A tick whose time has come.

    Attributes:
        tick: the record; its time is the scheduled one.
        jitter_ns: how much later than scheduled it was given out.
    """

    tick: Tick
    jitter_ns: int


class Clock:
    """Gives out ticks one at a time; the next begins only when the caller asks for it.

    Args:
        period_ns: the cycle's period.
        tiers: tier periods; one that is no multiple of the period is due with the first tick after.
        wall_ns, monotonic_ns, sleep: this host's clocks; tests hand in their own.
    """

    def __init__(
        self,
        period_ns: int,
        tiers: Iterable[int],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.period_ns = period_ns
        self._tiers = sorted(set(tiers))
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._sleep = sleep
        self._anchor()

    def _anchor(self) -> None:
        """Tie the monotonic clock to the wall clock; the next tick is the next whole period."""
        self._offset_ns = self._wall_ns() - self._monotonic_ns()
        self._next_ns = (self._now_ns() // self.period_ns + 1) * self.period_ns

    def _now_ns(self) -> int:
        return self._monotonic_ns() + self._offset_ns

    def _stepped(self) -> ClockSet | None:
        """What to say of a wall clock that was set; the ticks go by it from now on."""
        by_ns = self._wall_ns() - self._now_ns()
        if abs(by_ns) <= REANCHOR_NS:
            return None
        self._anchor()
        return ClockSet(self._now_ns(), by_ns)

    async def next(self) -> Due | ClockSet:
        """Wait for the next scheduled time; a wall clock that was set is told of first, at once or after it.

        After an overrun the tick comes at once, carries the number of cycles that fell out, and all
        tiers that fell due meanwhile; the cadence goes on where it would have been.
        """
        stepped = self._stepped()
        if stepped is not None:
            return stepped
        first = self._next_ns
        missed = max(0, (self._now_ns() - first) // self.period_ns)
        scheduled = first + missed * self.period_ns
        while (left := scheduled - self._now_ns()) > 0:
            await self._sleep(left / 1e9)
        stepped = self._stepped()
        if stepped is not None:  # the tick would be of the clock before
            return stepped
        self._next_ns = scheduled + self.period_ns
        due = tiers_due(first - self.period_ns, scheduled, self._tiers)
        return Due(Tick(scheduled, due, missed), self._now_ns() - scheduled)
