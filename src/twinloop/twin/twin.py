"""The twin: every asset's model kept in step with its sensors, driven by ticks and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.records import Event, EventKind, Health, Prediction, Snapshot, Tick
from twinloop.tags import TagTable
from twinloop.twin.beliefs import Beliefs
from twinloop.twin.group import AssetSpec, ModelGroup, Outlook, group_assets
from twinloop.twin.health import HealthState, missed_text, read_signs, update

__all__ = ["AssetSpec", "Beliefs", "Twin"]

F64 = npt.NDArray[np.float64]
STATE_VERSION: Final = 1
BAD_CYCLES: Final = 5
"""Bad for so many of its cycles, a tag without `stale` counts as giving nothing of use."""


class _StateValue(msgspec.Struct):
    """One state of one asset, as `ModelGroup` keeps it in arrays."""

    x: float
    drift: float
    seen: bool
    fresh: bool
    used: int


class _Asset(msgspec.Struct):
    """Everything remembered of one asset."""

    health: HealthState
    model: str = ""
    time: int = 0
    failures: int = 0
    states: dict[str, _StateValue] = {}


class _BadTag(msgspec.Struct):
    """A tag that gives nothing but Bad samples: since when, and the time of the last sample of use before."""

    since: int
    used: int


class _State(msgspec.Struct):
    version: int
    assets: dict[str, _Asset]
    bad: dict[str, _BadTag] = {}


@dataclass(frozen=True, slots=True)
class _View:
    """Where an asset's model is to be found: its group and row there, and its line of the outlook."""

    group: ModelGroup
    row: int
    outlook: Outlook
    line: int

    @property
    def problem(self) -> str:
        return self.outlook.problem[self.line]


@dataclass(frozen=True, slots=True)
class _Now:
    """One tick's circumstances."""

    tick: Tick
    beliefs: Beliefs
    useless: npt.NDArray[np.bool_]
    events: list[Event]


class Twin:
    """One belief per asset, moved on by `tick`; it does no I/O and reads no clock.

    Args:
        assets: the assets of the plant file.
        table: the tags they name.

    Attributes:
        model_value: what each asset's model shows for its measured tags, tag units, shape (n_tags,);
            NaN for the other tags and before the first contact. Refreshed by `tick`.

    Raises:
        ConfigError: an asset names a model, parameter, output or tag that is not there.
    """

    def __init__(self, assets: Sequence[AssetSpec], table: TagTable) -> None:
        self._specs = list(assets)
        self._names = list(table.names)
        self._tags = [np.array(list(spec.tags), np.int64) for spec in assets]
        self._health = [HealthState() for _ in assets]
        self._groups = group_assets(assets, table)
        place = {spec.name: k for k, spec in enumerate(self._specs)}
        self._places = [np.array([place[spec.name] for spec in group.specs]) for group in self._groups]
        self.model_value: F64 = np.full(len(table), np.nan)
        stale, every = table.column("stale_ns"), table.column("every_ns")
        self._patience = np.where(stale > 0, stale, BAD_CYCLES * every)
        self._bad_since = np.full(len(table), NO_TIME)
        self._bad_used = np.full(len(table), NO_TIME)

    def tick(self, tick: Tick, beliefs: Beliefs, events: list[Event]) -> list[Snapshot]:
        """Bring the assets due to the tick's time; their snapshots, in the order of the plant file.

        Args:
            tick: its time and the tiers due; an asset is due when its `every_ns` is among them.
            beliefs: all tags as they are now.
            events: health changes and divergences are added.
        """
        due = np.array([spec.every_ns in tick.tiers for spec in self._specs], np.bool_)
        views: dict[int, _View] = {}
        for group, places in zip(self._groups, self._places, strict=True):
            rows = np.flatnonzero(due[places])
            if not rows.size:
                continue
            outlook = group.advance(rows, tick.time, beliefs)
            tags = group.outputs.tag[rows]
            self.model_value[tags[tags >= 0]] = outlook.now[tags >= 0]
            views |= {int(places[row]): _View(group, int(row), outlook, k) for k, row in enumerate(rows)}
        now = _Now(tick, beliefs, self._useless(tick.time, beliefs), events)
        return [self._snapshot(int(place), views.get(int(place)), now) for place in np.flatnonzero(due)]

    def _useless(self, time_ns: int, beliefs: Beliefs) -> npt.NDArray[np.bool_]:
        """Tags of which nothing but Bad samples came for as long as one may be silent, shape (n_tags,)."""
        bad = np.zeros(len(self._names), np.bool_) if beliefs.severity is None else beliefs.severity == 2
        begins = bad & ((self._bad_since == NO_TIME) | (self._bad_used != beliefs.time_ns))
        self._bad_since = np.where(bad, np.where(begins, time_ns, self._bad_since), NO_TIME)
        self._bad_used = np.where(bad, beliefs.time_ns, NO_TIME)
        return bad & (time_ns - self._bad_since >= self._patience)

    def started(self, left_ns: int, time_ns: int) -> None:
        """Let the time from `left_ns` to `time_ns` make no tag worse: the twin was not there to hear."""
        bad = self._bad_since != NO_TIME
        self._bad_since[bad] = time_ns - (left_ns - self._bad_since[bad])

    def clock_set(self, by_ns: int) -> None:
        """Let the host's clock, set by so much, move no model: each goes on from its last tick."""
        self._bad_since[self._bad_since != NO_TIME] += by_ns
        for group in self._groups:
            group.time[group.ready] += by_ns

    def _snapshot(self, place: int, view: _View | None, now: _Now) -> Snapshot:
        spec, health, tags = self._specs[place], self._health[place], self._tags[place]
        problem = view.problem if view else ""
        if problem and (health.health is not Health.DIVERGED or health.why != problem):
            before, after = health.health.value, Health.DIVERGED.value
            now.events.append(Event(now.tick.time, spec.name, EventKind.DIVERGED, before, after, problem))
        lag = missed_text(now.tick.missed)
        signs = read_signs(
            tags, self._names, now.beliefs, now.tick.time, useless=now.useless, lag=lag, problem=problem
        )
        update(health, signs, spec.name, now.tick.time, now.events)
        nis = now.beliefs.nis[tags]
        known = np.isfinite(nis)
        figures = _figures(view) if view else _Figures()
        return Snapshot(
            time=now.tick.time,
            asset=spec.name,
            health=health.health,
            why=health.why,
            model=spec.model or "",
            state=figures.state,
            std=figures.std,
            horizon_s=spec.horizon_s if view else 0.0,
            predictions=figures.predictions,
            nis=float(nis[known].mean()) if known.any() else float("nan"),
        )

    def snapshot(self) -> bytes:
        """The whole state, by names; `restore` of it and the same ticks give the same output, bit for bit."""
        kept = {spec.name: _Asset(health) for spec, health in zip(self._specs, self._health, strict=True)}
        for group in self._groups:
            for row, spec in enumerate(group.specs):
                if group.ready[row]:
                    _keep(group, row, kept[spec.name])
        bad = {
            self._names[k]: _BadTag(int(self._bad_since[k]), int(self._bad_used[k]))
            for k in np.flatnonzero(self._bad_since != NO_TIME)
        }
        return msgspec.msgpack.encode(_State(STATE_VERSION, kept, bad))

    def restore(self, state: bytes) -> None:
        """Take up a state; an asset that is new, or has another model since, starts afresh.

        Raises:
            ValueError: the bytes are not a state of this part and version.
        """
        try:
            stored = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a state of the twin: {error}") from error
        if stored.version != STATE_VERSION:
            raise ValueError(f"a twin state of version {stored.version}; this is version {STATE_VERSION}")
        never = _BadTag(NO_TIME, NO_TIME)
        bad = [stored.bad.get(name, never) for name in self._names]
        self._bad_since = np.array([each.since for each in bad], np.int64)
        self._bad_used = np.array([each.used for each in bad], np.int64)
        for place, spec in enumerate(self._specs):
            if spec.name in stored.assets:
                self._health[place] = stored.assets[spec.name].health
        for group in self._groups:
            for row, spec in enumerate(group.specs):
                asset = stored.assets.get(spec.name)
                if asset and asset.model == group.model.name and set(asset.states) == set(group.model.states):
                    _take_up(group, row, asset)


