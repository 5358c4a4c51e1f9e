"""Laws of validation as a whole: batches, restarts, statuses, state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.batch import Batch
from twinloop.records import Event
from twinloop.stages.validate import ValidateStage
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, StatusCode, severity
from twinloop.tags import TagTable
from validating import S, judged, samples, stage, tag, ticks, words

# Laws of the whole.

RULES: dict[str, Any] = {
    "low": -40,
    "high": 40,
    "warn_low": -30,
    "warn_high": 30,
    "rate_limit": 9.0,
    "spike": 12.0,
    "spike_fraction": 0.5,
    "zscore": 2.0,
    "window": 7,
    "rebaseline": 3,
    "stuck_ns": 3 * S,
    "stale_ns": 4 * S,
    "remember": 9,
}
TABLE = TagTable(
    [
        tag("R101.a", **RULES),
        tag("R101.b", **{**RULES, "window": 12, "rebaseline": 5}),
        tag("R101.c", remember=20),
    ]
)
CODES = [
    GOOD,
    GOOD,
    GOOD,
    GOOD,
    UNCERTAIN,
    int(StatusCode.UNCERTAIN_DATA_SUB_NORMAL),
    BAD,
    0x808C0000,
    0xC0000000,
]
ROW = st.tuples(
    st.integers(0, 2),
    st.integers(-2, 4),
    st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50), st.sampled_from([math.nan, math.inf])),
    st.sampled_from(CODES),
)


@st.composite
def histories(draw: st.DrawFn) -> Batch:
    rows = draw(st.lists(ROW, min_size=1, max_size=80))
    time = np.maximum(np.cumsum([step for _, step, _, _ in rows]), 0) * S
    return Batch.raw(
        tag=[t for t, _, _, _ in rows],
        time=time,
        value=[v for _, _, v, _ in rows],
        status=[s for _, _, _, s in rows],
        arrival=np.arange(len(rows)) * S,
    )


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_the_verdict_does_not_depend_on_how_rows_are_cut_into_batches_or_on_a_restart(
    history: Batch, data: st.DataObject
) -> None:
    whole, pieces, told, told_in_pieces = (
        ValidateStage(TABLE),
        ValidateStage(TABLE),
        list[Event](),
        list[Event](),
    )
    out = whole.step(history, told)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=6)))
    parts: list[Batch] = []
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        parts.append(pieces.step(history.take(slice(start, end)), told_in_pieces))
        again = ValidateStage(TABLE)
        again.restore(pieces.snapshot())
        pieces = again
    assert Batch.concat(parts).buffers() == out.buffers()
    assert told_in_pieces == told
    assert pieces.snapshot() == whole.snapshot()
    assert ticks(pieces, 90, 95, 200) == ticks(whole, 90, 95, 200)


@given(histories())
def test_no_status_is_raised_or_renamed_within_its_severity_and_no_reason_is_lost(history: Batch) -> None:
    marked = history.with_columns(reasons=np.full(len(history), Reason.OVERFLOW, np.uint32))
    a_stage = ValidateStage(TABLE)
    kept = np.array([len(a_stage.step(marked.take(slice(i, i + 1)), [])) for i in range(len(marked))], bool)
    out = ValidateStage(TABLE).step(marked, [])
    before, after = severity(history.status[kept]), severity(out.status)
    assert (after >= before).all()
    untouched = (after == before) & (before > 0)
    assert (out.status[untouched] == history.status[kept][untouched]).all()
    assert ((out.reasons & Reason.OVERFLOW) != 0).all()
    assert (
        (after == 0) | (out.reasons & ~np.uint32(Reason.OVERFLOW | Reason.LATE | Reason.SAME_TIME) != 0)
    ).all()
    assert (severity(out.status[np.isnan(out.value)]) >= 2).all()


@given(histories())
def test_what_comes_in_is_left_as_it_was(history: Batch) -> None:
    read_only = Batch.from_buffers(history.buffers())
    out = ValidateStage(TABLE).step(read_only, [])
    assert read_only.buffers() == history.buffers()
    assert out.buffers() == ValidateStage(TABLE).step(history, []).buffers()


def test_a_row_of_an_unknown_tag_is_a_bug_said_aloud() -> None:
    with pytest.raises(IndexError, match=r"outside 0\.\.0"):
        judged(stage(), Batch.raw(tag=[1], time=[S], value=[1]))


# State.


def test_new_tags_start_afresh_and_the_others_go_on() -> None:
    small = TagTable([tag("R101.a", spike=10.0)])
    large = TagTable([tag("R101.b", spike=10.0), tag("R101.a", spike=10.0)], small.indices)
    before = ValidateStage(small)
    judged(before, samples([85.0]))
    after = ValidateStage(large)
    after.restore(before.snapshot())
    out = judged(after, Batch.raw(tag=[0, 1], time=[2 * S, 2 * S], value=[120, 120]))
    assert words(out) == ["SPIKE", ""]


def test_statistics_restart_for_a_tag_whose_window_changed_and_only_for_it() -> None:
    noisy = [20.0, 20.1] * 10

    def two(window_a: int) -> ValidateStage:
        return ValidateStage(TagTable([tag("R101.a", window=window_a), tag("R101.b", window=10)]))

    before, after = two(20), two(30)
    for index in (0, 1):
        judged(before, Batch.raw(tag=[index] * 20, time=np.arange(20) * S, value=noisy))
    after.restore(before.snapshot())
    out = judged(after, Batch.raw(tag=[0, 1], time=[20 * S, 20 * S], value=[99.0, 99.0]))
    assert words(out) == ["", "ZSCORE"]


def test_bytes_that_are_no_state_are_refused() -> None:
    a_stage = stage()
    good = a_stage.snapshot()
    two = ValidateStage(TagTable([tag("R101.a"), tag("R101.b")]))
    for wrong in (b"", b"\x00", good[:-1], two.snapshot()):
        with pytest.raises(ValueError):
            a_stage.restore(wrong)
    a_stage.restore(good)
    assert a_stage.snapshot() == good
