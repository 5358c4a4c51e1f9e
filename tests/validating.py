"""What the tests of validation share: one tag, its samples, and verdicts in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from twinloop.batch import Batch
from twinloop.records import Event, Tick
from twinloop.stages.validate import ValidateStage
from twinloop.status import format_reasons
from twinloop.tags import Tag, TagTable

S = 1_000_000_000
QUIET: dict[str, Any] = {"zscore": math.inf}
"""A tag on which only the check under test can fire."""


def tag(name: str = "R101.temperature", **rules: Any) -> Tag:
    return Tag(name=name, asset="R101", **rules)


def stage(**rules: Any) -> ValidateStage:
    return ValidateStage(TagTable([tag(**rules)]))


def samples(
    values: list[float] | np.ndarray, *, start_s: float = 1.0, every_s: float = 1.0, **columns: Any
) -> Batch:
    times = np.round((start_s + every_s * np.arange(len(values))) * S).astype(np.int64)
    given_columns = {"time": times, **columns}
    return Batch.raw(tag=np.zeros(len(values), np.int32), value=values, **given_columns)


def judged(a_stage: ValidateStage, batch: Batch) -> Batch:
    return a_stage.step(batch, [])


def words(batch: Batch) -> list[str]:
    return [format_reasons(int(reasons)) for reasons in batch.reasons]


def last(a_stage: ValidateStage, values: list[float], **where: Any) -> tuple[int, str]:
    out = judged(a_stage, samples(values, **where))
    return int(out.status[-1]), words(out)[-1]


def ticks(a_stage: ValidateStage, *seconds: float) -> list[Event]:
    events: list[Event] = []
    for second in seconds:
        a_stage.tick(Tick(int(second * S), [S]), events)
    return events
