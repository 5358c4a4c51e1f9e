"""A twin running in this process: the ordinary `run`, as a context other parts can look into."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from twinloop.batch import NO_TIME
from twinloop.build import Replay, build_loop
from twinloop.config.expand import cycle_ns
from twinloop.config.plantfile import read
from twinloop.loop.metrics import Metrics, quantile
from twinloop.loop.supervise import LinkPhase
from twinloop.loop.sync import Loop
from twinloop.memory import few_arenas
from twinloop.records import Event, EventKind, Outputs, Snapshot
from twinloop.screen import AssetRow, CycleFigures, Note, PlantView, TagRow
from twinloop.status import Reason
from twinloop.web.probe import Probe
from twinloop.workplace import Workplace, workplace

__all__ = ["RunningTwin", "running"]

_log = logging.getLogger("twinloop.run")

_NOTES: Final = 20
_STALE: Final = int(Reason.STALE)
_STYLES: Final = {
    EventKind.LINK_DOWN: "red",
    EventKind.ADDRESS_LOST: "red",
    EventKind.DIVERGED: "red",
    EventKind.OVERRUN: "yellow",
    EventKind.HEALTH: "cyan",
    EventKind.REBASELINED: "cyan",
}
_WELL_WITHIN_CYCLES: Final = 10


@asynccontextmanager
async def running(
    path: Path, env: Mapping[str, str], *, replay: Replay | None = None
) -> AsyncIterator[RunningTwin]:
    """Start the twin of a plant file; leaving the context stops it, everything received folded and stored.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from.
        replay: files to replay in place of the plant's sources.

    Raises:
        ConfigError: the plant file cannot be used; nothing was started.
        StartError: the port or the data directory is taken; nothing was started.
        LogError: a log failed, at the start or under way.
    """
    few_arenas()
    loaded = read(path, env)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    asyncio.get_running_loop().set_exception_handler(_report)
    with ExitStack() as stack:
        metrics = Metrics()
        look = _Look()
        web = loaded.config.web
        if web is not None and replay is None:
            probe = Probe(web.host, web.port, metrics.registry, look.healthz)
            stack.callback(probe.close)
            _log.info("web: http://%s:%d/healthz and /metrics", web.host, probe.port)
        place = stack.enter_context(workplace(loaded.config))
        loop = build_loop(place, metrics, replay)
        twin = look.twin = RunningTwin(place, loop, metrics)
        stop = asyncio.Event()
        task = asyncio.create_task(loop.run(stop), name="loop")
        twin.attach(task)
        try:
            yield twin
        finally:
            stop.set()
            await task


class _Look:
    """What `/healthz` looks at: nothing until there is a twin."""

    twin: RunningTwin | None = None

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        if self.twin is None:
            return False, {"status": "starting"}
        return self.twin.healthz()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what a callback or a forgotten task of a library raised; nobody else would."""
    del loop
    error = context.get("exception")
    _log.error("%s: %r", context.get("message"), error, exc_info=error)


