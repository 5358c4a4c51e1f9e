"""Keeps the score of a demo run: what the twin said against what was true, and faults against catches.

Only the demo can do this, because only a simulation knows its truth. Everything is summed as it comes; an
endless run needs no more memory than a short one, but for one line a fault.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from twinloop.records import EventKind, Outputs, Snapshot
from twinloop.simulate.faults import FaultWindow
from twinloop.simulate.sensors import INSTRUMENTS, TRUTH
from twinloop.status import Reason, Severity, format_reasons
from twinloop.units import conversion

__all__ = ["ErrorPair", "FaultScore", "Score", "Scorer", "TagScore"]

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000
KEPT_TRUTHS: Final = 120
AFTERMATH_NS: Final = 10 * SECOND_NS
"""After a fault the judge needs a while to believe the instrument again: neither caught nor a false alarm."""
NOTICE_NS: Final = 2 * SECOND_NS
"""STALE is said by a tick, not by a sample: it may come this much after the fault ended."""


class ErrorPair:
    """Running root mean squares of two errors on the same samples: what was given, what was made of it."""

    def __init__(self) -> None:
        self.count = 0
        self._given = 0.0
        self._made = 0.0

    def add(self, given: float, made: float) -> None:
        """Count one sample; one without a value or an estimate is left out of both."""
        if math.isfinite(given) and math.isfinite(made):
            self.count += 1
            self._given += given * given
            self._made += made * made

    @property
    def given(self) -> float:
        """RMSE of what was given (the raw value, or persistence); NaN before any."""
        return math.sqrt(self._given / self.count) if self.count else math.nan

    @property
    def made(self) -> float:
        """RMSE of what was made of it (the estimate, or the prediction); NaN before any."""
        return math.sqrt(self._made / self.count) if self.count else math.nan


@dataclass(frozen=True, slots=True)
class TagScore:
    """Errors of one kind of tag over all reactors, in its unit.

    Attributes:
        clear: on samples without a fault.
        faulty: on samples with one, and on those within 10 s after it.
    """

    tag: str
    unit: str
    clear: ErrorPair
    faulty: ErrorPair


@dataclass(slots=True)
class FaultScore:
    """One fault and whether it was noticed.

    Attributes:
        window: what happened.
        reasons: `Reason` bits of the samples and events that noticed it; 0 for not caught.
        delay_s: from its first reading to the first one noticed; NaN for not caught.
    """

    window: FaultWindow
    reasons: int = 0
    delay_s: float = math.nan

    @property
    def caught(self) -> bool:
        """Whether any status was lowered because of it while it lasted."""
        return self.reasons != 0

    def notice(self, reasons: int, time_ns: int) -> None:
        """A status was lowered at `time_ns`."""
        if not self.caught:
            self.delay_s = (time_ns - self.window.begin) / SECOND_NS
        self.reasons |= reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of a run.

    Attributes:
        tags: in the order of the instruments, those that had samples.
        overall: errors of all noisy tags on clear samples, each in deviations of its instrument's noise.
        faults: in the order they began.
        false_alarms: by reasons, samples and STALE events without a fault.
        aftermath: the same within 10 s after a fault of that tag.
        judged: samples without a fault, the false alarms among them.
        unmatched: samples and predictions whose truth was not known.
        conversion: NaN and the twin's error of conversion, as a fraction.
        prediction: errors of persistence and of the model's temperature prediction, degC.
        horizon_s: how far ahead those look.
    """

    tags: Sequence[TagScore]
    overall: ErrorPair
    faults: Sequence[FaultScore]
    false_alarms: Mapping[str, int]
    aftermath: int
    judged: int
    unmatched: int
    conversion: ErrorPair
    prediction: ErrorPair
    horizon_s: float


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    time: int
    value: float
    estimate: float
    lowered: bool
    reasons: int


@dataclass(frozen=True, slots=True)
class _Promise:
    """A number the twin gave for a moment, and what doing nothing would have given."""

    time: int
    asset: str
    quantity: str
    value: float
    persistence: float
    pair: ErrorPair


@dataclass(slots=True)
class _Sums:
    clear: ErrorPair = field(default_factory=ErrorPair)
    faulty: ErrorPair = field(default_factory=ErrorPair)


