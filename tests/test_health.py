"""Sync health: the worst sign wins, better takes time, and every change is one event that names its tag."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.records import Event, EventKind, Health
from twinloop.twin.beliefs import Beliefs
from twinloop.twin.health import (
    NIS_ENTER,
    NIS_LEAVE,
    PERSIST,
    SETTLE,
    HealthState,
    Signs,
    missed_text,
    read_signs,
    update,
)

SECOND = 1_000_000_000
NAMES = ["R101.temperature", "R101.pressure"]
FINE = Signs(nis=1.0, nis_tag=NAMES[0])
SILENT = Signs(silent="no data from R101.pressure")


def beliefs(value: list[float], stale: list[int], nis: list[float]) -> Beliefs:
    n = len(value)
    return Beliefs(
        value=np.array(value),
        std=np.ones(n),
        rate=np.zeros(n),
        time_ns=np.zeros(n, np.int64),
        nis=np.array(nis),
        stale=np.array(stale, np.uint8),
    )


def feed(state: HealthState, signs: Signs, times: int = 1) -> list[Event]:
    events: list[Event] = []
    for time in range(times):
        update(state, signs, "R101", time, events)
    return events


def in_sync() -> HealthState:
    state = HealthState()
    feed(state, FINE)
    return state


def test_an_asset_is_in_sync_as_soon_as_every_tag_was_heard() -> None:
    state = HealthState()
    assert feed(state, Signs(waiting="no usable sample yet of R101.pressure")) == []
    assert (state.health, state.why) == (Health.STARTING, "no usable sample yet of R101.pressure")
    (event,) = feed(state, FINE)
    assert (event.kind, event.before, event.after) == (EventKind.HEALTH, "STARTING", "IN_SYNC")
    assert state.why == ""


@pytest.mark.parametrize(
    ("signs", "health"),
    [
        (SILENT, Health.STALE),
        (Signs(lag="1 cycle missed"), Health.LAGGING),
        (Signs(problem="the model broke"), Health.DIVERGED),
    ],
)
def test_worse_shows_at_once_and_better_only_when_it_lasts(signs: Signs, health: Health) -> None:
    state = in_sync()
    (event,) = feed(state, signs)
    assert (event.after, state.health) == (health.value, health)
    assert event.why == state.why != ""
    assert feed(state, FINE, SETTLE - 1) == []
    (event,) = feed(state, FINE)
    assert (event.before, event.after) == (health.value, "IN_SYNC")


def test_a_flickering_tag_makes_one_event() -> None:
    state = in_sync()
    events = [event for _ in range(20) for event in (*feed(state, SILENT), *feed(state, FINE))]
    assert len(events) == 1


def test_a_high_nis_diverges_only_when_it_lasts() -> None:
    high = Signs(nis=NIS_ENTER + 1, nis_tag=NAMES[0])
    state = in_sync()
    assert feed(state, high, PERSIST - 1) == []
    (event,) = feed(state, high)
    assert event.after == "DIVERGED"
    assert NAMES[0] in event.why


def test_a_nis_between_the_limits_changes_nothing() -> None:
    between = Signs(nis=(NIS_ENTER + NIS_LEAVE) / 2, nis_tag=NAMES[0])
    state = in_sync()
    assert feed(state, between, 50) == []
    feed(state, Signs(nis=NIS_ENTER + 1, nis_tag=NAMES[0]), PERSIST)
    assert feed(state, between, 50) == []
    assert state.health is Health.DIVERGED


@given(st.lists(st.sampled_from([FINE, SILENT, Signs(lag="x"), Signs(problem="y")]), max_size=40))
def test_events_tell_the_whole_story(story: list[Signs]) -> None:
    state, health = HealthState(), Health.STARTING
    for signs in story:
        for event in feed(state, signs):
            assert event.before == health.value
            assert event.after != event.before
            health = Health(event.after)
        assert state.health is health
        assert (state.why == "") == (health is Health.IN_SYNC)


def test_signs_name_the_first_tag_and_count_the_rest() -> None:
    tags = np.array([0, 1])
    signs = read_signs(tags, NAMES, beliefs([np.nan, np.nan], [0, 0], [np.nan, np.nan]), 0)
    assert signs.waiting == "no usable sample yet of R101.temperature and 1 more"
    signs = read_signs(tags, NAMES, beliefs([1.0, np.nan], [0, 2], [1.0, 9.0]), 0)
    assert signs.silent == "no data from R101.pressure"
    assert signs.waiting == ""


def test_the_nis_of_a_silent_tag_says_nothing() -> None:
    signs = read_signs(np.array([0, 1]), NAMES, beliefs([1.0, 1.0], [0, 2], [1.5, 99.0]), 0)
    assert (signs.nis, signs.nis_tag) == (1.5, NAMES[0])


def test_a_tag_whose_newest_sample_is_ahead_of_a_clock_set_back_is_not_in_sync() -> None:
    heard, tags = beliefs([1.0, 1.0], [0, 0], [1.0, 1.0]), np.array([0, 1])
    heard.time_ns[1] = 3600 * SECOND
    assert read_signs(tags, NAMES, heard, 3000 * SECOND).silent == ""
    silent = read_signs(tags, NAMES, heard, 2999 * SECOND).silent
    assert silent == "the clock was set back; until it catches up all data are late of R101.pressure"


def test_missed_cycles_are_a_lag() -> None:
    assert missed_text(0) == ""
    assert missed_text(1) == "1 cycle missed"
    assert missed_text(2) == "2 cycles missed"
