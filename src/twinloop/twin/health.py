"""Sync health: how far an asset's twin is in step with its plant, and why not.

The worst sign wins: DIVERGED, then STALE, STARTING, LAGGING, IN_SYNC. A worse health shows at once; a better
one after `SETTLE` evaluations in a row that agree, so that a flickering link makes one event and not twenty.
STARTING alone is left at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.records import Event, EventKind, Health
from twinloop.twin.beliefs import Beliefs

__all__ = ["NIS_ENTER", "NIS_LEAVE", "SETTLE", "HealthState", "Signs", "read_signs", "update"]

SETTLE: Final = 3
"""Evaluations in a row that must be better before health gets better."""
PERSIST: Final = 5
"""Evaluations in a row with a NIS beyond `NIS_ENTER` before an asset counts as diverged."""
NIS_ENTER: Final = 4.0
"""A running NIS of 4 means errors twice as large as the filter claims; far outside chance for 100 samples."""
NIS_LEAVE: Final = 2.0
"""Once diverged by its NIS, an asset stays so until the NIS is below this."""
AHEAD_NS: Final = 600_000_000_000
"""No source time further ahead of its arrival is believed: a belief from beyond is from before the clock was
set back."""

_RANK: Final = {
    Health.IN_SYNC: 0,
    Health.LAGGING: 1,
    Health.STARTING: 2,
    Health.STALE: 3,
    Health.DIVERGED: 4,
}


class HealthState(msgspec.Struct):
    """What is remembered of one asset's health between ticks.

    Attributes:
        health: as last reported.
        why: what it rests on; empty when IN_SYNC.
        better: evaluations in a row that were better than `health`.
        beyond: evaluations in a row with a NIS beyond `NIS_ENTER`.
        doubted: whether the NIS counts as diverged, until it falls below `NIS_LEAVE`.
    """

    health: Health = Health.STARTING
    why: str = "no tick yet"
    better: int = 0
    beyond: int = 0
    doubted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What speaks for and against an asset at one tick; texts are empty when there is nothing to say.

    Attributes:
        waiting: tags that never had a usable sample and may still get one.
        silent: tags without a sample for longer than their `stale`, or with none of any use for as long.
        lag: how far the fold is behind.
        problem: what the model could not do.
        nis: the largest running NIS of the tags that are heard; NaN when there is none.
        nis_tag: the tag it belongs to.
    """

    waiting: str = ""
    silent: str = ""
    lag: str = ""
    problem: str = ""
    nis: float = float("nan")
    nis_tag: str = ""


def read_signs(
    tags: npt.NDArray[np.int64],
    names: Sequence[str],
    beliefs: Beliefs,
    time_ns: int,
    *,
    useless: npt.NDArray[np.bool_] | None = None,
    lag: str = "",
    problem: str = "",
) -> Signs:
    """The signs of one asset.

    Args:
        tags: indices of its tags.
        names: full tag names by index.
        beliefs: all tags now.
        time_ns: now.
        useless: tags of which nothing but Bad samples came for a while, shape (n_tags,).
        lag: how far the fold is behind, in words; see `missed_text`.
        problem: what the model could not do, in words.
    """
    silent = beliefs.stale[tags] > 0
    bad = ~silent & (False if useless is None else useless[tags])
    waiting = ~silent & ~bad & ~np.isfinite(beliefs.value[tags])
    frozen = ~silent & (beliefs.time_ns[tags] > time_ns + AHEAD_NS)
    nis = np.where(silent | bad, np.nan, beliefs.nis[tags])
    known = np.isfinite(nis)
    worst = int(np.argmax(np.where(known, nis, -np.inf))) if known.any() else -1
    return Signs(
        waiting=_list(tags[waiting], names, "no usable sample yet of "),
        silent=_list(tags[silent], names, "no data from ")
        or _list(tags[bad], names, "nothing but Bad samples from ")
        or _list(tags[frozen], names, "the clock was set back; until it catches up all data are late of "),
        lag=lag,
        problem=problem,
        nis=float(nis[worst]) if worst >= 0 else float("nan"),
        nis_tag=names[int(tags[worst])] if worst >= 0 else "",
    )


def missed_text(missed: int) -> str:
    """How far the fold is behind, in words; empty when it keeps up."""
    return f"{missed} {'cycle' if missed == 1 else 'cycles'} missed" if missed else ""


def update(state: HealthState, signs: Signs, asset: str, time_ns: int, events: list[Event]) -> None:
    """Take the signs of one tick into an asset's health; a change becomes an event."""
    _weigh_nis(state, signs)
    health, why = _worst(state, signs)
    if _RANK[health] < _RANK[state.health] and state.health is not Health.STARTING:
        state.better += 1
        if state.better < SETTLE:
            return
    state.better = 0
    if health is not state.health:
        events.append(Event(time_ns, asset, EventKind.HEALTH, state.health.value, health.value, why))
    state.health, state.why = health, why


def _weigh_nis(state: HealthState, signs: Signs) -> None:
    if np.isnan(signs.nis):
        return  # nothing heard, nothing learned
    state.beyond = state.beyond + 1 if signs.nis > NIS_ENTER else 0
    state.doubted = signs.nis >= NIS_LEAVE if state.doubted else state.beyond >= PERSIST


def _worst(state: HealthState, signs: Signs) -> tuple[Health, str]:
    """The most serious sign and its words."""
    if signs.problem:
        return Health.DIVERGED, signs.problem
    if state.doubted and signs.nis_tag:
        why = f"{signs.nis_tag} does not behave as its filter expects (NIS {signs.nis:.1f}, expected 1)"
        return Health.DIVERGED, why
    if signs.silent:
        return Health.STALE, signs.silent
    if signs.waiting:
        return Health.STARTING, signs.waiting
    if signs.lag:
        return Health.LAGGING, signs.lag
    return Health.IN_SYNC, ""


def _list(tags: npt.NDArray[np.int64], names: Sequence[str], before: str) -> str:
    if not tags.size:
        return ""
    more = f" and {tags.size - 1} more" if tags.size > 1 else ""
    return f"{before}{names[int(tags[0])]}{more}"