class Scorer:
    """Takes truth, faults and outputs in the order they become known and gives the `Score` at any time.

    A sample is judged when the truth of a later second is known: by then it is also known whether a fault
    had begun or ended at it.
    """

    def __init__(self) -> None:
        self._truths: dict[int, Mapping[str, Sequence[float]]] = {}
        self._newest = 0
        self._rows: deque[_Row] = deque()
        self._promises: deque[_Promise] = deque()
        self._faults: dict[int, FaultScore] = {}
        self._sums: dict[str, _Sums] = {}
        self._overall = ErrorPair()
        self._conversion = ErrorPair()
        self._prediction = ErrorPair()
        self._horizon_s = 0.0
        self._alarms: Counter[str] = Counter()
        self._aftermath = 0
        self._judged = 0
        self._unmatched = 0

    def add_truth(self, time_ns: int, assets: Mapping[str, Sequence[float]]) -> None:
        """The true values of one second: by asset, in the order of `TRUTH`."""
        self._newest = _key(time_ns)
        self._truths[self._newest] = assets
        while len(self._truths) > KEPT_TRUTHS:
            del self._truths[next(iter(self._truths))]
        self._keep_promises()
        self._settle(before=self._newest)

    def add_fault(self, window: FaultWindow) -> None:
        """A fault has begun, or (the same number) ended."""
        known = self._faults.get(window.number)
        if known is None:
            self._faults[window.number] = FaultScore(window)
        else:
            known.window = window

    def add_outputs(self, outputs: Outputs, names: Sequence[str]) -> None:
        """What the twin made of one record.

        Args:
            names: full tag names by the index the outputs use.
        """
        batch = outputs.batch()
        columns = (batch.tag, batch.time, batch.value, batch.estimate, batch.status, batch.reasons)
        for tag, time_ns, value, estimate, status, reasons in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            lowered = status >> 30 != Severity.GOOD
            self._rows.append(_Row(names[tag], time_ns, value, estimate, lowered, reasons))
        for event in outputs.events:
            if event.kind is EventKind.STATUS and "STALE" in event.why.split("|"):
                stale = _Row(
                    event.subject, event.time, math.nan, math.nan, lowered=True, reasons=Reason.STALE
                )
                self._rows.append(stale)
        for snapshot in outputs.snapshots:
            self._add_snapshot(snapshot)

    def score(self) -> Score:
        """The score so far, everything heard included."""
        self._settle(before=None)
        units = {each.tag: each.unit for each in INSTRUMENTS}
        return Score(
            tags=[
                TagScore(tag, unit, self._sums[tag].clear, self._sums[tag].faulty)
                for tag, unit in units.items()
                if tag in self._sums
            ],
            overall=self._overall,
            faults=list(self._faults.values()),
            false_alarms=dict(self._alarms.most_common()),
            aftermath=self._aftermath,
            judged=self._judged,
            unmatched=self._unmatched,
            conversion=self._conversion,
            prediction=self._prediction,
            horizon_s=self._horizon_s,
        )

    def _add_snapshot(self, snapshot: Snapshot) -> None:
        made = snapshot.state.get("conversion")
        if made is not None:
            self._promises.append(
                _Promise(snapshot.time, snapshot.asset, "conversion", made, made, self._conversion)
            )
        for prediction in snapshot.predictions:
            if prediction.output != "temperature":
                continue
            factor, offset = conversion(prediction.unit, "degC")
            self._horizon_s = snapshot.horizon_s
            self._promises.append(
                _Promise(
                    snapshot.time + round(snapshot.horizon_s * SECOND_NS),
                    snapshot.asset,
                    "temperature",
                    prediction.value * factor + offset,
                    prediction.persistence * factor + offset,
                    self._prediction,
                )
            )

    def _keep_promises(self) -> None:
        # Promises for moments to come wait; they stay in the order they were made.
        waiting: deque[_Promise] = deque()
        for promise in self._promises:
            if _key(promise.time) > self._newest:
                waiting.append(promise)
                continue
            true = self._true_at(promise)
            if true is None:
                self._unmatched += 1
            else:
                promise.pair.add(promise.persistence - true, promise.value - true)
        self._promises = waiting

    def _true_at(self, promise: _Promise) -> float | None:
        """The truth at any time, linear between seconds; None where it is not known."""
        times = list(self._truths)
        following = bisect_left(times, _key(promise.time))
        if following == 0 and times[0] != _key(promise.time):
            return None
        start, end = times[max(following - 1, 0)], times[following]
        first, last = (self._truths[each].get(promise.asset) for each in (start, end))
        if first is None or last is None:
            return None
        column = TRUTH.index(promise.quantity)
        part = (promise.time / MILLISECOND_NS - start) / (end - start) if end > start else 0.0
        return first[column] + part * (last[column] - first[column])

    def _settle(self, before: int | None) -> None:
        # Rows come nearly in the order of time, so the few younger ones are put back.
        for _ in range(len(self._rows)):
            row = self._rows.popleft()
            if before is None or _key(row.time) < before:
                self._judge(row)
            else:
                self._rows.append(row)

    def _judge(self, row: _Row) -> None:
        asset, _, tag = row.name.partition(".")
        inside, after = self._fault_at(row)
        if inside is not None:
            if row.lowered:
                inside.notice(row.reasons, row.time)
        elif row.lowered and after:
            self._aftermath += 1
        else:
            self._judged += 1
            if row.lowered:
                self._alarms[format_reasons(row.reasons) or "(no reason given)"] += 1
        if not row.reasons & Reason.STALE:
            self._compare(asset, tag, row, faulty=inside is not None or after)

    def _compare(self, asset: str, tag: str, row: _Row, *, faulty: bool) -> None:
        truth = self._truths.get(_key(row.time), {}).get(asset)
        if truth is None or tag not in TRUTH:
            self._unmatched += 1
            return
        true = truth[TRUTH.index(tag)]
        sums = self._sums.setdefault(tag, _Sums())
        given, made = row.value - true, row.estimate - true
        (sums.faulty if faulty else sums.clear).add(given, made)
        noise = _NOISE[tag]
        if noise > 0 and not faulty:
            self._overall.add(given / noise, made / noise)

    def _fault_at(self, row: _Row) -> tuple[FaultScore | None, bool]:
        """The fault a row falls into, and whether it falls into the aftermath of one."""
        notice = NOTICE_NS if row.reasons & Reason.STALE else 0
        after = False
        for fault in self._faults.values():
            window = fault.window
            if window.name != row.name or row.time < window.begin:
                continue
            if window.end == 0 or row.time < window.end + notice:
                return fault, False
            after = after or row.time < window.end + AFTERMATH_NS
        return None, after


_NOISE: Final = {each.tag: each.noise for each in INSTRUMENTS}


def _key(time_ns: int) -> int:
    """Source times compare by the millisecond: the plant gives no finer, and protocols may round."""
    return (time_ns + MILLISECOND_NS // 2) // MILLISECOND_NS
