"""Values off the wire: the body of a data change or read response as columns.

asyncua makes half a dozen Python objects of every value, 6 us each. Almost all values of a plant are
numbers in one of a few layouts, so here the layouts are recognised and decoded by NumPy, all values of
one layout at once; what is not a plain number is measured (`skip`) and kept as bytes. Two more
things are gained: times keep their 100 ns (asyncua rounds to 1 us), and picoseconds stand where
OPC 10000-6, 5.2.2.17 puts them (asyncua 2.1 reads them in another order).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from asyncua import ua

from twinloop.batch import NO_TIME
from twinloop.errors import PayloadError
from twinloop.records import DeadReason
from twinloop.sources.opcua.skip import skip_variant

__all__ = ["Other", "Rows", "decode_values"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_HAS_VALUE, _HAS_STATUS, _HAS_SOURCE, _HAS_SERVER, _HAS_SOURCE_PS, _HAS_SERVER_PS = 1, 2, 4, 8, 16, 32
_KNOWN_BITS: Final = 63

# Variant types that are numbers (OPC 10000-6, 5.1.2). An enumeration arrives as Int32. 0 is "no value".
_NUMBERS: Final = {
    1: "u1",
    2: "i1",
    3: "u1",
    4: "<i2",
    5: "<u2",
    6: "<i4",
    7: "<u4",
    8: "<i8",
    9: "<u8",
    10: "<f4",
    11: "<f8",
}

_VARIANT_TYPES: Final = frozenset(each.value for each in ua.VariantType)

EPOCH_TICKS: Final = 116_444_736_000_000_000
"""100 ns ticks from 1601, where OPC UA counts from, to 1970."""
# Beyond these a time does not fit int64 nanoseconds with room to reckon; it is insane in any case.
_LOW_TICKS: Final = EPOCH_TICKS - 90_000_000_000_000_000
_HIGH_TICKS: Final = EPOCH_TICKS + 90_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Other:
    """A value that is no number.

    Attributes:
        handle: as in `Rows.handle`.
        kind: what it is, in words: `a String`, `an array of Double`.
        raw: its encoding on the wire.
        status: its status code.
    """

    handle: int
    kind: str
    raw: bytes
    status: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Numbers in the order they were sent; all columns (n,).

    Attributes:
        handle: client handle of the monitored item; position, for a read.
        value: float64; NaN where none was sent. Integers beyond 2**53 are rounded.
        status: status code with all its bits; Good where none was sent.
        source, server: ns since epoch UTC, or `NO_TIME`.
        others: what was no number.
    """

    handle: I64
    value: F64
    status: U32
    source: I64
    server: I64
    others: tuple[Other, ...] = ()

    def __len__(self) -> int:
        return len(self.handle)

    def take(self, which: npt.NDArray[np.bool_]) -> Rows:
        """Some of the numbers; what was no number is left out."""
        return Rows(
            self.handle[which], self.value[which], self.status[which], self.source[which], self.server[which]
        )


def decode_values(body: bytes, count: int, *, handles: bool, start: int = 0) -> tuple[Rows, int]:
    """The `count` values that begin at `start`, and the position after them.

    Args:
        body: encoded values, each a DataValue, preceded by a client handle if `handles`.
        count: how many; the length of the encoded array, negative for a null array.

    Raises:
        PayloadError: the bytes end early or are not values.
    """
    places: dict[int, list[int]] = {}
    pieces: dict[int, list[bytes]] = {}
    others: list[tuple[int, Other]] = []
    lead = 4 if handles else 0
    position = start
    try:
        for place in range(count):
            mask = body[position + lead]
            key = mask | body[position + lead + 1] << 8 if mask & _HAS_VALUE else mask
            layout = _layout(key, handles)
            if layout is None:
                other, position = _decode_other(body, position, place, handles=handles)
                others.append((place, other))
                continue
            end = position + layout.itemsize
            if key not in places:
                places[key], pieces[key] = [], []
            places[key].append(place)
            pieces[key].append(body[position:end])
            position = end
    except IndexError:
        position = len(body) + 1
    if position > len(body):
        raise PayloadError(DeadReason.UNDECODABLE, f"{count} values do not fit {len(body)} bytes")
    rows = _assemble(places, pieces, max(count, 0), handles=handles)
    if others:
        numbers = np.ones(len(rows), bool)
        numbers[[place for place, _ in others]] = False
        rows = Rows(
            rows.handle[numbers],
            rows.value[numbers],
            rows.status[numbers],
            rows.source[numbers],
            rows.server[numbers],
            tuple(other for _, other in others),
        )
    return rows, position


