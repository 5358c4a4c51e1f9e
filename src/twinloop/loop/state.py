"""What there is to keep of a fold: a small part, and large arrays of which only changed pages are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["U32", "Change", "ChangedArray", "State"]

U32 = npt.NDArray[np.uint32]


class _Encoded(msgspec.Struct, frozen=True, array_like=True, tag="fold"):
    small: bytes
    arrays: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class State:
    """All of a fold's state.

    Attributes:
        small: what is not in the arrays.
        arrays: bytes by name; the fold's own memory where they were not read from a file.
    """

    small: bytes
    arrays: Mapping[str, bytes | memoryview]

    def encode(self) -> bytes:
        """One piece of bytes; for tests and small states, as it copies the whole."""
        return msgspec.msgpack.encode(_Encoded(self.small, {k: bytes(v) for k, v in self.arrays.items()}))

    @classmethod
    def decode(cls, data: bytes) -> State:
        """The inverse of `encode`. Raises msgspec.MsgspecError."""
        found = msgspec.msgpack.decode(data, type=_Encoded)
        return cls(found.small, found.arrays)


@dataclass(frozen=True, slots=True)
class ChangedArray:
    """An array's pages that changed; where the array was not, or not as long, they lie over zeros.

    Attributes:
        size: bytes of the whole array.
        numbers: the pages, ascending.
        data: their bytes end to end, the array's last page filled up with zeros.
    """

    name: str
    size: int
    numbers: U32
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a fold's state since it was last taken.

    Attributes:
        whole: it stands alone: all arrays were zeros before.
        time_ns: the newest time folded.
        small: all that is not in the arrays.
        arrays: every array the state has, also those without a changed page.
    """

    whole: bool
    time_ns: int
    small: bytes
    arrays: tuple[ChangedArray, ...]
