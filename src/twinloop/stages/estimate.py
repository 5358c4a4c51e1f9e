"""The fold's stage that gives every sample its estimate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from twinloop.batch import Batch
from twinloop.estimation.kalman import KalmanBank, Reset
from twinloop.pages import Pages
from twinloop.records import Event, EventKind, Tick
from twinloop.tags import TagTable

__all__ = ["EstimateStage"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class EstimateStage:
    """Fills `estimate`, `estimate_std` and `rate` of every row from a `KalmanBank`.

    Args:
        table: the tags.

    Attributes:
        bank: the beliefs, for the twin to read between steps.
    """

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self.bank = KalmanBank(table)

    @property
    def value(self) -> F64:
        """`KalmanBank.value`: each tag's value at its `time_ns`, shape (n_tags,)."""
        return self.bank.value

    @property
    def std(self) -> F64:
        """`KalmanBank.std`: the standard deviation of `value`, shape (n_tags,)."""
        return self.bank.std

    @property
    def rate(self) -> F64:
        """`KalmanBank.rate`: tag units per second at `time_ns`, shape (n_tags,)."""
        return self.bank.rate

    @property
    def time_ns(self) -> I64:
        """`KalmanBank.time_ns`: the newest sample used, ns since epoch UTC, shape (n_tags,)."""
        return self.bank.time_ns

    @property
    def nis(self) -> F64:
        """`KalmanBank.nis`: running mean NIS, 1 is expected, shape (n_tags,)."""
        return self.bank.nis

    def step(self, batch: Batch, events: list[Event]) -> Batch:
        """The rows estimated; a belief that had to begin anew is a DIVERGED event of its tag."""
        resets: list[Reset] = []
        estimated = self.bank.step(batch, resets)
        events.extend(self._event(reset) for reset in resets)
        return estimated

    def _event(self, reset: Reset) -> Event:
        return Event(
            time=reset.time,
            subject=self._table.names[reset.tag],
            kind=EventKind.DIVERGED,
            before=f"{reset.before:.6g}",
            after=f"{reset.after:.6g}",
            why="its newest samples are too far from the estimate: it begins anew from them",
        )

    def tick(self, tick: Tick, events: list[Event]) -> None:
        """Nothing: a belief at any later time is computed when it is asked for."""

    @property
    def pages(self) -> Mapping[str, Pages]:
        """`KalmanBank.pages`: the samples kept for late ones to be folded in."""
        return self.bank.pages

    def small(self) -> bytes:
        """The present beliefs."""
        return self.bank.small()

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        """Take up beliefs and samples, as `restore` does.

        Raises:
            ValueError: it is not a state of this stage and version.
        """
        self.bank.adopt(small, arrays)

    def snapshot(self) -> bytes:
        """All beliefs and the samples kept."""
        return self.bank.snapshot()

    def restore(self, state: bytes) -> None:
        """Take up beliefs; tags that are new since then start afresh.

        Raises:
            ValueError: the bytes are not a state of this stage and version.
        """
        self.bank.restore(state)
