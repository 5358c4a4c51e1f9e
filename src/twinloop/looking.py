"""What a running twin shows: `Look` and `TwinLook` of `twinloop.web.look`, over the running parts."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry

from twinloop.config.expand import cycle_ns
from twinloop.config.models import PlantConfig
from twinloop.errors import TwinloopError
from twinloop.history import open_queries
from twinloop.log.log import Log
from twinloop.log.memory import MemoryLog
from twinloop.loop.metrics import SECONDS, Metrics, quantile
from twinloop.loop.sync import Loop
from twinloop.records import Event, Outputs, Snapshot, decode_outputs
from twinloop.screen import CycleFigures
from twinloop.seen import Seen
from twinloop.stores.queries import LocalQueries
from twinloop.tags import TagTable
from twinloop.web.look import Counts, TagsNow
from twinloop.workplace import Workplace

__all__ = ["Looking", "Process", "cycle_figures"]

_log = logging.getLogger("twinloop.web")

_WELL_WITHIN_CYCLES: Final = 10
_RATE_OVER_S: Final = 10.0


@dataclass
class Process:
    """This process as the web sees it; see `twinloop.web.look.Look`."""

    path: Path
    config: PlantConfig
    registry: CollectorRegistry
    run: str = field(default_factory=lambda: secrets.token_hex(6))
    twin: Looking | None = None


class Looking:
    """A running twin to look into; see `twinloop.web.look.TwinLook`."""

    def __init__(self, place: Workplace, loop: Loop, metrics: Metrics) -> None:
        self._place = place
        self._loop = loop
        self._metrics = metrics
        self.seen = Seen(place.table.indices, len(place.table))
        self._period_s = cycle_ns(place.config) / 1e9
        self._queries = self._opened()
        self._rates = _Rates()
        self._begun = False
        loop.listen(self._hear)

    def _opened(self) -> LocalQueries:
        outputs = self._loop.parts.outputs
        if not isinstance(outputs, MemoryLog):
            return open_queries(self._place.config)
        # Nobody else sees what only this process has.
        return open_queries(self._place.config, lambda after: _entries(outputs, after))

    def _hear(self, outputs: Outputs) -> None:
        if not self._begun:
            self._begun = True
            self.seen.begin(self._loop.fold.validate.stale, outputs.covers)
        self.seen.hear(outputs)

    @property
    def table(self) -> TagTable:
        """The tags by index."""
        return self._place.table

    @property
    def queries(self) -> LocalQueries:
        """Its history, with what is not sealed yet."""
        return self._queries

    def take_up(self) -> None:
        """Let the newest samples of before this start be shown as soon as they are read; nobody waits."""
        threading.Thread(target=self._take_up, name="taking up", daemon=True).start()

    def now(self) -> TagsNow:
        """The newest sample of every tag."""
        return self.seen.now()

    def _take_up(self) -> None:
        try:
            self.seen.take_up(self._queries.newest())
        except TwinloopError as error:
            _log.warning("web: the newest values of before this start cannot be shown: %s", error)

    def counts(self) -> Counts:
        """What was judged how, since the start."""
        return self.seen.counts()

    def snapshots(self) -> Mapping[str, Snapshot]:
        """The newest snapshot of each asset that has one."""
        return self.seen.snapshots()

    def events(self) -> Sequence[Event]:
        """The newest events of this run, oldest first."""
        return self.seen.events()

    def listen(self, callback: Callable[[Outputs], None]) -> None:
        """From now on call `callback` with all outputs in order, on the loop's thread."""
        self._loop.listen(callback)

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns, and how its sources and assets are."""
        age_s = time.monotonic() - self._loop.last_cycle_s
        well = age_s < max(5.0, _WELL_WITHIN_CYCLES * self._period_s)
        sources = {
            each.name: {
                "link": each.figures.phase.value,
                "samples": each.figures.samples,
                "problem": each.figures.problem,
            }
            for each in self._loop.supervisors
        }
        return well, {
            "status": "ok" if well else "the loop does not turn",
            "plant": self._place.config.plant,
            "cycle_age_s": round(age_s, 3),
            "cycles": self._metrics.figures.cycles,
            "sources": sources,
            "assets": {name: shot.health.value for name, shot in self.seen.snapshots().items()},
        }

    def pipeline(self) -> dict[str, Any]:
        """Sources, logs, cycles and store in figures; see `TwinLook.pipeline`."""
        good, uncertain, bad = self._metrics.by_severity
        reader = self._loop.delivery
        return {
            "sources": self._sources(),
            "logs": self._logs(),
            "cycles": self._cycles(),
            "store": {
                "type": self._place.config.store.type,
                "lag_entries": reader.lag,
                "refused": reader.is_refused,
            },
            "totals": {
                "good": good,
                "uncertain": uncertain,
                "bad": bad,
                "duplicates": self._metrics.duplicates,
                "dead_letters": self._metrics.dead_letters,
            },
        }

    def _sources(self) -> list[dict[str, Any]]:
        now_ns = time.time_ns()
        supervisors = self._loop.supervisors
        rates = self._rates.of({each.name: each.figures.samples for each in supervisors}, time.monotonic())
        return [
            {
                "name": each.name,
                "link": each.figures.phase.value,
                "samples": each.figures.samples,
                "samples_per_s": _known(rates[each.name]),
                "data_age_s": (now_ns - each.figures.newest_ns) / 1e9 if each.figures.newest_ns else None,
                "attempts": each.figures.attempts,
                "dead_letters": each.figures.dead_letters,
                "problem": each.figures.problem,
            }
            for each in supervisors
        ]

    def _logs(self) -> list[dict[str, Any]]:
        parts = self._loop.parts
        made = []
        for name, log in (("received", parts.log), ("outputs", parts.outputs)):
            stats = log.stats()
            made.append(
                {
                    "name": name,
                    "first_offset": stats.first_offset,
                    "last_offset": stats.last_offset,
                    "size_bytes": stats.size_bytes,
                    "dropped": stats.dropped,
                    "thinned": stats.thinned,
                }
            )
        return made

    def _cycles(self) -> dict[str, Any]:
        figures = cycle_figures(self._metrics, self._period_s)
        durations = self._metrics.figures.durations()
        bins = np.searchsorted(np.array(SECONDS), np.array(durations), side="left")
        counts = np.bincount(bins, minlength=len(SECONDS) + 1)
        limits = [*SECONDS, None]
        return {
            "period_s": figures.period_s,
            "cycles": figures.cycles,
            "missed": figures.missed,
            "p50_s": _known(figures.p50_s),
            "p99_s": _known(figures.p99_s),
            "jitter_p99_s": _known(figures.jitter_s),
            "lag_s": _known(figures.lag_s),
            "samples_per_s": _known(figures.samples_per_s),
            "histogram": [
                {"le_s": limit, "count": int(count)} for limit, count in zip(limits, counts, strict=True)
            ],
        }

    def close(self) -> None:
        """Let go of the history's files."""
        self._queries.close()


