"""Recorded files as columns: rows in ascending time, and dead letters for those that cannot be used.

Files have millions of rows and few distinct tags and words, so each distinct text is read once and the
rows are only ever touched as columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from twinloop.batch import NO_TIME
from twinloop.errors import ConfigError, PayloadError
from twinloop.records import DeadLetter, DeadLetters, DeadReason
from twinloop.sources.source import Intake
from twinloop.sources.timestamps import parse_timestamp
from twinloop.status import GOOD, Reason, reasons_from_text, status_from_text
from twinloop.tags import Refusal

__all__ = ["REPLAY", "Rows", "read_parts", "read_rows"]

REPLAY: Final = "replay"
"""The source name under which replayed samples enter the log."""
_LETTERS_AT_ONCE: Final = 1_000
_HEAD: Final = 200
_COLUMNS: Final = ("time", "tag", "value", "status")
_OF_HISTORY: Final = (*_COLUMNS, "unit", "reasons")
_ROWS_AT_ONCE: Final = 1_000_000
_LATEST_AHEAD_NS: Final = 600_000_000_000
"""As for what is heard: a time that is further ahead is not sane."""
_MARKS: Final = Reason.RETAINED | Reason.OVERFLOW
_SOURCES_OWN: Final = Reason.SOURCE_STATUS | Reason.CLOCK

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rows:
    """Usable rows of a file in ascending time, and its dead letters, made as they are asked for."""

    time: npt.NDArray[np.int64]
    series: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]
    dead: Iterator[DeadLetters]


class _Fault(NamedTuple):
    """What is wrong with some rows of a file."""

    rows: npt.NDArray[np.bool_]
    reason: DeadReason
    detail: str


def read_rows(path: Path, intake: Intake) -> Rows:
    """A whole file, sorted by time; rows that cannot be used become dead letters.

    Raises:
        ConfigError: it cannot be read, or a column is missing or of no use.
    """
    return _rows_of(_read(path), path, intake)


def read_parts(path: Path, intake: Intake) -> Iterator[Rows]:
    """A file a part at a time, each sorted by time, with what an export says more than a replay needs.

    A `unit` is the rows' own, and is converted. With `reasons` the checks of the twin that wrote them are
    undone, as those of today will judge again: the status is the source's word once more. A time more than
    10 minutes ahead of now is none.

    Raises:
        ConfigError: it cannot be read, or a column is missing or of no use.
    """
    first = 0
    for table in _parts(path):
        yield _rows_of(table, path, intake, before=first, history=True)
        first += len(table)


def _rows_of(table: pa.Table, path: Path, intake: Intake, *, before: int = 0, history: bool = False) -> Rows:
    """Rows of a table; those of the file before it are counted in the origins of dead letters."""
    now = intake.now_ns()
    names = table.column_names
    missing = {"time", "tag", "value"} - set(names)
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(sorted(missing))}; "
            "such a file has the columns time, tag, value and, if it likes, status"
        )
    doubled = {name for name in _COLUMNS if names.count(name) > 1}
    if doubled:
        raise ConfigError(f"{path}: more than one column {', '.join(sorted(doubled))}")
    try:
        series, refusals = _series(table, intake, with_units=history)
        time = _times(table["time"])
        value, no_number = _values(table["value"])
        status, no_status = _statuses(table)
        status, reasons = _as_received(table, status, with_reasons=history)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: a column is of a type that cannot be replayed: {reason}") from error
    faults = (
        _Fault(time == NO_TIME, DeadReason.BAD_TIMESTAMP, "the time cannot be read"),
        _Fault(history & (time > now + _LATEST_AHEAD_NS), DeadReason.BAD_TIMESTAMP, "the time is to come"),
        _Fault(no_number, DeadReason.NOT_NUMERIC, "the value is not a number"),
        _Fault(no_status, DeadReason.BAD_QUALITY, "the status is no known word or code"),
    )
    bad = np.logical_or.reduce([series < 0, *(fault.rows for fault in faults)])

    def refusal(row: int) -> Refusal:
        if series[row] < 0:
            return refusals[-1 - int(series[row])]
        return next(Refusal(fault.reason, fault.detail) for fault in faults if fault.rows[row])

    order = np.flatnonzero(~bad)
    order = order[np.argsort(time[order], kind="stable")]
    dead = _letters(path.name, table, np.flatnonzero(bad), refusal, now=now, before=before)
    return Rows(time[order], series[order], value[order], status[order], reasons[order], dead)


def _letters(
    file: str,
    table: pa.Table,
    rows: npt.NDArray[np.intp],
    refusal: Callable[[int], Refusal],
    *,
    now: int,
    before: int,
) -> Iterator[DeadLetters]:
    """Dead letters of some rows, a part at a time: a file may hold nothing else."""
    for first in range(0, len(rows), _LETTERS_AT_ONCE):
        part = rows[first : first + _LETTERS_AT_ONCE]
        letters = []
        for row, cells in zip(part.tolist(), zip(*_cells(table, part), strict=True), strict=True):
            raw = ",".join(map(str, cells)).encode(errors="replace")[:_HEAD]
            why = refusal(row)
            letters.append(
                DeadLetter(now, REPLAY, f"{file}: row {before + row + 1}", raw, why.reason, why.detail)
            )
        yield DeadLetters(letters)


def _cells(table: pa.Table, rows: npt.NDArray[np.intp]) -> list[list[object]]:
    return [column.to_pylist() for column in table.take(rows).columns]


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return _without_dictionaries(pq.read_table(path))
        text = dict.fromkeys(_COLUMNS, pa.string())
        convert = pa_csv.ConvertOptions(column_types=text, strings_can_be_null=True)
        return pa_csv.read_csv(path, convert_options=convert)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: cannot be read as CSV or Parquet: {reason}") from error


def _parts(path: Path) -> Iterator[pa.Table]:
    """The columns of history in a file, some rows at a time."""
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            with pq.ParquetFile(path) as file:
                names = [name for name in _OF_HISTORY if name in file.schema_arrow.names]
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
                    yield _without_dictionaries(pa.Table.from_batches([batch]))
                if not file.metadata.num_rows:
                    yield file.schema_arrow.empty_table().select(names)
            return
        with pa_csv.open_csv(path) as head:
            names = [name for name in _OF_HISTORY if name in head.schema.names]
        text = dict.fromkeys(names, pa.string())
        convert = pa_csv.ConvertOptions(column_types=text, include_columns=names, strings_can_be_null=True)
        gathered: list[pa.RecordBatch] = []
        with pa_csv.open_csv(path, convert_options=convert) as file:
            for batch in file:
                gathered.append(batch)
                if sum(map(len, gathered)) >= _ROWS_AT_ONCE:
                    yield pa.Table.from_batches(gathered)
                    gathered = []
            if gathered:
                yield pa.Table.from_batches(gathered)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: cannot be read as CSV or Parquet: {reason}") from error


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """The same with plain columns where pandas wrote categories."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _each(column: pa.ChunkedArray, read: Callable[[Any], _T]) -> tuple[npt.NDArray[np.intp], list[_T]]:
    """For each row which of the distinct values is its own, and what `read` makes of those."""
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())  # else 2 GB of text do not fit one array
    distinct = column.combine_chunks().dictionary_encode("encode")
    chosen = np.asarray(distinct.indices.to_numpy(zero_copy_only=False), np.intp)
    return chosen, [read(value) for value in distinct.dictionary.to_pylist()]


