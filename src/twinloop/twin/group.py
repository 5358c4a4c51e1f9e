"""All assets of one model, moved together: wiring to tags, following the plant, looking ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.errors import ConfigError
from twinloop.tags import TagTable
from twinloop.twin.beliefs import Beliefs
from twinloop.twin.integrate import BOOL, F64, INT
from twinloop.twin.model import Model
from twinloop.twin.models import MODELS, nearest, parameter_values
from twinloop.twin.predict import Motion, predict
from twinloop.units import conversion

__all__ = ["AssetSpec", "ModelGroup", "Outlook"]

SECOND_NS: Final = 1_000_000_000
RESTART_AFTER: Final = 3
"""Failed ticks in a row after which also the unmeasured states begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetSpec:
    """One asset as the plant file describes it.

    Attributes:
        name: the asset's name.
        tags: indices of its tags.
        model: the model's name, or None for an asset that is only watched.
        parameters: the model's parameters as given; the rest are defaults.
        measures: model output or input name -> tag, by full name or by its name within the asset. A name
            left out is led to the asset's tag of the same name, if there is one; an empty one to none.
        horizon_s: how far ahead to predict, seconds.
        every_ns: the cycle tier in which the asset is due, ns.
        drift_s: time constant with which what the model does not explain is learned and fades; 0 off.
    """

    name: str
    tags: Sequence[int]
    model: str | None = None
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)
    horizon_s: float = 60.0
    every_ns: int = SECOND_NS
    drift_s: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Wires:
    """Which tag shows what: `model = tag * factor + offset`; all (n_assets, n_names), tag -1 for none."""

    tag: INT
    factor: F64
    offset: F64
    unit: list[list[str]]

    def read(self, rows: INT, values: F64) -> F64:
        """Tag values in the model's units, NaN where there is no tag, (n_rows, n_names)."""
        tag = self.tag[rows]
        # tag -1 reads the last value and is masked away again; a table without tags has none to read.
        shown = values[tag] if values.size else np.full(tag.shape, np.nan)
        return np.where(tag >= 0, shown * self.factor[rows] + self.offset[rows], np.nan)

    def show(self, rows: INT, y: F64) -> F64:
        """Model values in the tags' units, in the model's where there is no tag, (n_rows, n_names)."""
        shown: F64 = (y - self.offset[rows]) / self.factor[rows]
        return shown


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """Outputs of the assets asked for, in the units of `Wires.show`; NaN before the first contact.

    Attributes:
        now, ahead: outputs now and at the horizon, (n_rows, n_y).
        problem: what could not be computed, a text per row; empty where all is well.
    """

    now: F64
    ahead: F64
    problem: list[str]


