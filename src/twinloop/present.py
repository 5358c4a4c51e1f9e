"""Answers as people and programs read them: table, csv, json or parquet.

Status and reasons become words, times end in `Z` and keep their nanoseconds, and the numbers of csv and
json give the same float64 when they are read back. What has no value is empty in csv, null in json.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinloop.errors import QueryError
from twinloop.status import aggregate_words, format_reasons, severity_name, status_text
from twinloop.timetext import time_text

__all__ = [
    "FORMATS",
    "KINDS",
    "in_words",
    "render",
    "time_text",
    "to_cells",
    "to_csv",
    "to_json",
    "to_table",
    "write",
]

FORMATS: Final = ("table", "json", "csv", "parquet")
KINDS: Final = ("latest", "range", "window", "events", "dead", "snapshots")

_SEVERITY_STYLE: Final = {"Good": "green", "Uncertain": "yellow", "Bad": "red"}
_TABLE_DIGITS: Final = 7
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_WORDS: Final = {"status": severity_name, "reasons": format_reasons, "worst_quality": severity_name}


def render(table: pa.Table, kind: str, form: str, *, terminal: bool = False) -> bytes:
    """An answer in a format, as UTF-8 text or Parquet bytes.

    Args:
        table: what a query returned.
        kind: which query: one of `KINDS`.
        form: one of `FORMATS`.
        terminal: whether a person's terminal shows it: only then are tables wrapped to it and coloured.

    Raises:
        QueryError: kind or format is not known.
    """
    if kind not in KINDS:
        raise QueryError(f"no kind of answer {kind!r}; there are {', '.join(KINDS)}")
    if form not in FORMATS:
        raise QueryError(f"no format {form!r}; there are {', '.join(FORMATS)}")
    worded = in_words(table)
    if form == "parquet":
        return to_parquet(worded)
    if form == "table":
        return to_table(worded, terminal=terminal).encode()
    return (to_csv(worded) if form == "csv" else to_json(worded)).encode()


def write(table: pa.Table, kind: str, form: str, out: Path | TextIO, *, terminal: bool = False) -> None:
    """Render an answer to a file, or to a text stream such as stdout.

    Raises:
        QueryError: kind or format is not known, the file cannot be written, or Parquet would go to a
            terminal.
    """
    if isinstance(out, Path):
        rendered = render(table, kind, form)
        try:
            out.write_bytes(rendered)
        except OSError as error:
            raise QueryError(f"{out}: cannot be written: {error.strerror}") from error
        return
    if form == "parquet" and terminal:
        raise QueryError("parquet is not for a terminal: name a file with --output, or redirect")
    rendered = render(table, kind, form, terminal=terminal)
    binary: BinaryIO | None = getattr(out, "buffer", None)
    if binary is not None:
        out.flush()
        binary.write(rendered)
        binary.flush()
    elif form == "parquet":
        raise QueryError("parquet needs a binary stream or a file: name one with --output")
    else:
        out.write(rendered.decode())


def in_words(table: pa.Table, *, exact: bool = False) -> pa.Table:
    """The answer with status and reasons as words; all other columns as they are.

    An exact status is its code's name or number (`status_text`), else it is its severity.
    """
    for at, field in enumerate(table.schema):
        word = _WORDS.get(field.name) or (aggregate_words if field.name.endswith("_status") else None)
        word = status_text if exact and field.name == "status" else word
        if word is not None and pa.types.is_integer(field.type):
            table = table.set_column(at, field.name, _mapped(table[field.name], word))
    return table


def _mapped(codes: pa.ChunkedArray, word: Callable[[int], str]) -> pa.Array:
    """A word for each code; each different code is put into words once."""
    distinct, inverse = np.unique(codes.fill_null(0).to_numpy(), return_inverse=True)
    words = pa.array([word(int(code)) for code in distinct], pa.string())
    return words.take(pa.array(inverse.astype(np.int64), mask=codes.is_null().to_numpy()))


def to_csv(table: pa.Table) -> str:
    """RFC 4180 text with a header line; lines end in LF, nested columns are JSON, bytes base64."""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(table.schema.names)
    writer.writerows(zip(*(_plain(table, name) for name in table.schema.names), strict=True))
    return "".join(lines)


class _Lines(list[str]):
    """The lines a csv writer ends in CRLF, ended in LF: it quotes what its own line end contains only."""

    def write(self, line: str) -> int:
        self.append(f"{line[:-2]}\n")
        return len(line)


def to_json(table: pa.Table) -> str:
    """A JSON array of one object a row, one row a line."""
    if not len(table):
        return "[]\n"
    names = table.schema.names
    keys = (json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in names)
    row = "{" + ", ".join(f"{key}: %s" for key in keys) + "}"
    lines = ",\n".join(map(row.__mod__, zip(*(_json_texts(table, name) for name in names), strict=True)))
    return f"[\n{lines}\n]\n"


def _json_texts(table: pa.Table, name: str) -> list[str]:
    """A column as JSON texts; where many rows have few values, each text is made once."""
    values = _json_column(table, name)
    kind = table.schema.field(name).type
    if pa.types.is_floating(kind):
        return ["null" if each is None else float.__repr__(each) for each in values]
    if pa.types.is_integer(kind):
        return ["null" if each is None else int.__repr__(each) for each in values]
    if pa.types.is_nested(kind):
        return [_ENCODE(each) for each in values]
    texts = {each: _ENCODE(each) for each in set(values)}
    return [texts[each] for each in values]


def to_parquet(table: pa.Table) -> bytes:
    """A Parquet file; times keep their nanoseconds."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def to_table(table: pa.Table, *, terminal: bool) -> str:
    """Aligned columns, numbers to seven digits; off a terminal nothing is wrapped or coloured."""
    names = table.schema.names
    columns = [_cells(table, name) for name in names]
    grid = Table(box=None, pad_edge=False, header_style="bold" if terminal else "")
    for name in names:
        numeric = pa.types.is_floating(table.schema.field(name).type) or name == "count"
        grid.add_column(name, justify="right" if numeric else "left", no_wrap=not terminal, overflow="fold")
    for row in zip(*columns, strict=True):
        style = _SEVERITY_STYLE.get(row[names.index("status")], "") if "status" in names else ""
        grid.add_row(*(Text(cell) for cell in row), style=style if terminal else "")
    out = io.StringIO()
    width = (
        None
        if terminal
        else 2 + sum(2 + _width(name, cells) for name, cells in zip(names, columns, strict=True))
    )
    console = Console(
        file=out, width=width, force_terminal=terminal, no_color=not terminal, legacy_windows=False
    )
    console.print(grid)
    lines = out.getvalue().splitlines() if not terminal else None
    return out.getvalue() if lines is None else "".join(f"{line.rstrip()}\n" for line in lines)


