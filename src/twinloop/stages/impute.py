"""Imputation: an honest stand-in for what is bad or missing, fed by Good values only.

A fill is a sample of its own, with the OPC UA status that says how it was made; it never replaces the row
it stands in for. Uncertain rows keep their own value and get no fill, and no fill ever rests on them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME, Batch
from twinloop.errors import ConfigError
from twinloop.kernel import kernel
from twinloop.records import Tick
from twinloop.stages.stage import converted, units_of
from twinloop.status import Reason, StatusCode
from twinloop.tags import TagTable

__all__ = ["PENDING", "ImputeStage"]

PENDING: Final = 64
"""Bad samples of a `linear` tag that wait for the next Good one; more, and the oldest is held instead."""

_VERSION: Final = 2
_NONE, _HOLD, _LINEAR, _MODEL = range(4)
_KINDS: Final = {"none": _NONE, "hold": _HOLD, "linear": _LINEAR, "model": _MODEL}

F64 = npt.NDArray[np.float64]
_Void = npt.NDArray[np.void]

_STATE: Final = np.dtype(
    [("time", "<i8"), ("value", "<f8"), ("first", "<i4"), ("waiting", "<i4")], align=True
)
"""Last Good sample (time is NO_TIME before any), and the ring of waiting rows."""

_WAITING: Final = np.dtype([("time", "<i8"), ("arrival", "<i8"), ("reasons", "<u4")], align=True)

_FILL: Final = np.dtype(
    [
        ("tag", "<i4"),
        ("time", "<i8"),
        ("value", "<f8"),
        ("status", "<u4"),
        ("reasons", "<u4"),
        ("arrival", "<i8"),
    ],
    align=True,
)

_HELD: Final = int(StatusCode.UNCERTAIN_LAST_USABLE_VALUE)
_INTERPOLATED: Final = int(StatusCode.UNCERTAIN_DATA_SUB_NORMAL)
_SUBSTITUTED: Final = int(StatusCode.UNCERTAIN_SUBSTITUTE_VALUE)
_LATE: Final = int(Reason.LATE)
_STALE: Final = int(Reason.STALE)


class _Kept(msgspec.Struct, frozen=True, array_like=True, tag="impute"):
    """What `snapshot` writes."""

    version: int
    filled: int
    unfilled: int
    held_early: int
    units: list[str]
    linear: bytes
    state: bytes
    waiting: bytes
    model: bytes


class _Memory(NamedTuple):
    """What is kept between batches.

    Attributes:
        kind: how each tag is filled, shape (n_tags,).
        slot: the row of `waiting` of each `linear` tag, shape (n_tags,); -1 for the others.
        state: one `_STATE` a tag.
        waiting: rings of rows to interpolate, shape (n_linear, PENDING).
    """

    kind: npt.NDArray[np.int8]
    slot: npt.NDArray[np.int64]
    state: _Void
    waiting: _Void


class _Rows(NamedTuple):
    """The columns of a batch that imputation reads."""

    tag: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    value: F64
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]
    arrival: npt.NDArray[np.int64]


@kernel
def _write(  # noqa: PLR0917 - one argument a field
    fill: Any, tag: int, time: int, arrival: int, reasons: int, value: float, status: int
) -> None:
    """Write one fill."""
    fill.tag = tag
    fill.time = time
    fill.value = value
    fill.status = status
    fill.reasons = reasons
    fill.arrival = arrival


@kernel
def _interpolate(s: Any, waiting: _Void, tag: int, time: int, value: float, fills: _Void) -> int:  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    """Fill what waits between the last Good sample and the present one; the number of fills.

    What does not lie between them, because the source's clock was set back meanwhile, is held.
    """
    n = s.waiting
    for j in range(n):
        row = waiting[(s.first + j) % PENDING]
        if not s.time <= row.time <= time or s.time == time:
            _write(fills[j], tag, row.time, row.arrival, row.reasons, s.value, _HELD)
            continue
        share = (row.time - s.time) / (time - s.time)
        # Written so that equal neighbours give exactly their value.
        between = s.value + share * (value - s.value)
        _write(fills[j], tag, row.time, row.arrival, row.reasons, between, _INTERPOLATED)
    s.first = 0
    s.waiting = 0
    return int(n)


@kernel
def _wait(s: Any, waiting: _Void, tag: int, time: int, arrival: int, reasons: int, fills: _Void) -> int:  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    """Let a row wait for the next Good one; where the ring is full its oldest is held: 1, else 0."""
    full = s.waiting == PENDING
    if full:
        oldest = waiting[s.first]
        _write(fills[0], tag, oldest.time, oldest.arrival, oldest.reasons, s.value, _HELD)
        s.first = (s.first + 1) % PENDING
        s.waiting -= 1
    row = waiting[(s.first + s.waiting) % PENDING]
    row.time = time
    row.arrival = arrival
    row.reasons = reasons
    s.waiting += 1
    return 1 if full else 0


@kernel
def _fill(rows: _Rows, memory: _Memory, model: F64, fills: _Void, counts: npt.NDArray[np.int64]) -> int:
    """Go through judged rows in order; the number of fills written.

    Args:
        rows: the judged columns.
        memory: the state, changed in place.
        model: the model's value of each tag, shape (n_tags,); NaN for none.
        fills: room for one fill a row and one for each row already waiting.
        counts: rows left unfilled, and rows held because too many waited; added to.
    """
    written = 0
    for i in range(len(rows.tag)):
        tag, time, reasons = int(rows.tag[i]), int(rows.time[i]), int(rows.reasons[i])
        s, kind, value = memory.state[tag], memory.kind[tag], rows.value[i]
        severity = int(rows.status[i]) >> 30
        missing = severity >= 2 or np.isnan(value)
        if kind == _NONE or (reasons & _LATE and not missing) or (severity == 1 and not missing):
            continue
        if not missing:
            if s.waiting > 0:
                written += _interpolate(
                    s, memory.waiting[memory.slot[tag]], tag, time, value, fills[written:]
                )
            s.time = time
            s.value = value
        elif kind == _MODEL and not np.isnan(model[tag]) and not reasons & _LATE:
            _write(fills[written], tag, time, rows.arrival[i], reasons, model[tag], _SUBSTITUTED)
            written += 1
        elif s.time == NO_TIME or reasons & _LATE:
            counts[0] += 1  # nothing was Good before, or what was Good then is no longer known
        elif kind == _LINEAR:
            waiting = memory.waiting[memory.slot[tag]]
            early = _wait(s, waiting, tag, time, rows.arrival[i], reasons, fills[written:])
            written += early
            counts[1] += early
        else:
            _write(fills[written], tag, time, rows.arrival[i], reasons, s.value, _HELD)
            written += 1
    return written


class ImputeStage:
    """Makes fills for Bad and missing values and for stale tags, each tag by its own `fill`.

    `hold` repeats the last Good value (UncertainLastUsableValue). `linear` waits for the next Good sample
    and interpolates between it and the last (UncertainDataSubNormal); at ticks it holds. `model` takes the
    model's value (UncertainSubstituteValue), or holds where there is none. `none` fills nothing. Fills do
    not depend on how the rows were cut into batches.

    Args:
        table: the tags.
        model_value: the model's present value of each tag in the tag's unit, shape (n_tags,), NaN for none;
            kept by reference, so that the twin can refresh it in place; `restore` writes it, so that a fill
            before the twin's next tick is the one that an uninterrupted fold makes.

    Attributes:
        filled: fills made since the state began.
        unfilled: Bad rows without a fill: no Good value before them, LATE, or no longer `linear`.
        held_early: rows of `linear` tags that were held because more than `PENDING` waited.

    Raises:
        ConfigError: a tag's `fill` is not known, or `model_value` has the wrong shape.
    """

    def __init__(self, table: TagTable, model_value: F64 | None = None) -> None:
        n = len(table)
        self.model_value: F64 = np.full(n, np.nan) if model_value is None else model_value
        if self.model_value.shape != (n,):
            raise ConfigError(f"model_value has shape {self.model_value.shape}, wanted {(n,)}")
        self.filled = 0
        self._counts = np.zeros(2, np.int64)
        self._every_ns = table.column("every_ns")
        self._active = table.active
        self._units = units_of(table)
        self._memory = _fresh(_kinds(table))

    @property
    def unfilled(self) -> int:
        """Bad rows that nothing honest could stand in for."""
        return int(self._counts[0])

    @property
    def held_early(self) -> int:
        """Rows that waited for interpolation and were held instead, because too many waited."""
        return int(self._counts[1])

    @property
    def pending(self) -> int:
        """Rows that wait for their tag's next Good sample."""
        return int(self._memory.state["waiting"].sum())

    def step(self, batch: Batch) -> Batch:
        """Fills for judged rows, in the order in which they became known; may be empty.

        Raises:
            IndexError: a row's tag is not in the table (a bug of an earlier stage).
        """
        n, known = len(batch), len(self.model_value)
        if n == 0:
            return Batch.empty()
        if batch.tag.min() < 0 or batch.tag.max() >= known:
            raise IndexError(f"tag index outside 0..{known - 1}")
        # Writable copies: one compiled form serves batches of our own and those over a log's memory.
        rows = _Rows(
            tag=batch.tag.copy(),
            time=batch.time.copy(),
            value=batch.value.copy(),
            status=batch.status.copy(),
            reasons=batch.reasons.copy(),
            arrival=batch.arrival.copy(),
        )
        fills = np.empty(n + self.pending, _FILL)
        written = _fill(rows, self._memory, self.model_value, fills, self._counts)
        return self._batch(fills[:written])

    def tick(self, tick: Tick, stale: npt.NDArray[np.uint8]) -> Batch:
        """One fill at the tick's time for each stale tag whose tier is due.

        Args:
            tick: time and tiers due.
            stale: `ValidateStage.stale`, shape (n_tags,).
        """
        due = self._active & (stale > 0) & np.isin(self._every_ns, tick.tiers)
        tags = np.flatnonzero(due & (self._memory.kind != _NONE))
        if not len(tags):
            return Batch.empty()
        model = np.where(self._memory.kind[tags] == _MODEL, self.model_value[tags], np.nan)
        last = self._memory.state[tags]
        held = np.where(last["time"] == NO_TIME, np.nan, last["value"])
        fills = np.zeros(len(tags), _FILL)
        fills["tag"] = tags
        fills["time"] = fills["arrival"] = tick.time
        fills["value"] = np.where(np.isnan(model), held, model)
        fills["status"] = np.where(np.isnan(model), _HELD, _SUBSTITUTED)
        fills["reasons"] = _STALE
        return self._batch(fills[~np.isnan(fills["value"])])

    def snapshot(self) -> bytes:
        """The whole state; restoring it and the same input give the same fills, bit for bit."""
        memory = self._memory
        kept = _Kept(
            version=_VERSION,
            filled=self.filled,
            unfilled=self.unfilled,
            held_early=self.held_early,
            units=self._units,
            linear=(memory.slot >= 0).tobytes(),
            state=memory.state.tobytes(),
            waiting=memory.waiting.tobytes(),
            model=self.model_value.tobytes(),
        )
        return msgspec.msgpack.encode(kept)

    def restore(self, state: bytes) -> None:
        """Take up a state; tags new since then start afresh, and so do waits where `fill` has changed.

        A tag whose unit has changed starts afresh, too: its last Good value is none in the new one.

        Raises:
            ValueError: the bytes are not a state of this stage and version, or know more tags.
        """
        try:
            kept = msgspec.msgpack.decode(state, type=_Kept)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a state of the imputation: {error}") from error
        if kept.version != _VERSION:
            raise ValueError(f"an imputation state of version {kept.version}, this is version {_VERSION}")
        was_linear = np.frombuffer(kept.linear, np.bool_)
        old = np.frombuffer(kept.state, _STATE)
        waiting = np.frombuffer(kept.waiting, _WAITING).reshape(-1, PENDING)
        memory = _fresh(self._memory.kind)
        n = len(old)
        model = np.frombuffer(kept.model, np.float64)
        lengths = {len(was_linear), len(model), len(kept.units)}
        if lengths != {n} or len(waiting) != np.count_nonzero(was_linear):
            raise ValueError("an imputation state whose parts differ in length")
        if n > len(memory.state):
            raise ValueError(f"the state knows {n} tags, the plant file only {len(memory.state)}")
        memory.state[:n] = old
        same = ~converted(kept.units, self._units)
        still = was_linear & (memory.slot[:n] >= 0) & same
        memory.waiting[memory.slot[:n][still]] = waiting[_slots(was_linear)[still]]
        given_up = int(old["waiting"][~still].sum())
        for field in ("first", "waiting"):
            memory.state[field][:n][~still] = 0
        memory.state["time"][:n][~same] = NO_TIME
        self._memory = memory
        self.model_value[:n] = np.where(same, model, np.nan)
        self.filled = kept.filled
        self._counts = np.array([kept.unfilled + given_up, kept.held_early], np.int64)

    def _batch(self, fills: npt.NDArray[Any]) -> Batch:
        """Fills as a batch of their own memory, counted."""
        self.filled += len(fills)
        return Batch.raw(**{name: np.ascontiguousarray(fills[name]) for name in _FILL.names or ()})


def _kinds(table: TagTable) -> npt.NDArray[np.int8]:
    """How each tag is filled; holes get nothing, and what is not analogue is never interpolated."""
    kinds = np.zeros(len(table), np.int8)
    for index, tag in table.items():
        if tag.fill not in _KINDS:
            raise ConfigError(f"{tag.name}: fill {tag.fill!r} is none of {', '.join(_KINDS)}")
        kind = _KINDS[tag.fill]
        kinds[index] = _HOLD if kind == _LINEAR and not tag.analogue else kind
    return kinds


def _slots(linear: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Consecutive numbers where `linear`, -1 elsewhere."""
    return np.where(linear, np.cumsum(linear) - 1, -1)


def _fresh(kind: npt.NDArray[np.int8]) -> _Memory:
    """The memory of tags that nothing was heard of yet."""
    state = np.zeros(len(kind), _STATE)
    state["time"] = NO_TIME
    slot = _slots(kind == _LINEAR)
    waiting = np.zeros((np.count_nonzero(slot >= 0), PENDING), _WAITING)
    return _Memory(kind=kind, slot=slot, state=state, waiting=waiting)
