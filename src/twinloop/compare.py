"""What folding the same records otherwise would have altered: two data or replay directories compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.errors import QueryError
from twinloop.log.dictionary import Dictionary
from twinloop.present import time_text
from twinloop.replaying import read_report
from twinloop.status import Reason, format_reasons, severity_name
from twinloop.stores.influx.store import ELSEWHERE
from twinloop.stores.queries import LocalQueries
from twinloop.storing import OutputsReader

__all__ = ["Difference", "Estimates", "EventChange", "Example", "Judgement", "Model", "Turn", "compare"]

EXAMPLES: Final = 3
EDGE_NS: Final = 1_000_000_000
_MS: Final = 1_000_000
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1


class Example(msgspec.Struct, frozen=True):
    """One sample judged otherwise: its time (ns), its value in A, and each side's words."""

    time: int
    value: float | None
    a: str
    b: str


class Turn(msgspec.Struct, frozen=True):
    """How many of a tag's samples have one severity in A (`before`) and another in B (`after`)."""

    tag: str
    before: str
    after: str
    count: int


class Judgement(msgspec.Struct, frozen=True):
    """How often B gave a tag's samples a reason that A did not, and the other way round.

    `reason` is empty where only the status differs.
    """

    tag: str
    reason: str
    added: int
    gone: int
    examples: list[Example]


class EventChange(msgspec.Struct, frozen=True):
    """Events only B has (`added`) or only A has (`gone`), of one kind and subject, and the first of each."""

    kind: str
    subject: str
    added: int
    gone: int
    examples: list[str]


class Estimates(msgspec.Struct, frozen=True):
    """How far B's estimates of a tag lie from A's, over samples both have; `max_at` is a sample's time."""

    tag: str
    compared: int
    max: float
    max_at: int
    rms: float


class Model(msgspec.Struct, frozen=True):
    """The same for one state of an asset's model, over snapshots both have."""

    asset: str
    state: str
    compared: int
    max: float
    max_at: int
    rms: float


class Difference(msgspec.Struct, kw_only=True):
    """All that differs between two directories.

    Attributes:
        a, b: the directories.
        from_ns, to_ns: what was compared: samples that arrived, and events, after `from_ns` and up to
            `to_ns`; None is open.
        compared: samples both have.
        judged_otherwise, values_otherwise: how many of them differ in status or reasons, in value.
        only_a, only_b: samples that one side alone has.
        events_added, events_gone: events only B has, only A has.
        severities, judgements, events, estimates, models: where; empty where nothing differs.
    """

    a: str
    b: str
    from_ns: int | None = None
    to_ns: int | None = None
    compared: int = 0
    judged_otherwise: int = 0
    values_otherwise: int = 0
    only_a: int = 0
    only_b: int = 0
    events_added: int = 0
    events_gone: int = 0
    severities: list[Turn] = []
    judgements: list[Judgement] = []
    events: list[EventChange] = []
    estimates: list[Estimates] = []
    models: list[Model] = []

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        counts = (self.judged_otherwise, self.values_otherwise, self.only_a, self.only_b)
        return not (any(counts) or self.events_added or self.events_gone or self.estimates or self.models)


