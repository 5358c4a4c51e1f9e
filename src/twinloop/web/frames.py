"""A tick's news of tags as bytes that a browser reads without copying: columns of numbers, little-endian.

    u32 magic "TWL1", u32 n, f64 now_ms, then columns of n each: f64 time_ms, f64 arrival_ms, f64 value,
    f64 estimate, f32 std, u32 index, u32 status, u32 reasons

Every column begins at a multiple of its own width. What is not known is NaN.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.kernel import kernel
from twinloop.web.look import TagsNow

__all__ = ["MAGIC", "changed_rows", "decode", "encode"]

MAGIC: Final = 0x314C5754
_HEAD: Final = struct.Struct("<IId")
_NONE: Final = np.int64(NO_TIME)
_COLUMNS: Final = {
    "time_ms": "<f8",
    "arrival_ms": "<f8",
    "value": "<f8",
    "estimate": "<f8",
    "std": "<f4",
    "index": "<u4",
    "status": "<u4",
    "reasons": "<u4",
}


def encode(now: TagsNow, rows: npt.NDArray[np.int64], now_ms: float) -> bytes:
    """A frame of some tags.

    Args:
        now: all tags.
        rows: the indices of those wanted.
        now_ms: this host's clock.
    """
    n = len(rows)
    # One pass over all columns: ten times a second, a call for each would cost more than what it does.
    wide, narrow = np.empty((4, n), "<f8"), np.empty((3, n), "<u4")
    std = np.empty(n, "<f4")
    columns = tuple(getattr(now, name) for name in TagsNow.__slots__)
    _gather(rows, columns, wide, std, narrow)
    return b"".join([_HEAD.pack(MAGIC, n, now_ms), wide.data, std.data, narrow.data])


@kernel
def _gather(
    rows: npt.NDArray[np.int64],
    now: tuple[npt.NDArray[Any], ...],
    wide: npt.NDArray[np.float64],
    std: npt.NDArray[np.float32],
    narrow: npt.NDArray[np.uint32],
) -> None:
    """The columns of some tags as a frame has them, shapes (4, n), (n,) and (3, n)."""
    time, arrival, value, estimate, deviation, status, reasons = now
    for at, row in enumerate(rows):
        wide[0, at] = np.nan if time[row] == _NONE else time[row] / 1e6
        wide[1, at] = np.nan if arrival[row] == _NONE else arrival[row] / 1e6
        wide[2, at] = value[row]
        wide[3, at] = estimate[row]
        std[at] = deviation[row]
        narrow[0, at] = row
        narrow[1, at] = status[row]
        narrow[2, at] = reasons[row]


def decode(frame: bytes) -> tuple[float, dict[str, npt.NDArray[Any]]]:
    """The inverse of `encode`: the clock's milliseconds, and the columns by name.

    Raises:
        ValueError: the bytes are no frame.
    """
    if len(frame) < _HEAD.size:
        raise ValueError("too short for a frame")
    magic, count, now_ms = _HEAD.unpack_from(frame)
    size = sum(np.dtype(kind).itemsize for kind in _COLUMNS.values())
    if magic != MAGIC or len(frame) != _HEAD.size + count * size:
        raise ValueError("not a frame")
    columns, at = {}, _HEAD.size
    for name, kind in _COLUMNS.items():
        columns[name] = np.frombuffer(frame, kind, count, at)
        at += columns[name].nbytes
    return now_ms, columns


def changed_rows(before: TagsNow, now: TagsNow) -> npt.NDArray[np.bool_]:
    """Which tags have a newer sample, or another status."""
    changed: npt.NDArray[np.bool_] = (
        (before.time != now.time)
        | (before.arrival != now.arrival)
        | (before.status != now.status)
        | (before.reasons != now.reasons)
    )
    return changed
