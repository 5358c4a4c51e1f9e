"""Where a number comes from: its sample, the checks that fired, the filter's gain, what came before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import Query
from starlette.responses import Response

from twinloop.estimation.kalman import UNCERTAIN_VARIANCE
from twinloop.records import EventKind
from twinloop.status import Reason, format_reasons, severity_name, status_text
from twinloop.stores.queries import LocalQueries
from twinloop.tags import Tag
from twinloop.timetext import UNITS_NS, time_text
from twinloop.web.api.answering import as_object
from twinloop.web.api.desk import Desk, TagName, moment
from twinloop.web.api.problems import Problem

__all__ = ["Provenance", "newest_before"]

_BEFORE: Final = 20
_MS_NS: Final = 10**6
_HOUR_NS: Final = UNITS_NS["h"]
_LOOKS: Final = (UNITS_NS["m"], _HOUR_NS, UNITS_NS["d"])
_FIRST, _LAST = -(2**63) + 1, 2**63 - 1
_NOT_FOLDED: Final = Reason.INNOVATION | Reason.LATE
"""Of such samples the stored estimate is not what a gain made of them."""


At = Annotated[
    str | None,
    Query(alias="time", max_length=40, description="the newest sample at or before it; default: all"),
]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A stored sample, numbers of the tag's unit; NaN for none."""

    time: int
    value: float
    status: int
    reasons: int
    estimate: float
    std: float
    arrival: int
    offset: int

    @property
    def is_good(self) -> bool:
        return self.status >> 30 == 0 and math.isfinite(self.value)


class Provenance:
    """The endpoint that says where a number comes from.

    Args:
        desk: where it asks.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._written = _written(desk.look.path)

    def provenance(self, tag: TagName, at: At = None) -> Response:
        """The sample stored at or just before a time (default: the newest), and all that is known of it."""
        index = self._desk.index(tag)
        twin = self._desk.twin
        asked = self._newest(tag) if at is None else moment("time", at, time.time_ns())
        found = _samples(newest_before(twin.queries, tag, asked, _BEFORE + 1))
        if not found:
            raise Problem(404, f"{tag} has no sample at {at or 'any time'} or before")
        sample, before = found[-1], found[:-1]
        known = twin.table[index]
        return as_object(
            {
                "tag": tag,
                **_told(sample, known.unit if known else ""),
                "status_code": {"number": sample.status, "name": status_text(sample.status)},
                "arrival": time_text(sample.arrival),
                "why": [_why(reason, known, sample, before) for reason in Reason if sample.reasons & reason],
                "filter": self._filter(known, sample),
                "model": self._model(tag),
                "log": {"name": "outputs", "offset": sample.offset},
                "before": [_told(each, known.unit if known else "") for each in before[::-1]],
            }
        )

    def _newest(self, tag: str) -> int:
        """The time of the newest sample. Raises Problem (404) where there is none."""
        rows = self._desk.twin.queries.latest([tag])
        if not len(rows):
            raise Problem(404, f"{tag} has no sample yet")
        return int(rows["time"].cast(pa.int64())[0].as_py())

    def _filter(self, tag: Tag | None, sample: _Sample) -> dict[str, float | str | None]:
        """What is told of the filter: no gain by a noise that may not have been in force."""
        if self._was_in_force(sample.arrival):
            return {**_filter(tag, sample), "note": None}
        text = (
            "the twin has been started with the plant file of now since, whose noise may not be what it was"
        )
        return {"noise": _noise(tag), "gain": None, "innovation": None, "note": text}

    def _was_in_force(self, at: int) -> bool:
        """Whether the twin that ran at a time had started with the plant file as it is now."""
        twin = self._desk.twin
        if at >= twin.counts().since_ns:
            return True
        if at < self._written:
            return False
        rows, _ = twin.queries.page("events", self._written, at + 1, 1, _of_starts)
        return len(rows) > 0

    def _model(self, tag: str) -> dict[str, Any]:
        """The model of the tag's asset, and the version of twinloop, whose models these are."""
        asset = self._desk.look.config.assets.get(tag.partition(".")[0])
        return {"name": asset.model if asset else None, "version": version("twinloop")}


