"""Ticks: a cadence that neither drifts nor queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.records import ClockSet
from twinloop.sources.clock import Clock, Due

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND + 123_456_789


class ManualTime:
    """A wall and a monotonic clock that move only when told, or when somebody sleeps."""

    def __init__(self) -> None:
        self.wall = START
        self.monotonic = 42

    def pass_ns(self, ns: int) -> None:
        self.wall += ns
        self.monotonic += ns

    async def sleep(self, seconds: float) -> None:
        self.pass_ns(max(1, round(seconds * 1e9)))

    def clock(self, tiers: list[int], period_ns: int = SECOND) -> Clock:
        return Clock(
            period_ns,
            tiers,
            wall_ns=lambda: self.wall,
            monotonic_ns=lambda: self.monotonic,
            sleep=self.sleep,
        )


async def due(clock: Clock) -> Due:
    """The next tick of a clock that nobody sets."""
    found = await clock.next()
    assert isinstance(found, Due)
    return found


async def test_ticks_fall_on_whole_periods_and_do_not_drift_with_the_work_between() -> None:
    time = ManualTime()
    clock = time.clock([SECOND])
    times = []
    for _ in range(1000):
        times.append((await due(clock)).tick.time)
        time.pass_ns(300_000_000)
    assert times == [(START // SECOND + 1 + k) * SECOND for k in range(1000)]


async def test_a_tier_is_due_on_its_own_multiples() -> None:
    time = ManualTime()
    clock = time.clock([SECOND, 5 * SECOND, 60 * SECOND])
    for _ in range(130):
        tick = (await due(clock)).tick
        assert tick.tiers == [p for p in (SECOND, 5 * SECOND, 60 * SECOND) if tick.time % p == 0]


async def test_an_overrun_gives_one_tick_that_carries_the_number_missed() -> None:
    time = ManualTime()
    clock = time.clock([SECOND, 5 * SECOND])
    first = (await due(clock)).tick
    time.pass_ns(7 * SECOND + 1)
    late = await due(clock)
    assert late.tick.missed == 6
    assert late.tick.time == first.time + 7 * SECOND
    assert 5 * SECOND in late.tick.tiers, "a tier that fell due while overrunning is due now"
    after = await due(clock)
    assert after.tick.missed == 0
    assert after.tick.time == late.tick.time + SECOND


async def test_a_wall_clock_set_back_an_hour_moves_the_ticks_but_never_stops_them() -> None:
    time = ManualTime()
    clock = time.clock([SECOND])
    await due(clock)
    time.wall -= 3600 * SECOND
    assert await clock.next() == ClockSet(time.wall, -3600 * SECOND)
    tick = (await due(clock)).tick
    assert abs(tick.time - time.wall) <= SECOND


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_set_while_a_tick_is_waited_for_is_told_before_any_tick(hours: int) -> None:
    time = ManualTime()
    clock = time.clock([SECOND])
    before = (await due(clock)).tick
    plain_sleep = time.sleep

    async def sleep_on_it(seconds: float) -> None:
        await plain_sleep(seconds)
        time.wall += hours * 3600 * SECOND
        clock._sleep = plain_sleep

    clock._sleep = sleep_on_it
    assert await clock.next() == ClockSet(time.wall, hours * 3600 * SECOND)
    tick = (await due(clock)).tick
    assert 0 < tick.time - hours * 3600 * SECOND - before.time <= 2 * SECOND
    assert tick.missed == 0


@given(st.lists(st.integers(0, 10 * SECOND), min_size=1, max_size=50))
async def test_every_period_is_either_ticked_or_counted_as_missed(work: list[int]) -> None:
    time = ManualTime()
    clock = time.clock([SECOND])
    ticks = []
    for busy in work:
        ticks.append((await due(clock)).tick)
        time.pass_ns(busy)
    accounted = len(ticks) + sum(tick.missed for tick in ticks)
    assert accounted == (ticks[-1].time - START // SECOND * SECOND) // SECOND


async def test_a_tier_that_is_no_multiple_of_the_period_is_due_once_in_each_of_its_own() -> None:
    time = ManualTime()
    clock = time.clock([5 * SECOND], period_ns=2 * SECOND)
    ticks = [(await due(clock)).tick for _ in range(100)]
    assert sum(5 * SECOND in tick.tiers for tick in ticks) == pytest.approx(40, abs=1)
