"""Parquet files written whole: a part at a time aside, then made durable and renamed into place.

Row groups follow the tags: a tag with many rows has groups of its own, so that its hour is read without its
neighbours; tags with few share one. The footer says which tags and times each group holds.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twinloop.durable import sync_directory

__all__ = [
    "GROUPS_KEY",
    "META_KEY",
    "TEMPORARY",
    "WholeFile",
    "brief_check",
    "groups_check",
    "row_groups",
    "write_durably",
]

TEMPORARY: Final = ".tmp"
META_KEY: Final = "twinloop"
GROUPS_KEY: Final = "twinloop.groups"
ROW_GROUP: Final = 4_096
"""Rows that tags with few share; a tag with half of it has groups of its own."""
FRESH_GROUP: Final = 8_192
"""The same of a segment that will be merged soon: quicker to write."""
MINUTES_GROUP: Final = 2_048
"""The same of minutes, of which a question wants few."""
LARGEST_GROUP: Final = 65_536
DISTINCT_SHARE: Final = 0.25
"""Values that repeat more than this are smaller as a dictionary than as split bytes."""
_TAGGED: Final = frozenset({"samples", "fills", "minutes", "latest"})

_NONE: Final = (2**63 - 1, -(2**63))


class WholeFile:
    """A Parquet file being made: `add` parts in the order of rows, then `place` it; else no trace is left.

    Use it as a context. Every method raises OSError where the disk would not take it.

    Args:
        path: where it goes.
        kind: a kind of segment, or `latest`; says how it is laid out.
        schema: of its rows.
        fresh: it will be merged soon, and is packed quickly rather than well.
    """

    def __init__(self, path: Path, kind: str, schema: pa.Schema, *, fresh: bool = False) -> None:
        self._path = path
        self._fresh = fresh
        self._kind = kind
        self._schema = schema
        self._aside = path.with_name(path.name + TEMPORARY)
        self._file = self._aside.open("wb")
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._groups: list[tuple[int, int, int, int, int]] = []
        self._time = _NONE
        self._arrived: tuple[int, int] | None = None
        self._placed = False
        self._shared = MINUTES_GROUP if kind == "minutes" else FRESH_GROUP if fresh else ROW_GROUP

    def add(self, part: pa.Table) -> None:
        """Rows that come after those added before."""
        writer = self._opened(part)
        if not len(part):
            return
        part = part.cast(self._schema)
        self._rows += len(part)
        time = part["time"].to_numpy()
        self._time = _widened(self._time, time)
        if self._arrived is None and "arrival_ms" in part.schema.names:
            middle = int(np.median(part["arrival_ms"].to_numpy()))
            self._arrived = (middle, middle)
        if self._kind not in _TAGGED:
            writer.write_table(part, row_group_size=ROW_GROUP)
            return
        tag = part["tag"].to_numpy()
        for first, last in row_groups(tag, self._shared):
            writer.write_table(part.slice(first, last - first), row_group_size=LARGEST_GROUP)
            times = time[first:last]
            said = (int(tag[first]), int(tag[last - 1]), int(times.min()), int(times.max()), last - first)
            self._groups.append(said)

    def place(self, meta: dict[str, Any]) -> None:
        """Finish it, make it durable and rename it into place; `meta` stands in its footer."""
        writer = self._opened(self._schema.empty_table())
        low, high = self._time
        said = meta | {"time_min": low if low <= high else None, "time_max": high if low <= high else None}
        said = {"arrived": self._arrived, "rows": self._rows} | said
        said = {"first": said.pop("first", None)} | said
        texts = {}
        if self._kind in _TAGGED:
            groups = np.array(self._groups, "<i8").reshape(-1, 5)
            text = base64.b64encode(groups.tobytes()).decode()
            texts[GROUPS_KEY] = groups_check(text) + text
        texts[META_KEY] = json.dumps(said | {"check": brief_check(said)})  # last, where it is found quickly
        writer.add_key_value_metadata(texts)
        writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._aside.rename(self._path)
        self._placed = True
        sync_directory(self._path.parent)

    def _opened(self, part: pa.Table) -> pq.ParquetWriter:
        """The writer, laid out after the first part."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, self._schema, **self._layout(part))
        return self._writer

    def _layout(self, part: pa.Table) -> dict[str, Any]:
        layout = _layout(part, self._kind)
        if not self._fresh:
            return layout
        layout["compression"] = "lz4"
        if self._kind in _TAGGED:  # of runs of one number lz4 leaves as little, and is quicker
            layout["use_dictionary"] = [name for name in layout["use_dictionary"] if name == "value"]
        return layout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._placed:
            return
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._writer is not None:
                self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink(missing_ok=True)