@cache
def _layout(key: int, handles: bool) -> np.dtype[Any] | None:  # noqa: FBT001 - a cache key
    """The packed record of one encoding mask and variant type; None where it is not of fixed size."""
    mask, variant = key & 0xFF, key >> 8
    if mask & ~_KNOWN_BITS or (variant and variant not in _NUMBERS):
        return None
    fields: list[tuple[str, str]] = [("handle", "<u4")] if handles else []
    fields.append(("mask", "u1"))
    if mask & _HAS_VALUE:
        fields.append(("type", "u1"))
    if variant:
        fields.append(("value", _NUMBERS[variant]))
    optional = (
        (_HAS_STATUS, "status", "<u4"),
        (_HAS_SOURCE, "source", "<i8"),
        (_HAS_SOURCE_PS, "source_ps", "<u2"),
        (_HAS_SERVER, "server", "<i8"),
        (_HAS_SERVER_PS, "server_ps", "<u2"),
    )
    fields += [(name, kind) for bit, name, kind in optional if mask & bit]
    return np.dtype(fields)


def _assemble(
    places: dict[int, list[int]], pieces: dict[int, list[bytes]], count: int, *, handles: bool
) -> Rows:
    handle = np.arange(count, dtype=np.int64)
    value = np.full(count, np.nan)
    status = np.zeros(count, np.uint32)
    source = np.full(count, NO_TIME, np.int64)
    server = np.full(count, NO_TIME, np.int64)
    for key, where in places.items():
        records = np.frombuffer(b"".join(pieces[key]), _layout(key, handles))
        names = records.dtype.names or ()
        if "handle" in names:
            handle[where] = records["handle"]
        if "value" in names:
            # A Boolean is true for any byte but 0.
            value[where] = records["value"] != 0 if key >> 8 == 1 else records["value"]
        if "status" in names:
            status[where] = records["status"]
        for column, name in ((source, "source"), (server, "server")):
            if name in names:
                fine = records[name + "_ps"] if name + "_ps" in names else None
                column[where] = _nanoseconds(records[name], fine)
    return Rows(handle, value, status, source, server)


def _nanoseconds(ticks: I64, fine: npt.NDArray[np.uint16] | None) -> I64:
    """Ns since 1970 from 100 ns ticks since 1601 and tens of picoseconds; 0 ticks mean "no time"."""
    time = (np.clip(ticks, _LOW_TICKS, _HIGH_TICKS) - EPOCH_TICKS) * 100
    if fine is not None:
        # 10 ps units, 0 to 9999; what is not valid shall be read as 9999 (OPC 10000-4, 7.11).
        time += np.minimum(fine, 9_999).astype(np.int64) // 100
    return np.where(ticks == 0, NO_TIME, time)


def _decode_other(body: bytes, position: int, place: int, *, handles: bool) -> tuple[Other, int]:
    """One value that is no plain number, and the position after it."""
    begin = position + 4 if handles else position
    handle = struct.unpack_from("<I", body, position)[0] if handles else place
    mask = body[begin]
    if mask & ~_KNOWN_BITS:
        raise PayloadError(DeadReason.UNDECODABLE, f"a value has the encoding mask {mask:#x}")
    end = skip_variant(body, begin + 1)
    kind = body[begin + 1]
    raw = body[begin + 1 : end]
    status = 0
    if mask & _HAS_STATUS:
        if end + 4 > len(body):
            raise IndexError
        status = struct.unpack_from("<I", body, end)[0]
    sizes = ((_HAS_STATUS, 4), (_HAS_SOURCE, 8), (_HAS_SOURCE_PS, 2), (_HAS_SERVER, 8), (_HAS_SERVER_PS, 2))
    end += sum(size for bit, size in sizes if mask & bit)
    return Other(handle, _kind(kind), raw, status), end


def _kind(encoding: int) -> str:
    number = encoding & 0x3F
    name = ua.VariantType(number).name if number in _VARIANT_TYPES else f"number {number}"
    return f"an array of {name}" if encoding & 0x80 else f"a value of type {name}"
