"""What a stage promises: a pure step, and a state that can be kept."""

from __future__ import annotations

from typing import Protocol

from twinloop.batch import Batch
from twinloop.records import Event, Tick

__all__ = ["Stage"]


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