def write_durably(path: Path, table: pa.Table, kind: str, meta: dict[str, Any] | None = None) -> None:
    """Write a table as one file, or leave no trace under its name. Raises OSError."""
    with WholeFile(path, kind, table.schema) as file:
        file.add(table)
        file.place(meta or {})


def brief_check(said: Mapping[str, Any]) -> str:
    """A checksum of what a footer says in brief: Parquet has none of footers."""
    return f"{zlib.crc32(json.dumps(said, sort_keys=True).encode()):08x}"


def groups_check(text: str) -> str:
    """A checksum of the limits of row groups, eight letters."""
    return f"{zlib.crc32(text.encode()):08x}"


def _widened(limits: tuple[int, int], values: npt.NDArray[np.int64]) -> tuple[int, int]:
    return min(limits[0], int(values.min())), max(limits[1], int(values.max()))


def row_groups(tag: npt.NDArray[np.int32], shared: int = ROW_GROUP) -> Iterator[tuple[int, int]]:
    """First and end row of each group, for rows sorted by tag; small tags share groups of so many rows."""
    if not len(tag):
        return
    starts = np.flatnonzero(np.append(True, tag[1:] != tag[:-1]))
    ends = np.append(starts[1:], len(tag))
    gathered = 0  # first row of the small tags not given out yet
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        large = 2 * (last - first) >= shared
        if first > gathered and (large or last - gathered > shared):
            yield gathered, first
            gathered = first
        if large:
            pieces = -(-(last - first) // LARGEST_GROUP)
            cuts = np.linspace(first, last, pieces + 1).round().astype(np.int64).tolist()
            yield from itertools.pairwise(cuts)
            gathered = last
    if gathered < len(tag):
        yield gathered, len(tag)


def _layout(table: pa.Table, kind: str) -> dict[str, Any]:
    """How Parquet is to lay out a kind: measured in docs/STORAGE.md."""
    layout: dict[str, Any] = {
        "compression": "zstd",
        "write_page_checksum": True,
        # What other tools may skip by; of all columns they would be most of a large footer.
        "write_statistics": [name for name in ("tag", "time") if name in table.schema.names],
    }
    if kind not in _TAGGED:
        return layout
    names = table.schema.names
    split = ("estimate", "estimate_std", "good_mean", "good_rest", "uncertain_mean", "uncertain_rest")
    delta = ("time", "arrival_ms", "offset", "first", "last", "heard", "stale_offset")
    encoding = {name: "BYTE_STREAM_SPLIT" for name in split if name in names}
    encoding |= {name: "DELTA_BINARY_PACKED" for name in delta if name in names}
    if "value" in names and not _repeats(table["value"]):
        encoding["value"] = "BYTE_STREAM_SPLIT"
    sorting = [pq.SortingColumn(names.index("tag")), pq.SortingColumn(names.index("time"))]
    return layout | {
        "column_encoding": encoding,
        "use_dictionary": [name for name in names if name not in encoding],
        "sorting_columns": sorting,
    }


def _repeats(values: pa.ChunkedArray) -> bool:
    """Whether the values of a row group are few enough for a dictionary (12 bits of a converter, say)."""
    head = values.slice(0, ROW_GROUP)
    return bool(pc.count_distinct(head).as_py() <= DISTINCT_SHARE * len(head))
