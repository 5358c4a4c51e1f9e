"""Segments: immutable Parquet files named by the output-log offsets they answer for.

A segment is written aside, made durable and renamed into place, so a file with a segment's name is
whole. One seal may make several files, one a kind; the `samples` file is renamed last and commits them:
files of other kinds beyond the last `samples` file are leftovers of a crash. A merged segment answers for
the whole range of the segments it was made of, and a file whose range lies in another's of its kind is
ignored, whether or not it has been removed yet. Hence a listing alone says what is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from twinloop.folders import names_in
from twinloop.stores.rows import KINDS, SCHEMAS
from twinloop.stores.writing import WholeFile

__all__ = [
    "DAMAGED",
    "Listing",
    "Segment",
    "footer_of",
    "list_segments",
    "open_segment",
    "write_segment",
]

DAMAGED: Final = ".damaged"
_NAME: Final = re.compile(rf"({'|'.join(KINDS)})-(\d{{16}})-(\d{{16}})\.parquet")


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
        return self.directory / self._name

    @property
    def file(self) -> str:
        """The same as text: every question asks about every segment, and Paths take their time."""
        return f"{self.directory}{os.sep}{self._name}"

    @property
    def _name(self) -> str:
        return f"{self.kind}-{self.first:016d}-{self.last:016d}.parquet"

    def contains(self, other: Segment) -> bool:
        """Whether this answers for all that the other, different one does."""
        return self != other and self.first <= other.first and other.last <= self.last


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
    readings in a row are: whatever stood there between them was seen. A directory that has not changed since
    it was read is not read again.
    """
    return _listing(directory, names_in(directory), frozenset(ignore))


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


def _parse(directory: Path, name: str) -> Segment | None:
    match = _NAME.fullmatch(name)
    return Segment(int(match[2]), int(match[3]), match[1], directory) if match else None


def write_segment(segment: Segment, table: pa.Table, *, level: int = 0, **marks: bool) -> None:
    """Write a segment whole and durable under its name, or leave no trace under that name.

    Raises:
        OSError: the disk would not take it; what was written aside is removed.
    """
    with open_segment(segment, level) as file:
        file.add(table)
        file.place(footer_of(segment, level, **marks))


def open_segment(segment: Segment, level: int) -> WholeFile:
    """A segment to be written in parts; `place` it with `footer_of`. Raises OSError."""
    return WholeFile(segment.path, segment.kind, SCHEMAS[segment.kind], fresh=level == 0)


def footer_of(segment: Segment, level: int, *, lost: bool = False, gone: bool = False) -> dict[str, Any]:
    """What a segment's footer says beside its rows; see `Brief`."""
    return {"first": segment.first, "last": segment.last, "level": level, "lost": lost, "gone": gone}
