"""What a live page is shown of a tag is what a question about the newest values answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.outputs import NAMES, SECOND, T0, Row, batch
from twinloop.batch import NO_TIME, Batch
from twinloop.records import Event, EventKind, Health, Outputs, Snapshot
from twinloop.seen import Seen
from twinloop.status import GOOD, Reason, StatusCode, status_text
from twinloop.stores.latest import Latest

INDICES = {name: index for index, name in enumerate(NAMES)}
LATE, BACK = int(Reason.LATE), int(Reason.CLOCK_BACK)


def seen() -> Seen:
    return Seen(INDICES, len(NAMES))


def silence(tag: int, level: int) -> Event:
    code = [StatusCode.GOOD, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, StatusCode.BAD_NO_COMMUNICATION][level]
    return Event(T0, NAMES[tag], EventKind.STATUS, "", status_text(code), "STALE" if level else "")


class Plant:
    """Makes outputs as the fold does: times ascend but for what is late, or after a clock was set back."""

    def __init__(self) -> None:
        self.newest = dict.fromkeys(range(3), 0)  # seconds after T0
        self.arrival = 0
        self.covers = -1

    def outputs(self, rows: list[tuple[int, str, int]], silent: list[tuple[int, int]]) -> Outputs:
        made: dict[str, list[int]] = {"tag": [], "time": [], "reasons": [], "arrival": []}
        for tag, wish, step in rows:
            self.arrival += 1
            # Nothing is late at first, and no store can tell the two clocks of one entry apart.
            how = "next" if not self.newest[tag] or (wish == "back" and tag in made["tag"]) else wish
            reasons, at, arrival = 0, self.newest[tag] + step, self.arrival
            if how == "back":
                reasons, at = BACK, self.newest[tag] - 10 * step or -1
            elif how != "next":
                reasons, at = LATE, self.newest[tag] - step
                arrival = arrival if how == "late" else arrival - 1000  # or read only now
            if not reasons & LATE:
                self.newest[tag] = at
            unique = T0 + at * SECOND + self.arrival  # the fold moves a second sample of one time, too
            for name, value in (("tag", tag), ("time", unique), ("reasons", reasons), ("arrival", arrival)):
                made[name].append(value)
        self.covers += 1
        columns = Batch.raw(
            tag=made["tag"],
            time=made["time"],
            value=np.arange(len(rows)) + 100.0 * self.covers,
            reasons=made["reasons"],
            arrival=[T0 + each * SECOND for each in made["arrival"]],
        )
        events = [silence(tag, level) for tag, level in silent]
        return Outputs(self.covers, T0, columns.buffers() if rows else [], events=events)


TAGS = st.integers(0, 2)
ROWS = st.tuples(TAGS, st.sampled_from(["next", "next", "next", "late", "old", "back"]), st.integers(1, 5))
STEPS = st.lists(
    st.tuples(
        st.lists(ROWS, max_size=6), st.lists(st.tuples(TAGS, st.integers(0, 2)), max_size=2), st.booleans()
    ),
    max_size=12,
)


@given(STEPS)
@settings(deadline=None)
def test_the_newest_of_each_tag_is_what_latest_says_however_often_it_is_asked(
    steps: list[tuple[list[tuple[int, str, int]], list[tuple[int, int]], bool]],
) -> None:
    live, latest, plant = seen(), Latest(NAMES), Plant()
    for rows, silent, ask in steps:
        outputs = plant.outputs(rows, silent)
        live.hear(outputs)
        latest.add([(outputs.covers, outputs)])
        if ask:
            live.now()
    now, stored = live.now(), latest.rows()
    tag = stored["tag"].to_numpy()
    assert now.time[tag].tolist() == stored["time"].to_pylist()
    assert now.value[tag].tolist() == stored["value"].to_pylist()
    assert now.status[tag].tolist() == stored["status"].to_pylist()
    assert now.reasons[tag].tolist() == stored["reasons"].to_pylist()
    assert (now.arrival[tag] // 1_000_000).tolist() == stored["arrival_ms"].to_pylist()
    others = np.setdiff1d(np.arange(len(NAMES)), tag)
    assert set(now.time[others].tolist()) <= {NO_TIME}


def test_what_was_stored_before_the_start_is_shown_until_something_is_heard() -> None:
    before, latest = Latest(NAMES), seen()
    before.add([(0, Outputs(0, T0, batch([(0, 1.0, 20.0), (1, 1.0, 2.0)]).buffers()))])
    latest.begin(np.array([0, 2, *[0] * (len(NAMES) - 2)], np.uint8), 1)
    latest.hear(Outputs(1, T0, batch([(0, 0.5, 21.0)]).buffers()))
    latest.take_up(before.received())
    now = latest.now()
    assert now.value[:2].tolist() == [21.0, 2.0], "what is heard is not overwritten"
    assert now.status[1] == StatusCode.BAD_NO_COMMUNICATION, "silent it was already before the start"
    latest.hear(Outputs(2, T0, batch([(1, 2.0, 3.0)]).buffers()))
    assert (latest.now().value[1], latest.now().status[1]) == (3.0, GOOD)


def test_a_tag_that_never_spoke_is_bad_and_waits_for_its_first_value() -> None:
    now = seen().now()
    assert set(now.status.tolist()) == {StatusCode.BAD_WAITING_FOR_INITIAL_DATA}
    assert np.isnan(now.value).all()


def test_every_sample_counts_once_by_severity_and_by_each_of_its_reasons() -> None:
    live = seen()
    spike = int(Reason.SPIKE | Reason.RATE)
    for covers in range(3):
        rows: list[Row] = [
            (0, covers, 1.0),
            (0, covers + 0.5, 2.0, 0x40000000, spike),
            (1, covers, 0.0, 0x80000000, 2),
        ]
        live.hear(Outputs(covers, T0, batch(rows).buffers()))
    counts = live.counts()
    assert counts.severities[:2].tolist() == [[3, 3, 0], [0, 0, 3]]
    assert {bit: int(n) for bit, n in enumerate(counts.reasons[0]) if n} == {3: 3, 4: 3}
    assert {bit: int(n) for bit, n in enumerate(counts.reasons[1]) if n} == {1: 3}


def test_nobody_who_asks_may_change_what_is_known() -> None:
    live = seen()
    live.hear(Outputs(0, T0, batch([(0, 1.0, 20.0)]).buffers()))
    with pytest.raises(ValueError, match="read-only"):
        live.now().value[:] = 0.0
    live.counts().severities[:] = 0
    assert live.now().value[0] == 20.0
    assert live.counts().severities[0, 0] == 1


def test_what_nobody_asks_for_does_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.seen._GATHERED", 100)
    live = seen()
    for covers in range(1000):
        live.hear(Outputs(covers, T0, batch([(0, float(covers), 1.0)]).buffers()))
        assert len(live._waiting) <= 101
    assert live.now().time[0] == T0 + 999 * SECOND


def test_news_is_kept_in_order_and_only_so_much_of_it() -> None:
    live = seen()
    for covers in range(1500):
        events = [Event(T0 + covers, "R101", EventKind.HEALTH, after=str(covers))]
        shot = Snapshot(T0 + covers, "R101", Health.IN_SYNC)
        live.hear(Outputs(covers, T0, events=events, snapshots=[shot]))
    assert [event.after for event in live.events()][-2:] == ["1498", "1499"]
    assert len(live.events()) == 1000
    assert live.snapshots()["R101"].time == T0 + 1499
