"""Small segments merged into large ones, some tags at a time: memory does not grow with them. Old ones go.

Segments of one level, of consecutive offsets, become one of the next level, with what the other kinds have in
the same range. A merge only adds files whose range contains that of others, so it may be given up at any
time, and runs beside seals and questions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from twinloop.memory import give_back
from twinloop.stores.footers import (
    Brief,
    DamagedError,
    brief,
    footer,
    forget,
    is_damage,
    read_groups,
    read_segment,
)
from twinloop.stores.minutes import parts_of
from twinloop.stores.retention import Retention, let_go
from twinloop.stores.rows import KINDS, SCHEMAS, by_time, first_stored
from twinloop.stores.segments import Segment, footer_of, list_segments, open_segment, write_segment

__all__ = ["Merger", "choose", "make_minutes", "merge"]

_log = logging.getLogger("twinloop.store")

MERGE_COUNT: Final = 8
MERGE_WIDTH: Final = 64
"""The most at once. What is behind catches up in one step: a row merged eight by eight is written twice."""
FLOOD_S: Final = 10.0
"""So long after the last seal for size alone a flood is over."""
MERGE_ROWS: Final = 1 << 27
"""A segment of half as many is left alone."""
MERGE_SPAN_MS: Final = 26 * 3_600_000
"""About a day, by arrival: what is kept no longer goes a segment at a time."""
BESIDE_BYTES: Final = 64 << 20
"""Other kinds are merged in memory, and left in their parts where these are larger."""
PART_ROWS: Final = 1_000_000
_TAGS_END: Final = 2**31 - 1
_BESIDE: Final = tuple(kind for kind in KINDS if kind not in {"samples", "minutes"})


class Merger:
    """Merges a store's segments whenever it is woken, until there is nothing worth merging.

    Args:
        directory: the store's.
        damaged: told of a segment that cannot be read; sets it aside.
        retention: what goes when; None keeps everything.
        background: on a thread of its own, which lets others go first; within `wake` otherwise.
    """

    def __init__(
        self,
        directory: Path,
        damaged: Callable[[Segment], None],
        retention: Retention | None = None,
        *,
        background: bool,
    ) -> None:
        self._directory = directory
        self._damaged = damaged
        self._retention = retention
        self._background = background
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._flooded = False
        self._closing = False
        self._fails = False
        self.merges = self.failures = 0

    def wake(self, *, flooded: bool = False) -> None:
        """There may be something to merge; in a flood it waits until that is over, or very much.

        A flood has better use for the time, and what gathers meanwhile is merged in fewer steps.
        """
        if not self._background:
            self._work(MERGE_COUNT)
            return
        self._flooded = flooded
        self._wanted.set()
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="merge", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Give up what is being merged; it is begun again some other time."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        _lower_priority()
        while not self._closing:
            if not self._wanted.wait(FLOOD_S if self._flooded else None):
                self._flooded = False
            self._wanted.clear()
            self._work(MERGE_WIDTH if self._flooded else MERGE_COUNT)

    def _work(self, least: int) -> None:
        try:
            while not self._closing and self._step(least):
                pass
        except Abandoned:
            return
        except Exception as error:  # noqa: BLE001 - answers stay whole without merges; a dead thread would be for good
            self.failures += 1
            if not self._fails:
                _log.warning("%s: cannot merge segments, answers stay whole: %s", self._directory, error)
            self._fails = True
        else:
            self._fails = False

    def _step(self, least: int) -> bool:
        """Let go of what is old and merge what is many, once; whether there may be more to do."""
        try:
            self._let_go()
            chosen = choose(self._directory, least)
            if chosen:
                merge(self._directory, chosen, lambda: self._closing)
                self.merges += 1
        except DamagedError as damaged:
            self._damaged(damaged.segment)
            return True
        return bool(chosen)

    def _let_go(self) -> None:
        if self._retention is None:
            return
        old = let_go(self._directory, self._retention, time.time_ns(), make_minutes)
        if old:
            _log.info("store: %d segments older than they are kept are gone", old)


class Abandoned(Exception):  # noqa: N818 - no error: the store is being closed
    """A merge was given up half way; nothing of it is left but whole files of other kinds."""


def _lower_priority() -> None:
    """Let this thread wait for the others, where the system can tell threads apart (Linux)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    except (AttributeError, OSError):
        return


def choose(directory: Path, least: int | None = None) -> list[Segment]:
    """Neighbours of one level, oldest first, once they are worth merging; the newest of those there are.

    Args:
        directory: the store's.
        least: how many are; `MERGE_COUNT` by default.
    """
    for run in reversed(_runs(list_segments(directory).of("samples"))):
        if len(run) < (least or MERGE_COUNT) and _fits(run):
            continue
        chosen: list[Segment] = []
        for segment in run[:MERGE_WIDTH]:
            if chosen and not _fits([*chosen, segment]):
                break
            chosen.append(segment)
        if len(chosen) > 1:
            return chosen
    return []


def _runs(segments: list[Segment]) -> list[list[Segment]]:
    """Neighbours of one level without a hole between them; none that is large enough or a stand-in."""
    runs: list[list[Segment]] = []
    level, end = -1, -1
    for segment in segments:
        said = _brief(segment)
        if said.lost or said.gone or said.rows > MERGE_ROWS // 2 or _span_ms([said]) > MERGE_SPAN_MS // 2:
            level = -1
        elif said.level == level and segment.first == end + 1:
            runs[-1].append(segment)
        else:
            runs.append([segment])
            level = said.level
        end = segment.last
    return runs


