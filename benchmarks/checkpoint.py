"""A checkpoint after a minute of samples beside one of the whole state, and what merging and loading take.

python benchmarks/checkpoint.py [tags ...]

The state is as large as a plant's: a tag's last 4,096 samples of 16 bytes for the validation, 64 of 64 bytes
for the filter, and 600 bytes of everything else. "On the fold" is the time in which nothing is folded.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from twinloop.log.dictionary import Dictionary
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.pages import PAGE_SHIFT, Pages
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.tags import Resolver, TagTable
from twinloop.twin.twin import Twin

A_MINUTE = 60
T = TypeVar("T")


class History:
    """The last samples of each tag, in a ring of its own."""

    def __init__(self, tags: int, depth: int, size: int, small: int) -> None:
        self._ring = Pages(np.uint8, (tags, depth, size))
        self._small = bytes(small * tags)
        self._depth, self._size = depth, size
        self._head = 0

    @property
    def pages(self) -> Mapping[str, Pages]:
        """The ring."""
        return {"ring": self._ring}

    def note(self, samples: int) -> None:
        """So many new samples of each tag; a tag's ring begins where chance has left it."""
        array, tags = self._ring.array, len(self._ring.array)
        begin = np.arange(tags) * 2654435761 % self._depth + self._head
        for sample in range(samples):
            slot = (begin + sample) % self._depth
            array[np.arange(tags), slot] = sample % 251 + 1
            first = (np.arange(tags) * self._depth + slot) * self._size
            self._ring.dirty[first >> PAGE_SHIFT] = 1
            self._ring.dirty[(first + self._size - 1) >> PAGE_SHIFT] = 1
        self._head += samples

    def small(self) -> bytes:
        """Everything else."""
        return self._small

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        """Take up both."""
        self._small = small
        self._ring.fill(arrays["ring"])


def plant(tags: int) -> tuple[Fold, list[History]]:
    """A fold with such a state, and the parts of it that remember samples."""
    table = TagTable([])
    twin = Twin([], table)
    fold = Fold(
        RouteStage(Resolver(table, {}), Dictionary(None).key),
        ValidateStage(table),
        ImputeStage(table, twin.model_value),
        EstimateStage(table),
        twin,
    )
    parts = [History(tags, 4096, 16, 400), History(tags, 64, 64, 200)]
    fold._parts = {"validate": parts[0], "estimate": parts[1]}  # noqa: SLF001 - in place of the real ones
    return fold, parts


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds it took, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def told(tags: int, what: str, on_the_fold: float | None, elsewhere: float, size: int) -> None:
    """Print a line."""
    fold = f"{1e3 * on_the_fold:10.1f}" if on_the_fold is not None else " " * 10
    print(f"{tags:7,} {what:38} {fold} {1e3 * elsewhere:12.0f} {size / 1e6:9.1f}")


def in_one_piece(fold: Fold, path: Path) -> tuple[float, float, int]:
    """What a checkpoint of version 1 takes, on the fold and elsewhere, and its bytes."""
    took, state = timed(fold.snapshot)

    def write() -> None:
        zlib.crc32(state)
        with path.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())

    wrote, _ = timed(write)
    path.unlink()
    return took, wrote, len(state)


def measure(tags: int, folder: Path) -> None:
    """Print the lines of one size of plant."""
    fold, parts = plant(tags)
    for part in parts:
        part.note(4096)
    checkpoints = Checkpoints(folder / "checkpoints")

    took, wrote, size = in_one_piece(fold, folder / "whole")
    told(tags, "whole, in one piece (version 1)", took, wrote, size)
    took, change = timed(fold.change)
    wrote, _ = timed(lambda: checkpoints.save(0, change))
    told(tags, "whole, in pages (the first)", took, wrote, size_of(folder))
    del change
    on_the_fold, elsewhere, written = [], [], []
    for minute in range(1, 6):
        for part in parts:
            part.note(A_MINUTE)
        before = size_of(folder)
        took, change = timed(fold.change)
        wrote, _ = timed(lambda: checkpoints.save(minute, change))  # noqa: B023 - called at once
        on_the_fold.append(took)
        elsewhere.append(wrote)
        written.append(size_of(folder) - before)
    middle = sorted(on_the_fold)[2], sorted(elsewhere)[2], sorted(written)[2]
    told(tags, "what a minute changed (median of 5)", *middle)
    before = size_of(folder)
    took, _ = timed(checkpoints.merge)
    told(tags, "merge of base and increments", None, took, size_of(folder) - before)
    again, _ = plant(tags)
    took, checkpoint = timed(lambda: next(Checkpoints(folder / "checkpoints").load()))
    more, _ = timed(lambda: again.adopt(checkpoint.state))
    told(tags, "load", None, took + more, 0)
    assert again.digest() == fold.digest()


def size_of(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Print the table."""
    sizes = [int(each) for each in sys.argv[1:]] or [1_000, 10_000]
    print(f"{'tags':>7} {'':38} {'on the fold':>10} {'elsewhere ms':>12} {'MB':>9}")
    for tags in sizes:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            measure(tags, Path(folder))


if __name__ == "__main__":
    main()
