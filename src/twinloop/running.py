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

from twinloop.batch import NO_TIME
from twinloop.build import Replay, build_loop
from twinloop.config.expand import cycle_ns
from twinloop.config.plantfile import read
from twinloop.looking import Looking, Process, cycle_figures
from twinloop.loop.metrics import Metrics, quantile
from twinloop.loop.supervise import LinkPhase
from twinloop.loop.sync import Loop
from twinloop.memory import few_arenas, settled
from twinloop.records import Event, EventKind, Outputs, Snapshot
from twinloop.screen import AssetRow, Note, PlantView, TagRow
from twinloop.web.serving import served
from twinloop.workplace import Workplace, workplace

__all__ = ["RunningTwin", "running"]

_log = logging.getLogger("twinloop.run")

_NOTES: Final = 20
_STYLES: Final = {
    EventKind.LINK_DOWN: "red",
    EventKind.ADDRESS_LOST: "red",
    EventKind.DIVERGED: "red",
    EventKind.OVERRUN: "yellow",
    EventKind.HEALTH: "cyan",
    EventKind.REBASELINED: "cyan",
}


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
        process = Process(path, loaded.config, metrics.registry)
        web = loaded.config.web
        if web is not None and replay is None:
            stack.enter_context(served(process, web))
        place = stack.enter_context(workplace(loaded.config))
        loop = build_loop(place, metrics, replay)
        try:
            looking = Looking(place, loop, metrics)
        except BaseException:
            await loop.close()
            raise
        stack.callback(looking.close)
        twin = RunningTwin(place, loop, metrics, looking)
        process.twin = looking
        if web is not None and replay is None:
            looking.take_up()
        stop = asyncio.Event()
        task = asyncio.create_task(loop.run(stop), name="loop")
        twin.attach(task)
        stack.enter_context(settled())
        try:
            yield twin
        finally:
            stop.set()
            await task


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what a callback or a forgotten task of a library raised; nobody else would."""
    del loop
    error = context.get("exception")
    _log.error("%s: %r", context.get("message"), error, exc_info=error)


class RunningTwin:
    """A running twin, to look into; made by `running`.

    Attributes:
        looking: what it shows to the web.
    """

    def __init__(self, place: Workplace, loop: Loop, metrics: Metrics, looking: Looking) -> None:
        self._place = place
        self._loop = loop
        self.looking = looking
        self._seen = looking.seen
        self.metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._notes: deque[Note] = deque(maxlen=_NOTES)
        self._period_s = cycle_ns(place.config) / 1e9
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
        return self.looking.healthz()

    def _hear(self, outputs: Outputs) -> None:
        for event in outputs.events:
            if event.kind is not EventKind.STATUS:
                self._notes.append(_note(event))

    def view(self) -> PlantView:
        """The twin now, for the terminal."""
        now = time.time_ns()
        snapshots = self._seen.snapshots()
        return PlantView(
            plant=self._place.config.plant,
            time_ns=now,
            tags=self._tag_rows(now),
            assets=[_asset_row(name, snapshots.get(name)) for name in self._place.config.assets],
            cycle=cycle_figures(self.metrics, self._period_s),
            notes=list(self._notes),
        )

    def _tag_rows(self, now_ns: int) -> list[TagRow]:
        bank, newest = self._loop.fold.estimate.bank, self._seen.now()
        value, std, rate = bank.value, bank.std, bank.rate
        rows = []
        for index, tag in self._place.table.items():
            heard_ns = int(newest.arrival[index])
            rows.append(
                TagRow(
                    asset=tag.asset,
                    tag=tag.name.removeprefix(f"{tag.asset}."),
                    unit=tag.unit,
                    raw=float(newest.value[index]),
                    estimate=float(value[index]),
                    std=float(std[index]),
                    rate=float(rate[index]),
                    status=int(newest.status[index]),
                    reasons=int(newest.reasons[index]),
                    age_s=(now_ns - heard_ns) / 1e9 if heard_ns != NO_TIME else float("nan"),
                )
            )
        return rows

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


def _asset_row(name: str, snapshot: Snapshot | None) -> AssetRow:
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
