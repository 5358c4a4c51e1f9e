"""Entries as they stand in a file: large ones are packed, for the disk is what a log waits for.

A packed entry begins with a byte that no record begins with (MessagePack never uses it), then its size; what
begins so by itself is marked as plain.
"""

from __future__ import annotations

import struct
from typing import Final

import pyarrow as pa

__all__ = ["pack", "unpack"]

_MARK: Final = b"\xc1"
_HEADER: Final = struct.Struct("<cI")
_PLAIN: Final = 0
"""In place of a size."""
_WORTH_BYTES: Final = 1024
_WORTH: Final = 0.9
_codec: Final = pa.Codec("lz4_raw")


def pack(data: bytes) -> bytes:
    """An entry as it is to stand in a file: packed where that is worth it."""
    if len(data) >= _WORTH_BYTES:
        packed: bytes = _codec.compress(data, asbytes=True)
        if len(packed) < _WORTH * len(data):
            return _HEADER.pack(_MARK, len(data)) + packed
    return _HEADER.pack(_MARK, _PLAIN) + data if data.startswith(_MARK) else data


def unpack(stored: bytes) -> bytes:
    """The inverse of `pack`.

    Raises:
        ValueError: it is no such entry.
    """
    if not stored.startswith(_MARK):
        return stored
    try:
        _, size = _HEADER.unpack_from(stored)
        rest = stored[_HEADER.size :]
        if size == _PLAIN:
            return rest
        data: bytes = _codec.decompress(rest, decompressed_size=size, asbytes=True)
    except (struct.error, pa.ArrowException, OSError) as error:
        raise ValueError(f"a packed entry cannot be read: {error}") from error
    return data
