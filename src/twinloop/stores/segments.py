"""Segments: immutable Parquet files named by the output-log offsets they answer for.

A segment is written aside, made durable and renamed into place, so a file with a segment's name is
whole. One seal may make several files, one a kind; the `samples` file is renamed last and commits them:
files of other kinds beyond the last `samples` file are leftovers of a crash. A merged segment answers for
the whole range of the segments it was made of, and a file whose range lies in another's of its kind is
ignored, whether or not it has been removed yet. Hence a listing alone says what is there.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twinloop.stores.rows import KINDS, SCHEMAS
from twinloop.stores.writing import CHECK_KEY, GROUPS_KEY, META_KEY, WholeFile, checksum

__all__ = [
    "DAMAGED",
    "Footer",
    "Listing",
    "Segment",
    "footer",
    "footer_of",
    "is_damage",
    "list_segments",
    "open_parquet",
    "open_segment",
    "read_durable",
    "read_segment",
    "write_segment",
]

DAMAGED: Final = ".damaged"
_NAME: Final = re.compile(rf"({'|'.join(KINDS)})-(\d{{16}})-(\d{{16}})\.parquet")
_LISTINGS: Final = 50


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file: its kind, the offsets it answers for (both included) and its directory."""

    first: int
    last: int
    kind: str
    directory: Path

    @property
    def path(self) -> Path:
        """Where the segment lies."""
        return self.directory / f"{self.kind}-{self.first:016d}-{self.last:016d}.parquet"

    def contains(self, other: Segment) -> bool:
        """Whether this answers for all that the other, different one does."""
        return self != other and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, slots=True)
class Footer:
    """What a segment's footer says: row count, time range (ns, both included), merge level, lost range.

    `time_min` is above `time_max` where there are no rows. `span_ms` is the time between the first arrival
    and the last, 0 where that is not known. `lost` marks an empty stand-in for a file that was set aside.
    `groups` has a row for each row group: lowest and highest tag, lowest and highest time; it is empty for
    kinds without tags. `parquet` spares reading it again.
    """

    rows: int
    time_min: int
    time_max: int
    level: int
    lost: bool
    span_ms: int
    groups: npt.NDArray[np.int64]
    parquet: pq.FileMetaData

    def meets(self, start: int, end: int) -> bool:
        """Whether a row may lie in [start, end)."""
        return self.time_min < end and start <= self.time_max

    def groups_with(self, tag: int, start: int, end: int) -> list[int]:
        """Row groups that may hold a row of a tag in [start, end)."""
        tag_min, tag_max, time_min, time_max = self.groups.T
        meets = (tag_min <= tag) & (tag <= tag_max) & (time_min < end) & (start <= time_max)
        return [int(group) for group in np.flatnonzero(meets)]


@dataclass(frozen=True, slots=True)
class Listing:
    """The segments of a directory at one moment.

    Attributes:
        covered: the newest offset answered for; -1 for none.
        live: segments to read, by ascending offset.
        superseded: segments whose rows a merged one has.
        uncommitted: segments of other kinds beyond `covered`, left by a crash within a seal.
    """

    covered: int
    live: tuple[Segment, ...]
    superseded: tuple[Segment, ...]
    uncommitted: tuple[Segment, ...]

    def of(self, kind: str) -> list[Segment]:
        """The live segments of a kind, by ascending offset."""
        return [segment for segment in self.live if segment.kind == kind]


def list_segments(directory: Path, ignore: Iterable[Segment] = ()) -> Listing:
    """The segments of a directory as they stood together at one moment, also while another process seals.

    Reading a directory is not atomic: a file renamed into it meanwhile may or may not be seen. Two equal
    readings in a row are: whatever stood there between them was seen.
    """
    ignored = frozenset(ignore)
    names = _names(directory)
    for _ in range(_LISTINGS):
        again = _names(directory)
        if names == again:
            break
        names = again
    return _listing(directory, names, ignored)


@lru_cache(maxsize=16)
def _listing(directory: Path, names: frozenset[str], ignored: frozenset[Segment]) -> Listing:
    """What names say; kept, as most questions meet the same names."""
    found = sorted({segment for name in names if (segment := _parse(directory, name))} - ignored)
    samples = [segment for segment in found if segment.kind == "samples"]
    covered = max((segment.last for segment in samples), default=-1)
    uncommitted = [segment for segment in found if segment.last > covered]
    committed = [segment for segment in found if segment.last <= covered]
    live = _outermost(committed)
    superseded = sorted(set(committed) - set(live))
    return Listing(covered, tuple(live), tuple(superseded), tuple(uncommitted))


