"""All that the web knows of a running twin: a seam, so that its parts can be tried without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from twinloop.config.models import PlantConfig
from twinloop.records import Event, Outputs, Snapshot
from twinloop.stores.queries import LocalQueries
from twinloop.tags import TagTable

__all__ = ["Counts", "Look", "TagsNow", "TwinLook"]


@dataclass(frozen=True, slots=True)
class TagsNow:
    """The newest sample of every tag, columns (n,) by tag index; a copy that nobody changes.

    Attributes:
        time: ns since the epoch at which the value was true; `NO_TIME` before any sample.
        arrival: ns by this host's clock when it came in; `NO_TIME` before any.
        value: as received, in the tag's unit; NaN where there is none.
        estimate, std: the filter's value and its standard deviation; NaN where not known.
        status, reasons: as in a `Batch`; a silent tag's are lowered, as in `latest`.
    """

    time: npt.NDArray[np.int64]
    arrival: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    estimate: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples judged since this process began.

    Attributes:
        since_ns: when that was.
        severities: (n, 3): Good, Uncertain and Bad samples of each tag.
        reasons: (n, 32): samples of each tag with each bit of `Reason`.
    """

    since_ns: int
    severities: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.int64]


class TwinLook(Protocol):
    """A twin that runs. Everything but `listen` may be called from any thread and gives copies."""

    @property
    def table(self) -> TagTable:
        """The tags by index; those no longer in the plant file have no name."""

    @property
    def queries(self) -> LocalQueries:
        """Its history, with what is not sealed yet; blocking, so never on an event loop's thread."""

    def now(self) -> TagsNow:
        """The newest sample of every tag."""

    def counts(self) -> Counts:
        """What was judged how, since the start."""

    def snapshots(self) -> Mapping[str, Snapshot]:
        """The newest snapshot of each asset that has one."""

    def events(self) -> Sequence[Event]:
        """The newest events of this run, oldest first."""

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns, and how its sources and assets are."""

    def pipeline(self) -> dict[str, Any]:
        """Sources, logs, cycles and store in figures, as JSON takes them (null for what is not known).

        `sources`: of each `name link samples samples_per_s data_age_s attempts dead_letters problem`;
        `logs`: of each `name first_offset last_offset size_bytes dropped thinned` (`received`, `outputs`);
        `cycles`: `period_s cycles missed p50_s p99_s jitter_p99_s lag_s samples_per_s` and `histogram`;
        `histogram`: a list of `{le_s, count}`, not cumulative, the last with `le_s` null;
        `store`: `type lag_entries refused`; `totals`: `good uncertain bad duplicates dead_letters`.
        """

    def listen(self, callback: Callable[[Outputs], None]) -> None:
        """From now on call `callback` with all outputs in order, on the loop's thread: it must be quick."""


class Look(Protocol):
    """A process that runs a twin, from its first moment on.

    Attributes:
        path: the plant file.
        config: what it says.
        run: names this process among all that ever ran the plant.
        registry: its metrics.
        twin: None while it starts.
    """

    path: Path
    config: PlantConfig
    run: str
    registry: CollectorRegistry

    @property
    def twin(self) -> TwinLook | None:
        """The twin, once it runs."""