def _series(
    table: pa.Table, intake: Intake, *, with_units: bool
) -> tuple[npt.NDArray[np.int32], list[Refusal]]:
    """The series of each row; -1 - n where it leads nowhere, by the n-th refusal."""
    chosen, names = _each(table["tag"].cast(pa.large_string()), lambda name: name or "")
    units = [""]
    if with_units and "unit" in table.column_names:
        unit, units = _each(table["unit"].cast(pa.large_string()), lambda text: text or "")
        pairs, chosen = np.unique(chosen * len(units) + unit, return_inverse=True)
    else:
        pairs = np.arange(len(names))
    answers = [intake.series(names[pair // len(units)], units[pair % len(units)]) for pair in pairs.tolist()]
    refusals: list[Refusal] = []
    numbers: list[int] = []
    for answer in answers:
        if isinstance(answer, Refusal):
            refusals.append(answer)
            numbers.append(-len(refusals))
        else:
            numbers.append(answer)
    return np.array(numbers, np.int32)[chosen], refusals


def _times(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Times as ns since epoch UTC; `NO_TIME` where they cannot be read."""
    if pa.types.is_timestamp(column.type):
        with contextlib.suppress(pa.ArrowInvalid):  # some beyond what ns can hold: each by itself
            whole = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
            return np.asarray(pc.fill_null(whole, NO_TIME).to_numpy(), np.int64)
    chosen, times = _each(column, _time)
    return np.array(times, np.int64)[chosen]


def _time(found: object) -> int:
    if found is None:
        return NO_TIME
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    try:
        return parse_timestamp(found if is_number else str(found).strip())  # type: ignore[arg-type]
    except PayloadError:
        return NO_TIME


def _values(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Numbers, and where there is a text that is none; an empty cell is a missing value (NaN)."""
    try:
        numbers = pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy()
        return np.asarray(numbers, np.float64), np.zeros(len(column), bool)
    except pa.ArrowInvalid:  # a text among them: each by itself
        chosen, found = _each(column, _number)
    values = np.array([np.nan if number is None else number for number in found], np.float64)
    wrong = np.array([number is None for number in found], bool)
    return values[chosen], wrong[chosen]


def _number(text: str | None) -> float | None:
    if text is None:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return None


def _statuses(table: pa.Table) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
    """Status codes, and where a word is none; Good where there is no word."""
    if "status" not in table.column_names:
        return np.full(len(table), GOOD, np.uint32), np.zeros(len(table), bool)
    chosen, found = _each(table["status"], lambda word: GOOD if word is None else status_from_text(str(word)))
    codes = np.array([code or 0 for code in found], np.uint32)
    unknown = np.array([code is None for code in found], bool)
    return codes[chosen], unknown[chosen]


def _as_received(
    table: pa.Table, status: npt.NDArray[np.uint32], *, with_reasons: bool
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Statuses before any check, and the marks only a source can make; as they are without `reasons`."""
    if not with_reasons or "reasons" not in table.column_names:
        return status, np.zeros(len(status), np.uint32)
    chosen, found = _each(
        table["reasons"].cast(pa.large_string()), lambda words: reasons_from_text(words or "")
    )
    reasons = np.array(found, np.uint32)[chosen]
    own = (reasons & np.uint32(_SOURCES_OWN)) != 0
    return np.where(own, status, np.uint32(GOOD)), reasons & np.uint32(_MARKS)