def _fits(segments: list[Segment]) -> bool:
    """Whether they are not too much for one segment."""
    said = [_brief(segment) for segment in segments]
    return sum(each.rows for each in said) <= MERGE_ROWS and _span_ms(said) <= MERGE_SPAN_MS


def _span_ms(said: list[Brief]) -> int:
    """From when the samples of the first came to when those of the last did; a few strays do not count."""
    arrived = [each.arrived for each in said if each.arrived]
    return max(0, arrived[-1][1] - arrived[0][0]) if arrived else 0


def _brief(segment: Segment) -> Brief:
    with _naming(segment):
        return brief(segment)


def merge(directory: Path, chosen: list[Segment], given_up: Callable[[], bool] = lambda: False) -> None:
    """One segment a kind in place of the chosen ones and of what other kinds have in their range.

    Args:
        directory: the store's.
        chosen: segments of samples, ascending, without gaps.
        given_up: asked now and then.

    Raises:
        Abandoned: it was given up.
        DamagedError: a segment cannot be read; nothing of its kind was merged.
        OSError: the disk would not take it, or would not give it.
    """
    first, last = chosen[0].first, chosen[-1].last
    level = _brief(chosen[0]).level + (2 if len(chosen) >= MERGE_COUNT**2 else 1)
    listing = list_segments(directory)
    for kind in _BESIDE:
        parts = [each for each in listing.of(kind) if first <= each.first and each.last <= last]
        if not parts or sum(part.path.stat().st_size for part in parts) > BESIDE_BYTES:
            continue
        table = _together(parts)
        if table is None:
            continue
        table = first_stored(table) if "tag" in SCHEMAS[kind].names else by_time(table)
        write_segment(Segment(first, last, kind, directory), table, level=level)
    try:
        _merge_samples(directory, chosen, level, given_up)
    finally:
        forget(chosen)
        give_back()


def _together(parts: list[Segment]) -> pa.Table | None:
    """All rows of some segments; None where there are none, or too many bytes for memory."""
    tables, held = [], 0
    for part in parts:
        with _naming(part):
            tables.append(read_segment(part))
        held += tables[-1].nbytes
        if held > BESIDE_BYTES:
            return None
    return pa.concat_tables(tables) if tables else None


def _merge_samples(directory: Path, chosen: list[Segment], level: int, given_up: Callable[[], bool]) -> None:
    """Samples come into place first: without minutes they are asked themselves."""
    samples = Segment(chosen[0].first, chosen[-1].last, "samples", directory)
    minutes = Segment(samples.first, samples.last, "minutes", directory)
    arrived = [said for each in chosen if (said := _brief(each).arrived)]
    meta = {"arrived": (arrived[0][0], arrived[-1][1]) if arrived else None}
    with open_segment(samples, level) as rows, open_segment(minutes, level) as rollups:
        for low, high in _portions(chosen):
            if given_up():
                raise Abandoned
            table = first_stored(pa.concat_tables([_tags(part, low, high) for part in chosen]))
            rows.add(table)
            rollups.add(parts_of(table))
        rows.place(footer_of(samples, level) | meta)
        rollups.place(footer_of(minutes, level))


def make_minutes(samples: Segment) -> None:
    """The minutes of a segment of samples, some tags at a time. Raises as `merge`."""
    minutes = Segment(samples.first, samples.last, "minutes", samples.directory)
    level = _brief(samples).level
    with open_segment(minutes, level) as rollups:
        for low, high in _portions([samples]):
            rollups.add(parts_of(_tags(samples, low, high)))
        rollups.place(footer_of(minutes, level))


def _portions(segments: list[Segment]) -> Iterator[tuple[int, int]]:
    """Ranges of tags (end not included), each of about `PART_ROWS` rows or of one tag that has more."""
    ends, rows = [], []
    for segment in segments:
        with _naming(segment):
            said = footer(segment)
        ends += said.groups[:, 1].tolist()
        rows += said.groups[:, 4].tolist()
    order = np.argsort(np.array(ends, np.int64), kind="stable")
    low = gathered = 0
    for at in order.tolist():
        if gathered + rows[at] > PART_ROWS and ends[at] > low and gathered:
            yield low, ends[at]
            low, gathered = ends[at], 0
        gathered += rows[at]
    yield low, _TAGS_END


def _tags(segment: Segment, low: int, high: int) -> pa.Table:
    """A segment's rows of the tags [low, high)."""
    with _naming(segment):
        said = footer(segment)
        meets = (said.groups[:, 0] < high) & (said.groups[:, 1] >= low)
        groups = np.flatnonzero(meets).tolist()
        table = read_groups(segment, groups, SCHEMAS[segment.kind].names)
    tag = table["tag"].to_numpy()
    first, last = np.searchsorted(tag, [low, high])
    return table.slice(int(first), int(last - first))


@contextlib.contextmanager
def _naming(segment: Segment) -> Iterator[None]:
    """Names the segment where what is read is wrong; lets the system's own refusals pass."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        if not is_damage(error):
            raise
        raise DamagedError(segment, error) from error
