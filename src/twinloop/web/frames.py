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
from twinloop.web.look import TagsNow

__all__ = ["MAGIC", "changed_rows", "decode", "encode"]

MAGIC: Final = 0x314C5754
_HEAD: Final = struct.Struct("<IId")
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
    columns: dict[str, npt.NDArray[Any]] = {
        "time_ms": _milliseconds(now.time[rows]),
        "arrival_ms": _milliseconds(now.arrival[rows]),
        "value": now.value[rows],
        "estimate": now.estimate[rows],
        "std": now.std[rows],
        "index": rows,
        "status": now.status[rows],
        "reasons": now.reasons[rows],
    }
    parts = [np.ascontiguousarray(columns[name], kind).tobytes() for name, kind in _COLUMNS.items()]
    return b"".join([_HEAD.pack(MAGIC, len(rows), now_ms), *parts])


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


def _milliseconds(time_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.where(time_ns == NO_TIME, np.nan, time_ns / 1e6)