class ModelGroup:
    """The states of all assets of one model.

    Args:
        model: the physics.
        specs: the assets; all name this model.
        table: the tags.

    Raises:
        ConfigError: a parameter, output, input or tag is not there, or a unit does not fit.
    """

    def __init__(self, model: Model, specs: Sequence[AssetSpec], table: TagTable) -> None:
        self.model = model
        self.specs = list(specs)
        for spec in specs:
            _check_measures(model, spec)
        n, n_x = len(specs), len(model.states)
        given = [parameter_values(model, spec.parameters, asset=spec.name) for spec in specs]
        self.p = {name: np.array([values[name] for values in given]) for name in model.details}
        self.outputs = _wires(specs, model.outputs, model.output_units, table, strict=True)
        self.inputs = _wires(specs, model.inputs, model.input_units, table, strict=False)
        self.horizon_s = np.array([spec.horizon_s for spec in specs], np.float64)
        drift_s = np.array([spec.drift_s for spec in specs], np.float64)
        self.fade: F64 = np.where(drift_s > 0.0, 1.0 / np.where(drift_s > 0.0, drift_s, 1.0), 0.0)
        self._every = _column(table, "every_ns")
        self._due_every = np.array([spec.every_ns for spec in specs], np.int64)
        # Columns of y that show a state as it is, and which state that is.
        self._shown = [k for k, state in enumerate(model.shows) if state]
        self._state = [model.states.index(model.shows[k]) for k in self._shown]
        # Settled by the plant file and not by the data: the size of an asset's system must not depend on
        # what its neighbours do.
        wired = (self.outputs.tag >= 0) & (self.fade > 0.0)[:, None]
        self._drifting = tuple(
            state for k, state in zip(self._shown, self._state, strict=True) if wired[:, k].any()
        )
        self.x: F64 = np.full((n, n_x), np.nan)
        self.drift: F64 = np.zeros((n, n_x))
        self.time: INT = np.full(n, NO_TIME, np.int64)
        self.seen: BOOL = np.zeros((n, n_x), np.bool_)
        self.fresh: BOOL = np.zeros((n, n_x), np.bool_)
        self.std: F64 = np.full((n, n_x), np.nan)
        self.used: INT = np.full((n, n_x), NO_TIME, np.int64)
        self.failures: INT = np.zeros(n, np.int64)

    @property
    def ready(self) -> BOOL:
        """Which assets have a state, (n,)."""
        begun: BOOL = self.time != NO_TIME
        return begun

    @np.errstate(all="ignore")  # what overflows is not finite, and that is looked for
    def advance(self, rows: INT, time_ns: int, beliefs: Beliefs) -> Outlook:
        """Bring some assets to a tick and look ahead from there.

        Args:
            rows: which assets, ascending.
            time_ns: the tick's time.
            beliefs: all tags now.
        """
        u = self._inputs(rows, beliefs)
        p = {name: values[rows] for name, values in self.p.items()}
        measured, fresh = self._measured(rows, beliefs)
        problem = [""] * len(rows)
        begun = self.ready[rows]
        self._follow(rows, np.flatnonzero(begun), time_ns, (u, p, measured, fresh), problem)
        self._begin(rows, ~begun, time_ns, (u, p, measured, fresh))
        ready = np.flatnonzero(self.ready[rows])
        n_y = len(self.model.outputs)
        now, ahead = np.full((len(rows), n_y), np.nan), np.full((len(rows), n_y), np.nan)
        if ready.size:
            some, there = rows[ready], {name: values[ready] for name, values in p.items()}
            now[ready] = self.outputs.show(some, self.model.measure(self.x[some], u[ready], there))
            solution = predict(
                self.model,
                self.x[some],
                self.drift[some],
                u[ready],
                there,
                fade=self.fade[some],
                drifting=self._drifting,
                horizons_s=self.horizon_s[None, some],
            )
            later = solution.x[0][:, : self.x.shape[1]]
            ahead[ready] = self.outputs.show(some, self.model.measure(later, u[ready], there))
            for k in np.flatnonzero(~solution.ok):
                problem[ready[k]] = problem[ready[k]] or f"no prediction: {solution.why(int(k))}"
        return Outlook(now, ahead, problem)

    def _inputs(self, rows: INT, beliefs: Beliefs) -> F64:
        """Inputs by tag (also a stale one: the last value is the best guess), else by parameter."""
        given = np.stack([self.p[name][rows] for name in self.model.input_parameters], axis=1)
        shown = self.inputs.read(rows, beliefs.value)
        return np.where(np.isfinite(shown), shown, given)

    def _measured(self, rows: INT, beliefs: Beliefs) -> tuple[F64, BOOL]:
        """What tags say of the states, and where that is to be imposed; both (n_rows, n_x).

        A tag of a slower tier than its asset (an analyser) counts only at the tick after a new sample:
        in between the model knows better than a value held.
        """
        shape = (len(rows), self.x.shape[1])
        x, fresh = np.full(shape, np.nan), np.zeros(shape, np.bool_)
        self.std[rows] = np.nan
        if not beliefs.value.size:
            return x, fresh
        y = self.outputs.read(rows, beliefs.value)
        for k, state in zip(self._shown, self._state, strict=True):
            tag = self.outputs.tag[rows, k]
            new = beliefs.time_ns[tag] != self.used[rows, state]
            steady = self._every[tag] <= self._due_every[rows]
            good = (tag >= 0) & beliefs.usable[tag] & (new | steady)
            x[:, state], fresh[:, state] = y[:, k], good
            self.used[rows, state] = np.where(good, beliefs.time_ns[tag], self.used[rows, state])
            spread = beliefs.std[tag] * np.abs(self.outputs.factor[rows, k])
            self.std[rows, state] = np.where(good, spread, np.nan)
        return x, fresh

    def _begin(
        self,
        rows: INT,
        unborn: BOOL,
        time_ns: int,
        now: tuple[F64, Mapping[str, F64], F64, BOOL],
    ) -> None:
        """First contact: measured states as measured, the others as the model begins.

        An asset without any tag that shows a state begins at once; the others wait for one that does.
        """
        u, p, measured, fresh = now
        blind = (self.outputs.tag[rows][:, self._shown] < 0).all(axis=1)
        start = unborn & (fresh.any(axis=1) | blind)
        chosen = rows[start]
        self.x[chosen] = np.where(fresh, measured, self.model.initial(u, p))[start]
        self.drift[chosen] = 0.0
        self.time[chosen] = time_ns
        self.seen[chosen] = self.fresh[chosen] = fresh[start]

    def _follow(
        self,
        rows: INT,
        going: INT,
        time_ns: int,
        now: tuple[F64, Mapping[str, F64], F64, BOOL],
        problem: list[str],
    ) -> None:
        """Move assets that have a state from their last tick to this one; failures go to `problem`.

        Where the clock was set back there is no way to go: measured states are set, the others stay.
        """
        back = going[self.time[rows[going]] > time_ns]
        stopped, heard = rows[back], now[3][back]
        self.x[stopped] = np.where(heard, now[2][back], self.x[stopped])
        self.seen[stopped] |= heard
        self.fresh[stopped] = heard
        self.time[stopped] = time_ns
        going = going[self.time[rows[going]] < time_ns]
        if not going.size:
            return
        u, measured, fresh = now[0][going], now[2][going], now[3][going]
        p = {name: values[going] for name, values in now[1].items()}
        moved = rows[going]
        # Unsigned: from the earliest time there is to the latest is more than an int64 holds.
        x, dt = self.x[moved], (time_ns - self.time[moved]).view(np.uint64) / SECOND_NS
        # A state measured for the first time is simply set: there is no path from a guess to a fact.
        imposed = fresh & self.seen[moved]
        slope = np.where(imposed, (measured - x) / dt[:, None], 0.0)
        motion = Motion(self.model, u, p, imposed, slope, self.fade[moved], self._drifting)
        solution = motion.run(x, self.drift[moved], dt[None])
        after = np.where(fresh, measured, solution.x[0][:, : x.shape[1]])
        drift = self.drift[moved] * np.exp(-self.fade[moved] * dt)[:, None]
        model_rate = 0.5 * (self.model.derivative(x, u, p) + self.model.derivative(after, u, p))
        gain = 1.0 - np.exp(-self.fade[moved] * dt)
        learned = self.drift[moved] + gain[:, None] * (slope - model_rate - self.drift[moved])
        # Only between two ticks that both saw the plant: a jump after silence teaches nothing.
        drift = np.where(imposed & self.fresh[moved], learned, drift)
        failed = ~solution.ok | ~np.isfinite(after).all(axis=1) | ~np.isfinite(drift).all(axis=1)
        self._recover(moved, failed, (u, p, measured, fresh))
        fine = ~failed
        self.x[moved[fine]], self.drift[moved[fine]] = after[fine], drift[fine]
        self.failures[moved[fine]] = 0
        self.time[moved] = time_ns
        self.seen[moved] |= fresh
        self.fresh[moved] = fresh
        for k in np.flatnonzero(failed):
            problem[going[k]] = solution.why(int(k)) or "the model's state is not finite"

    def _recover(self, moved: INT, failed: BOOL, now: tuple[F64, Mapping[str, F64], F64, BOOL]) -> None:
        """Put failed assets back: measured states as measured, the others as they last made sense."""
        u, p, measured, fresh = now
        self.failures[moved] += 1
        old = self.x[moved]
        worn_out = (self.failures[moved] >= RESTART_AFTER)[:, None] | ~np.isfinite(old)
        kept = np.where(worn_out, self.model.initial(u, p), old)
        chosen = moved[failed]
        self.x[chosen] = np.where(fresh, measured, kept)[failed]
        self.drift[chosen] = 0.0


