"""Rows as InfluxDB's line protocol, a column at a time.

    twinloop,asset=R101,plant=demo,tag=R101.temperature,unit=degC status=0i,reasons=0i,...,value=85.2 1700...

Only what never changes of a tag is a tag of the series; status and reasons are fields, so that no change of
quality starts a new series. The same series and time written again overwrites itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Encoder", "Lines", "encoded", "escaped", "series"]

_EMPTY: Final = "%FF"
"""Stands for an empty name, which no tag of a series may have; no name is encoded so."""
_ENCODED: Final = re.compile(r"[\x00-\x1f\x7f\\]|%(?=[0-9A-Fa-f]{2})")
_SPECIAL: Final = re.compile(r"[,= ]")
_INTEGERS: Final = ("status", "reasons", "arrival_ms", "offset")
_FLOATS: Final = ("value", "estimate", "estimate_std")


def encoded(name: str) -> str:
    r"""A name as the text InfluxDB keeps: what line protocol cannot carry as `%` and two hex digits.

    That is control characters and the backslash, which at the end of a name would escape what follows. A `%`
    that is followed by two hex digits is encoded too, so that no two names become one.

    >>> encoded("R101.temperature"), encoded("a\nb\\"), encoded("50%"), encoded("%41")
    ('R101.temperature', 'a%0Ab%5C', '50%', '%2541')
    """
    return _ENCODED.sub(lambda found: f"%{ord(found[0]):02X}", name) or _EMPTY


def escaped(text: str) -> str:
    """An encoded name where a tag's key or value stands in a line."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def series(measurement: str, plant: str, name: str, unit: str) -> str:
    """The measurement and tags of one tag's series; an asset or unit that is not there is left out."""
    asset = name.partition(".")[0] if "." in name else ""
    tags = {"asset": asset, "plant": plant, "tag": name, "unit": unit}
    told = [f"{key}={escaped(encoded(text))}" for key, text in tags.items() if text or key == "tag"]
    return ",".join([re.sub(r"[, ]", r"\\\g<0>", measurement), *told])


class Lines:
    """Some lines of line protocol, each with its newline, in one piece of memory."""

    def __init__(self, lines: pa.Array) -> None:
        _, ends, data = lines.buffers()
        self._ends = np.frombuffer(ends, np.int32, len(lines) + 1, 4 * lines.offset)
        self._data = memoryview(data if data is not None else b"")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def part(self, first: int, last: int) -> bytes:
        """The lines from `first` up to, without, `last`."""
        return bytes(self._data[self._ends[first] : self._ends[last]])

    def portions(self, size: int) -> list[tuple[int, int]]:
        """Where to cut, so that no portion of several lines is longer than so many bytes."""
        found, first = [], 0
        while first < len(self):
            last = int(np.searchsorted(self._ends, self._ends[first] + size, "right")) - 1
            last = max(last, first + 1)
            found.append((first, last))
            first = last
        return found


class Encoder:
    """Makes lines of a measurement out of rows by `SAMPLE_SCHEMA`.

    Args:
        measurement: the measurement's name.
        plant: the plant's.
        names, units: full tag names and their units by index.
    """

    def __init__(self, measurement: str, plant: str, names: Sequence[str], units: Sequence[str]) -> None:
        made = [f"{series(measurement, plant, *each)} status=" for each in zip(names, units, strict=True)]
        self._series = pa.array(made, pa.string())

    def lines(self, rows: pa.Table) -> Lines:
        """A line for each row: nulls are left out, numbers are written so that they come back exact."""
        rows = rows.combine_chunks()
        parts = [self._series.take(_column(rows, "tag"))]
        for place, name in enumerate(_INTEGERS):
            parts += [pa.scalar(f"i,{name}=")] if place else []
            parts.append(_column(rows, name).cast(pa.string()))
        parts.append(pa.scalar("i"))
        for name in _FLOATS:
            text = _column(rows, name).cast(pa.float64()).cast(pa.string())
            parts.append(pc.binary_join_element_wise(pa.scalar(f",{name}="), text, pa.scalar("")))
        parts += [pa.scalar(" "), _column(rows, "time").cast(pa.string()), pa.scalar("\n"), pa.scalar("")]
        return Lines(pc.binary_join_element_wise(*parts, null_handling="skip"))


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
