"""What a stage promises: a pure step, and a state that can be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from twinloop.batch import Batch
from twinloop.records import Event, Tick
from twinloop.tags import TagTable

__all__ = ["Stage", "converted", "units_of"]


class Stage(Protocol):
    """One step of the fold. It does no I/O, reads no clock and draws no unseeded random number.

    Its state has one entry a tag and does not depend on how many samples `step` is given at once.
    """

    def step(self, batch: Batch, events: list[Event]) -> Batch:
        """The samples judged, mapped or estimated; what a person should know is added to `events`."""
        ...

    def tick(self, tick: Tick, events: list[Event]) -> None:
        """Let time pass: what must be noticed without a sample arriving."""
        ...

    def snapshot(self) -> bytes:
        """The whole state; `restore` of it and the same input give the same output, bit for bit."""
        ...

    def restore(self, state: bytes) -> None:
        """Take up a state; tags that are new since then start afresh.

        Raises:
            ValueError: the bytes are not a state of this stage and version.
        """
        ...


def units_of(table: TagTable) -> list[str]:
    """Each tag's unit by index; empty for a hole."""
    return [tag.unit if (tag := table[index]) else "" for index in range(len(table))]


def converted(before: Sequence[str], now: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which of the tags known before have another unit now, so that numbers kept of them mean nothing."""
    return np.array([was != unit for was, unit in zip(before, now, strict=False)], np.bool_)
