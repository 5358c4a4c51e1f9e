"""What a tag remembers of its last samples: redelivered ones fold once, and every time is given out once."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.batch import NO_TIME, Batch
from twinloop.pages import PAGE_SHIFT
from twinloop.stages.validate import ValidateStage
from twinloop.stages.validate_times import fingerprint
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason
from twinloop.tags import TagTable
from validating import QUIET, S, judged, samples, stage, tag, words

Row = tuple[int, float, int]


@dataclass
class Model:
    """The rules in plain Python: a sorted list of times, and what was said at each."""

    remember: int
    times: list[int] = field(default_factory=list)
    said: dict[int, tuple[str, int]] = field(default_factory=dict)
    newest: int = NO_TIME
    newest_at: int = NO_TIME

    def place(self, row: Row) -> int:
        """The time given out; NO_TIME for a duplicate."""
        time, value, status = row
        what = (repr(value + 0.0), status)  # -0.0 + 0.0 is 0.0; NaN is itself in words
        at = time
        if time == self.newest and self.times and time < self.times[0] <= self.newest_at:
            at = self.times[0]
        while at in self.said:
            if self.said[at] == what:
                return NO_TIME
            at += 1
        late = time < self.newest
        self.newest, self.newest_at = max(self.newest, time), max(self.newest_at, at)
        if len(self.times) == self.remember:
            if late and at < self.times[0]:
                return at
            del self.said[self.times.pop(0)]
        bisect.insort(self.times, at)
        self.said[at] = what
        return at


def remembered(a_stage: ValidateStage, index: int = 0) -> list[int]:
    """The times a tag remembers, in the order they are kept."""
    state, rule = a_stage._state[index], a_stage._rules[index]
    places = a_stage.pages["seen"].array[rule["seen"] :][: rule["remember"]]
    return [int(t) for t in np.roll(places["time"], -int(state["first"]))[: int(state["remembered"])]]


def in_order(a_stage: ValidateStage) -> bool:
    """Whether the memory is as its readers take it to be."""
    state, times = a_stage._state[0], remembered(a_stage)
    ascending = all(a < b for a, b in itertools.pairwise(times))
    highest = times[-1] if times else NO_TIME
    known = state["newest_at"] in times or state["newest"] == NO_TIME
    rightly = highest == state["highest"] or (state["shift"] > 0 and highest < state["highest"])
    return ascending and bool(rightly) and bool(known)


VALUES = st.sampled_from([1.0, 2.0, 0.0, -0.0, math.nan, 1e-300])
ROWS = st.lists(
    st.tuples(st.integers(0, 30), VALUES, st.sampled_from([GOOD, GOOD, GOOD, UNCERTAIN, BAD])), max_size=80
)


def batch_of(rows: list[Row]) -> Batch:
    return samples([v for _, v, _ in rows], time=[t for t, _, _ in rows], status=[s for _, _, s in rows])


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 9), st.data())
def test_times_are_given_out_as_a_plain_dictionary_would(
    rows: list[Row], remember: int, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(rows), max_size=40)) if rows else []
    burst = data.draw(st.permutations(rows))
    rows = [*rows, *again, *burst]
    a_stage, model = stage(remember=remember), Model(remember)
    out = a_stage.step(batch_of(rows), [], live=False)
    placed = [model.place(row) for row in rows]
    assert out.time.tolist() == [at for at in placed if at != NO_TIME]
    assert remembered(a_stage) == model.times
    assert not rows or in_order(a_stage)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 120), st.integers(0, 2**32))
def test_what_is_remembered_is_folded_once_however_it_is_redelivered(
    count: int, remember: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a_stage = stage(remember=remember)
    history = samples(np.arange(float(count)))
    judged(a_stage, history.take(rng.permutation(count)))
    known = history.take(slice(max(0, count - remember), None))
    again = known.take(rng.integers(0, len(known), 3 * len(known)))
    assert len(judged(a_stage, again)) == 0
    assert a_stage.duplicates == len(again)


def test_by_default_a_sample_is_recognised_among_the_last_4096() -> None:
    a_stage = stage()
    history = samples(np.arange(5000.0) % 7)
    judged(a_stage, history)
    again = a_stage.step(history, [], live=False)
    assert again.time.tolist() == history.time[: 5000 - 4096].tolist()
    assert set(words(again)) == {"LATE"}


def test_more_samples_than_are_remembered_may_share_the_newest_time_and_each_gets_its_own() -> None:
    out = judged(stage(remember=3), samples(np.arange(50.0), time=np.full(50, S)))
    assert out.time.tolist() == list(range(S, S + 50))


def test_a_print_tells_values_and_statuses_apart_and_no_sign_of_zero_or_kind_of_nan() -> None:
    def print_of(value: float, status: int) -> int:
        return int(fingerprint(np.float64(value).view(np.uint64), value, status))

    other_nan = float(np.uint64(0x7FF8_0000_0000_0001).view(np.float64))
    assert print_of(0.0, GOOD) == print_of(-0.0, GOOD)
    assert print_of(math.nan, BAD) == print_of(other_nan, BAD)
    values = [
        0.0,
        1.0,
        -1.0,
        2.0,
        0.1,
        math.inf,
        -math.inf,
        math.nan,
        5e-324,
        1e308,
        *map(float, range(3, 500)),
    ]
    statuses = [GOOD, UNCERTAIN, BAD, 1, 0x40900000, 0x808C0000, 0xC0000000, 0xFFFFFFFF]
    assert len({print_of(v, s) for v in values for s in statuses}) == len(values) * len(statuses)


# Pages.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_every_page_that_changes_is_marked(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rules: dict[str, Any] = {"spike": 5.0, "rebaseline": 3}
    table = TagTable([tag(f"R.{k}", window=n, remember=m, **rules) for k, (n, m) in enumerate(SIZES)])
    a_stage = ValidateStage(table)
    for second in range(6):
        for pages in a_stage.pages.values():
            pages.clean()
        before = {name: pages.array.tobytes() for name, pages in a_stage.pages.items()}
        time = (second * 100 + rng.integers(-60, 100, count)) * S
        value = np.where(rng.random(count) < 0.2, 50.0, 0.0) + rng.normal(size=count)
        judged(a_stage, Batch.raw(tag=rng.integers(0, len(SIZES), count), time=time, value=value))
        for name, pages in a_stage.pages.items():
            was, now = (np.frombuffer(raw, np.uint8) for raw in (before[name], pages.array.tobytes()))
            changed = set((np.flatnonzero(was != now) >> PAGE_SHIFT).tolist())
            assert changed <= set(np.flatnonzero(pages.dirty).tolist()), name


SIZES = [(200, 100), (150, 300), (10, 1)]


def test_samples_in_order_change_few_pages_however_much_is_remembered() -> None:
    a_stage = stage()
    judged(a_stage, samples(np.arange(6000.0)))
    a_stage.pages["seen"].clean()
    judged(a_stage, samples(np.arange(10.0), start_s=7000))
    assert a_stage.pages["seen"].dirty.sum() <= 2


# Restoring.


def filled(remember: int, count: int = 40) -> ValidateStage:
    a_stage = stage(remember=remember, **QUIET)
    judged(a_stage, samples(np.arange(float(count))))
    return a_stage


@pytest.mark.parametrize(("before", "after"), [(16, 8), (8, 16), (64, 8), (64, 1), (1, 64)])
def test_where_remember_changes_the_newest_that_find_room_are_remembered(before: int, after: int) -> None:
    old, new = filled(before), stage(remember=after, **QUIET)
    new.restore(old.snapshot())
    kept = min(before, after, 40)
    assert remembered(new) == [(41 - k) * S for k in range(kept, 0, -1)]
    assert in_order(new)
    assert new.pages["seen"].dirty.all()
    assert len(judged(new, samples(np.arange(40.0 - kept, 40.0), start_s=41.0 - kept))) == 0


def test_a_state_of_the_same_layout_is_taken_up_clean_and_to_the_byte() -> None:
    old, new = filled(16), stage(remember=16, **QUIET)
    new.restore(old.snapshot())
    assert new.snapshot() == old.snapshot()
    assert not any(pages.dirty.any() for pages in new.pages.values())


def test_new_tags_move_nothing_that_is_remembered() -> None:
    small = TagTable([tag("R.b", remember=4), tag("R.c", remember=6)])
    more = TagTable([tag("R.a", remember=3), tag("R.b", remember=4), tag("R.c", remember=6)], small.indices)
    old, new = ValidateStage(small), ValidateStage(more)
    rows = Batch.raw(tag=[0, 1] * 10, time=np.repeat(np.arange(10), 2) * S, value=np.arange(20.0))
    judged(old, rows)
    new.restore(old.snapshot())
    assert [remembered(new, k) for k in range(3)] == [*(remembered(old, k) for k in range(2)), []]
    assert len(judged(new, rows.take(slice(12, None)))) == 0
    assert new.pages["seen"].dirty.all()


def test_other_rules_keep_what_still_means_something() -> None:
    def made(**rules: Any) -> ValidateStage:
        return stage(**{"remember": 8, "window": 12, "rebaseline": 4, "spike": 10.0, **rules})

    old = made()
    judged(old, samples([20.0, 20.1] * 10 + [90.0, 90.0]))
    for change in ({"window": 20}, {"rebaseline": 5}, {"unit": "K"}, {"remember": 4}):
        new = made(**change)
        new.restore(old.snapshot())
        assert len(judged(new, samples([90.0], start_s=22))) == 0, f"{change}: still known"
        assert (new._state["count"][0] > 0) == (not {"window", "unit"} & change.keys()), change
        assert new._state["run"][0] == (0 if {"rebaseline", "unit"} & change.keys() else 2), change
        out = judged(new, samples([20.0], start_s=23))
        assert out.status[0] == GOOD


def test_a_late_sample_older_than_all_that_is_remembered_pushes_nothing_out() -> None:
    a_stage = filled(8)
    before = remembered(a_stage)
    out = judged(a_stage, samples([7.0, 7.0], time=[3 * S + 1, 3 * S + 1]))
    assert out.time.tolist() == [3 * S + 1, 3 * S + 1], "the store tells the second by its time"
    assert all(out.reasons == Reason.LATE)
    assert remembered(a_stage) == before
