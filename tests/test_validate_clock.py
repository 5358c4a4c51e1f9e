"""A source's clock that is set back: proved by the pace of what it sends, and by nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_validate_memory import in_order, remembered
from twinloop.batch import Batch
from twinloop.records import Event, EventKind
from twinloop.stages.validate import ValidateStage
from twinloop.status import BAD, GOOD, Reason
from twinloop.timetext import time_text
from validating import QUIET, S, judged, samples, stage, ticks, words

HOUR = 3600
LIVE_S = 10_000
"""When what a test is about arrives."""


def ran(a_stage: ValidateStage, count: int = 100, phase_s: float = 0.5) -> ValidateStage:
    """The stage after a sample a second until `LIVE_S`, at half seconds."""
    judged(a_stage, samples(20.0 + np.arange(count) % 7, start_s=LIVE_S - count + phase_s))
    return a_stage


def arriving(
    offset_s: float, count: int, *, after_s: float = 0.0, every_s: float = 1.0, pace: float = 1.0, **more: Any
) -> Batch:
    """Samples by a clock that is off by so much, whose times run `pace` times as fast as their arrivals."""
    arrival = LIVE_S + after_s + every_s * np.arange(count)
    time = LIVE_S + after_s + offset_s + pace * every_s * np.arange(count)
    columns = {"arrival": np.round(arrival * S).astype(np.int64), **more}
    values = columns.pop("value", 30.0 + np.arange(count) % 5)
    return samples(values, time=np.round(time * S).astype(np.int64), **columns)


@pytest.mark.parametrize("back_s", [120, 5 * 60, HOUR, 24 * HOUR])
@pytest.mark.parametrize("every_s", [0.25, 1.0, 3.0])
def test_after_ten_late_samples_at_the_pace_of_their_arrivals_a_tag_goes_by_the_new_clock(
    back_s: int, every_s: float
) -> None:
    a_stage, events = ran(stage(**QUIET)), list[Event]()
    out = a_stage.step(arriving(-back_s, 30, every_s=every_s), events)
    assert words(out) == ["LATE"] * 9 + ["CLOCK_BACK"] + [""] * 20
    assert (out.status == GOOD).all()
    (event,) = events
    assert (event.kind, event.subject, event.time) == (EventKind.CLOCK_BACK, "R101.temperature", out.time[9])
    assert (event.before, event.after) == ("1970-01-01T02:46:39.500Z", time_text(int(out.time[9])))


def test_a_fast_source_must_have_gone_on_for_two_seconds() -> None:
    out = judged(ran(stage(**QUIET)), arriving(-HOUR, 500, every_s=0.01))
    assert words(out).index("CLOCK_BACK") == 200


def test_a_source_that_sends_many_at_once_proves_it_too() -> None:
    batches = [
        arriving(-HOUR, 40, after_s=10 * k, every_s=0.25, arrival=np.full(40, (LIVE_S + 10 * k) * S))
        for k in range(4)
    ]
    a_stage = ran(stage(**QUIET))
    assert [words(judged(a_stage, batch)).count("LATE") for batch in batches] == [40, 0, 0, 0]


@pytest.mark.parametrize("pace", [0.0, 0.5, 2.0, 10.0, 1000.0])
def test_a_backlog_or_a_slow_repetition_is_no_clock_set_back(pace: float) -> None:
    out = judged(ran(stage(**QUIET)), arriving(-HOUR, 60, every_s=0.5, pace=pace))
    assert not (out.reasons & Reason.CLOCK_BACK).any()


def test_a_backlog_before_the_new_clock_only_delays_the_proof() -> None:
    a_stage = ran(stage(**QUIET))
    backlog = arriving(-HOUR, 1000, every_s=0.001, pace=1000.0)
    assert set(words(judged(a_stage, backlog))) == {"LATE"}
    found = words(judged(a_stage, arriving(-HOUR + 1000, 40, after_s=1.0)))
    assert found.index("CLOCK_BACK") <= 12


def test_what_is_not_live_proves_nothing_and_disturbs_no_proof() -> None:
    whole = arriving(-HOUR, 40)
    assert set(words(ran(stage(**QUIET)).step(whole, [], live=False))) == {"LATE"}
    a_stage = ran(stage(**QUIET))
    judged(a_stage, whole.take(slice(0, 9)))
    a_stage.step(arriving(-2 * HOUR, 20), [], live=False)
    assert words(judged(a_stage, whole.take(slice(9, 10)))) == ["CLOCK_BACK"]


def test_a_redelivery_proves_nothing_however_slow_it_is() -> None:
    a_stage = stage(**QUIET)
    history = samples(np.arange(300.0))
    judged(a_stage, history)
    again = history.with_columns(arrival=history.arrival + HOUR * S)
    assert len(judged(a_stage, again)) == 0


def test_one_sample_of_the_clock_before_ends_the_row() -> None:
    a_stage = ran(stage(**QUIET))
    late = arriving(-HOUR, 40)
    for first in range(0, 36, 9):
        assert set(words(judged(a_stage, late.take(slice(first, first + 9))))) == {"LATE"}
        assert words(judged(a_stage, arriving(0, 1, after_s=first + 9.5))) == [""]


def test_samples_late_by_no_more_than_a_minute_are_late_and_no_more() -> None:
    assert set(words(judged(ran(stage(**QUIET)), arriving(-59.25, 40)))) == {"LATE"}


def test_statistics_and_comparisons_begin_anew_with_the_new_clock() -> None:
    a_stage = ran(stage(rate_limit=1.0, spike=2.0, stuck_ns=5 * S))
    out = judged(a_stage, arriving(-HOUR, 40, value=np.where(np.arange(40) < 30, 500.0, 500.5)))
    assert words(out)[:14] == ["LATE"] * 9 + ["CLOCK_BACK"] + [""] * 4
    assert words(out)[14:30] == ["STUCK"] * 16
    assert out.status[30] == GOOD


def test_a_doubtful_sample_may_prove_it_and_says_so() -> None:
    status = np.where(np.arange(20) == 9, BAD, GOOD)
    a_stage, events = ran(stage(**QUIET)), list[Event]()
    out = a_stage.step(arriving(-HOUR, 20, status=status), events)
    assert words(out)[9] == "SOURCE_STATUS|CLOCK_BACK"
    assert [(e.kind, e.after) for e in events[1:]] == [(EventKind.STATUS, "Bad"), (EventKind.STATUS, "Good")]


def test_a_clock_that_is_right_again_goes_on_from_where_it_is() -> None:
    a_stage = ran(stage(**QUIET))
    judged(a_stage, arriving(-HOUR, 20))
    assert set(words(judged(a_stage, arriving(0, 20, after_s=20)))) == {""}


def test_times_gone_through_again_are_given_out_once_and_nothing_is_lost() -> None:
    a_stage = ran(stage(**QUIET), count=600, phase_s=0)
    first = remembered(a_stage)
    out = judged(a_stage, arriving(-300, 280))
    assert len(out) == 280
    assert (np.diff(out.time) > 0).all()
    assert not set(out.time.tolist()) & set(first)
    assert (out.reasons[:280] & Reason.SAME_TIME).all(), "each meets the sample of its time before"


@st.composite
def passes(draw: st.DrawFn) -> list[tuple[Batch, bool]]:
    """Samples on a grid of seconds by a clock that is set again and again, some seconds with several.

    With each part whether its clock was set back before it. No two samples are equal.
    """
    now, clock, value = LIVE_S, LIVE_S, 0
    parts: list[tuple[Batch, bool]] = []
    for index in range(draw(st.integers(2, 5))):
        by = draw(st.integers(-300, -75) | st.integers(1, 100)) if index else 0
        clock += by
        counts = [1] * 10 + draw(st.lists(st.sampled_from([1, 1, 1, 2, 4]), min_size=10, max_size=200))
        seconds = np.repeat(np.arange(len(counts)), counts)
        part = samples(
            value + np.arange(len(seconds), dtype=float),
            time=(clock + seconds) * S,
            arrival=(now + seconds) * S,
        )
        parts.append((part, by < 0))
        value += len(seconds)
        now, clock = now + len(counts), clock + len(counts)
    return parts


@settings(max_examples=100, deadline=None)
@given(passes(), st.integers(1, 80), st.data())
def test_however_often_a_clock_is_set_back_every_sample_but_the_first_has_a_time_of_its_own(
    parts: list[tuple[Batch, bool]], remember: int, data: st.DataObject
) -> None:
    a_stage, given_out = stage(remember=remember, **QUIET), list[int]()
    for part, back in parts:
        cut = data.draw(st.integers(0, len(part)))
        for piece in (part.take(slice(0, cut)), part.take(slice(cut, None))):
            out = judged(a_stage, piece)
            assert len(out) == len(piece), "nothing is a duplicate"
            assert (abs(out.time - piece.time) < S).all()
            assert (((out.reasons & Reason.SAME_TIME) != 0) == (out.time != piece.time)).all()
            if back:
                out, back = out.take(slice(1, None)), len(out) == 0  # noqa: PLW2901 - only the first of the part
            given_out += out.time.tolist()
            remember += data.draw(st.sampled_from([0, 0, 9]))
            again = stage(remember=remember, **QUIET)
            again.restore(a_stage.snapshot())
            a_stage = again
    assert len(set(given_out)) == len(given_out)


def test_times_older_than_all_remembered_are_moved_after_a_clock_was_set_back() -> None:
    a_stage = ran(stage(remember=64, **QUIET), count=600, phase_s=0)
    out = judged(a_stage, arriving(-500, 300))
    assert out.time[0] % S == 0
    assert (out.time[1:] % S == 1).all()
    assert words(out)[:2] == ["LATE", "LATE|SAME_TIME"]
    assert set(words(out)[10:]) == {"SAME_TIME"}


def test_a_redelivery_of_what_was_moved_is_dropped_or_comes_out_as_before() -> None:
    a_stage = ran(stage(remember=64, **QUIET), count=600, phase_s=0)
    new = arriving(-500, 300)
    out = judged(a_stage, new)
    assert len(judged(a_stage, new.take(slice(290, 300)))) == 0
    again = new.with_columns(arrival=np.full(300, (LIVE_S + 300) * S))
    assert judged(a_stage, again.take(slice(1, 200))).time.tolist() == out.time[1:200].tolist()


def test_a_backlog_older_than_all_remembered_comes_out_with_its_own_times() -> None:
    a_stage = ran(stage(remember=64, **QUIET), count=600, phase_s=0)
    out = judged(a_stage, arriving(-500, 200, every_s=0.01, pace=100.0))
    assert set(words(out)) == {"LATE"}


def test_a_rate_is_measured_of_times_gone_through_again() -> None:
    a_stage = ran(stage(remember=64, rate_limit=1.0, **QUIET), count=600, phase_s=0)
    out = judged(a_stage, arriving(-500, 40, value=np.where(np.arange(40) == 30, 50.0, 20.0)))
    assert [index for index, word in enumerate(words(out)) if "RATE" in word] == [30]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(70, 400), st.integers(0, 2**32))
def test_a_full_memory_makes_room_for_the_new_clock(remember: int, back_s: int, seed: int) -> None:
    a_stage = ran(stage(remember=remember, **QUIET))
    rng = np.random.default_rng(seed)
    new = arriving(-back_s, 60)
    for row in range(60):
        assert len(judged(a_stage, new.take(slice(row, row + 1)))) == 1
        assert in_order(a_stage)
        if row >= 9:
            judged(a_stage, arriving(-back_s - int(rng.integers(1, 500)) + 0.25, 1, after_s=row))
            assert in_order(a_stage)
    recent = new.take(slice(60 - max(1, min(remember // 4, 50)), 60))
    assert len(a_stage.step(recent, [], live=False)) == 0


@st.composite
def clocks(draw: st.DrawFn) -> Batch:
    """A source whose clock is set now and then, with redelivery and bursts between."""
    now, offset = float(LIVE_S), 0.0
    time, arrival = list[float](), list[float]()
    for _ in range(draw(st.integers(1, 5))):
        offset += draw(st.sampled_from([0.0, -70.0, -300.0, -3600.0, 300.0, 3600.0]))
        every, pace = draw(st.sampled_from([(1.0, 1.0), (0.5, 1.0), (0.01, 100.0), (1.0, 0.0)]))
        count = draw(st.integers(1, 25))
        time += [now + offset + k * every * pace for k in range(count)]
        arrival += [now + k * every for k in range(count)]
        now += count * every
        again = draw(st.lists(st.integers(0, len(time) - 1), max_size=5))
        time += [time[k] for k in again]
        arrival += [now] * len(again)
    return samples(
        np.arange(len(time)) % 11.0,
        time=np.round(np.array(time) * S).astype(np.int64),
        arrival=np.round(np.array(arrival) * S).astype(np.int64),
    )


@settings(max_examples=100, deadline=None)
@given(clocks(), st.integers(1, 60), st.data())
def test_no_verdict_depends_on_how_rows_are_cut_into_batches_or_on_a_restart(
    history: Batch, remember: int, data: st.DataObject
) -> None:
    rules: dict[str, Any] = {"remember": remember, "spike": 3.0, "rebaseline": 3, "stuck_ns": 5 * S}
    whole, pieces, told, told_in_pieces = stage(**rules), stage(**rules), list[Event](), list[Event]()
    out = whole.step(history, told)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=6)))
    parts: list[Batch] = []
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        parts.append(pieces.step(history.take(slice(start, end)), told_in_pieces))
        again = stage(**rules)
        again.restore(pieces.snapshot())
        pieces = again
    assert Batch.concat(parts).buffers() == out.buffers()
    assert told_in_pieces == told
    assert pieces.snapshot() == whole.snapshot()
    assert in_order(whole)
    on_time = out.time[(out.reasons & (Reason.LATE | Reason.CLOCK_BACK)) == 0]
    if not (out.reasons & Reason.CLOCK_BACK).any():
        assert (np.diff(on_time) > 0).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 3000), st.floats(-50, 50)), max_size=80),
    st.booleans(),
)
def test_late_samples_leave_every_other_verdict_as_it_was(
    rows: list[tuple[bool, int, float]],
    live: bool,  # noqa: FBT001 - drawn
) -> None:
    rules: dict[str, Any] = {"spike": 12.0, "rate_limit": 9.0, "zscore": 2.0, "window": 12, "stuck_ns": 3 * S}
    now, time, late = 100 * HOUR, list[int](), list[bool]()
    for is_late, step, _ in rows:
        late.append(is_late and bool(time))
        now += 0 if late[-1] else step
        time.append((now - step) * S + 1 if late[-1] else now * S)
    values = [value for _, _, value in rows]
    arrival = np.full(len(rows), now * S)
    mixed = samples(values, time=time, arrival=arrival)
    with_late, without = stage(**rules), stage(**rules)
    out = with_late.step(mixed, [], live=live)
    plain = without.step(mixed.take(~np.array(late, bool)), [], live=live)
    flagged = (out.reasons & Reason.LATE) != 0
    assert out.take(~flagged).buffers() == plain.buffers()
    for name in ("count", "mean", "m2", "good_time", "good_value", "judged", "changed", "run", "quantum"):
        assert with_late._state[name] == without._state[name]
    assert math.isnan(with_late._state["held"][0]) or with_late._state["held"] == without._state["held"]
    assert with_late.severity.tolist() == without.severity.tolist()


# This host's clock, and starts.


def test_a_start_is_no_silence_and_a_tag_that_stays_silent_goes_stale_after_it() -> None:
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=10))
    assert ticks(a_stage, 10, 12) == []
    a_stage.started(5000 * S)
    assert ticks(a_stage, 5001, 5004) == []
    assert [(e.time // S, e.after) for e in ticks(a_stage, 5005, 5010)] == [
        (5005, "Uncertain"),
        (5010, "Bad"),
    ]


def test_a_tag_that_was_silent_before_a_start_stays_as_silent_as_it_was() -> None:
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=10))
    assert [e.after for e in ticks(a_stage, 12, 17)] == ["Uncertain"]
    a_stage.started(5000 * S)
    assert [(e.time // S, e.after) for e in ticks(a_stage, 5001, 5002, 5003, 5004)] == [(5003, "Bad")]


def test_a_tag_without_any_sample_is_waited_for_anew_unless_it_was_given_up() -> None:
    a_stage = stage(stale_ns=5 * S)
    assert ticks(a_stage, 100, 102) == []
    a_stage.started(1000 * S)
    assert [e.time // S for e in ticks(a_stage, 1001, 1004, 1005)] == [1005]
    a_stage.started(2000 * S)
    assert ticks(a_stage, 2001, 2004, 2010) == []
    assert a_stage.stale.tolist() == [2]


@pytest.mark.parametrize("hours", [1, -1, 24, -24])
def test_a_host_clock_that_is_set_makes_no_tag_older_or_younger(hours: int) -> None:
    by = hours * HOUR
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=100_000))
    assert ticks(a_stage, 100_001, 100_003) == []
    a_stage.clock_set((100_003 + by) * S, by * S)
    assert ticks(a_stage, 100_004 + by) == []
    assert [(e.time // S - by, e.after) for e in ticks(a_stage, *range(100_005 + by, 100_012 + by))] == [
        (100_005, "Uncertain"),
        (100_010, "Bad"),
    ]


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("silent_s", [HOUR - 3, HOUR, HOUR + 3])
def test_a_silent_tag_stays_silent_when_the_host_s_clock_is_set(hours: int, silent_s: int) -> None:
    by, now = hours * HOUR, 100_000 + silent_s
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=100_000))
    assert [e.after for e in ticks(a_stage, 100_001, 100_006, now)] == ["Uncertain", "Bad"]
    a_stage.clock_set((now + by) * S, by * S)
    assert ticks(a_stage, *range(now + by, now + by + 9)) == []
    assert a_stage.stale.tolist() == [2]


def test_a_sign_of_life_just_before_a_start_makes_no_arrival_of_the_future() -> None:
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=100))
    ticks(a_stage, 101, 106)
    a_stage.renew([0], 900 * S)
    a_stage.started(200 * S)
    assert [e.time // S for e in ticks(a_stage, 201, 204, 205) if e.after != "Good"] == [205]


@pytest.mark.parametrize("hours", [1, -1])
def test_what_arrived_between_the_step_and_its_record_is_not_shifted(hours: int) -> None:
    by = hours * HOUR
    a_stage = stage(stale_ns=5 * S, **QUIET)
    judged(a_stage, samples([20.0], start_s=100_000))
    ticks(a_stage, 100_001)
    judged(a_stage, samples([21.0], start_s=100_001, arrival=[(100_001 + by) * S]))
    a_stage.clock_set((100_002 + by) * S, by * S)
    assert ticks(a_stage, *range(100_003 + by, 100_005 + by)) == []
    (event,) = ticks(a_stage, *range(100_005 + by, 100_009 + by))
    assert event.time // S - by - 100_006 in {0, -1}, "to the second in which the change was noticed"
