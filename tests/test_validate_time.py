"""Late, doubled and missing samples, and tags that fall silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinloop.batch import Batch
from twinloop.records import Event
from twinloop.stages.validate import ValidateStage
from twinloop.status import BAD, GOOD, Reason, StatusCode
from twinloop.tags import TagTable
from validating import QUIET, S, judged, samples, stage, tag, ticks, words

# Time.


def test_a_late_sample_is_flagged_keeps_its_status_and_changes_nothing_for_the_others() -> None:
    rules: dict[str, Any] = {"spike": 10, "low": 0, "high": 400, "stuck_ns": 3 * S}
    plain, disturbed = stage(**rules), stage(**rules)
    before, after = samples([85.0, 85.0, 86.0], start_s=10), samples([95.0, 86.0], start_s=13)
    late = samples([300.0, 500.0, math.nan], start_s=5)
    judged(plain, before)
    judged(disturbed, before)
    out = judged(disturbed, late)
    assert words(out) == ["LATE", "RANGE|LATE", "NON_FINITE|LATE"]
    assert out.status.tolist() == [GOOD, StatusCode.BAD_OUT_OF_RANGE, BAD]
    assert judged(plain, after).buffers() == judged(disturbed, after).buffers()


def test_lateness_compares_only_with_the_tags_own_newest_sample() -> None:
    a_stage = ValidateStage(TagTable([tag("R101.a"), tag("R101.b")]))
    out = judged(a_stage, Batch.raw(tag=[0, 1, 0], time=[9 * S, 1 * S, 8 * S], value=[1, 1, 1]))
    assert words(out) == ["", "", "LATE"]


def test_a_duplicate_is_dropped_and_counted() -> None:
    a_stage = stage()
    first = samples([1.0, 2.0, math.nan, 4.0])
    assert len(judged(a_stage, first)) == 4
    assert len(judged(a_stage, first)) == 0
    assert (a_stage.duplicates, a_stage.duplicates_total, a_stage.received) == (4, 4, 8)
    judged(a_stage, samples([5.0], start_s=5))
    assert (a_stage.duplicates, a_stage.duplicates_total) == (0, 4)


def test_the_same_time_and_value_with_another_status_is_no_duplicate() -> None:
    out = judged(stage(), samples([1.0, 1.0], time=[S, S], status=[GOOD, BAD]))
    assert out.time.tolist() == [S, S + 1]
    assert words(out) == ["", "SAME_TIME|SOURCE_STATUS"]


def test_other_values_of_one_time_take_the_next_free_nanoseconds_also_when_redelivered() -> None:
    a_stage = stage(rate_limit=5, **QUIET)
    burst = samples(np.arange(50.0), time=np.full(50, S))
    out = judged(a_stage, burst)
    assert out.time.tolist() == list(range(S, S + 50))
    assert words(out) == [""] + ["SAME_TIME"] * 49
    assert len(judged(a_stage, burst.take(slice(30, None)))) == 0
    later = judged(a_stage, samples([60.0, 61.0], time=[S + 1, 2 * S]))
    assert later.time.tolist() == [S + 50, 2 * S]


def test_a_burst_of_redelivery_longer_than_the_memory_doubles_nothing_recent() -> None:
    a_stage = stage(remember=32)
    history = samples(np.arange(100.0))
    judged(a_stage, history)
    history = samples(np.arange(100.0), arrival=np.full(100, 101 * S))
    again = judged(a_stage, history)
    assert again.time.tolist() == history.time[: 100 - 32].tolist(), "only what is forgotten"
    assert not (again.reasons & Reason.SAME_TIME).any()
    assert len(judged(a_stage, history.take(slice(100 - 32, None)))) == 0


def test_a_late_sample_of_a_time_already_given_out_moves_to_a_free_one() -> None:
    out = judged(stage(), samples([1.0, 2.0, 3.0, 7.0, 7.0, 8.0], time=[S, S + 1, 9 * S, S, S, S + 1]))
    assert out.time.tolist() == [S, S + 1, 9 * S, S + 2, S + 3]
    assert words(out) == ["", "", "", "LATE|SAME_TIME", "LATE|SAME_TIME"]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=31))
def test_tag_and_time_are_unique_and_ascend_unless_late(rows: list[tuple[int, int]]) -> None:
    out = judged(stage(), samples([v for _, v in rows], time=[t for t, _ in rows]))
    assert len(set(out.time.tolist())) == len(out)
    on_time = out.time[(out.reasons & Reason.LATE) == 0]
    assert (np.diff(on_time) > 0).all()
    # Nothing is lost but what was there before.
    assert len(out) >= len(set(rows)) - sum(a[0] != b[0] for a in rows for b in rows if a[1] == b[1])


# Silence.


def test_a_silent_tag_goes_uncertain_then_bad_and_comes_back_with_its_next_sample() -> None:
    a_stage, events = stage(stale_ns=5 * S, **QUIET), list[Event]()
    a_stage.step(samples([20.0], start_s=10), events)
    assert ticks(a_stage, 10, 14.9) == []
    assert a_stage.stale.tolist() == [0]
    events += ticks(a_stage, 15, 16, 19)
    assert a_stage.stale.tolist() == [1]
    assert a_stage.stale_status.tolist() == [StatusCode.UNCERTAIN_LAST_USABLE_VALUE]
    events += ticks(a_stage, 20, 25)
    assert a_stage.stale.tolist() == [2]
    assert a_stage.stale_status.tolist() == [StatusCode.BAD_NO_COMMUNICATION]
    a_stage.step(samples([20.0], start_s=26), events)
    assert a_stage.stale.tolist() == [0]
    assert [(e.time // S, e.before, e.after, e.why) for e in events] == [
        (15, "Good", "Uncertain", "STALE"),
        (20, "Uncertain", "Bad", "STALE"),
        (26, "Bad", "Good", ""),
    ]


def test_a_tag_that_never_had_a_sample_waits_then_is_bad() -> None:
    a_stage = stage(stale_ns=5 * S)
    assert ticks(a_stage, 100, 104) == []
    assert a_stage.stale_status.tolist() == [StatusCode.BAD_WAITING_FOR_INITIAL_DATA]
    assert [(e.before, e.after, e.why) for e in ticks(a_stage, 105, 106)] == [("", "Bad", "STALE")]


def test_age_is_measured_from_arrival_not_from_source_time() -> None:
    a_stage = stage(stale_ns=5 * S)
    judged(a_stage, samples([20.0], start_s=1, arrival=[1000 * S]))
    ticks(a_stage, 1004)
    assert a_stage.stale.tolist() == [0]


def test_the_newest_sample_again_a_late_one_or_a_renewal_is_a_sign_of_life() -> None:
    signs: list[tuple[list[float], list[int]]] = [([21.0], [10 * S]), ([3.0], [2 * S])]
    for values, times in signs:
        a_stage = stage(stale_ns=5 * S)
        judged(a_stage, samples([20.0, 21.0], time=[9 * S, 10 * S]))
        judged(a_stage, samples(values, time=times, arrival=[14 * S]))
        assert ticks(a_stage, 16) == []
    renewed = stage(stale_ns=5 * S)
    judged(renewed, samples([20.0], start_s=10))
    renewed.renew([0], 14 * S)
    assert [e.after for e in ticks(renewed, 16, 19)] == ["Uncertain"]
    renewed.renew([0], 20 * S)
    assert [(e.before, e.after, e.why) for e in ticks(renewed, 21)] == [("Uncertain", "Good", "")]


def test_an_old_sample_redelivered_is_no_sign_of_life() -> None:
    a_stage = stage(stale_ns=5 * S)
    judged(a_stage, samples([20.0, 21.0], time=[9 * S, 10 * S]))
    judged(a_stage, samples([20.0], time=[9 * S], arrival=[14 * S]))
    assert a_stage.duplicates == 1
    assert [e.after for e in ticks(a_stage, 16)] == ["Uncertain"]


def test_a_clock_set_back_hides_no_silence() -> None:
    a_stage = ValidateStage(TagTable([tag("R101.a", stale_ns=5 * S), tag("R101.never", stale_ns=5 * S)]))
    ticks(a_stage, 9998)
    judged(a_stage, samples([20.0], start_s=10_000))
    assert ticks(a_stage, 10_001) == []
    told = ticks(a_stage, *range(6401, 6411))
    assert [(e.subject, e.time // S, e.after) for e in told if e.subject == "R101.a"] == [
        ("R101.a", 6406, "Uncertain")
    ]
    assert [(e.subject, e.time // S, e.after) for e in told if e.subject == "R101.never"] == [
        ("R101.never", 6406, "Bad")
    ]


def test_an_arrival_a_little_after_its_tick_is_no_clock_set_back() -> None:
    a_stage = stage(stale_ns=5 * S)
    judged(a_stage, samples([20.0], start_s=10.9))
    assert ticks(a_stage, 10, 15.8) == []
    assert [e.after for e in ticks(a_stage, 15.9)] == ["Uncertain"]


def test_a_tag_no_longer_in_the_plant_file_is_not_missed() -> None:
    table = TagTable([tag("R101.a", stale_ns=S)], {"R101.gone": 0})
    a_stage = ValidateStage(table)
    assert [e.subject for e in ticks(a_stage, 0, 9)] == ["R101.a"]


def test_an_event_is_made_for_each_change_of_severity_and_for_nothing_else() -> None:
    a_stage, events = stage(low=0, high=10, warn_high=8, **QUIET), list[Event]()
    a_stage.step(samples([1.0, 2.0, 9.0, 9.5, 11.0, 12.0, 3.0, 4.0]), events)
    assert [(e.time // S, e.before, e.after, e.why) for e in events] == [
        (3, "Good", "Uncertain", "WARN_RANGE"),
        (5, "Uncertain", "Bad", "RANGE"),
        (7, "Bad", "Good", ""),
    ]
    assert {e.subject for e in events} == {"R101.temperature"}
    assert a_stage.severity.tolist() == [GOOD]


def test_a_first_sample_that_is_not_good_is_told() -> None:
    events: list[Event] = []
    stage(low=0, high=10).step(samples([11.0]), events)
    assert [(e.before, e.after, e.why) for e in events] == [("", "Bad", "RANGE")]
