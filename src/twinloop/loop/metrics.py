"""The loop's figures: what a cycle cost, how far behind it is, what came and what was lost.

Every figure is a Prometheus metric at `/metrics`; the same numbers feed the terminal and the summary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from twinloop.log.log import LogStats
from twinloop.records import DeadReason, Health, Outputs

__all__ = ["SECONDS", "Cycle", "CycleFigures", "Metrics", "quantile"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5, 5.0, 10.0)
_KEPT: Final = 3600


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle: from its tick's scheduled time until its outputs are in the output log.

    Attributes:
        time_ns: scheduled time of its tick.
        duration_s: from the tick's entry into the log until it was folded and its outputs written.
        jitter_s: how much later than scheduled the tick was given out.
        lag_s: age of the oldest record that was not folded when the tick was given out; 0 when none.
        samples: rows judged since the cycle before.
        missed: cycles that fell out before this one.
    """

    time_ns: int
    duration_s: float
    jitter_s: float
    lag_s: float
    samples: int
    missed: int


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank; NaN of nothing.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(q * len(ranked)))]


@dataclass(slots=True)
class CycleFigures:
    """The cycles of the last hour and totals since the start."""

    recent: deque[Cycle] = field(default_factory=lambda: deque(maxlen=_KEPT))
    cycles: int = 0
    missed: int = 0
    samples: int = 0

    def add(self, cycle: Cycle) -> None:
        """Count a finished cycle."""
        self.recent.append(cycle)
        self.cycles += 1
        self.missed += cycle.missed
        self.samples += cycle.samples

    def durations(self) -> list[float]:
        """Durations of the recent cycles, seconds."""
        return [cycle.duration_s for cycle in self.recent]


class Metrics:
    """Prometheus metrics of one run, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.figures = CycleFigures()
        self.duplicates = 0
        self.dead_letters = 0
        self.by_severity = [0, 0, 0]
        made = self.registry
        self._cycle = Histogram(
            "twinloop_cycle_seconds", "Duration of a cycle", registry=made, buckets=SECONDS
        )
        self._jitter = Histogram(
            "twinloop_cycle_jitter_seconds",
            "How much later than scheduled a tick was given out",
            registry=made,
            buckets=SECONDS,
        )
        self._missed = Counter("twinloop_cycles_missed", "Cycles that fell out by overrun", registry=made)
        self._lag = Gauge("twinloop_fold_lag_seconds", "Age of the oldest record not folded", registry=made)
        self._samples = Counter(
            "twinloop_samples", "Samples judged, by severity", ["severity"], registry=made
        )
        self._duplicates = Counter("twinloop_duplicates", "Redelivered samples folded once", registry=made)
        self._dead = Counter(
            "twinloop_dead_letters", "Payloads that became no sample", ["reason"], registry=made
        )
        self._events = Counter("twinloop_events", "Events, by kind", ["kind"], registry=made)
        self._health = Gauge(
            "twinloop_asset_health", "1 for the asset's health", ["asset", "health"], registry=made
        )
        self._received = Gauge("twinloop_source_samples_received", "Samples heard", ["source"], registry=made)
        self._up = Gauge("twinloop_source_up", "1 while connected", ["source"], registry=made)
        self._age = Gauge(
            "twinloop_source_data_age_seconds", "Since the newest data", ["source"], registry=made
        )
        self._attempts = Gauge(
            "twinloop_source_connect_attempts", "Attempts to connect", ["source"], registry=made
        )
        self._log_bytes = Gauge("twinloop_log_bytes", "Bytes held by a log", ["log"], registry=made)
        self._log_last = Gauge("twinloop_log_last_offset", "Newest offset of a log", ["log"], registry=made)
        self._log_dropped = Gauge(
            "twinloop_log_dropped_entries", "Entries dropped unread to make room", ["log"], registry=made
        )
        self._log_thinned = Gauge(
            "twinloop_log_thinned_samples", "Samples left out unread to make room", ["log"], registry=made
        )
        self._log_trimmed = Gauge(
            "twinloop_log_trimmed_entries", "Entries removed that every reader had", ["log"], registry=made
        )
        self._store_lag = Gauge(
            "twinloop_store_lag_entries", "Outputs the store does not have yet", registry=made
        )

    def cycle(self, cycle: Cycle) -> None:
        """Count a finished cycle."""
        self.figures.add(cycle)
        self._cycle.observe(cycle.duration_s)
        self._jitter.observe(max(0.0, cycle.jitter_s))
        self._missed.inc(cycle.missed)
        self._lag.set(cycle.lag_s)

    def outputs(self, outputs: Outputs, severities: Sequence[int]) -> None:
        """Count what folding one record gave; `severities` are the rows per severity."""
        for severity, (name, count) in enumerate(zip(("Good", "Uncertain", "Bad"), severities, strict=True)):
            if count:
                self.by_severity[severity] += count
                self._samples.labels(name).inc(count)
        if outputs.duplicates:
            self.duplicates += outputs.duplicates
            self._duplicates.inc(outputs.duplicates)
        for letter in outputs.dead:
            self.dead_letters += 1
            self._dead.labels(letter.reason.value).inc()
        for event in outputs.events:
            self._events.labels(event.kind.value).inc()
        for snapshot in outputs.snapshots:
            for health in Health:
                self._health.labels(snapshot.asset, health.value).set(health is snapshot.health)

    def refused(self, points: int) -> None:
        """Count samples that the store will never take; they are dead letters from then on."""
        self.dead_letters += points
        self._dead.labels(DeadReason.REFUSED.value).inc(points)

    def source(self, name: str, *, up: bool, samples: int, age_s: float, attempts: int) -> None:
        """Set a source's figures; `age_s` is NaN before any data."""
        self._up.labels(name).set(up)
        self._received.labels(name).set(samples)
        self._age.labels(name).set(age_s)
        self._attempts.labels(name).set(attempts)

    def log(self, name: str, stats: LogStats) -> None:
        """Set a log's figures."""
        self._log_bytes.labels(name).set(stats.size_bytes)
        self._log_last.labels(name).set(stats.last_offset)
        self._log_trimmed.labels(name).set(stats.trimmed)
        self._log_dropped.labels(name).set(stats.dropped)
        self._log_thinned.labels(name).set(stats.thinned)

    def store(self, lag_entries: int) -> None:
        """Set how many outputs the store does not have yet."""
        self._store_lag.set(lag_entries)