def cycle_figures(metrics: Metrics, period_s: float) -> CycleFigures:
    """How the loop is doing: quantiles over the last hour, the rate over the last ten cycles."""
    figures = metrics.figures
    recent = list(figures.recent)
    durations = [cycle.duration_s for cycle in recent]
    last = recent[-10:]
    return CycleFigures(
        period_s=period_s,
        p50_s=quantile(durations, 0.5),
        p99_s=quantile(durations, 0.99),
        jitter_s=quantile([cycle.jitter_s for cycle in recent], 0.99),
        lag_s=last[-1].lag_s if last else math.nan,
        samples_per_s=sum(cycle.samples for cycle in last) / (max(len(last), 1) * period_s),
        missed=figures.missed,
        cycles=figures.cycles,
    )


class _Rates:
    """Rates of counters over the last ten seconds, or since they were last asked for where that is longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: deque[tuple[float, dict[str, int]]] = deque()

    def of(self, counters: dict[str, int], now_s: float) -> dict[str, float]:
        with self._lock:
            if not self._known or now_s - self._known[-1][0] >= 1.0:
                self._known.append((now_s, counters))
            while len(self._known) > 2 and now_s - self._known[1][0] >= _RATE_OVER_S:
                self._known.popleft()
            since_s, before = self._known[0]
        span_s = now_s - since_s
        return {
            name: (count - before.get(name, 0)) / span_s if span_s > 0 else math.nan
            for name, count in counters.items()
        }


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _entries(log: Log, after: int) -> Iterator[tuple[int, Outputs]]:
    """What a log in this process holds after an offset. Raises LogError."""
    while portion := log.read(after):
        for offset, data in portion:
            yield offset, decode_outputs(data)
        after = portion[-1][0]
