"""What a segment says of itself: in brief, from its last bytes, and in full, to read single row groups of it.

A full footer grows with the segment, and a year of history has some hundred large ones. Most questions need
few of them; which ones, the brief says.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twinloop.stores.recent import Recent
from twinloop.stores.rows import SCHEMAS
from twinloop.stores.segments import Segment
from twinloop.stores.writing import GROUPS_KEY, META_KEY, brief_check, groups_check

__all__ = [
    "Brief",
    "DamagedError",
    "Footer",
    "Identity",
    "brief",
    "each_part",
    "footer",
    "forget",
    "identity",
    "is_damage",
    "open_parquet",
    "read_durable",
    "read_groups",
    "read_segment",
    "recent_groups",
    "verify",
]

_TAIL_BYTES: Final = 16_384
_BRIEF: Final = re.compile(rb'\{"first": [^{}]*\}')
_MAGIC: Final = b"PAR1"
_KEPT_BYTES: Final = 8 << 20
"""Of full footers, as they are in the files; they take several times as much in memory."""
_DECODED_BYTES: Final = 32 << 20
_PART_ROWS: Final = 500_000
_LIMITS: Final = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Brief:
    """Row count, time range (ns, both included), merge level, and whether it is an empty stand-in.

    `time_min` is above `time_max` where there are no rows. `arrived` says when the samples came (ms, the
    median of its first part and of its last), None where that is not known. `lost` marks a stand-in for a
    file that was set aside, `gone` one for samples that were not to be kept any longer.
    """

    rows: int
    time_min: int
    time_max: int
    level: int
    lost: bool
    gone: bool
    arrived: tuple[int, int] | None

    def meets(self, start: int, end: int) -> bool:
        """Whether a row may lie in [start, end)."""
        return self.time_min < end and start <= self.time_max


@dataclass(frozen=True, slots=True)
class Footer:
    """The row groups of a segment.

    `groups` has a row for each: lowest and highest tag, lowest and highest time, rows; it is empty for kinds
    without tags. `parquet` spares reading the footer again.
    """

    groups: npt.NDArray[np.int64]
    parquet: pq.FileMetaData

    def groups_with(self, tag: int, start: int, end: int) -> list[int]:
        """Row groups that may hold a row of a tag in [start, end)."""
        tag_min, tag_max, time_min, time_max, _ = self.groups.T
        meets = (tag_min <= tag) & (tag <= tag_max) & (time_min < end) & (start <= time_max)
        return [int(group) for group in np.flatnonzero(meets)]


class DamagedError(ValueError):
    """A segment cannot be read as it was written."""

    def __init__(self, segment: Segment, why: object) -> None:
        super().__init__(f"{segment.path}: damaged ({why})")
        self.segment = segment


Identity = tuple[int, int, int]


def identity(segment: Segment) -> Identity:
    """What tells one file from another of the same name. Raises OSError."""
    stat = os.stat(segment.file)  # noqa: PTH116 - see `Segment.file`
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def brief(segment: Segment, known: Identity | None = None) -> Brief:
    """What a segment says of itself in brief, read once as long as the file is the same.

    Args:
        segment: the segment.
        known: the file's identity of just now, where the caller has asked for it.

    Raises:
        FileNotFoundError: a merge has removed it since it was listed.
        DamagedError: its end cannot be read.
        OSError: the system would not let it be read.
    """
    return _brief(segment, known or identity(segment))


@lru_cache(maxsize=65_536)
def _brief(segment: Segment, _: Identity) -> Brief:
    with segment.path.open("rb") as file:
        file.seek(-min(_TAIL_BYTES, segment.path.stat().st_size), 2)
        tail = file.read()
    if tail[-4:] != _MAGIC:
        raise DamagedError(segment, "it does not end as it should")
    for found in reversed(_BRIEF.findall(tail)):
        said = json.loads(found)
        if said.pop("check", None) == brief_check(said):
            return _brief_of(said, int(said["rows"]))
    metadata, texts = _read(segment)  # of an older version, or not as it was written
    try:
        return _brief_of(json.loads(texts[META_KEY]), metadata.num_rows)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(segment, f"its footer cannot be read: {error}") from error


def _brief_of(said: dict[str, Any], rows: int) -> Brief:
    low, high = said["time_min"], said["time_max"]
    return Brief(
        rows=rows,
        time_min=int(low) if low is not None else _LIMITS.max,
        time_max=int(high) if high is not None else _LIMITS.min,
        level=int(said["level"]),
        lost=bool(said["lost"]),
        gone=bool(said.get("gone", False)),
        arrived=(int(arrived[0]), int(arrived[1])) if (arrived := said.get("arrived")) else None,
    )


_kept: Final = Recent[tuple[Segment, Identity], Footer](
    _KEPT_BYTES, lambda footer: int(footer.parquet.serialized_size)
)
_Decoded = tuple[Segment, Identity, tuple[int, ...], tuple[str, ...]]
_decoded: Final = Recent[_Decoded, pa.Table](_DECODED_BYTES, lambda table: int(table.nbytes))


def forget(segments: Iterable[Segment]) -> None:
    """Keep nothing of some segments in memory any longer: they were merged, and nobody asks for them."""
    gone = set(segments)
    _kept.drop(lambda key: key[0] in gone)
    _decoded.drop(lambda key: key[0] in gone)


def footer(segment: Segment, known: Identity | None = None) -> Footer:
    """The row groups of a segment, as long as they are remembered read once; as `brief`."""
    key = (segment, known or identity(segment))
    found = _kept.get(key)
    if found is None:
        metadata, texts = _read(segment)
        groups = texts.get(GROUPS_KEY)
        try:
            _check_columns(metadata.schema.to_arrow_schema(), SCHEMAS[segment.kind])
            found = Footer(_groups(metadata, groups, segment.kind), metadata)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise DamagedError(segment, f"its footer cannot be read: {error}") from error
        _kept.put(key, found)
    return found


def _read(segment: Segment) -> tuple[pq.FileMetaData, dict[str, str]]:
    """The whole footer and the texts in it; raises as `brief`."""
    try:
        metadata = pq.read_metadata(segment.path)
        texts = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        if not is_damage(error):
            raise
        raise DamagedError(segment, f"its footer cannot be read: {error}") from error
    return metadata, texts


def _check_columns(found: pa.Schema, expected: pa.Schema) -> None:
    """Names stand in the footer, too, and rot with it. Raises ValueError."""
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0 or found.field(at).type != field.type:
            raise ValueError(f"no column {field.name} of type {field.type}")


def _groups(metadata: pq.FileMetaData, kept: str | None, kind: str) -> npt.NDArray[np.int64]:
    """Lowest and highest tag and time of each row group, and its rows, shape (groups, 5)."""
    if "tag" not in SCHEMAS[kind].names:
        return np.empty((0, 5), np.int64)
    if kept is not None:
        check, text = kept[:8], kept[8:]
        if check != groups_check(text):
            raise ValueError("the limits of its row groups are damaged")
        return np.frombuffer(base64.b64decode(text), "<i8").reshape(-1, 5)
    limits = []
    for group in range(metadata.num_row_groups):  # of an older version
        tag, time = (metadata.row_group(group).column(column).statistics for column in (0, 1))
        empty = tag is None or not tag.has_min_max
        rows = metadata.row_group(group).num_rows
        limits.append((1, 0, 1, 0, rows) if empty else (tag.min, tag.max, time.min, time.max, rows))
    return np.array(limits, np.int64).reshape(-1, 5)


def is_damage(error: Exception) -> bool:
    """Whether what was read is wrong; not, where the system would not let it be read."""
    return not (isinstance(error, OSError) and error.errno is not None)


def open_parquet(path: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A Parquet file of ours, its pages checked as they are read. Raises what pyarrow does."""
    # Few columns of one row group: reading ahead on other threads costs more than it saves.
    return pq.ParquetFile(path, metadata=metadata, pre_buffer=False, page_checksum_verification=True)


