"""The fold is pure: the same records give the same outputs, whole, in parts, and after a restart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.batch import Received
from twinloop.errors import LogError
from twinloop.log.dictionary import Dictionary
from twinloop.loop.fold import Fold
from twinloop.records import (
    Alive,
    ClockSet,
    DeadLetter,
    DeadLetters,
    DeadReason,
    Event,
    EventKind,
    Link,
    LinkState,
    Outputs,
    Record,
    Samples,
    Started,
    Tick,
    decode_record,
    encode_outputs,
    encode_record,
)
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.stages.validate_times import BACK_SAMPLES
from twinloop.status import GOOD, UNCERTAIN, Reason, severity_name
from twinloop.tags import Resolver, Tag, TagTable
from twinloop.timetext import time_text
from twinloop.twin.twin import AssetSpec, Twin

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
TAGS = [
    Tag(
        name="R101.temperature",
        asset="R101",
        unit="degC",
        low=-50,
        high=400,
        spike_fraction=0.2,
        stale_ns=3 * SECOND,
        noise=0.5,
    ),
    Tag(name="R101.pressure", asset="R101", unit="bar", fill="linear"),
]


def new_fold(tags: list[Tag] = TAGS) -> Fold:
    table = TagTable(tags)
    dictionary = Dictionary(None)
    for tag in TAGS:
        dictionary.index(("field", tag.name, tag.unit))
    asset = AssetSpec(name="R101", tags=[0, 1], model="stirred_tank")
    twin = Twin([asset], table)
    route = RouteStage(Resolver(table, {"field": str}), dictionary.key)
    return Fold(route, ValidateStage(table), ImputeStage(table, twin.model_value), EstimateStage(table), twin)


def samples(second: float, *pairs: tuple[int, float], status: int = GOOD) -> Samples:
    n = len(pairs)
    time = np.full(n, START + round(second * SECOND))
    received = Received.of(
        series=[series for series, _ in pairs],
        source_time=time,
        server_time=time,
        arrival_time=time,
        value=[value for _, value in pairs],
        status=np.full(n, status),
        reasons=np.zeros(n),
    )
    return Samples.pack(received)


def tick(second: int, missed: int = 0) -> Tick:
    return Tick(START + second * SECOND, [SECOND], missed)


def fold_all(fold: Fold, records: list[Record], first: int = 0) -> list[Outputs]:
    # Through the encoding, as from a log: read-only memory, exact bytes.
    return [
        fold.step(offset, decode_record(encode_record(record)))
        for offset, record in enumerate(records, first)
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    records: list[Record] = []
    for second in range(draw(st.integers(3, 25))):
        for series in (0, 1):
            if draw(st.booleans()):
                value = draw(st.sampled_from([20.0, 20.5, 21.0, 45.0, 500.0, float("nan")]))
                at = second + draw(st.sampled_from([0.0, 0.25, -2.0]))
                records.append(samples(at, (series, value)))
        records.append(tick(second))
    return records


@settings(max_examples=40, deadline=None)
@given(history=histories(), cut=st.floats(0, 1))
def test_a_restored_fold_goes_on_as_if_it_had_never_stopped(history: list[Record], cut: float) -> None:
    whole = fold_all(new_fold(), history)
    before = new_fold()
    at = round(cut * len(history))
    first = fold_all(before, history[:at])
    after = new_fold()
    after.restore(before.snapshot())
    rest = fold_all(after, history[at:], at)
    assert [encode_outputs(o) for o in whole] == [encode_outputs(o) for o in first + rest]


def test_a_late_sample_moves_what_the_twin_reads_at_the_next_tick() -> None:
    history: list[Record] = []
    for second in range(5):
        history += [samples(second, (0, 20.0)), tick(second)]
    without, with_late = new_fold(), new_fold()
    for fold in (without, with_late):
        fold_all(fold, history)

    [late] = with_late.step(10, samples(3.5, (0, 22.0))).batch().estimate
    plain, moved = (fold.step(11, tick(5)).snapshots[0] for fold in (without, with_late))

    assert 20.0 < late < 22.0
    assert with_late.estimate.time_ns[0] == without.estimate.time_ns[0]
    assert plain.state["temperature_k"] < moved.state["temperature_k"]


def test_the_twin_goes_on_where_a_late_sample_makes_the_newest_one_unused() -> None:
    fold = new_fold()
    steady: list[Record] = []
    for second in range(20):
        steady += [samples(second, (0, 20.0)), tick(second)]
    fold_all(fold, [*steady, samples(29, (0, 33.0), status=UNCERTAIN), tick(29)])
    assert fold.estimate.time_ns[0] == START + 29 * SECOND

    for at in (27.0, 28.0, 28.9):
        fold.step(41, samples(at, (0, 20.0)))
    [snapshot] = fold.step(42, tick(30)).snapshots

    assert fold.estimate.time_ns[0] < START + 29 * SECOND, "it is gated now"
    assert snapshot.state["temperature_k"] == pytest.approx(293.15, abs=0.5)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([0, 1]), st.floats(-100, 600)), min_size=2, max_size=20),
    cut=st.floats(0, 1),
)
def test_what_is_received_together_or_apart_is_judged_alike(
    rows: list[tuple[int, float]], cut: float
) -> None:
    at = round(cut * len(rows))
    together = new_fold().step(0, samples(1, *rows)).batch()
    apart = new_fold()
    parts = [apart.step(i, samples(1, *part)).batch() for i, part in enumerate([rows[:at], rows[at:]])]
    joined = type(together).concat(parts)
    assert [a.tobytes() for a in map(bytes_of, [together])] == [a.tobytes() for a in map(bytes_of, [joined])]


def bytes_of(batch: object) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(batch.buffers()), np.uint8)  # type: ignore[attr-defined]


def test_the_tutorial_s_spike_and_range_are_judged_as_it_promised() -> None:
    fold = new_fold()
    values = [85.0, 85.1, 120.0, 85.05, 500.0]
    rows = [fold.step(i, samples(i, (0, value))).batch() for i, value in enumerate(values)]
    assert [severity_name(int(row.status[0])) for row in rows] == ["Good", "Good", "Uncertain", "Good", "Bad"]
    assert rows[2].reasons[0] & Reason.SPIKE
    assert rows[4].reasons[0] & Reason.RANGE


def test_a_missing_value_after_a_spike_is_filled_from_the_good_ones() -> None:
    fold = new_fold()
    for second, value in enumerate([85.0, 85.1, 120.0]):
        fold.step(second, samples(second, (0, value)))
    fills = fold.step(3, samples(3, (0, float("nan")))).filled()
    assert fills.value.tolist() == [85.1]
    assert severity_name(int(fills.status[0])) == "Uncertain"


def test_silence_is_an_event_and_life_without_a_sample_ends_it() -> None:
    fold = new_fold()
    fold.step(0, samples(0, (0, 20.0), (1, 1.0)))
    found = [event for s in range(1, 6) for event in fold.step(s, tick(s)).events]
    stale = [event for event in found if event.kind is EventKind.STATUS and event.why == "STALE"]
    assert [event.subject for event in stale] == ["R101.temperature"]
    assert fold.validate.stale.tolist() == [1, 0]
    fold.step(6, Alive(START + 6 * SECOND, [0]))
    again = fold.step(7, tick(6)).events
    assert fold.validate.stale.tolist() == [0, 0]
    assert any(event.subject == "R101.temperature" and event.after == "Good" for event in again)


def test_while_a_clock_set_back_is_not_proved_no_asset_is_in_sync() -> None:
    fold, hour = new_fold(), 3600
    seconds = [hour, hour + 1, *range(BACK_SAMPLES - 1), hour + 2, hour + 3, hour + 4, hour + 5]
    healths = []
    for offset, second in enumerate(seconds):
        rows = fold.step(2 * offset, samples(second, (0, 60.0 + offset), (1, 2.0))).batch()
        (shot,) = fold.step(2 * offset + 1, tick(second)).snapshots
        healths.append(shot.health.value)
        assert bool((rows.reasons & Reason.LATE).any()) == (second < hour)
        if second < hour:
            assert "the clock was set back" in shot.why
    assert healths == ["IN_SYNC"] * 2 + ["STALE"] * 11 + ["IN_SYNC"] * 2


def test_once_a_clock_set_back_is_proved_estimates_and_health_go_by_it() -> None:
    fold, hour = new_fold(), 3600
    for offset, second in enumerate([hour, hour + 1, *range(BACK_SAMPLES + 5)]):
        rows = fold.step(2 * offset, samples(second, (0, 60.0 + 0.1 * offset), (1, 2.0))).batch()
        (shot,) = fold.step(2 * offset + 1, tick(second)).snapshots
    assert not (rows.reasons & Reason.LATE).any()
    assert shot.health.value == "IN_SYNC", shot.why
    assert fold.estimate.time_ns.tolist() == [START + (BACK_SAMPLES + 4) * SECOND] * 2
    assert abs(rows.estimate[0] - rows.value[0]) < 3


def test_every_tick_gives_a_snapshot_and_an_overrun_is_named() -> None:
    fold = new_fold()
    fold.step(0, samples(0, (0, 60.0), (1, 2.0)))
    calm = fold.step(1, tick(1))
    assert [shot.asset for shot in calm.snapshots] == ["R101"]
    late = fold.step(2, tick(5, missed=3))
    assert [event.kind for event in late.events if event.kind is EventKind.OVERRUN]


def test_a_tag_whose_unit_was_edited_is_not_judged_by_numbers_of_the_old_unit() -> None:
    before = new_fold()
    for second in range(20):
        before.step(2 * second, samples(second, (0, 85.0), (1, 2.0)))
        before.step(2 * second + 1, tick(second))
    kelvin = replace(TAGS[0], unit="K", low=220, high=680)
    after = new_fold([kelvin, TAGS[1]])
    after.restore(before.snapshot())
    assert not after.step(40, samples(20, (0, float("nan")))).filled().value.size
    assert math.isnan(after.twin.model_value[0]) or after.twin.model_value[0] > 220.0
    row = after.step(41, samples(21, (0, 85.0))).batch()
    assert (row.value[0], row.status[0], row.reasons[0], row.estimate[0]) == (358.15, GOOD, 0, 358.15)
    assert len(after.step(42, samples(21, (0, 85.0))).batch()) == 0, "still known as a duplicate"
    (shot,) = after.step(43, tick(21)).snapshots
    assert shot.state["temperature_k"] == pytest.approx(358.15)
    assert shot.state["conversion"] > 0.1, "the model's own state has no unit to lose"


def test_links_and_dead_letters_pass_through_with_their_words() -> None:
    fold = new_fold()
    link = Link(START, "dcs", LinkState.ADDRESS_LOST, "ns=2;s=X", "no such node")
    event = fold.step(0, link).events[0]
    assert (event.kind, event.subject, event.why) == (EventKind.ADDRESS_LOST, "dcs: ns=2;s=X", "no such node")
    letter = DeadLetter(START, "field", "a/b", b"\xff", DeadReason.UNDECODABLE, "not JSON")
    assert fold.step(1, DeadLetters([letter])).dead == [letter]


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(LogError, match="state"):
        new_fold().restore(b"\x00garbage")


# Starts, and this host's clock.


def fresh_data(fold: Fold, second: int, offset: int = 0) -> list[Outputs]:
    """Both tags heard, and a tick a second later."""
    rows = samples(second, (0, 60.0 + second % 3), (1, 2.0 + second % 2))
    return [fold.step(offset, rows), fold.step(offset + 1, tick(second + 1))]


def test_the_time_a_twin_was_away_is_no_silence() -> None:
    fold = new_fold()
    fresh_data(fold, 0)
    started = fold.step(2, Started(START + 5000 * SECOND))
    (event,) = started.events
    assert (event.kind, event.subject) == (EventKind.STARTED, "twin")
    assert event.why == "away since 2027-01-15T08:00:01Z"
    assert fold.step(3, tick(5001)).events == []
    stale = [event for second in range(5002, 5005) for event in fold.step(second, tick(second)).events]
    assert [(e.time, e.kind) for e in stale if e.subject == "R101.temperature"] == [
        (START + 5003 * SECOND, EventKind.STATUS)
    ]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_host_clock_that_is_set_makes_nothing_stale_and_moves_no_model(hours: int) -> None:
    plain, stepped, by = new_fold(), new_fold(), hours * 3600
    for second in range(20):
        fresh_data(plain, second, 2 * second)
        fresh_data(stepped, second, 2 * second)
    at = START + (20 + by) * SECOND
    (event,) = stepped.step(40, ClockSet(at, by * SECOND)).events
    assert (event.kind, event.subject, event.after) == (EventKind.CLOCK_SET, "clock", time_text(at))
    assert event.before == time_text(at - by * SECOND)
    assert stepped.time == at, "its time is the new clock's, also where that is earlier"
    untouched, moved = plain.step(41, tick(21)), stepped.step(41, tick(21 + by))
    # Of a clock set back the newest samples are in the future: health says so until the tags go by it.
    assert [event for event in moved.events if event.kind is not EventKind.HEALTH] == []
    assert moved.time == START + (21 + by) * SECOND
    assert not stepped.validate.stale.any()
    wanted, found = untouched.snapshots[0], moved.snapshots[0]
    assert (found.state, found.predictions) == (wanted.state, wanted.predictions)


def test_a_source_s_clock_set_back_is_told_to_live_samples_only() -> None:
    for live in (True, False):
        fold, events = new_fold(), list[Event]()
        fold.step(0, samples(3600, (0, 60.0), (1, 2.0)))
        for second in range(12):
            record = samples(second, (0, 60.0 + second % 3), (1, 2.0))
            events += fold.step(second + 1, Samples(record.columns, live)).events
        kinds = [event.kind for event in events if event.kind is EventKind.CLOCK_BACK]
        assert len(kinds) == (2 if live else 0)


def test_a_restart_after_the_host_s_clock_was_set_back_goes_by_the_new_one() -> None:
    fold = new_fold()
    fresh_data(fold, 7200)
    again = new_fold()
    again.restore(fold.snapshot())
    assert again.step(2, Started(START)).time == START
    assert again.step(3, tick(1)).time == START + SECOND
    assert not again.validate.stale.any()


def test_a_start_an_age_after_the_last_record_stops_no_fold() -> None:
    """As a damaged record may hold; the time away is more than an int64."""
    fold = new_fold()
    for offset, time in enumerate((-(2**63) + 1, 2**63 - 1)):
        assert fold.step(offset, Started(time)).time == time
