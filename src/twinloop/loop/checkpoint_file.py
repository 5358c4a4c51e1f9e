"""One file of a checkpoint: a header, the small part of the state, and pages of its arrays.

    "twinloop checkpoint 2" and a line feed  header length (u32)  header (msgpack)  CRC
    small part  CRC
    for each array of the header: page numbers (u32 each)  CRC  pages  CRC

A base stands alone, its pages lying over zeros. An increment names the state it builds on. A file comes into
being whole: written aside, synced, renamed, its directory synced.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec
import numpy as np

from twinloop.durable import sync_directory
from twinloop.loop.state import U32
from twinloop.pages import PAGE_BYTES

__all__ = [
    "PAGES_AT_ONCE",
    "ArrayHeader",
    "DamagedError",
    "Header",
    "Reader",
    "portions",
    "write_file",
]

VERSION: Final = 2
_MAGIC: Final = b"twinloop checkpoint "
_START: Final = _MAGIC + b"%d\n" % VERSION
_U32: Final = struct.Struct("<I")
PAGES_AT_ONCE: Final = 1024
_SYNC_BYTES: Final = 32 << 20
"""So often a large file is synced while it is written: one sync of it all would hold up the log's commits."""


class DamagedError(Exception):
    """A file cannot be used.

    Args:
        path: which.
        why: in words.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"the checkpoint file {path} cannot be used: {why}")
        self.path = path


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """An array's name, its bytes, and how many of its pages are in the file."""

    name: str
    size: int
    pages: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself.

    Attributes:
        state: the state one has after it: the same for a base and for the increment that it made needless.
        on: the state it builds on; empty for a base.
        offset: the newest record the state covers; -1 for none.
        record: CRC-32 of that record in the log; None where it is not known.
        time_ns: the newest time folded.
        tags, names: how many tags the state has, and a checksum of their names in the order of their indices.
        small: bytes of the small part.
        arrays: all the state has.
    """

    state: str
    on: str
    offset: int
    record: int | None
    time_ns: int
    tags: int
    names: int
    small: int
    arrays: list[ArrayHeader]


class Reader:
    """An open file; a context that closes it.

    Args:
        path: where it is.

    Raises:
        DamagedError: it is no checkpoint of this version, or cut short; so do the methods, if what they read
            is not what was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.is_file():
                raise DamagedError(path, "it is no file")
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise DamagedError(path, f"{error.strerror or error}") from error
        try:
            self.header = self._header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def small(self) -> bytes:
        """The small part."""
        self._file.seek(self._small_at)
        return self._checked(self.header.small)

    def numbers(self, array: ArrayHeader) -> U32:
        """The numbers of an array's pages, ascending."""
        self._file.seek(self._at[array.name])
        numbers = np.frombuffer(self._checked(4 * array.pages), "<u4")
        ascending = not np.any(numbers[1:] <= numbers[:-1])
        if array.pages and not (ascending and int(numbers[-1]) * PAGE_BYTES < array.size):
            raise DamagedError(self.path, f"the pages of {array.name} are not its own")
        return numbers

    def pages(self, array: ArrayHeader, counts: Iterable[int]) -> Iterator[bytes]:
        """An array's pages in portions of so many each, in sum all; the CRC is checked after the last.

        Nothing else may be read of this file in between.
        """
        self._file.seek(self._at[array.name] + 4 * array.pages + 4)
        crc = 0
        for count in counts:
            data = self._read(count * PAGE_BYTES)
            crc = zlib.crc32(data, crc)
            yield data
        self._check(crc)

    def array(self, name: str) -> ArrayHeader | None:
        """The array of a name, if the state has one."""
        return next((array for array in self.header.arrays if array.name == name), None)

    def read_through(self) -> None:
        """Read everything, to know that it is sound."""
        self.small()
        for array in self.header.arrays:
            self.numbers(array)
            for _ in self.pages(array, portions(array.pages)):
                pass

    def _header(self) -> Header:
        start = self._read(len(_START), of="a checkpoint's first words")
        if start != _START:
            raise DamagedError(self.path, _other_version(start))
        size = os.fstat(self._file.fileno()).st_size
        length = _U32.unpack(self._read(4))[0]
        if length > size:
            raise DamagedError(self.path, "its header is damaged")
        try:
            header = msgspec.msgpack.decode(self._checked(length), type=Header)
        except msgspec.MsgspecError as error:
            raise DamagedError(self.path, f"its header is damaged: {error}") from error
        self._small_at = self._file.tell()
        end = self._small_at + header.small + 4
        self._at: dict[str, int] = {}
        for array in header.arrays:
            self._at[array.name] = end
            end += 8 + (4 + PAGE_BYTES) * array.pages
        if size != end:
            raise DamagedError(self.path, f"it has {size} bytes, not {end}")
        return header

    def _checked(self, count: int) -> bytes:
        data = self._read(count)
        self._check(zlib.crc32(data))
        return data

    def _check(self, crc: int) -> None:
        if _U32.unpack(self._read(4))[0] != crc:
            raise DamagedError(self.path, "a checksum does not fit")

    def _read(self, count: int, of: str = "its content") -> bytes:
        try:
            data = self._file.read(count)
        except OSError as error:  # a directory, or a disk that cannot
            raise DamagedError(self.path, f"{error.strerror or error}") from error
        if len(data) != count:
            raise DamagedError(self.path, f"it ends within {of}")
        return data


def portions(pages: int) -> Iterator[int]:
    """So many pages in portions that take little memory."""
    for first in range(0, pages, PAGES_AT_ONCE):
        yield min(PAGES_AT_ONCE, pages - first)


def _other_version(start: bytes) -> str:
    version, _, _ = start.removeprefix(_MAGIC).partition(b"\n")
    if start.startswith(_MAGIC) and version.isdigit():
        return f"it is of version {int(version)}, this is version {VERSION}"
    return "it is no checkpoint"


class _Writer:
    """Writes sections, each followed by its CRC."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unsynced = 0

    def section(self, parts: Iterable[bytes | memoryview]) -> None:
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
            self._file.write(part)
            self._unsynced += len(part)
            if self._unsynced >= _SYNC_BYTES:
                self.sync()
        self._file.write(_U32.pack(crc))

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0


Arrays = Iterable[tuple[U32, Iterable[bytes | memoryview]]]
"""Of each array of a header, its page numbers and its pages in portions."""


def write_file(
    path: Path, header: Header, small: bytes, arrays: Arrays, *, go_on: Callable[[], None] = lambda: None
) -> None:
    """Write a file; when this returns it is there for good, and until then under another name or not at all.

    Args:
        path: a name nothing has yet.
        header: agrees with what follows.
        small, arrays: the content.
        go_on: called for each portion; what it raises ends the writing.

    Raises:
        OSError: the disk would not take it.
    """
    aside = path.with_name(f"{path.name}.tmp")
    try:
        with aside.open("xb") as file:
            writer = _Writer(file)
            encoded = msgspec.msgpack.encode(header)
            file.write(_START + _U32.pack(len(encoded)))
            writer.section([encoded])
            writer.section([small])
            for numbers, pages in arrays:
                writer.section([numbers.astype("<u4").tobytes()])
                writer.section(_telling(pages, go_on))
            writer.sync()
        aside.rename(path)
        sync_directory(path.parent)  # the log may be trimmed on the strength of it
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _telling(pages: Iterable[bytes | memoryview], go_on: Callable[[], None]) -> Iterator[bytes | memoryview]:
    for portion in pages:
        go_on()
        yield portion
