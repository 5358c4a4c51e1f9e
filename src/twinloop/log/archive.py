"""The archive of a log: files that left it, compressed, for replays that go further back.

One file a log file, named by its first offset and the time of its newest entry; zstd around entries of a
fixed header (offset, time, length, checksum) and the entry's bytes. Files leave it whole, by age.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from twinloop.durable import sync_directory
from twinloop.errors import LogError
from twinloop.log.files import Row, checksum

__all__ = [
    "archive_files",
    "archive_rows",
    "first_archived",
    "forget_archive",
    "read_archive",
]

_log = logging.getLogger("twinloop.log")
_reported: set[Path] = set()

FOLDER: Final = "archive"
_SUFFIX: Final = ".zst"
_HEADER: Final = struct.Struct("<qqII")


def archive_files(directory: Path) -> list[Path]:
    """The archive's files of a log's directory, oldest first."""
    return sorted((directory / FOLDER).glob(f"*{_SUFFIX}"))


def archive_rows(directory: Path, first: int, newest_ns: int, rows: Iterable[Row]) -> Path:
    """Write a file of the archive aside, sync it and rename it into place.

    Args:
        directory: the log's.
        first: the first offset of the file archived.
        newest_ns: time of its newest entry.
        rows: its entries; an error they raise ends the file, which keeps what came before.

    Raises:
        OSError: the disk would not take it.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{first:020d}-{newest_ns:020d}{_SUFFIX}"
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file, pa.CompressedOutputStream(file, "zstd") as out:
        for offset, time_ns, data in rows:
            out.write(_HEADER.pack(offset, time_ns, len(data), checksum(offset, time_ns, data)))
            out.write(data)
    sync_directory(aside)
    aside.replace(path)
    sync_directory(folder)
    return path


def forget_archive(directory: Path, before_ns: int) -> int:
    """Remove the files whose newest entry is older; returns how many went."""
    old = [path for path in archive_files(directory) if int(path.stem.partition("-")[2]) < before_ns]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def read_archive(directory: Path, after: int = -1) -> Iterator[tuple[int, bytes]]:
    """Archived entries after an offset, ascending; what a damaged file lacks is left out and told."""
    for path, following in _files_after(directory, after):
        reached = max(after, _first(path) - 1)
        try:
            for offset, data in _read_file(path, after):
                yield offset, data
                reached = offset
        except LogError as error:
            if path in _reported:
                continue
            _reported.add(path)
            upto = "its end" if following is None else f"{_first(following) - 1}"
            _log.warning("%s: entries from offset %d to %s are gone; going on", error, reached + 1, upto)


def first_archived(directory: Path) -> int | None:
    """The first offset of the archive; None where there is none."""
    return next((_first(path) for path in archive_files(directory)), None)


def _first(path: Path) -> int:
    return int(path.stem.partition("-")[0])


def _files_after(directory: Path, after: int) -> Iterator[tuple[Path, Path | None]]:
    """The files that may hold entries after an offset, each with the one that follows it."""
    files = archive_files(directory)
    for path, following in zip_longest(files, files[1:]):
        if following is None or _first(following) > after + 1:
            yield path, following


def _read_file(path: Path, after: int) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file, pa.CompressedInputStream(file, "zstd") as stream:
            for offset, data in _entries(stream):
                if offset > after:
                    yield offset, data
    except FileNotFoundError:
        return  # too old meanwhile
    except (OSError, ValueError) as error:
        raise LogError(f"the archived log file {path} is damaged ({error})") from error


def _entries(stream: Any) -> Iterator[tuple[int, bytes]]:
    while header := stream.read(_HEADER.size):
        if len(header) < _HEADER.size:
            raise ValueError("it ends within an entry")
        offset, time_ns, length, crc = _HEADER.unpack(header)
        data = stream.read(length)
        if len(data) != length or crc != checksum(offset, time_ns, data):
            raise ValueError(f"entry {offset} is not what was written")
        yield offset, data
