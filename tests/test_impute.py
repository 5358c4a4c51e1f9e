"""What imputation promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.batch import Batch
from twinloop.errors import ConfigError
from twinloop.records import Tick
from twinloop.stages.impute import PENDING, ImputeStage
from twinloop.stages.validate import ValidateStage
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, StatusCode
from twinloop.tags import Tag, TagTable

S = 1_000_000_000
HELD = StatusCode.UNCERTAIN_LAST_USABLE_VALUE
INTERPOLATED = StatusCode.UNCERTAIN_DATA_SUB_NORMAL
SUBSTITUTED = StatusCode.UNCERTAIN_SUBSTITUTE_VALUE


def tag(name: str = "R101.temperature", **rules: Any) -> Tag:
    return Tag(name=name, asset="R101", **rules)


def one(fill: str, **rules: Any) -> TagTable:
    return TagTable([tag(fill=fill, **rules)])


def judged(
    values: list[float], statuses: list[int] | None = None, *, start_s: int = 1, **columns: Any
) -> Batch:
    """Rows as validation hands them on: what is no number is Bad."""
    made = [GOOD if math.isfinite(v) else BAD for v in values] if statuses is None else statuses
    time = (start_s + np.arange(len(values))) * S
    given_columns = {"time": time, "status": made, **columns}
    return Batch.raw(tag=np.zeros(len(values), np.int32), value=values, **given_columns)


def fills(batch: Batch) -> list[tuple[int, float, int]]:
    rows = zip(batch.time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True)
    return [(time // S, value, status) for time, value, status in rows]


def test_a_missing_value_after_a_spike_is_filled_from_good_values_near_85() -> None:
    for fill, expected, status in (("hold", 85.04, HELD), ("linear", 85.05, INTERPOLATED)):
        table = one(fill, low=-50, high=400, spike_fraction=0.2)
        received = judged([85.0, 85.04, 120.0, math.nan, 85.06], [GOOD] * 5)
        out = ValidateStage(table).step(received, [])
        ((second, value, code),) = fills(ImputeStage(table).step(out))
        assert (second, code) == (4, status)
        assert value == pytest.approx(expected, abs=0.01)


def test_hold_repeats_the_last_good_value_for_every_bad_row() -> None:
    out = ImputeStage(one("hold")).step(
        judged([20.0, math.nan, 99.0, 21.0, math.nan], [GOOD, BAD, BAD, GOOD, BAD])
    )
    assert fills(out) == [(2, 20.0, HELD), (3, 20.0, HELD), (5, 21.0, HELD)]


def test_a_fill_carries_why_it_was_needed_and_when_that_arrived() -> None:
    reasons = [0, int(Reason.NON_FINITE)]
    out = ImputeStage(one("hold")).step(judged([20.0, math.nan], reasons=reasons, arrival=[S, 7 * S]))
    assert (out.reasons.tolist(), out.arrival.tolist()) == ([Reason.NON_FINITE], [7 * S])
    assert np.isnan(out.estimate[0])


def test_an_uncertain_row_gets_no_fill_and_feeds_none() -> None:
    out = ImputeStage(one("hold")).step(judged([20.0, 120.0, math.nan], [GOOD, UNCERTAIN, BAD]))
    assert fills(out) == [(3, 20.0, HELD)]


def test_linear_waits_for_the_next_good_row_and_lies_between_the_two() -> None:
    stage = ImputeStage(one("linear"))
    assert len(stage.step(judged([10.0, math.nan, math.nan]))) == 0
    assert stage.pending == 2
    assert fills(stage.step(judged([math.nan, 18.0], start_s=4))) == [
        (2, 12.0, INTERPOLATED),
        (3, 14.0, INTERPOLATED),
        (4, 16.0, INTERPOLATED),
    ]
    assert stage.pending == 0


def test_linear_holds_what_waited_while_the_source_s_clock_was_set_back() -> None:
    stage = ImputeStage(one("linear"))
    stage.step(judged([20.0, math.nan], start_s=5000))
    back = judged([math.nan, math.nan, 30.0, math.nan, 32.0], start_s=1000)
    out = fills(stage.step(back))
    assert out == [(5001, 20.0, HELD), (1000, 20.0, HELD), (1001, 20.0, HELD), (1003, 31.0, INTERPOLATED)]


def test_linear_holds_the_oldest_when_too_many_wait_and_counts_them() -> None:
    stage = ImputeStage(one("linear"))
    early = stage.step(judged([10.0, *[math.nan] * (PENDING + 2)]))
    assert fills(early) == [(2, 10.0, HELD), (3, 10.0, HELD)]
    assert stage.held_early == 2
    late = stage.step(judged([10.0], start_s=PENDING + 4))
    assert fills(late) == [(second, 10.0, INTERPOLATED) for second in range(4, PENDING + 4)]


def test_what_is_not_analogue_is_never_interpolated() -> None:
    out = ImputeStage(one("linear", analogue=False)).step(judged([0.0, math.nan, 1.0]))
    assert fills(out) == [(2, 0.0, HELD)]


def test_the_models_present_value_stands_in_or_else_the_last_good_one() -> None:
    model = np.array([math.nan])
    stage = ImputeStage(one("model"), model)
    assert fills(stage.step(judged([20.0, math.nan]))) == [(2, 20.0, HELD)]
    model[0] = 23.5
    assert fills(stage.step(judged([math.nan], start_s=3))) == [(3, 23.5, SUBSTITUTED)]


def test_none_fills_nothing() -> None:
    stage = ImputeStage(one("none"))
    assert len(stage.step(judged([20.0, math.nan]))) == 0
    assert len(stage.tick(Tick(9 * S, [S]), np.array([1], np.uint8))) == 0
    assert stage.unfilled == 0


def test_without_a_good_value_before_there_is_no_fill_and_it_is_counted() -> None:
    for fill in ("hold", "linear", "model"):
        stage = ImputeStage(one(fill))
        assert len(stage.step(judged([math.nan, 120.0], [BAD, UNCERTAIN]))) == 0
        assert len(stage.tick(Tick(9 * S, [S]), np.array([2], np.uint8))) == 0
        assert (stage.unfilled, stage.filled, stage.pending) == (1, 0, 0)


def test_a_late_row_is_neither_filled_nor_a_source() -> None:
    late = int(Reason.LATE)
    for fill in ("hold", "linear", "model"):
        stage = ImputeStage(one(fill), np.array([50.0]))
        rows = judged(
            [20.0, math.nan, 30.0, 21.0], time=[9 * S, 3 * S, 4 * S, 10 * S], reasons=[0, late, late, 0]
        )
        assert len(stage.step(rows)) == 0
        assert stage.unfilled == 1


def test_a_stale_tag_gets_one_fill_at_each_tick_of_its_tier() -> None:
    table = TagTable(
        [tag("R101.a"), tag("R101.b", fill="model"), tag("R101.slow", every_ns=60 * S), tag("R101.fresh")]
    )
    stage = ImputeStage(table, np.array([1.0, 2.0, 3.0, 4.0]))
    stage.step(Batch.raw(tag=[0, 1, 2, 3], time=[S] * 4, value=[20.0, 21.0, 22.0, 23.0]))
    stale = np.array([1, 2, 1, 0], np.uint8)
    out = stage.tick(Tick(9 * S, [S]), stale)
    assert (out.tag.tolist(), fills(out)) == ([0, 1], [(9, 20.0, HELD), (9, 2.0, SUBSTITUTED)])
    assert out.reasons.tolist() == [Reason.STALE] * 2
    assert stage.tick(Tick(60 * S, [S, 60 * S]), stale).tag.tolist() == [0, 1, 2]
    assert stage.filled == 5


def test_an_unknown_fill_and_a_model_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"R101\.temperature: fill 'cubic' is none of"):
        ImputeStage(one("cubic"))
    with pytest.raises(ConfigError, match=r"shape \(2,\), wanted \(1,\)"):
        ImputeStage(one("model"), np.zeros(2))


TABLE = TagTable([tag(f"R101.{fill}", fill=fill) for fill in ("hold", "linear", "model", "none")])
ROW = st.tuples(
    st.integers(0, 3),
    st.one_of(st.floats(-100, 100), st.just(math.nan)),
    st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD]),
    st.sampled_from([0, 0, 0, int(Reason.LATE)]),
)


@st.composite
def histories(draw: st.DrawFn) -> Batch:
    rows = draw(st.lists(ROW, min_size=1, max_size=120))
    return Batch.raw(
        tag=[t for t, _, _, _ in rows],
        time=np.arange(len(rows)) * S,
        value=[v for _, v, _, _ in rows],
        status=[BAD if math.isnan(v) else s for _, v, s, _ in rows],
        reasons=[r for _, _, _, r in rows],
    )


@given(histories(), st.data())
def test_fills_do_not_depend_on_how_rows_are_cut_into_batches_or_on_a_restart(
    history: Batch, data: st.DataObject
) -> None:
    model = np.array([1.0, 2.0, 3.0, 4.0])
    whole, pieces = ImputeStage(TABLE, model), ImputeStage(TABLE, model)
    out = whole.step(history)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=6)))
    parts: list[Batch] = []
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        parts.append(pieces.step(history.take(slice(start, end))))
        again = ImputeStage(TABLE)
        again.restore(pieces.snapshot())
        pieces = again
    assert Batch.concat(parts).buffers() == out.buffers()
    assert pieces.snapshot() == whole.snapshot()


@given(histories())
def test_every_bad_row_is_filled_waits_or_is_counted_and_every_fill_is_uncertain(history: Batch) -> None:
    stage = ImputeStage(TABLE)
    out = stage.step(history)
    bad = int(((history.status == BAD) & (history.tag != 3)).sum())
    assert bad == len(out) + stage.pending + stage.unfilled
    assert stage.filled == len(out)
    assert set(out.status.tolist()) <= {HELD, INTERPOLATED}
    good = history.value[history.status == GOOD]
    assert np.isfinite(out.value).all()
    if len(out):
        assert good.min() - 1e-9 <= out.value.min() <= out.value.max() <= good.max() + 1e-9


def test_new_tags_start_afresh_and_waits_end_where_the_fill_has_changed() -> None:
    before = ImputeStage(TagTable([tag("R101.a", fill="linear"), tag("R101.b", fill="linear")]))
    before.step(
        Batch.raw(tag=[0, 1, 0, 1], time=[S, S, 2 * S, 2 * S], value=[1, 2, 0, 0], status=[0, 0, BAD, BAD])
    )
    table = TagTable(
        [tag("R101.a"), tag("R101.b", fill="linear"), tag("R101.c", fill="linear")],
        {"R101.a": 0, "R101.b": 1},
    )
    after = ImputeStage(table)
    after.restore(before.snapshot())
    assert (after.pending, after.unfilled) == (1, 1)
    rows = Batch.raw(tag=[0, 1, 2], time=[3 * S] * 3, value=[0, 4, 0], status=[BAD, 0, BAD])
    assert fills(after.step(rows)) == [(3, 1.0, HELD), (2, 3.0, INTERPOLATED)]


def test_bytes_that_are_no_state_are_refused() -> None:
    stage = ImputeStage(one("hold"))
    good = stage.snapshot()
    for wrong in (b"", b"\x00", good[:-1], ImputeStage(TABLE).snapshot()):
        with pytest.raises(ValueError):
            stage.restore(wrong)
    stage.restore(good)
    assert stage.snapshot() == good


def test_a_row_of_an_unknown_tag_is_a_bug_said_aloud() -> None:
    with pytest.raises(IndexError, match=r"outside 0\.\.0"):
        ImputeStage(one("hold")).step(Batch.raw(tag=[1], time=[S], value=[1]))
