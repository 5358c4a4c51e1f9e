"""History taken out of a store into files that other tools read, and that `twinloop import` takes back.

A tag is read a part at a time, each part of a number of rows that fits into memory, and a file has its name
only when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from twinloop.durable import placed
from twinloop.errors import QueryError
from twinloop.present import in_words, to_csv
from twinloop.stores.store import RANGE_SCHEMA, Queries

__all__ = ["FORMATS", "Exported", "export", "form_of"]

FORMATS: Final = ("parquet", "csv")
_SUFFIXES: Final = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}
_HOUR_NS: Final = 3_600 * 1_000_000_000
_WIDTHS: Final = (24 * _HOUR_NS, _HOUR_NS, _HOUR_NS // 60)
_MOST_ROWS: Final = 200_000
_CSV_ROWS: Final = 20_000
_LONGEST_NAME: Final = 200
_SCHEMA: Final = in_words(RANGE_SCHEMA.empty_table(), exact=True).schema

Span = tuple[int, int]


@dataclass(slots=True)
class Exported:
    """How far an export has come.

    Attributes:
        tags, of_tags: done, and all.
        rows: written.
        files: what was written, whole.
    """

    tags: int = 0
    of_tags: int = 0
    rows: int = 0
    files: int = 0


def form_of(path: Path, form: str | None) -> str:
    """The format of an export: as asked for, by the file's name, or Parquet.

    Raises:
        QueryError: the name says another than was asked for.
    """
    named = _SUFFIXES.get(path.suffix.lower()) if not path.is_dir() else None
    if named and form and named != form:
        raise QueryError(f"{path} is the name of a {named} file; --format says {form}")
    return form or named or "parquet"


def export(
    queries: Queries,
    path: Path,
    form: str,
    tags: Sequence[str],
    bounds: tuple[int | None, int | None] = (None, None),
    *,
    told: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the samples of [start, end) to a file, tag after tag, or to a file a tag in a directory.

    Columns are those of `range`; status is exact: the name of its code, or the number where it has none.

    Args:
        queries: the store.
        path: a file where its name ends so (`.parquet`, `.csv`), else a directory, which is made.
        form: one of `FORMATS`.
        tags: full names; empty for all that `latest` shows.
        bounds: start and end, ns since epoch UTC; None is open.
        told: called now and then with how far it has come.

    Raises:
        QueryError: a tag is not known, or a file cannot be written.
    """
    names = list(dict.fromkeys(tags)) or sorted(queries.latest(())["tag"].to_pylist())
    done = Exported(of_tags=len(names))
    one = path.suffix.lower() in _SUFFIXES and not path.is_dir()
    files = {path: names} if one else {path / f"{_file_name(name)}.{form}": [name] for name in names}
    try:
        (path.parent if one else path).mkdir(parents=True, exist_ok=True)
        for each, of_file in files.items():
            with _file(each, form) as file:
                for name in of_file:
                    for rows in _parts(queries, name, bounds):
                        file.write(rows)
                        done.rows += len(rows)
                        told(done)
                    done.tags += 1
                    told(done)
            done.files += 1
    except OSError as error:
        raise QueryError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from error
    return done


def _parts(queries: Queries, name: str, bounds: tuple[int | None, int | None]) -> Iterator[pa.Table]:
    for low, high in _spans(queries, name, *bounds):
        rows = queries.range(name, low, high)
        if len(rows):  # of old days a store may have kept figures and no samples
            yield in_words(rows, exact=True)


def _spans(queries: Queries, tag: str, start: int | None, end: int | None, level: int = 0) -> Iterator[Span]:
    """The time of a tag's samples in pieces of not too many rows, by how many its days or hours have."""
    every = _WIDTHS[level]
    windows = queries.window(tag, every, start, end)
    begin: int | None = None
    upto, rows = 0, 0
    for first, count in zip(
        windows["time"].cast(pa.int64()).to_pylist(), windows["count"].to_pylist(), strict=True
    ):
        low = first if start is None else max(first, start)
        high = first + every if end is None else min(first + every, end)
        if begin is not None and rows + count > _MOST_ROWS:
            yield begin, upto
            begin, rows = None, 0
        if count > _MOST_ROWS and level + 1 < len(_WIDTHS):
            yield from _spans(queries, tag, low, high, level + 1)
            continue
        begin = low if begin is None else begin
        upto, rows = high, rows + count
    if begin is not None:
        yield begin, upto


def _file_name(tag: str) -> str:
    """A tag's name as a file may have it; too long a one keeps its begin, and a number that is its own."""
    name = quote(tag, safe=" ,;=+@()[]{}'")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.blake2b(tag.encode(), digest_size=8).hexdigest()}"


class _File(Protocol):
    def write(self, rows: pa.Table) -> None: ...


@contextlib.contextmanager
def _file(path: Path, form: str) -> Iterator[_File]:
    """A file that has its name when all was written, and is gone where that failed."""
    with placed(path) as aside:
        made = _Parquet(aside) if form == "parquet" else _Csv(aside)
        with made:
            yield made


class _Parquet:
    """Rows into a Parquet file, a part a row group."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd")

    def write(self, rows: pa.Table) -> None:
        self._file.write_table(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class _Csv:
    """Rows into a CSV file with one header."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._file.write(to_csv(_SCHEMA.empty_table()))

    def write(self, rows: pa.Table) -> None:
        for first in range(0, len(rows), _CSV_ROWS):
            text = to_csv(rows.slice(first, _CSV_ROWS))
            self._file.write(text[text.index("\n") + 1 :])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
