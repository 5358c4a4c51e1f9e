"""A bank of two-state Kalman filters, [value, rate], one a tag, each at its tag's own irregular times.

    x = [value, rate]     dx/dt = [[0, 1], [0, 0]] x + [0, 1] w     w white, density rate_noise^2
    y = value + v         v ~ N(0, noise^2), five times the noise where the status is Uncertain

docs/ESTIMATION.md has the equations, the defaults and what they cost, and the sources.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME, Batch
from twinloop.estimation.kalman_kernel import Memory, Rows, fold, look, variances
from twinloop.estimation.kalman_state import (
    BEGUN,
    CHUNK,
    COAST_PERIODS,
    GATE_NIS,
    KEEP_EVERY,
    NIS_SAMPLES,
    NOTHING,
    RELATIVE_RATE_NOISE,
    RING,
    RULE,
    SAMPLE,
    STATE,
    UNCERTAIN_VARIANCE,
)
from twinloop.pages import PAGE_SHIFT, Pages, take_up, whole
from twinloop.tags import SECOND_NS, TagTable

__all__ = [
    "COAST_PERIODS",
    "GATE_NIS",
    "NIS_SAMPLES",
    "RELATIVE_RATE_NOISE",
    "UNCERTAIN_VARIANCE",
    "KalmanBank",
    "Reset",
]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_HEADER: Final = struct.Struct("<8sHHHxxQ")  # magic, version, bytes of a state, bytes of a rule, tags
_MAGIC: Final = b"TLKALMAN"
_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Reset:
    """A belief that began anew because too many samples in a row were beyond its gate.

    Where a late sample made it so, `time` is older than the belief's newest sample.

    Attributes:
        tag: index into the `TagTable`.
        time: of the sample it began anew from, ns since epoch UTC.
        before: the value believed until then, tag units.
        after: the value believed now, tag units.
    """

    tag: int
    time: int
    before: float
    after: float


class KalmanBank:
    """Beliefs about every tag's value and rate; they depend on the samples, never on how they are batched.

    Args:
        table: the tags; `noise`, `rate_noise`, `every_ns`, `rebaseline`, `low`, `high`, `analogue` and
            `rewind_ns` count.
    """

    def __init__(self, table: TagTable) -> None:
        self._rules = _rules(table)
        self._state = np.zeros(len(table), STATE)
        self._samples = Pages(SAMPLE, (RING // CHUNK, len(table), CHUNK))
        self._kept = Pages(STATE, (RING // KEEP_EVERY, len(table)))
        self._memory = self._lay_out()

    def _lay_out(self) -> Memory:
        """The same memory as the kernel sees it."""
        samples, kept = (pages.array.reshape(-1) for pages in (self._samples, self._kept))
        return Memory(self._state, self._rules, samples, kept, self._samples.dirty, self._kept.dirty)

    def __len__(self) -> int:
        return len(self._state)

    def step(self, batch: Batch, resets: list[Reset] | None = None) -> Batch:
        """The rows with `estimate`, `estimate_std` and `rate`, and INNOVATION where a sample was gated.

        A row's estimate is the belief at the row's time, after its sample where that was used. Bad, empty,
        gated and too late rows change no belief: theirs is predicted (or, late, traced back) by the model
        from the newest sample used, and its deviation says so. A late sample within the tag's `rewind` is
        folded in at its place: the belief is then what time order would have given. NaN stands for "nothing
        known yet".

        Args:
            batch: judged samples in the order received; any tags, any number of rows.
            resets: is given every belief that began anew; of several through one late sample the newest.

        Raises:
            ValueError: a row's tag is not in the table.
        """
        n = len(batch)
        if n and not (batch.tag.min() >= 0 and batch.tag.max() < len(self)):
            raise ValueError(f"a tag index of the batch is outside the table of {len(self)} tags")
        rows = Rows(
            tag=_plain(batch.tag),
            time=_plain(batch.time),
            value=_plain(batch.value),
            status=_plain(batch.status),
            reasons=batch.reasons.copy(),
            estimate=np.empty(n),
            std=np.empty(n),
            rate=np.empty(n),
        )
        begun = np.empty(n, BEGUN)
        count = fold(self._memory, rows, begun)
        if count and resets is not None:
            resets.extend(Reset(*note) for note in begun[:count].tolist())
        return batch.with_columns(
            estimate=rows.estimate, estimate_std=rows.std, rate=rows.rate, reasons=rows.reasons
        )

    def at(self, time_ns: int) -> tuple[F64, F64, F64]:
        """Value, standard deviation and rate of every tag at one time, each of shape (n_tags,).

        Changes nothing; the same numbers a Bad row at that time would get.
        """
        return self._look(np.full(len(self), time_ns, np.int64))

    def _look(self, times: I64) -> tuple[F64, F64, F64]:
        value, std, rate = (np.empty(len(self)) for _ in range(3))
        look(self._state, self._rules, times, value, std, rate)
        return value, std, rate

    @property
    def value(self) -> F64:
        """Each tag's value at its `time_ns`, tag units, shape (n_tags,); NaN where nothing is known."""
        return self._look(self._state["time"].copy())[0]

    @property
    def std(self) -> F64:
        """Standard deviation of `value`, shape (n_tags,); NaN where not known or where a tag is only held."""
        return self._look(self._state["time"].copy())[1]

    @property
    def rate(self) -> F64:
        """Tag units per second at `time_ns`, shape (n_tags,); NaN where not known or only held."""
        return self._look(self._state["time"].copy())[2]

    @property
    def time_ns(self) -> I64:
        """Time of the newest sample used, ns since epoch UTC, shape (n_tags,); `NO_TIME` before any."""
        times: I64 = np.where(self._state["kind"] == NOTHING, NO_TIME, self._state["time"])
        return times

    @property
    def noise(self) -> F64:
        """The noise in force, given or estimated: a standard deviation, tag units; NaN where not known."""
        out = np.empty(len(self))
        variances(self._state, self._rules, out)
        return np.sqrt(out)

    @property
    def nis(self) -> F64:
        """Running mean NIS over about `NIS_SAMPLES` Good samples, shape (n_tags,); 1 is expected.

        NaN before any. Gated samples count, each at no more than `GATE_NIS`.
        """
        return np.where(self._state["nis_count"] > 0, self._state["nis"], np.nan)

    @property
    def nis_mean(self) -> F64:
        """Mean NIS since the state began, shape (n_tags,); NaN before any."""
        count = self._state["nis_count"]
        return np.where(count > 0, self._state["nis_sum"] / np.maximum(count, 1), np.nan)

    @property
    def nis_count(self) -> I64:
        """How many samples are behind `nis_mean`, shape (n_tags,)."""
        return self._state["nis_count"].copy()

    @property
    def gated(self) -> I64:
        """Samples found beyond the gate since the state began, shape (n_tags,)."""
        return self._state["gated"].copy()

    @property
    def resets(self) -> I64:
        """Beliefs begun anew since the state began, shape (n_tags,)."""
        return self._state["resets"].copy()

    def covariance(self, tag: int) -> F64:
        """The covariance of [value, rate] at the tag's newest sample, tag units, shape (2, 2)."""
        s = self._state[tag]
        upper = np.array([[1.0, s["u"]], [0.0, 1.0]])
        out: F64 = self.noise[tag] ** 2 * (upper @ np.diag([s["d0"], s["d1"]]) @ upper.T)
        return out

    @property
    def pages(self) -> Mapping[str, Pages]:
        """`samples`, each tag's newest ones, and `kept`, the beliefs to fold them again from."""
        return {"samples": self._samples, "kept": self._kept}

    def small(self) -> bytes:
        """The present beliefs and the rules they were formed by, little endian, with a versioned header."""
        header = _HEADER.pack(_MAGIC, _VERSION, STATE.itemsize, RULE.itemsize, len(self))
        return header + self._state.tobytes() + self._rules.tobytes()

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        """Take up beliefs; tags that are new since start afresh, so do those that changed nature or unit.

        A tag whose `noise` changed keeps its belief, deviation and all, and is judged by the new noise. One
        whose `rewind` is 0 now forgets its samples. Pages that differ from what was given are marked.

        Raises:
            ValueError: it is not a state of this version, or of more tags than the table has.
        """
        count = _count(small, len(self))
        state = np.frombuffer(small, STATE, count, _HEADER.size).copy()
        rules = np.frombuffer(small, RULE, count, _HEADER.size + count * STATE.itemsize)
        given = {name: arrays.get(name, b"") for name in self.pages}
        samples = _array(given["samples"], SAMPLE, (RING // CHUNK, count, CHUNK))
        kept = _array(given["kept"], STATE, (RING // KEEP_EVERY, count))
        now = self._rules[:count]
        for beliefs in (state, *kept):
            _take_new_noise(beliefs, rules, now)
        afresh = (rules["analogue"] != now["analogue"]) | (rules["unit"] != now["unit"])
        state[afresh] = np.zeros((), STATE)
        dropped = afresh | (now["rewind"] == 0)
        state["folded"][dropped] = 0
        samples[:, dropped] = np.zeros((), SAMPLE)
        kept[:, dropped] = np.zeros((), STATE)
        self._state[:] = np.zeros((), STATE)
        self._state[:count] = state
        for name, array in (("samples", samples), ("kept", kept)):
            _fill(self.pages[name], array, given[name])

    def snapshot(self) -> bytes:
        """All of the state: `small` and the arrays of `pages`."""
        return whole(self)

    def restore(self, state: bytes) -> None:
        """The inverse of `snapshot`; what becomes of changed tags is said at `adopt`.

        Raises:
            ValueError: the bytes are not a state of this version, or are of more tags than the table has.
        """
        take_up(self, state)


def _plain(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column in the one memory layout the kernel is compiled for; a log's entries are read-only."""
    fits = column.flags.c_contiguous and column.flags.writeable
    return column if fits else np.require(column, requirements=["C", "W"])


def _count(small: bytes, tags: int) -> int:
    """How many tags a state is of. Raises ValueError where it is none that a bank of `tags` could take up."""
    if len(small) < _HEADER.size:
        raise ValueError("not a state of the filter bank: too short")
    magic, version, state_size, rule_size, count = _HEADER.unpack_from(small)
    if magic != _MAGIC or (version, state_size, rule_size) != (_VERSION, STATE.itemsize, RULE.itemsize):
        raise ValueError(f"not a state of the filter bank in version {_VERSION}")
    if count > tags or len(small) != _HEADER.size + count * (state_size + rule_size):
        raise ValueError(f"a state of {count} tags does not fit the filter bank of {tags}")
    return int(count)


def _array(
    data: bytes | memoryview, dtype: np.dtype[np.void], shape: tuple[int, ...]
) -> npt.NDArray[np.void]:
    """A copy of an array kept. Raises ValueError where it is not of that size."""
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes of samples or beliefs do not fit the state of {shape[1]} tags")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _fill(pages: Pages, array: npt.NDArray[np.void], given: bytes | memoryview) -> None:
    """Take up an array of as many tags or fewer; marks the pages that are not as given."""
    if array.shape != pages.array.shape:
        pages.fill(bytes(pages.nbytes))
        pages.array[:, : array.shape[1]] = array
        pages.soil()
        return
    data = array.tobytes()
    pages.fill(data)
    other = np.frombuffer(data, np.uint8) != np.frombuffer(given, np.uint8)
    pages.dirty[np.flatnonzero(other) >> PAGE_SHIFT] = 1


def _rules(table: TagTable) -> npt.NDArray[np.void]:
    """What the kernel asks of each tag, shape (len(table),)."""
    noise, rate_noise, every = (table.column(name) for name in ("noise", "rate_noise", "every_ns"))
    period = np.where(every > 0, every, SECOND_NS) / SECOND_NS
    span = table.column("high") - table.column("low")
    rules = np.zeros(len(table), RULE)
    rules["analogue"] = table.column("analogue")
    rules["variance"] = np.where((noise > 0.0) & (noise**2 > 0.0), noise**2, np.nan)
    rules["rate_noise"] = np.where(rate_noise >= 0.0, rate_noise, np.nan)
    rules["relative"] = RELATIVE_RATE_NOISE / period**1.5
    rules["period"] = period
    rules["coast"] = COAST_PERIODS * period
    rules["rewind"] = np.where(rules["analogue"] > 0, np.maximum(table.column("rewind_ns"), 0), 0)
    rules["rebaseline"] = np.clip(table.column("rebaseline"), 1, 2**31 - 1)
    for index, tag in table.items():
        rules["unit"][index] = zlib.crc32(tag.unit.encode())
    # No reading can be less certain than "somewhere in the instrument's range".
    rules["std_max"] = np.where(np.isfinite(span) & (span > 0.0), span / np.sqrt(12.0), np.inf)
    return rules


def _take_new_noise(
    state: npt.NDArray[np.void], old: npt.NDArray[np.void], new: npt.NDArray[np.void]
) -> None:
    """Express kept beliefs in units of the new noise, in place.

    An estimate of the noise begins from the noise that was given until now.
    """
    before = np.empty(len(state))
    variances(state, old, before)
    estimated = np.isnan(new["variance"]) & ~np.isnan(old["variance"])
    state["variance"][estimated] = before[estimated]
    state["noise_count"][estimated] = 1
    after = np.empty(len(state))
    variances(state, new, after)
    changed = (after != before) & np.isfinite(after) & np.isfinite(before)
    for name in ("d0", "d1"):
        state[name][changed] *= before[changed] / after[changed]
