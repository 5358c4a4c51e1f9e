"""Entries for a log's laws about room."""

from __future__ import annotations

import random

__all__ = ["dense"]


def dense(size: int, seed: int = 0) -> bytes:
    """Bytes that no packing makes fewer."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret
