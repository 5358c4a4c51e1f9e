"""Outputs as tables: one shape for what is sealed into files and for what is not yet.

The store seals these tables and a reader makes the same tables of unsealed outputs, so that an answer
does not change when its rows move from the log into a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.batch import Batch
from twinloop.records import Outputs

__all__ = [
    "KINDS",
    "MINUTES_SCHEMA",
    "SAMPLE_SCHEMA",
    "SCHEMAS",
    "TOLD",
    "Entry",
    "by_time",
    "first_stored",
    "tables",
]

Entry = tuple[int, Outputs]
"""An output-log offset and the outputs that stand there."""

F64 = npt.NDArray[np.float64]

ESTIMATE_BITS: Final = 14
"""An estimate is kept to 2**-14 of its own standard deviation; the rest of its digits are noise."""
MILLISECOND_NS: Final = 1_000_000
_DIGITS: Final = 52
"""Bits of a float64 after its exponent."""
_HALF: Final = 1 << (_DIGITS - 1)
_SMALLEST: Final = float(np.finfo(np.float64).tiny)

SAMPLE_SCHEMA: Final = pa.schema(
    [
        pa.field("tag", pa.int32(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("status", pa.uint32(), nullable=False),
        pa.field("reasons", pa.uint32(), nullable=False),
        pa.field("estimate", pa.float64()),
        pa.field("estimate_std", pa.float32()),
        pa.field("arrival_ms", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""Samples and fills, sorted by (tag, time). `tag` is the stable index, `time` ns since epoch UTC."""

