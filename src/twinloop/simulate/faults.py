"""Faults the demo puts on its instruments, on a schedule known beforehand, so that catching can be scored.

One round of faults takes 30 s and goes over different reactors and tags every time. A run shorter than a
round has the faults that fit; a longer one has its rounds stretched up to 60 s, and repeated without end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import Final

import msgspec

from twinloop.simulate.sensors import FIELD, Reading, Readings
from twinloop.status import StatusCode

__all__ = ["Fault", "FaultKind", "FaultWindow", "Injector", "schedule"]

ROUND_S: Final = 30.0
LONGEST_STRETCH: Final = 2.0
NOTICE_S: Final = 1.0  # what starts in a run's last second cannot be noticed in it


@unique
class FaultKind(StrEnum):
    """What is wrong with an instrument."""

    SPIKE = "spike"
    """One reading far off."""
    STUCK = "stuck"
    """The same value again and again."""
    OUT_OF_RANGE = "out_of_range"
    """A value the instrument cannot have."""
    DROPOUT = "dropout"
    """Nothing is heard."""
    DRIFT = "drift"
    """The error grows slowly; no single reading is implausible."""
    SENSOR_FAILURE = "sensor_failure"
    """The instrument itself says that it is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of one instrument.

    Attributes:
        kind: what is wrong.
        asset, tag: with which instrument.
        start_s, end_s: from and until (exclusive), seconds since the schedule began.
        magnitude: added (spike), shown (out of range) or added a second (drift), in `unit`; else 0.
        unit: the tag's engineering unit.
    """

    kind: FaultKind
    asset: str
    tag: str
    start_s: float
    end_s: float
    magnitude: float = 0.0
    unit: str = ""

    @property
    def name(self) -> str:
        """The full tag name, `ASSET.tag`."""
        return f"{self.asset}.{self.tag}"

    @property
    def what(self) -> str:
        """The fault in words, without the tag."""
        lasting = f"for {self.end_s - self.start_s:g} s"
        match self.kind:
            case FaultKind.SPIKE:
                return f"spike of {self.magnitude:+g} {self.unit}"
            case FaultKind.OUT_OF_RANGE:
                return f"out of range at {self.magnitude:g} {self.unit} {lasting}"
            case FaultKind.DRIFT:
                return f"drift of {self.magnitude:+g} {self.unit}/s {lasting}"
            case FaultKind.STUCK | FaultKind.DROPOUT:
                return f"{self.kind} {lasting}"
            case FaultKind.SENSOR_FAILURE:
                return f"sensor failure {lasting}"


class FaultWindow(msgspec.Struct, frozen=True):
    """A fault as it happened, told by the plant to whoever keeps the score.

    Attributes:
        number: counts from 0 in the order of beginning.
        begin: source time of the first reading concerned, ns since epoch UTC.
        end: source time of the first reading no longer concerned; 0 while the fault lasts.
        asset, tag, kind, what: see `Fault`.
    """

    number: int
    begin: int
    end: int
    asset: str
    tag: str
    kind: FaultKind
    what: str

    @property
    def name(self) -> str:
        """The full tag name, `ASSET.tag`."""
        return f"{self.asset}.{self.tag}"


@dataclass(frozen=True, slots=True)
class _Planned:
    kind: FaultKind
    at_s: float
    lasting_s: float
    turn: int  # which of the field tags in the first round


# Even on a single reactor no two of them touch the same tag within two seconds of each other.
_ROUND: Final = (
    _Planned(FaultKind.SPIKE, 5.0, 1.0, 0),
    _Planned(FaultKind.STUCK, 7.0, 8.0, 1),
    _Planned(FaultKind.OUT_OF_RANGE, 12.0, 2.0, 0),
    _Planned(FaultKind.DROPOUT, 15.0, 6.0, 2),
    _Planned(FaultKind.DRIFT, 17.0, 10.0, 0),
    _Planned(FaultKind.SENSOR_FAILURE, 21.0, 4.0, 0),
)
_SIZES: Final[dict[str, dict[FaultKind, float]]] = {
    "temperature": {FaultKind.SPIKE: 35.0, FaultKind.OUT_OF_RANGE: 500.0, FaultKind.DRIFT: 0.5},
    "pressure": {FaultKind.SPIKE: 0.8, FaultKind.OUT_OF_RANGE: 25.0, FaultKind.DRIFT: 0.02},
    "flow_rate": {FaultKind.SPIKE: 15.0, FaultKind.OUT_OF_RANGE: 250.0, FaultKind.DRIFT: 0.3},
}
FAILING_TAG: Final = "temperature_pv"  # only OPC UA can say BadSensorFailure on its own


def schedule(assets: Sequence[str], run_s: float | None) -> Iterator[Fault]:
    """The faults of a run, by start; the same for the same arguments.

    Args:
        assets: reactors to spread them over.
        run_s: how long the run takes; None for one without end, whose schedule has none either.
    """
    stretch = LONGEST_STRETCH if run_s is None else min(max(run_s / ROUND_S, 1.0), LONGEST_STRETCH)
    last_s = float("inf") if run_s is None else run_s - NOTICE_S
    number = 0
    while True:
        begin_s = number * ROUND_S * stretch
        faults = [_fault(planned, index, number, assets, stretch) for index, planned in enumerate(_ROUND)]
        if begin_s + faults[0].end_s > last_s:
            return
        for fault in faults:
            if begin_s + fault.end_s <= last_s:
                yield replace(fault, start_s=begin_s + fault.start_s, end_s=begin_s + fault.end_s)
        number += 1


def _fault(planned: _Planned, index: int, number: int, assets: Sequence[str], stretch: float) -> Fault:
    field = FIELD[(planned.turn + number) % len(FIELD)]
    failing = planned.kind is FaultKind.SENSOR_FAILURE
    # whole seconds, since there is one reading a second
    start_s = float(round(planned.at_s * stretch))
    return Fault(
        kind=planned.kind,
        asset=assets[(index + number) % len(assets)],
        tag=FAILING_TAG if failing else field.tag,
        start_s=start_s,
        end_s=start_s + planned.lasting_s,
        magnitude=_SIZES[field.tag].get(planned.kind, 0.0),
        unit=field.unit,
    )


class Injector:
    """Bends readings by a schedule of faults, and tells when each begins and ends.

    Args:
        faults: by start.
        tell: called with a window when its fault begins (`end` 0) and again when it has ended.
    """

    def __init__(self, faults: Iterator[Fault], tell: Callable[[FaultWindow], None]) -> None:
        self._faults = faults
        self._tell = tell
        self._next = next(faults, None)
        self._active: list[tuple[Fault, FaultWindow]] = []
        self._shown: Readings = {}
        self._count = 0

    def apply(self, elapsed_s: float, time_ns: int, readings: Readings) -> Readings:
        """What the instruments show `elapsed_s` after the schedule began, at source time `time_ns`."""
        self._finish(elapsed_s, time_ns)
        while self._next is not None and self._next.start_s <= elapsed_s:
            self._begin(self._next, time_ns)
            self._next = next(self._faults, None)
        shown = dict(readings)
        for fault, _ in self._active:
            key = fault.asset, fault.tag
            bent = self._bend(fault, elapsed_s, readings[key])
            if bent is None:
                del shown[key]
            else:
                shown[key] = bent
        self._shown.update(shown)
        return shown

    def _begin(self, fault: Fault, time_ns: int) -> None:
        window = FaultWindow(
            number=self._count,
            begin=time_ns,
            end=0,
            asset=fault.asset,
            tag=fault.tag,
            kind=fault.kind,
            what=fault.what,
        )
        self._count += 1
        self._active.append((fault, window))
        self._tell(window)

    def _finish(self, elapsed_s: float, time_ns: int) -> None:
        for fault, window in self._active:
            if fault.end_s <= elapsed_s:
                self._tell(msgspec.structs.replace(window, end=time_ns))
        self._active = [(fault, window) for fault, window in self._active if fault.end_s > elapsed_s]

    def _bend(self, fault: Fault, elapsed_s: float, reading: Reading) -> Reading | None:
        match fault.kind:
            case FaultKind.SPIKE:
                return Reading(round(reading.value + fault.magnitude, 3))
            case FaultKind.STUCK:
                return self._shown.get((fault.asset, fault.tag), reading)
            case FaultKind.OUT_OF_RANGE:
                return Reading(fault.magnitude)
            case FaultKind.DROPOUT:
                return None
            case FaultKind.DRIFT:
                error = fault.magnitude * (elapsed_s - fault.start_s + 1.0)
                return Reading(round(reading.value + error, 3))
            case FaultKind.SENSOR_FAILURE:
                return Reading(reading.value, StatusCode.BAD_SENSOR_FAILURE)