def _outermost(segments: list[Segment]) -> list[Segment]:
    """Those that lie in no other of their kind, ascending."""
    reach: dict[str, int] = {}
    live = []
    for segment in sorted(segments, key=lambda each: (each.first, -each.last)):
        if segment.last > reach.get(segment.kind, -1):
            live.append(segment)
            reach[segment.kind] = segment.last
    return live


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))  # noqa: PTH208 - names only, no Path for each
    except FileNotFoundError:
        return frozenset()


def _parse(directory: Path, name: str) -> Segment | None:
    match = _NAME.fullmatch(name)
    return Segment(int(match[2]), int(match[3]), match[1], directory) if match else None


def write_segment(segment: Segment, table: pa.Table, *, level: int = 0, lost: bool = False) -> None:
    """Write a segment whole and durable under its name, or leave no trace under that name.

    Raises:
        OSError: the disk would not take it; what was written aside is removed.
    """
    with open_segment(segment) as file:
        file.add(table)
        file.place(footer_of(segment, level, lost=lost))


def open_segment(segment: Segment) -> WholeFile:
    """A segment to be written in parts; `place` it with `footer_of`. Raises OSError."""
    return WholeFile(segment.path, segment.kind, SCHEMAS[segment.kind])


def footer_of(segment: Segment, level: int, *, lost: bool = False) -> dict[str, Any]:
    """What a segment's footer says beside its times."""
    return {"first": segment.first, "last": segment.last, "level": level, "lost": lost}


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
    check_columns(table.schema, schema)
    return table.select(schema.names)


def read_segment(segment: Segment) -> pa.Table:
    """All rows of a segment; raises as `read_durable`."""
    return read_durable(segment.path, SCHEMAS[segment.kind])


def footer(segment: Segment) -> Footer:
    """The footer of a segment, read once as long as the file is the same.

    Raises:
        FileNotFoundError: a merge has removed it since it was listed.
        ValueError: the file is damaged: it has no footer that can be read.
        OSError: the system would not let it be read.
    """
    stat = segment.path.stat()
    return _footer(segment, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=4096)
def _footer(segment: Segment, _identity: tuple[int, int, int]) -> Footer:
    try:
        metadata = pq.read_metadata(segment.path)
        texts = {key.decode(): text.decode() for key, text in metadata.metadata.items()}
        said = json.loads(texts[META_KEY])
        _check_texts(texts)
        check_columns(metadata.schema.to_arrow_schema(), SCHEMAS[segment.kind])
        limits = np.iinfo(np.int64)
        low = said["time_min"] if said["time_min"] is not None else limits.max
        high = said["time_max"] if said["time_max"] is not None else limits.min
        return Footer(
            rows=metadata.num_rows,
            time_min=int(low),
            time_max=int(high),
            level=int(said["level"]),
            lost=bool(said["lost"]),
            span_ms=int(said.get("span_ms", 0)),
            groups=_groups(metadata, texts.get(GROUPS_KEY), segment.kind),
            parquet=metadata,
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if not is_damage(error):
            raise
        raise ValueError(f"{segment.path}: damaged, its footer cannot be read ({error})") from error


def _check_texts(texts: Mapping[str, str]) -> None:
    if CHECK_KEY in texts and texts[CHECK_KEY] != checksum(texts):
        raise ValueError("what it says of itself is damaged")


def check_columns(found: pa.Schema, expected: pa.Schema) -> None:
    """Names stand in the footer, too, and rot with it. Raises ValueError."""
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0 or found.field(at).type != field.type:
            raise ValueError(f"no column {field.name} of type {field.type}")


def is_damage(error: Exception) -> bool:
    """Whether what was read is wrong; not, where the system would not let it be read."""
    return not (isinstance(error, OSError) and error.errno is not None)


def _groups(metadata: pq.FileMetaData, kept: str | None, kind: str) -> npt.NDArray[np.int64]:
    """Lowest and highest tag and time of each row group, shape (groups, 4); an empty group meets nothing."""
    if "tag" not in SCHEMAS[kind].names:
        return np.empty((0, 4), np.int64)
    if kept is not None:
        groups = np.frombuffer(base64.b64decode(kept), "<i8").reshape(-1, 4)
        if len(groups) == metadata.num_row_groups:
            return groups
    limits = []
    for group in range(metadata.num_row_groups):
        tag, time = (metadata.row_group(group).column(column).statistics for column in (0, 1))
        empty = tag is None or not tag.has_min_max
        limits.append((1, 0, 1, 0) if empty else (tag.min, tag.max, time.min, time.max))
    return np.array(limits, np.int64).reshape(-1, 4)