def _check_measures(model: Model, spec: AssetSpec) -> None:
    known = (*model.outputs, *model.inputs)
    for name in spec.measures:
        if name not in known:
            hint = nearest(name, known)
            raise ConfigError(
                f"{spec.name}: measures.{name}: model {model.name} has no such output or input; {hint}"
            )


def _wires(
    specs: Sequence[AssetSpec], names: Sequence[str], units: Sequence[str], table: TagTable, *, strict: bool
) -> Wires:
    """Tags of each asset for each name.

    With `strict`, a tag found by its equal name must fit the unit; otherwise one that does not (a mass flow
    named as the model's volume flow) is left alone. A tag named under `measures` must always fit.
    """
    shape = (len(specs), len(names))
    tag, factor, offset = np.full(shape, -1, np.int64), np.ones(shape), np.zeros(shape)
    unit = [list(units) for _ in specs]
    for i, spec in enumerate(specs):
        for k, name in enumerate(names):
            index = _find(table, spec, name)
            found = table[index] if index is not None else None
            if index is None or found is None:
                continue
            try:
                factor[i, k], offset[i, k] = conversion(found.unit, units[k])
            except ConfigError as error:
                if not strict and name not in spec.measures:
                    continue
                raise ConfigError(f"{spec.name}: measures.{name}: tag {found.name}: {error}") from error
            tag[i, k], unit[i][k] = index, found.unit
    return Wires(tag, factor, offset, unit)


def _find(table: TagTable, spec: AssetSpec, name: str) -> int | None:
    given = spec.measures.get(name)
    if given == "":
        return None
    if given is None:
        return table.index(f"{spec.name}.{name}")
    index = table.index(given)
    if index is None:
        index = table.index(f"{spec.name}.{given}")
    if index is None:
        own = [table.names[tag].removeprefix(f"{spec.name}.") for tag in spec.tags]
        raise ConfigError(f"{spec.name}: measures.{name}: there is no tag '{given}'; {nearest(given, own)}")
    return index


def _column(table: TagTable, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(table.column(name), np.int64)


def group_assets(specs: Sequence[AssetSpec], table: TagTable) -> list[ModelGroup]:
    """The assets that have a model, by model, in the order of their first asset.

    Raises:
        ConfigError: a model is unknown, or one of its settings cannot be used.
    """
    by_model: dict[str, list[AssetSpec]] = {}
    for spec in specs:
        if spec.model is None:
            continue
        if spec.model not in MODELS:
            hint = nearest(spec.model, MODELS)
            raise ConfigError(f"{spec.name}: model: there is no model '{spec.model}'; {hint}")
        by_model.setdefault(spec.model, []).append(spec)
    return [ModelGroup(MODELS[name], members, table) for name, members in by_model.items()]