def read_durable(path: Path, schema: pa.Schema) -> pa.Table:
    """All rows of what `write_durably` wrote, with the columns of a schema.

    Raises:
        OSError, ValueError, pa.ArrowException: it is gone or damaged.
    """
    with open_parquet(path) as file:
        table = file.read().replace_schema_metadata(None)
    _check_columns(table.schema, schema)
    return table.select(schema.names)


def recent_groups(
    segment: Segment, groups: list[int], columns: list[str], known: Identity | None = None
) -> pa.Table:
    """As `read_groups`, and read once as long as it is remembered: a segment never changes.

    Trends and dashboards ask for the same hours of the same tags again and again.
    """
    key = (segment, known or identity(segment), tuple(groups), tuple(columns))
    found = _decoded.get(key)
    if found is None:
        # In one piece: a column in two would be put together by everyone who looks at it.
        found = read_groups(segment, groups, columns).combine_chunks()
        _decoded.put(key, found)
    return found


def read_groups(segment: Segment, groups: list[int], columns: list[str]) -> pa.Table:
    """Some row groups of a segment; raises as `read_durable`."""
    said = footer(segment)
    with open_parquet(segment.path, said.parquet) as file:
        table = file.read_row_groups(groups, columns=columns, use_threads=False)
    if len(table) != int(said.groups[groups, 4].sum()):  # how many pages there are, no checksum says
        raise DamagedError(segment, "it has not the rows it should have")
    return table.replace_schema_metadata(None)


def each_part(segment: Segment) -> Iterator[pa.Table]:
    """All rows of a segment, some at a time; raises as `read_durable`."""
    schema, missing = SCHEMAS[segment.kind], brief(segment).rows
    with open_parquet(segment.path) as file:
        _check_columns(file.schema_arrow, schema)
        for batch in file.iter_batches(_PART_ROWS, columns=schema.names, use_threads=False):
            missing -= len(batch)
            yield pa.Table.from_batches([batch]).select(schema.names).replace_schema_metadata(None)
    if missing:
        raise DamagedError(segment, "it has not the rows it should have")


def verify(segment: Segment) -> None:
    """Read all there is of a segment, some at a time; raises as `read_durable` where anything is wrong."""
    footer(segment)
    for _ in each_part(segment):
        pass


def read_segment(segment: Segment) -> pa.Table:
    """All rows of a segment; raises as `read_durable`."""
    table = read_durable(segment.path, SCHEMAS[segment.kind])
    if len(table) != brief(segment).rows:
        raise DamagedError(segment, "it has not the rows it should have")
    return table