def to_cells(table: pa.Table) -> list[list[str]]:
    """The rows as texts for the eye, in words."""
    worded = in_words(table)
    columns = [_cells(worded, name) for name in worded.schema.names]
    return [list(row) for row in zip(*columns, strict=True)]


def _width(name: str, cells: Sequence[str]) -> int:
    return max(Text(text).cell_len for text in (name, *cells))


def _cells(table: pa.Table, name: str) -> list[str]:
    """A column for the eye: control characters are shown escaped, so that a row stays one line."""
    if pa.types.is_floating(table.schema.field(name).type):
        return [
            "" if each is None or math.isnan(each) else f"{each:.{_TABLE_DIGITS}g}"
            for each in _list(table, name)
        ]
    return [_printable("" if each is None else str(each)) for each in _plain(table, name)]


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _plain(table: pa.Table, name: str) -> list[Any]:
    """A column as csv cells: text, or numbers whose `str` gives them back."""
    kind = table.schema.field(name).type
    if pa.types.is_nested(kind):
        return [json.dumps(each, ensure_ascii=False, allow_nan=False) for each in _json_column(table, name)]
    return ["" if each is None else each for each in _json_column(table, name)]


def _json_column(table: pa.Table, name: str) -> list[Any]:
    """A column as what JSON knows: numbers, text, null, lists and objects."""
    kind = table.schema.field(name).type
    if pa.types.is_timestamp(kind):
        times = table[name].cast(pa.int64()).to_pylist()
        texts = {each: None if each is None else time_text(each) for each in set(times)}
        return [texts[each] for each in times]
    if pa.types.is_binary(kind):
        return [None if each is None else _bytes_text(each) for each in _list(table, name)]
    if pa.types.is_map(kind):
        return [None if each is None else _json_value(dict(each)) for each in _list(table, name)]
    if pa.types.is_floating(kind) or pa.types.is_nested(kind):
        return [_json_value(each) for each in _list(table, name)]
    return _list(table, name)


def _bytes_text(raw: bytes) -> str:
    """Bytes as the text they are, where they are one; else `base64:` and their encoding."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    plain = all(char.isprintable() or char in "\n\r\t" for char in text)
    if (text or not raw) and plain and not text.startswith("base64:"):
        return text
    return f"base64:{base64.b64encode(raw).decode()}"


def _list(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table[name].to_pylist()
    return values


def _json_value(value: Any) -> Any:
    """The value with null in place of what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json_value(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    return value