def _written(path: Path) -> int:
    """When a file last came to be what and where it is, ns; the end of time where nobody knows."""
    try:
        found = path.stat()
    except OSError:
        return _LAST
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _of_starts(rows: pa.Table) -> npt.NDArray[np.bool_]:
    starts: npt.NDArray[np.bool_] = pc.equal(rows["kind"], str(EventKind.STARTED)).to_numpy()
    return starts


def newest_before(queries: LocalQueries, tag: str, last: int, most: int) -> pa.Table:
    """A tag's newest samples up to and with a time, by `SAMPLE_SCHEMA`: at most `most`, ascending."""
    end = min(last, _LAST - 1) + 1
    for look_ns in _LOOKS:
        rows = queries.stored(tag, max(end - look_ns, _FIRST), end)
        if len(rows) >= most:
            return rows.slice(len(rows) - most)
    hours = queries.window(tag, _HOUR_NS, None, end)
    if not len(hours):
        return rows
    counted = np.cumsum(hours["count"].to_numpy()[::-1])
    back = min(int(np.searchsorted(counted, most)), len(hours) - 1)
    first = int(hours["time"].cast(pa.int64())[len(hours) - 1 - back].as_py())
    rows = queries.stored(tag, first, end)
    return rows.slice(max(len(rows) - most, 0))