@dataclass(frozen=True, slots=True)
class _Window:
    """The times both sides answer for.

    At the ends of a replay it is a matter of milliseconds on which side of the cut something fell: what one
    side alone has counts only `EDGE_NS` inside.
    """

    low: int
    high: int

    def has(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return (times > self.low) & (times <= self.high)

    def is_inside(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        low = self.low if self.low == _LOWEST else self.low + EDGE_NS
        high = self.high if self.high == _HIGHEST else self.high - EDGE_NS
        return (times > low) & (times <= high)


@dataclass(frozen=True, slots=True)
class _Side:
    queries: LocalQueries
    names: list[str]


@contextmanager
def _opened(directory: Path) -> Iterator[_Side]:
    path = directory / "dictionary.sqlite"
    if not path.exists():
        raise QueryError(f"{directory}: no data or replay directory, it has no dictionary.sqlite")
    if (directory / "store" / ELSEWHERE).exists():
        raise QueryError(
            f"{directory}: its samples are in InfluxDB; compare replays of it: `twinloop replay --from-log`"
        )
    dictionary = Dictionary(path, readonly=True)
    names = [""] * (max(dictionary.tags.values(), default=-1) + 1)
    for name, index in dictionary.tags.items():
        names[index] = name
    dictionary.close()
    outputs, units = OutputsReader(directory), [""] * len(names)
    queries = LocalQueries(directory / "store", names, units, outputs, release=outputs.close)
    try:
        yield _Side(queries, names)
    finally:
        queries.close()


def compare(a: Path, b: Path) -> Difference:
    """What B has otherwise than A; samples meet by tag name and time.

    Raises:
        QueryError: a directory holds no history, or a replay that was not finished.
        LogError: one cannot be read.
    """
    window = _window(a, b)
    found = Difference(
        a=str(a),
        b=str(b),
        from_ns=None if window.low == _LOWEST else window.low,
        to_ns=None if window.high == _HIGHEST else window.high,
    )
    with _opened(a) as left, _opened(b) as right:
        for name in sorted({*left.names, *right.names} - {""}):
            _compare_tag(found, window, name, _rows(left, window, name), _rows(right, window, name))
        _compare_events(found, window, left, right)
        _compare_models(found, window, left, right)
    return found


def _window(*directories: Path) -> _Window:
    low, high = _LOWEST, _HIGHEST
    for directory in directories:
        report = read_report(directory)
        if report is None:
            continue
        if not report.complete:
            raise QueryError(f"{directory}: that replay is still under way, or was ended before its end")
        low = max(low, _LOWEST if report.from_ns is None else report.from_ns)
        high = min(high, _HIGHEST if report.to_ns is None else report.to_ns)
    return _Window(low, high)


class _Rows:
    """One side's samples of a tag within the window, as NumPy columns."""

    def __init__(self, table: pa.Table, window: _Window) -> None:
        arrival = table["arrival_ms"].to_numpy() * _MS
        keep = window.has(arrival)
        self.arrival = arrival[keep]
        self.time = table["time"].to_numpy()[keep]
        self.status = table["status"].to_numpy()[keep]
        self.reasons = table["reasons"].to_numpy()[keep]
        self.value = _floats(table, "value")[keep]
        self.estimate = _floats(table, "estimate")[keep]


def _floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column with NaN for null."""
    return np.asarray(table[name].to_numpy(), np.float64)


def _rows(side: _Side, window: _Window, name: str) -> _Rows:
    if name not in side.names:
        return _Rows(_NONE, window)
    return _Rows(side.queries.stored(name, None, None), window)


_NONE: Final = pa.table(
    {
        "arrival_ms": pa.array([], pa.int64()),
        "time": pa.array([], pa.int64()),
        "status": pa.array([], pa.uint32()),
        "reasons": pa.array([], pa.uint32()),
        "value": pa.array([], pa.float64()),
        "estimate": pa.array([], pa.float64()),
    }
)


def _compare_tag(found: Difference, window: _Window, name: str, a: _Rows, b: _Rows) -> None:
    time, at, bt = np.intersect1d(a.time, b.time, assume_unique=True, return_indices=True)
    found.compared += len(time)
    found.only_a += _alone(a, at, window)
    found.only_b += _alone(b, bt, window)
    same = (a.value[at] == b.value[bt]) | (np.isnan(a.value[at]) & np.isnan(b.value[bt]))
    found.values_otherwise += int(np.count_nonzero(~same))
    otherwise = np.flatnonzero((a.status[at] != b.status[bt]) | (a.reasons[at] != b.reasons[bt]))
    found.judged_otherwise += len(otherwise)
    if len(otherwise):
        found.severities += _turns(name, a.status[at[otherwise]], b.status[bt[otherwise]])
        found.judgements += _judgements(name, a, b, at[otherwise], bt[otherwise])
    estimates = _distance(time, a.estimate[at], b.estimate[bt])
    if estimates is not None:
        found.estimates.append(Estimates(name, *estimates))


def _alone(rows: _Rows, matched: npt.NDArray[np.intp], window: _Window) -> int:
    alone = np.ones(len(rows.time), bool)
    alone[matched] = False
    return int(np.count_nonzero(alone & window.is_inside(rows.arrival)))


def _turns(name: str, before: npt.NDArray[np.uint32], after: npt.NDArray[np.uint32]) -> list[Turn]:
    """Which severities became which."""
    pairs = zip(before.tolist(), after.tolist(), strict=True)
    counts = Counter((severity_name(each), severity_name(other)) for each, other in pairs)
    return [Turn(name, *turn, count) for turn, count in sorted(counts.items()) if turn[0] != turn[1]]


def _judgements(
    name: str, a: _Rows, b: _Rows, at: npt.NDArray[np.intp], bt: npt.NDArray[np.intp]
) -> Iterator[Judgement]:
    before, after = a.reasons[at], b.reasons[bt]
    cases = [(str(each.name), before & int(each) != 0, after & int(each) != 0) for each in Reason]
    for reason, had, has in cases:
        added, gone = has & ~had, had & ~has
        if added.any() or gone.any():
            rows = np.flatnonzero(added | gone)[:EXAMPLES]
            counts = int(np.count_nonzero(added)), int(np.count_nonzero(gone))
            yield Judgement(name, reason, *counts, [_example(a, b, at[row], bt[row]) for row in rows])
    plain = np.flatnonzero(before == after)
    if len(plain):
        examples = [_example(a, b, at[row], bt[row]) for row in plain[:EXAMPLES]]
        yield Judgement(name, "", len(plain), 0, examples)


def _example(a: _Rows, b: _Rows, at: np.intp, bt: np.intp) -> Example:
    value = float(a.value[at])
    return Example(
        int(a.time[at]),
        None if np.isnan(value) else value,
        _words(int(a.status[at]), int(a.reasons[at])),
        _words(int(b.status[bt]), int(b.reasons[bt])),
    )


def _words(status: int, reasons: int) -> str:
    return f"{severity_name(status)} {format_reasons(reasons)}".strip()


def _distance(
    time: npt.NDArray[np.int64], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> tuple[int, float, int, float] | None:
    """How many were compared, the largest distance, its time, and the RMS; None where all agree."""
    both = np.isfinite(a) & np.isfinite(b)
    apart = np.abs(a[both] - b[both])
    if not apart.any():
        return None
    worst = int(apart.argmax())
    rms = float(np.sqrt(np.mean(apart**2)))
    return int(np.count_nonzero(both)), float(apart[worst]), int(time[both][worst]), rms


def _compare_events(found: Difference, window: _Window, left: _Side, right: _Side) -> None:
    a, b = (_events(side, window) for side in (left, right))
    changes: dict[tuple[str, str], tuple[list[_EventKey], list[_EventKey]]] = {}
    for which, lone in enumerate((b - a, a - b)):
        for event in sorted(lone.elements()):
            changes.setdefault((event[2], event[1]), ([], []))[which].append(event)
    for (kind, subject), (added, gone) in sorted(changes.items()):
        found.events_added += len(added)
        found.events_gone += len(gone)
        examples = [
            *(f"+ {_told(each)}" for each in added[:EXAMPLES]),
            *(f"- {_told(each)}" for each in gone[:EXAMPLES]),
        ]
        found.events.append(EventChange(kind, subject, len(added), len(gone), examples))


_EventKey = tuple[int, str, str, str, str, str]


def _events(side: _Side, window: _Window) -> Counter[_EventKey]:
    table = side.queries.events(None, None)
    time = table["time"].cast(pa.int64()).to_numpy()
    table = table.filter(pa.array(window.is_inside(time)))
    names = ("subject", "kind", "before", "after", "why")
    columns: list[list[Any]] = [table["time"].cast(pa.int64()).to_pylist()]
    columns += [table[name].to_pylist() for name in names]
    return Counter(zip(*columns, strict=True))


def _told(event: _EventKey) -> str:
    time, _, _, before, after, why = event
    change = " -> ".join(part for part in (before, after) if part)
    return " ".join(part for part in (time_text(time), change, why) if part)


def _compare_models(found: Difference, window: _Window, left: _Side, right: _Side) -> None:
    a, b = (_states(side, window) for side in (left, right))
    for key in sorted(a.keys() & b.keys()):
        (a_time, a_value), (b_time, b_value) = a[key], b[key]
        time, at, bt = np.intersect1d(a_time, b_time, return_indices=True)
        distance = _distance(time, a_value[at], b_value[bt])
        if distance is not None:
            found.models.append(Model(*key, *distance))


_Course = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _states(side: _Side, window: _Window) -> dict[tuple[str, str], _Course]:
    """By asset and state: times and values."""
    table = side.queries.snapshots(None, None, None).select(["time", "asset", "state"])
    found: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for batch in table.to_batches(max_chunksize=10_000):
        times = batch["time"].cast(pa.int64()).to_pylist()
        for time, asset, state in zip(
            times, batch["asset"].to_pylist(), batch["state"].to_pylist(), strict=True
        ):
            for name, value in state:
                times_of, values = found.setdefault((asset, name), ([], []))
                times_of.append(time)
                values.append(np.nan if value is None else value)
    made = {}
    for key, (times_of, values) in found.items():
        time = np.array(times_of, np.int64)
        keep = window.has(time)
        made[key] = (time[keep], np.array(values, np.float64)[keep])
    return made
