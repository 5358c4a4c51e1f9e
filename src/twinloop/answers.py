"""Answers of the Python API: an Arrow table, and what a notebook wants of it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from twinloop.errors import QueryError
from twinloop.optional import needed
from twinloop.plots import plot
from twinloop.present import in_words, to_cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Answer", "joined"]

_SHOWN: Final = 5
_CATEGORIES: Final = (
    "tag",
    "unit",
    "status",
    "reasons",
    "subject",
    "kind",
    "source",
    "reason",
    "asset",
    "health",
)
_SEVERITIES: Final = ["Good", "Uncertain", "Bad"]
_INDEX: Final = {"latest": "tag"}


class Answer:
    """An Arrow table with its columns as attributes; pandas, polars and matplotlib where they are installed.

    Whatever an Arrow table can be asked, this can be, too (`num_rows`, `filter`, `to_pylist`, ...), and
    whatever takes Arrow data takes it: `polars.DataFrame(answer)`, `duckdb.sql("FROM answer")`. In the table
    status and reasons are codes; in pandas and polars they are words, unless `words=False`.

    Args:
        table: what a query returned.
        kind: which query.
        tag, unit: of the one tag it is about, where its columns do not say so.
    """

    def __init__(self, table: pa.Table, kind: str, *, tag: str = "", unit: str = "") -> None:
        self._table = table
        self._kind = kind
        self._about = (tag, unit)

    def to_arrow(self, *, words: bool = False) -> pa.Table:
        """The Arrow table; with `words` its status and reasons are text, else codes."""
        return in_words(self._table) if words else self._table

    def to_pandas(self, *, words: bool = True) -> pd.DataFrame:
        """A pandas DataFrame, indexed by time in UTC (`latest` by tag); words are categories.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = needed("pandas")
        frame = self._categories(words=words).to_pandas()
        for name in frame.columns:
            if words and (name == "status" or name.endswith("_status") or name == "worst_quality"):
                frame[name] = _ordered(pandas, frame[name])
        return frame.set_index(_INDEX.get(self._kind, "time")) if len(frame.columns) else frame

    def to_polars(self, *, words: bool = True) -> Any:
        """A polars DataFrame; words are categories, times are in UTC.

        Raises:
            ImportError: polars is not installed.
        """
        return needed("polars").from_arrow(self._categories(words=words))

    def plot(self, ax: Any = None) -> Any:
        """Draw it with matplotlib: samples by status with their estimate and its 2-sigma band, or windows.

        Uncertain and Bad samples are marked. The axis says tag and unit; what has other units gets an axis
        of its own.

        Args:
            ax: where to draw; a new figure by default.

        Returns:
            The matplotlib Axes, or an array of them where there are several units.

        Raises:
            ImportError: matplotlib is not installed.
            QueryError: there is nothing to draw in an answer of this kind.
        """
        return plot(self._table, self._kind, *self._about, ax)

    def _categories(self, *, words: bool) -> pa.Table:
        table = self.to_arrow(words=words)
        for at, field in enumerate(table.schema):
            is_word = field.name in _CATEGORIES or field.name.endswith("_status")
            if is_word and pa.types.is_string(field.type):
                table = table.set_column(at, field.name, table[field.name].dictionary_encode())
        return table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, key: Any) -> Any:
        return self._table[key]

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("an answer is read by column (answer.value), or by row: answer.to_pylist()")

    def __getattr__(self, name: str) -> Any:
        """A column, or what an Arrow table has by that name."""
        if name.startswith("_"):  # also while it is copied or unpickled and has no table yet
            raise AttributeError(name)
        if name in self._table.column_names:
            return self._table[name]
        return getattr(self._table, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._table.column_names})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Answer):
            other = other.to_arrow()
        return bool(self._table.equals(other)) if isinstance(other, pa.Table) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table for whatever speaks Arrow's C stream interface."""
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        names, rows = self._excerpt()
        lines = ["  ".join(names), *("  ".join(row) for row in rows)]
        return "\n".join([f"{self._kind}: {_counted(len(self))}", *lines])

    def _repr_html_(self) -> str:
        """A small table for notebooks: the first and the last rows."""
        names, rows = self._excerpt()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self._kind)}: {_counted(len(self))}</p>"
        )

    def _excerpt(self) -> tuple[list[str], list[list[str]]]:
        """Names and cells of the first and last rows, with a row of dots for those between."""
        table, names = self._table, self._table.column_names
        if len(table) <= 2 * _SHOWN:
            return names, to_cells(table)
        dots = [["..."] * len(names)]
        return names, to_cells(table.slice(0, _SHOWN)) + dots + to_cells(table.slice(len(table) - _SHOWN))


def _ordered(pandas: Any, words: Any) -> Any:
    """Severities as categories that can be compared: Good < Uncertain < Bad; with bits, as they come."""
    plain = set(words.dropna().unique()) <= set(_SEVERITIES)
    return pandas.Categorical(words, _SEVERITIES, ordered=True) if plain else words


def _counted(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def joined(tables: dict[str, pa.Table]) -> pa.Table:
    """One table of several tags', each row with its tag first.

    Raises:
        QueryError: no tag was named.
    """
    if not tables:
        raise QueryError("name a tag, or several")
    parts = []
    for tag, table in tables.items():
        if "tag" in table.column_names:
            parts.append(table)
        else:
            column = pa.array([tag], pa.string()).take(pa.array([0] * len(table), pa.int8()))
            parts.append(table.add_column(0, "tag", column))
    return pa.concat_tables(parts)