class _Figures(msgspec.Struct):
    state: dict[str, float] = {}
    std: dict[str, float] = {}
    predictions: list[Prediction] = []


def _figures(view: _View) -> _Figures:
    """What an asset's snapshot says of its model; nothing before the first contact."""
    group, row = view.group, view.row
    if not group.ready[row]:
        return _Figures()
    model, x, drift, std = group.model, group.x[row], group.drift[row], group.std[row]
    state = {name: float(x[i]) for i, name in enumerate(model.states)}
    for i, name in enumerate(model.states):
        if group.seen[row, i] and group.fade[row] > 0.0:
            state[f"unexplained_{name}_per_s"] = float(drift[i])
    predictions = []
    for i, output in enumerate(model.outputs):
        now = float(view.outlook.now[view.line, i])
        if not model.shows[i]:
            state[output] = now
        unit = group.outputs.unit[row][i]
        predictions.append(Prediction(output, unit, now, float(view.outlook.ahead[view.line, i]), now))
    known = {name: float(std[i]) for i, name in enumerate(model.states) if np.isfinite(std[i])}
    return _Figures(state, known, predictions)


def _keep(group: ModelGroup, row: int, asset: _Asset) -> None:
    asset.model = group.model.name
    asset.time, asset.failures = int(group.time[row]), int(group.failures[row])
    asset.states = {
        name: _StateValue(
            float(group.x[row, i]),
            float(group.drift[row, i]),
            bool(group.seen[row, i]),
            bool(group.fresh[row, i]),
            int(group.used[row, i]),
        )
        for i, name in enumerate(group.model.states)
    }


def _take_up(group: ModelGroup, row: int, asset: _Asset) -> None:
    group.time[row], group.failures[row] = asset.time, asset.failures
    for i, name in enumerate(group.model.states):
        value = asset.states[name]
        group.x[row, i], group.drift[row, i] = value.x, value.drift
        group.seen[row, i], group.fresh[row, i] = value.seen, value.fresh
        group.used[row, i] = value.used
