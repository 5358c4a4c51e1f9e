"""Laws of the estimation stage."""

from __future__ import annotations

import numpy as np

from twinloop.batch import Batch
from twinloop.records import Event, EventKind, Tick
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.stage import Stage
from twinloop.tags import SECOND_NS, Tag, TagTable

TABLE = TagTable([Tag(name="R101.temperature", asset="R101", noise=0.5)])


def samples(values: list[float], start_s: int = 0) -> Batch:
    n = len(values)
    return Batch.raw(tag=np.zeros(n), time=(start_s + np.arange(n)) * SECOND_NS, value=values)


def test_every_row_leaves_with_an_estimate_and_keeps_what_it_brought() -> None:
    stage: Stage = EstimateStage(TABLE)
    batch = samples([20.0, 20.5, 20.2])

    result = stage.step(batch, [])

    assert np.isfinite([result.estimate, result.estimate_std, result.rate]).all()
    for column in ("tag", "time", "value", "status", "reasons", "arrival"):
        np.testing.assert_array_equal(getattr(result, column), getattr(batch, column))
    assert np.isnan(batch.estimate).all(), "a batch is not changed in place"


def test_the_twin_reads_each_tags_newest_belief() -> None:
    stage = EstimateStage(TABLE)

    result = stage.step(samples([20.0, 20.5, 20.2]), [])

    newest = (stage.value[0], stage.std[0], stage.rate[0], stage.time_ns[0])
    assert newest == (result.estimate[2], result.estimate_std[2], result.rate[2], 2 * SECOND_NS)
    assert stage.nis[0] == stage.bank.nis[0] > 0.0


def test_an_empty_batch_passes() -> None:
    assert len(EstimateStage(TABLE).step(Batch.empty(), [])) == 0


def test_a_belief_that_begins_anew_is_told_once_by_name() -> None:
    stage, events = EstimateStage(TABLE), list[Event]()

    stage.step(samples([20.0] * 50), events)
    stage.step(samples([90.0] * 50, start_s=50), events)

    assert events == [
        Event(
            time=52 * SECOND_NS,
            subject="R101.temperature",
            kind=EventKind.DIVERGED,
            before="20",
            after="90",
            why="its newest samples are too far from the estimate: it begins anew from them",
        )
    ]


def test_a_tick_changes_nothing() -> None:
    stage, events = EstimateStage(TABLE), list[Event]()
    stage.step(samples([20.0, 21.0]), events)
    before = stage.snapshot()

    stage.tick(Tick(time=100 * SECOND_NS, tiers=[SECOND_NS]), events)

    assert stage.snapshot() == before
    assert not events


def test_a_restored_stage_goes_on_as_if_nothing_had_happened() -> None:
    stage, restored = EstimateStage(TABLE), EstimateStage(TABLE)
    stage.step(samples([20.0, 21.0, 22.0]), [])

    restored.restore(stage.snapshot())

    following = samples([23.1, 23.9], start_s=3)
    assert restored.step(following, []).buffers() == stage.step(following, []).buffers()