class RunningTwin:
    """A running twin, to look into; made by `running`."""

    def __init__(self, place: Workplace, loop: Loop, metrics: Metrics) -> None:
        self._place = place
        self._loop = loop
        self.metrics = metrics
        self._task: asyncio.Task[None] | None = None
        n = len(place.table)
        self._raw = np.full(n, np.nan)
        self._status = np.zeros(n, np.uint32)
        self._reasons = np.zeros(n, np.uint32)
        self._arrival = np.full(n, NO_TIME, np.int64)
        self._snapshots: dict[str, Snapshot] = {}
        self._notes: deque[Note] = deque(maxlen=_NOTES)
        self._period_s = cycle_ns(place.config) / 1e9
        self.began_s = time.monotonic()
        loop.listen(self._hear)

    def attach(self, task: asyncio.Task[None]) -> None:
        """Tell which task runs the loop."""
        self._task = task

    async def wait(self) -> None:
        """Return, or raise its error, when the twin ends by itself (a replay at its end, a failed log)."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task.result()

    @property
    def tag_names(self) -> Sequence[str]:
        """Full tag names by the index that outputs use."""
        return self._place.table.names

    def subscribe(self, callback: Callable[[Outputs], None]) -> None:
        """From now on call `callback` with all outputs in order, in the event loop's thread."""
        self._loop.listen(callback)

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns, and how its sources and assets are; callable from any thread."""
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
            "cycles": self.metrics.figures.cycles,
            "sources": sources,
            "assets": {name: shot.health.value for name, shot in list(self._snapshots.items())},
        }

    def _hear(self, outputs: Outputs) -> None:
        if outputs.samples:
            batch = outputs.batch()
            # Later rows of a tag overwrite earlier ones: NumPy assigns in order.
            self._raw[batch.tag] = batch.value
            self._status[batch.tag] = batch.status
            self._reasons[batch.tag] = batch.reasons
            self._arrival[batch.tag] = batch.arrival
        for snapshot in outputs.snapshots:
            self._snapshots[snapshot.asset] = snapshot
        for event in outputs.events:
            if event.kind is not EventKind.STATUS:
                self._notes.append(_note(event))

    def view(self) -> PlantView:
        """The twin now, for the terminal."""
        now = time.time_ns()
        assets = [self._asset_row(name) for name in self._place.config.assets]
        return PlantView(
            plant=self._place.config.plant,
            time_ns=now,
            tags=self._tag_rows(now),
            assets=assets,
            cycle=self._cycle(),
            notes=list(self._notes),
        )

    def _tag_rows(self, now: int) -> list[TagRow]:
        fold = self._loop.fold
        bank, validate = fold.estimate.bank, fold.validate
        value, std, rate = bank.value, bank.std, bank.rate
        silent, stale = validate.stale_status, validate.stale
        rows = []
        for index, tag in self._place.table.items():
            heard = self._arrival[index] != NO_TIME
            status, reasons = int(self._status[index]), int(self._reasons[index])
            if not heard and int(silent[index]) >> 30 > status >> 30:
                status = int(silent[index])
            if stale[index] and int(silent[index]) >> 30 > status >> 30:
                status, reasons = int(silent[index]), reasons | _STALE
            rows.append(
                TagRow(
                    asset=tag.asset,
                    tag=tag.name.removeprefix(f"{tag.asset}."),
                    unit=tag.unit,
                    raw=float(self._raw[index]),
                    estimate=float(value[index]),
                    std=float(std[index]),
                    rate=float(rate[index]),
                    status=status,
                    reasons=reasons,
                    age_s=(now - int(self._arrival[index])) / 1e9 if heard else float("nan"),
                )
            )
        return rows

    def _asset_row(self, name: str) -> AssetRow:
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            return AssetRow(name)
        by_output = {prediction.output: prediction for prediction in snapshot.predictions}
        temperature, conversion = by_output.get("temperature"), by_output.get("conversion")
        nan = float("nan")
        return AssetRow(
            asset=name,
            health=snapshot.health.value,
            why=snapshot.why,
            conversion=conversion.now if conversion else nan,
            conversion_ahead=conversion.value if conversion else nan,
            now=temperature.now if temperature else nan,
            predicted=temperature.value if temperature else nan,
            persistence=temperature.persistence if temperature else nan,
            unit=temperature.unit if temperature else "",
            horizon_s=snapshot.horizon_s,
            nis=snapshot.nis,
        )

    def _cycle(self) -> CycleFigures:
        figures = self.metrics.figures
        recent = list(figures.recent)
        durations = figures.durations()
        last = recent[-10:]
        span_s = max(len(last), 1) * self._period_s
        return CycleFigures(
            period_s=self._period_s,
            p50_s=quantile(durations, 0.5),
            p99_s=quantile(durations, 0.99),
            jitter_s=quantile([cycle.jitter_s for cycle in recent], 0.99),
            lag_s=last[-1].lag_s if last else float("nan"),
            samples_per_s=sum(cycle.samples for cycle in last) / span_s,
            missed=figures.missed,
            cycles=figures.cycles,
        )

    def summary(self) -> str:
        """One line on what this run has done."""
        figures, metrics = self.metrics.figures, self.metrics
        good, uncertain, bad = metrics.by_severity
        heard = sum(each.figures.samples for each in self._loop.supervisors)
        durations = figures.durations()
        cycles = ""
        if durations:
            p50, p99 = 1e3 * quantile(durations, 0.5), 1e3 * quantile(durations, 0.99)
            cycles = (
                f"{figures.cycles} cycles (p50 {p50:.1f} ms, p99 {p99:.1f} ms, {figures.missed} missed), "
            )
        return (
            f"{cycles}{heard} samples received: {good} Good, {uncertain} Uncertain, {bad} Bad, "
            f"{metrics.duplicates} duplicates, {metrics.dead_letters} dead letters"
        )

    @property
    def links(self) -> Mapping[str, LinkPhase]:
        """Where each source's link is."""
        return {each.name: each.figures.phase for each in self._loop.supervisors}


def _note(event: Event) -> Note:
    change = " -> ".join(part for part in (event.before, event.after) if part)
    words = " ".join(part for part in (event.kind.value, event.subject, change) if part)
    text = f"{words}: {event.why}" if event.why else words
    return Note(event.time, text, _STYLES.get(event.kind, ""))