def _samples(rows: pa.Table) -> list[_Sample]:
    return [
        _Sample(
            time=row["time"],
            value=_number(row["value"]),
            status=row["status"],
            reasons=row["reasons"],
            estimate=_number(row["estimate"]),
            std=_number(row["estimate_std"]),
            arrival=row["arrival_ms"] * _MS_NS,
            offset=row["offset"],
        )
        for row in rows.to_pylist()
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _told(sample: _Sample, unit: str) -> dict[str, Any]:
    """A sample by the columns of `range`."""
    return {
        "time": time_text(sample.time), "value": sample.value, "unit": unit,
        "status": severity_name(sample.status), "reasons": format_reasons(sample.reasons),
        "estimate": sample.estimate, "estimate_std": sample.std,
    }  # fmt: skip


def _noise(tag: Tag | None) -> float:
    return tag.noise if tag is not None and tag.analogue else math.nan


def _filter(tag: Tag | None, sample: _Sample) -> dict[str, float | None]:
    """The noise of the plant file; gain and innovation where they follow from it.

    After a measurement of variance R the value's variance is K R, so K is one by the other; and the estimate
    is what was expected plus K times the innovation.
    """
    noise = _noise(tag)
    used = sample.status >> 30 < 2 and math.isfinite(sample.value) and not sample.reasons & _NOT_FOLDED
    gain = innovation = math.nan
    if used and noise > 0:
        variance = noise**2 * (1.0 if sample.status >> 30 == 0 else UNCERTAIN_VARIANCE)
        gain = min(sample.std**2 / variance, 1.0)
        if gain < 1:
            innovation = (sample.value - sample.estimate) / (1 - gain)
    return {"noise": noise, "gain": gain, "innovation": innovation}


def _why(
    reason: Reason, tag: Tag | None, sample: _Sample, before: Sequence[_Sample]
) -> dict[str, str | None]:
    """One reason: the rule of the plant file it is by, if by any, and a sentence."""
    good = next((each for each in reversed(before) if each.is_good), None)
    told = _SENTENCES[reason](tag, sample, good) if reason in _SENTENCES and tag else None
    rule, sentence = told or (None, _PLAIN[reason])
    return {"reason": reason.name, "rule": rule, "sentence": sentence}


def _in_range(tag: Tag, sample: _Sample, _: _Sample | None) -> tuple[str, str]:
    rule = f"range: [{tag.low:.7g}, {tag.high:.7g}]"
    return rule, f"{sample.value:.7g} {tag.unit} lies outside what the instrument can measure"


def _in_warn_range(tag: Tag, sample: _Sample, _: _Sample | None) -> tuple[str, str]:
    rule = f"warn_range: [{tag.warn_low:.7g}, {tag.warn_high:.7g}]"
    return rule, f"{sample.value:.7g} {tag.unit} lies outside the range in which it is expected"


def _rate(tag: Tag, sample: _Sample, good: _Sample | None) -> tuple[str, str]:
    rule = f"rate_limit: {tag.rate_limit:.7g}"
    if good is None:
        return rule, f"it changed faster than {tag.rate_limit:.7g} {tag.unit}/s"
    step, took_s = sample.value - good.value, (sample.time - good.time) / 1e9
    return rule, f"it changed by {step:+.4g} {tag.unit} in {took_s:.4g} s since the last good value"


def _spike(tag: Tag, sample: _Sample, good: _Sample | None) -> tuple[str, str]:
    relative = tag.spike_fraction < math.inf
    rule = f"spike: {100 * tag.spike_fraction:.7g}%" if relative else f"spike: {tag.spike:.7g}"
    if good is None:
        return rule, "it is further from the last good value than the rule allows"
    step = sample.value - good.value
    share = f", {100 * abs(step / good.value):.1f} %," if relative and good.value else ""
    return rule, f"it is {step:+.4g} {tag.unit}{share} from the last good value {good.value:.7g}"


def _zscore(tag: Tag, _: _Sample, __: _Sample | None) -> tuple[str, str]:
    text = f"it is further than {tag.zscore:.7g} standard deviations from the last {tag.window} good values"
    return f"zscore: {tag.zscore:.7g}", text


def _stuck(tag: Tag, sample: _Sample, _: _Sample | None) -> tuple[str, str]:
    return f"stuck: {_duration(tag.stuck_ns)}", f"it has been {sample.value:.7g} {tag.unit} for that long"


def _stale(tag: Tag, _: _Sample, __: _Sample | None) -> tuple[str, str]:
    return f"stale: {_duration(tag.stale_ns)}", "there was no sample for longer than that"


_Sentence = Callable[[Tag, _Sample, "_Sample | None"], tuple[str, str]]
_SENTENCES: Final[Mapping[Reason, _Sentence]] = {
    Reason.RANGE: _in_range,
    Reason.WARN_RANGE: _in_warn_range,
    Reason.RATE: _rate,
    Reason.SPIKE: _spike,
    Reason.ZSCORE: _zscore,
    Reason.STUCK: _stuck,
    Reason.STALE: _stale,
}
_PLAIN: Final[Mapping[Reason, str]] = {
    Reason.NON_FINITE: "the value was not a number, or infinite; it is kept as none",
    Reason.RANGE: "it lay outside what the instrument can measure",
    Reason.WARN_RANGE: "it lay outside the range in which it was expected",
    Reason.RATE: "it changed faster than was plausible",
    Reason.SPIKE: "it was too far from the last good value",
    Reason.ZSCORE: "it was too far from the last good values",
    Reason.STUCK: "it had not changed for too long",
    Reason.STALE: "there was no sample for too long",
    Reason.LATE: "it is older than a sample that had come before; that does not lower its status",
    Reason.SAME_TIME: "another sample had its time already, so it took the next free nanosecond",
    Reason.SOURCE_STATUS: "the source itself did not call it Good",
    Reason.CLOCK: "the source's time was not sane, so the time of its arrival stands in its place",
    Reason.RETAINED: "it was a retained message without a time of its own, of unknown age",
    Reason.OVERFLOW: "the OPC UA server's queue had overflowed: samples before it were lost there",
    Reason.INNOVATION: "it was too far from what the filter expected, which left it out of the estimate",
    Reason.CLOCK_BACK: "the source's clock was set back; from here on the tag goes by the new one",
}


def _duration(ns: int) -> str:
    """A duration as the plant file has it."""
    unit = next((unit for unit, size in reversed(UNITS_NS.items()) if ns % size == 0), "ms")
    return f"{ns // UNITS_NS[unit]}{unit}"
