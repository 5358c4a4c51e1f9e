"""The length of an encoded Variant, without making anything of it (OPC 10000-6, 5.2.2).

What is no plain number is never used, only kept as bytes: so nothing of it is built. A decoder that
builds can be made to fill memory by a few bytes: array dimensions without elements, a list of structures
without fields, an array of nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twinloop.errors import PayloadError
from twinloop.records import DeadReason

__all__ = ["skip_variant"]

_ARRAY, _DIMENSIONS, _TYPE = 0x80, 0x40, 0x3F
_DEEPEST: Final = 100
"""Values within values; the standard asks decoders for as much (5.2.2.16)."""

# Bytes of the types of fixed size, by variant type: Boolean to Double, DateTime, Guid, StatusCode.
_SIZES: Final = {
    1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4,
}  # fmt: skip
_NODE_ID_SIZES: Final = {0: 2, 1: 4, 2: 7, 4: 19}
_NODE_ID_TEXTS: Final = (3, 5)
_VALUE_PARTS: Final = ((2, 4), (4, 8), (16, 2), (8, 8), (32, 2))


def skip_variant(body: bytes, position: int, depth: int = 0) -> int:
    """The position after the Variant that begins at `position`; it may lie behind the end of `body`.

    Raises:
        PayloadError: UNDECODABLE, the bytes are no Variant.
        IndexError: the body ends within it.
    """
    mask = body[position]
    kind = mask & _TYPE
    position += 1
    if mask & _ARRAY:
        if kind == 0:
            raise _unreadable("a value is an array of nothing")
        position = _skip_array(body, position, kind, depth)
    elif kind:
        position = _skip(body, position, kind, depth)
    if mask & _DIMENSIONS:
        position = _skip_array(body, position, 6, depth)
    return position


def _skip_array(body: bytes, position: int, kind: int, depth: int) -> int:
    count = max(_int32(body, position), 0)
    position += 4
    if kind in _SIZES:
        return position + count * _SIZES[kind]
    for _ in range(count):  # each takes a byte at least, or raises
        position = _skip(body, position, kind, depth)
    return position


def _skip(body: bytes, position: int, kind: int, depth: int) -> int:
    if kind in _SIZES:
        return position + _SIZES[kind]
    if kind not in _SKIPS:
        return _skip_text(body, position, depth)  # String, ByteString, XmlElement; 26 on are reserved as such
    if depth >= _DEEPEST:
        raise _unreadable("a value is nested too deeply")
    return _SKIPS[kind](body, position, depth + 1)


def _skip_text(body: bytes, position: int, _: int) -> int:
    return position + 4 + max(_int32(body, position), 0)


def _skip_node_id(body: bytes, position: int, depth: int) -> int:
    mask = body[position]
    form = mask & 0x3F
    if form in _NODE_ID_SIZES:
        position += _NODE_ID_SIZES[form]
    elif form in _NODE_ID_TEXTS:
        position = _skip_text(body, position + 3, depth)
    else:
        raise _unreadable(f"a node id has the encoding {mask:#x}")
    if mask & 0x80:
        position = _skip_text(body, position, depth)
    return position + 4 if mask & 0x40 else position


def _skip_qualified_name(body: bytes, position: int, depth: int) -> int:
    return _skip_text(body, position + 2, depth)


def _skip_localized_text(body: bytes, position: int, depth: int) -> int:
    mask = body[position]
    position += 1
    for bit in (1, 2):
        if mask & bit:
            position = _skip_text(body, position, depth)
    return position


def _skip_extension_object(body: bytes, position: int, depth: int) -> int:
    position = _skip_node_id(body, position, depth)
    if body[position] == 0:
        return position + 1
    if _int32(body, position + 1) < 0:
        raise _unreadable("a structure does not say how long it is")
    return _skip_text(body, position + 1, depth)


def _skip_data_value(body: bytes, position: int, depth: int) -> int:
    mask = body[position]
    position += 1
    if mask & 1:
        position = skip_variant(body, position, depth)
    return position + sum(size for bit, size in _VALUE_PARTS if mask & bit)


def _skip_diagnostic_info(body: bytes, position: int, depth: int) -> int:
    if depth >= _DEEPEST:
        raise _unreadable("a value is nested too deeply")
    mask = body[position]
    position += 1 + 4 * (mask & 0x0F).bit_count()
    if mask & 0x10:
        position = _skip_text(body, position, depth)
    if mask & 0x20:
        position += 4
    return _skip_diagnostic_info(body, position, depth + 1) if mask & 0x40 else position


_SKIPS: Final[dict[int, Callable[[bytes, int, int], int]]] = {
    17: _skip_node_id,
    18: _skip_node_id,
    20: _skip_qualified_name,
    21: _skip_localized_text,
    22: _skip_extension_object,
    23: _skip_data_value,
    24: skip_variant,
    25: _skip_diagnostic_info,
}


def _int32(body: bytes, position: int) -> int:
    if position + 4 > len(body):
        raise IndexError(position)
    return int.from_bytes(body[position : position + 4], "little", signed=True)


def _unreadable(detail: str) -> PayloadError:
    return PayloadError(DeadReason.UNDECODABLE, detail)