MINUTES_SCHEMA: Final = pa.schema(
    [
        pa.field("tag", pa.int32(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("last", pa.int64(), nullable=False),
        pa.field("count", pa.int32(), nullable=False),
        pa.field("good", pa.int32(), nullable=False),
        *(
            pa.field(f"{status}_{name}", kind, nullable=name != "n")
            for status in ("good", "uncertain")
            for name, kind in (
                ("n", pa.int32()),
                ("min", pa.float64()),
                ("max", pa.float64()),
                ("mean", pa.float64()),
                ("rest", pa.float64()),
            )
        ),
    ]
)
"""What each minute of a tag holds, sorted by (tag, time).

`time` is its start; `first` and `last` its earliest and latest sample; `count` and `good` number all samples
and those with status Good; the figures are of the `n` that have a value, apart for Good and Uncertain.
`rest` is what a float64 cannot hold of the mean.
"""

_TEXT: Final = pa.string()
_NUMBERS: Final = pa.map_(pa.string(), pa.float64())
_PREDICTION: Final = pa.struct(
    [
        ("output", _TEXT),
        ("unit", _TEXT),
        ("now", pa.float64()),
        ("value", pa.float64()),
        ("persistence", pa.float64()),
    ]
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "samples": SAMPLE_SCHEMA,
    "fills": SAMPLE_SCHEMA,
    "minutes": MINUTES_SCHEMA,
    "events": pa.schema(
        [
            ("time", pa.int64()),
            ("subject", _TEXT),
            ("kind", _TEXT),
            ("before", _TEXT),
            ("after", _TEXT),
            ("why", _TEXT),
            ("offset", pa.int64()),
        ]
    ),
    "snapshots": pa.schema(
        [
            ("time", pa.int64()),
            ("asset", _TEXT),
            ("health", _TEXT),
            ("why", _TEXT),
            ("model", _TEXT),
            ("state", _NUMBERS),
            ("std", _NUMBERS),
            ("horizon_s", pa.float64()),
            ("predictions", pa.list_(_PREDICTION)),
            ("nis", pa.float64()),
            ("offset", pa.int64()),
        ]
    ),
    "dead": pa.schema(
        [
            ("time", pa.int64()),
            ("source", _TEXT),
            ("origin", _TEXT),
            ("reason", _TEXT),
            ("detail", _TEXT),
            ("raw", pa.binary()),
            ("offset", pa.int64()),
        ]
    ),
}
"""Columns of each kind of segment; `offset` is the output-log offset the row came from."""

KINDS: Final = tuple(SCHEMAS)
TOLD: Final = tuple(kind for kind in KINDS if kind != "minutes")
"""Kinds that outputs are made of; minutes are made of samples."""


def tables(
    entries: Sequence[Entry], kinds: Sequence[str] = TOLD, tag: int | None = None
) -> dict[str, pa.Table]:
    """The rows of some outputs by kind, each sorted and free of duplicates; every kind asked for is there.

    With a tag, kinds that have tags give that tag's rows only.
    """
    return {kind: _MAKERS[kind](entries, tag) for kind in kinds}


def first_stored(table: pa.Table) -> pa.Table:
    """Rows sorted by (tag, time); of those with one tag and time only the first, which was stored first.

    Of rows with one tag and time, those stored earlier stand earlier in the table.
    """
    picked = _first_of_each(table["tag"].to_numpy(), table["time"].to_numpy())
    return table if picked is None else table.take(pa.array(picked))


def _first_of_each(tag: npt.NDArray[np.int32], time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The rows `first_stored` keeps, in its order; None where it keeps all as they stand."""
    if bool(np.all((tag[1:] > tag[:-1]) | ((tag[1:] == tag[:-1]) & (time[1:] > time[:-1])))):
        return None
    order = _by_tag_and_time(tag, time)
    tag, time = tag[order], time[order]
    new = np.ones(len(order), bool)
    new[1:] = (tag[1:] != tag[:-1]) | (time[1:] != time[:-1])
    return order if new.all() else order[new]


def _by_tag_and_time(tag: npt.NDArray[np.int32], time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order by (tag, time), equal ones as they stand; quick where a tag's times mostly ascend."""
    small = tag.astype(np.uint16) if len(tag) and tag.max() <= np.iinfo(np.uint16).max else tag
    order: npt.NDArray[np.int64] = np.argsort(small, kind="stable")  # by counting, where two bytes hold a tag
    tag, time = tag[order], time[order]
    falls = np.flatnonzero((tag[1:] == tag[:-1]) & (time[1:] < time[:-1]))
    if not len(falls):
        return order
    rows = np.flatnonzero(np.isin(tag, np.unique(tag[falls])))
    order[rows] = order[rows[np.lexsort((time[rows], tag[rows]))]]
    return order


def by_time(table: pa.Table) -> pa.Table:
    """Rows in ascending time, those of one time in the order they were stored."""
    order = np.lexsort((table["offset"].to_numpy(), table["time"].to_numpy()))
    return table.take(pa.array(order))


def _sample_rows(entries: Sequence[Entry], batch_of: Callable[[Outputs], Batch], tag: int | None) -> pa.Table:
    parts = [(offset, batch_of(outputs)) for offset, outputs in entries]
    parts = [(offset, batch) for offset, batch in parts if len(batch)]
    batch = Batch.concat([batch for _, batch in parts])
    offsets = np.repeat(
        np.array([offset for offset, _ in parts], np.int64),
        np.array([len(batch) for _, batch in parts], np.int64),
    )
    if tag is not None:
        wanted = batch.tag == tag
        batch, offsets = batch.take(wanted), offsets[wanted]
    picked = _first_of_each(batch.tag, batch.time)
    if picked is not None:
        batch, offsets = batch.take(picked), offsets[picked]
    columns = [
        batch.tag,
        batch.time,
        _finite(batch.value),
        batch.status,
        batch.reasons,
        _finite(_rounded(batch.estimate, batch.estimate_std)),
        _finite(batch.estimate_std, np.float32),
        batch.arrival // MILLISECOND_NS,
        offsets,
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=SAMPLE_SCHEMA)


def _finite(column: F64, dtype: type[np.floating[Any]] = np.float64) -> pa.Array:
    """The column with null for NaN and for what no number can stand for."""
    with np.errstate(over="ignore"):
        narrowed = column.astype(dtype, copy=False)
    return pa.array(narrowed, mask=~np.isfinite(narrowed))


def _rounded(estimate: F64, std: F64) -> F64:
    """Estimates rounded to 2**-14 of their standard deviation, or left alone where that is unknown.

    The digits beyond mean nothing, and without them a column of estimates takes less room than as
    float32, which in turn would lose what matters of a large number (a counter at 1e9).
    """
    # A float64 between 2**52 and 2**53 quanta has no digits below one: adding such a number rounds, to even,
    # and taking it away again is exact. Its exponent is made of that of the standard deviation.
    exponent = (std.view(np.int64) >> _DIGITS) + (_DIGITS - ESTIMATE_BITS + 1)
    large = ((exponent << _DIGITS) | _HALF).view(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        known = (std >= _SMALLEST) & (3 * np.abs(estimate) < large)  # else it has no digits to lose
        return np.where(known, (estimate + large) - large, estimate)


def _samples(entries: Sequence[Entry], tag: int | None) -> pa.Table:
    return _sample_rows(entries, Outputs.batch, tag)


def _fills(entries: Sequence[Entry], tag: int | None) -> pa.Table:
    return _sample_rows(entries, Outputs.filled, tag)


def _events(entries: Sequence[Entry], _tag: int | None) -> pa.Table:
    rows = [
        (event.time, event.subject, str(event.kind), event.before, event.after, event.why, offset)
        for offset, outputs in entries
        for event in outputs.events
    ]
    return _table("events", rows)


def _snapshots(entries: Sequence[Entry], _tag: int | None) -> pa.Table:
    rows = [
        (
            shot.time,
            shot.asset,
            str(shot.health),
            shot.why,
            shot.model,
            list(shot.state.items()),
            list(shot.std.items()),
            shot.horizon_s,
            [(each.output, each.unit, each.now, each.value, each.persistence) for each in shot.predictions],
            shot.nis,
            offset,
        )
        for offset, outputs in entries
        for shot in outputs.snapshots
    ]
    return _table("snapshots", rows)


def _dead(entries: Sequence[Entry], _tag: int | None) -> pa.Table:
    rows = [
        (letter.time, letter.source, letter.origin, str(letter.reason), letter.detail, letter.raw, offset)
        for offset, outputs in entries
        for letter in outputs.dead
    ]
    return _table("dead", rows)


def _table(kind: str, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    schema = SCHEMAS[kind]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return by_time(pa.Table.from_arrays(arrays, schema=schema))


_MAKERS: Final[Mapping[str, Callable[[Sequence[Entry], int | None], pa.Table]]] = {
    "samples": _samples,
    "fills": _fills,
    "events": _events,
    "snapshots": _snapshots,
    "dead": _dead,
}
