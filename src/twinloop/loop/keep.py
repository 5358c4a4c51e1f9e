"""Keeping the fold's state: taken up at the start, written as it changes, the log let go of the rest."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from twinloop.errors import LogError, LogGap
from twinloop.log.log import Log
from twinloop.loop.checkpoint import Checkpoint, Checkpoints
from twinloop.loop.fold import Fold

__all__ = ["Keeper", "Reached"]

_log = logging.getLogger("twinloop.loop")


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a fold is: the newest offset folded, and the bytes of that record where they are known."""

    offset: int
    data: bytes | None


class Keeper:
    """Checkpoints of one log's fold.

    Args:
        checkpoints: None to keep nothing.
        log: what is folded.
    """

    def __init__(self, checkpoints: Checkpoints | None, log: Log) -> None:
        self._checkpoints = checkpoints
        self._log = log
        self._one_at_a_time = asyncio.Lock()

    def restore(self, fold: Fold, new_fold: Callable[[], Fold]) -> tuple[Fold, int]:
        """The fold in the newest state that fits this log and this program, and the offset that covers.

        Args:
            fold: one that knows nothing yet.
            new_fold: makes another.

        Returns:
            A fold that knows nothing, and -1, where no state can be used.
        """
        checkpoints, covered = self._checkpoints, -1
        if checkpoints is None:
            return fold, covered
        checkpoints.tidy()
        for checkpoint in checkpoints.load():
            try:
                self._check_record(checkpoint)
                fold.adopt(checkpoint.state)
            except LogError as error:
                _log.warning("the checkpoint at offset %d is not used: %s", checkpoint.offset, error)
                fold = new_fold()
                continue
            checkpoints.go_on_from(checkpoint)
            covered = checkpoint.offset
            break
        if covered < (newest := checkpoints.newest_offset(named=True)):
            self._tell_cost(newest, covered, fold)
        return fold, covered

    def _check_record(self, checkpoint: Checkpoint) -> None:
        """Raise LogError where the state is of another log, or of records this one does not have yet."""
        offset, record, last = checkpoint.offset, checkpoint.header.record, self._log.stats().last_offset
        if offset > last:
            raise LogError(f"the log ends at offset {last}, and records up to there would be left out")
        if offset < 0 or record is None:
            return
        try:
            entries = self._log.read(offset - 1, 1)
        except LogGap:
            if offset == last:  # else the record was trimmed
                _log.warning(
                    "the log's end was removed or damaged: the checkpoint at offset %d goes further. What it "
                    "covers stays folded; new records begin at offset %d",
                    offset,
                    offset + 1,
                )
            return
        if entries and zlib.crc32(entries[0][1]) != record:
            raise LogError("it is of another log: the record there is not the one it was made after")

    def _tell_cost(self, newest: int, covered: int, fold: Fold) -> None:
        """Say what it costs that the newest checkpoint cannot be used."""
        stats = self._log.stats()
        records = max(0, stats.last_offset - max(covered, stats.first_offset - 1))
        if covered >= 0:
            since = f"on from the checkpoint at offset {covered} ({np.datetime64(fold.time, 'ns')}Z)"
        else:
            since = f"from an empty state at the log's oldest entry, offset {stats.first_offset}"
        _log.warning(
            "the newest checkpoint, at offset %d, cannot be used: the fold goes %s, %d records again",
            newest,
            since,
            records,
        )

    async def keep(
        self, fold: Fold, reached: Callable[[], Reached], safe: Callable[[], Awaitable[None]]
    ) -> None:
        """Write what has changed, and let the log go of what two checkpoints cover.

        Args:
            fold: the fold.
            reached: how far it is.
            safe: returns when the outputs made so far survive a power cut.

        Raises:
            LogError: it cannot be written.
        """
        checkpoints = self._checkpoints
        if checkpoints is None:
            return
        async with self._one_at_a_time:
            at = reached()
            if checkpoints.covered == at.offset:
                return
            if checkpoints.wants_whole:
                fold.soil()
            change = fold.change()
            record = None if at.data is None else zlib.crc32(at.data)
            try:
                await safe()
                kept = await asyncio.to_thread(checkpoints.save, at.offset, change, record)
            except BaseException:
                # Whether or not it was written: what is taken next must not rest on it.
                fold.soil()
                raise
            self._log.release(kept)

    async def merge(self, *, pressed: bool = False) -> None:
        """Make a base of what has gathered, where that is due, and let the log go of what it covers.

        Args:
            pressed: whether the log needs room.
        """
        checkpoints = self._checkpoints
        if checkpoints is None:
            return
        async with self._one_at_a_time:
            if checkpoints.is_merge_due(pressed=pressed):
                self._log.release(await asyncio.to_thread(checkpoints.merge))

    def hurry(self) -> None:
        """The run is ending: a merge under way is given up, and none is begun."""
        if self._checkpoints is not None:
            self._checkpoints.hurry()
