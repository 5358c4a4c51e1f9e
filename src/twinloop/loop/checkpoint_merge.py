"""A base and the increments on it, put together: into a state in memory, or page by page into a new base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from twinloop.loop.checkpoint_file import PAGES_AT_ONCE, ArrayHeader, Header, Reader, portions, write_file
from twinloop.loop.state import U32, State
from twinloop.pages import PAGE_BYTES

__all__ = ["merge_files", "read_state"]

U8 = npt.NDArray[np.uint8]


def read_state(paths: Sequence[Path]) -> State:
    """The state that a base and the increments on it give, oldest first; all that is used of them is checked.

    Raises:
        DamagedError: one cannot be used.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(path)) for path in paths]
        arrays = {array.name: _laid(array, readers) for array in readers[-1].header.arrays}
        return State(readers[-1].small(), arrays)


def _laid(array: ArrayHeader, readers: Sequence[Reader]) -> memoryview:
    laid: U8 = np.zeros((_page_count(array), PAGE_BYTES), np.uint8)
    for reader, there in _layers(array, readers):
        numbers, done = reader.numbers(there), 0
        for data in reader.pages(there, portions(there.pages)):
            at = numbers[done : done + len(data) // PAGE_BYTES]
            laid[at] = _as_pages(data)
            done += len(at)
    return laid.reshape(-1)[: array.size].data


def _page_count(array: ArrayHeader) -> int:
    return -(-array.size // PAGE_BYTES)


def _as_pages(data: bytes) -> U8:
    return np.frombuffer(data, np.uint8).reshape(-1, PAGE_BYTES)


def _layers(array: ArrayHeader, readers: Sequence[Reader]) -> list[tuple[Reader, ArrayHeader]]:
    """The files whose pages of an array count, oldest first: those before it had another length do not."""
    layers: list[tuple[Reader, ArrayHeader]] = []
    for reader in reversed(readers):
        there = reader.array(array.name)
        if there is None or there.size != array.size:
            break
        layers.append((reader, there))
    return layers[::-1]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one array is merged: its layers, the numbers of each one's pages, and of all."""

    array: ArrayHeader
    layers: list[tuple[Reader, ArrayHeader]]
    numbers: list[U32]
    union: U32

    @classmethod
    def of(cls, array: ArrayHeader, readers: Sequence[Reader]) -> _Plan:
        layers = _layers(array, readers)
        numbers = [reader.numbers(there) for reader, there in layers]
        union = np.unique(np.concatenate(numbers)).astype(np.uint32)
        return cls(array, layers, numbers, union)

    def pages(self) -> Iterator[bytes]:
        """The newest of each page, ascending, in portions: little of the array is in memory at a time."""
        edges = np.arange(0, _page_count(self.array) + PAGES_AT_ONCE, PAGES_AT_ONCE)
        cuts = [np.searchsorted(numbers, edges) for numbers in self.numbers]
        streams = [
            reader.pages(there, np.diff(cut).tolist())
            for (reader, there), cut in zip(self.layers, cuts, strict=True)
        ]
        # Every stream is read to its end, where its checksum is looked at.
        for window, parts in enumerate(zip(*streams, strict=True)):
            laid: U8 = np.zeros((PAGES_AT_ONCE, PAGE_BYTES), np.uint8)
            there = np.zeros(PAGES_AT_ONCE, np.bool_)
            for numbers, cut, data in zip(self.numbers, cuts, parts, strict=True):
                at = numbers[cut[window] : cut[window + 1]] - edges[window]
                laid[at], there[at] = _as_pages(data), True
            if there.any():
                yield laid[there].tobytes()


def merge_files(paths: Sequence[Path], target: Path, *, go_on: Callable[[], None] = lambda: None) -> Header:
    """Write a base that holds what a base and the increments on it give; see `write_file`.

    Raises:
        DamagedError: one of them cannot be used.
        OSError: the disk would not take the new one.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(path)) for path in paths]
        newest = readers[-1]
        plans = [_Plan.of(array, readers) for array in newest.header.arrays]
        arrays = [ArrayHeader(plan.array.name, plan.array.size, len(plan.union)) for plan in plans]
        header = replace(newest.header, on="", arrays=arrays)
        write_file(
            target, header, newest.small(), ((plan.union, plan.pages()) for plan in plans), go_on=go_on
        )
        return header
