"""Large state that changes in few places: an array with a mark on each page changed since it was last kept.

A stage whose state is mostly such arrays is `Paged`. A checkpoint then writes its small part and the pages
that changed, so that its cost goes with what happened since the last one and not with what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["PAGE_BYTES", "PAGE_SHIFT", "Paged", "Pages", "take_up", "whole"]

PAGE_SHIFT: Final = 10
"""A kernel that writes the byte at `b` of an array sets `dirty[b >> PAGE_SHIFT]`."""
PAGE_BYTES: Final = 1 << PAGE_SHIFT

U8 = npt.NDArray[np.uint8]


class Pages:
    """An array of zeros at first, in pages of `PAGE_BYTES`.

    Args:
        dtype, shape: of the array.

    Attributes:
        array: the array itself; whoever writes to it marks the pages it wrote.
        dirty: one mark a page, 1 where it changed since the last `clean`, shape (n_pages,).
    """

    def __init__(self, dtype: npt.DTypeLike, shape: int | tuple[int, ...]) -> None:
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        count = (size + PAGE_BYTES - 1) >> PAGE_SHIFT
        self._bytes: U8 = np.zeros(count << PAGE_SHIFT, np.uint8)
        self.array: npt.NDArray[Any] = self._bytes[:size].view(kind).reshape(shape)
        self.dirty: U8 = np.zeros(count, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.array.nbytes

    def changed(self) -> tuple[npt.NDArray[np.int64], memoryview]:
        """The numbers of the pages marked, ascending, and their bytes end to end; a copy.

        The last page is filled up with zeros.
        """
        numbers = np.flatnonzero(self.dirty)
        return numbers, self._bytes.reshape(-1, PAGE_BYTES)[numbers].reshape(-1).data

    def clean(self) -> None:
        """Take all marks away: what `changed` gave is kept."""
        self.dirty[:] = 0

    def soil(self) -> None:
        """Mark every page: nothing kept so far has this array's layout."""
        self.dirty[:] = 1

    def fill(self, data: bytes | memoryview) -> None:
        """Take up an array's bytes; every page is clean then.

        Raises:
            ValueError: it is not as many bytes.
        """
        if len(data) != self.nbytes:
            raise ValueError(f"an array of {self.nbytes} bytes cannot take up {len(data)}")
        self._bytes[: self.nbytes] = np.frombuffer(data, np.uint8)
        self.clean()


@runtime_checkable
class Paged(Protocol):
    """A part of the fold whose state is a small part and some `Pages`."""

    @property
    def pages(self) -> Mapping[str, Pages]:
        """The arrays by name; the same objects until `adopt`."""
        ...

    def small(self) -> bytes:
        """All of the state that is not in `pages`, and what `adopt` needs to make sense of them."""
        ...

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        """Take up a state. Where an array's layout is as it was its pages are clean then, else all marked.

        Raises:
            ValueError: it is not a state of this part and version.
        """
        ...


class _Whole(msgspec.Struct, frozen=True, array_like=True, tag="paged"):
    small: bytes
    arrays: dict[str, bytes]


def whole(part: Paged) -> bytes:
    """The part's whole state as one piece of bytes; changes no mark."""
    arrays = {name: pages.array.tobytes() for name, pages in part.pages.items()}
    return msgspec.msgpack.encode(_Whole(part.small(), arrays))


def take_up(part: Paged, state: bytes) -> None:
    """The inverse of `whole`.

    Raises:
        ValueError: the bytes are not a state of this part and version.
    """
    try:
        kept = msgspec.msgpack.decode(state, type=_Whole)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a paged state: {error}") from error
    part.adopt(kept.small, kept.arrays)
