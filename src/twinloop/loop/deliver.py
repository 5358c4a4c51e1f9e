"""From the output log into the store: a reader with its own progress, on a thread of its own.

A store that was away gets what it lacks in the order of the log. While that takes, a second reader follows
the log's end, so that the newest values can be asked for as if there were no backlog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple, Unpack

from twinloop.errors import LogError, LogGap, StoreBusy
from twinloop.log.log import Log
from twinloop.records import Outputs, decode_outputs
from twinloop.stores.store import Follower, Store

__all__ = ["StoreReader"]

_log = logging.getLogger("twinloop.store")

_AT_ONCE: Final = 2000
_PAUSE_S: Final = 0.2
_BEHIND_S: Final = 0.5
_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class StoreReader:
    """Delivers outputs to a store, again and again until it takes them; the loop never waits for it.

    Args:
        outputs: the output log; what the store has for good is released there.
        store: its blocking methods run on one thread, so one call is over before the next begins.
        lost: told of outputs that are gone before the store had them.
        follower: keeps the newest values while the store lags; None for nobody.
    """

    def __init__(
        self,
        outputs: Log,
        store: Store,
        lost: Callable[[LogGap], None] = lambda _: None,
        follower: Follower | None = None,
    ) -> None:
        self._outputs = outputs
        self._store = store
        self._lost = lost
        self._follower = follower
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._second = ThreadPoolExecutor(1, thread_name_prefix="newest")
        self._taken = -1
        self._followed: int | None = None
        self._refused_at: int | None = None

    @property
    def lag(self) -> int:
        """Outputs the store does not have for good yet."""
        return self._outputs.stats().last_offset - self._store.covered

    @property
    def taken(self) -> int:
        """The newest offset the store has taken, for good or not."""
        return max(self._taken, self._store.covered)

    @property
    def is_refused(self) -> bool:
        """Whether the store has refused what it was given, and has not gone on since."""
        return self._refused_at is not None

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._taken = self._store.covered
        following = asyncio.create_task(self._keep_up())
        relieving = asyncio.create_task(self._relieve())
        try:
            while not (following.done() or relieving.done()):
                await self._outputs.wait(self._taken)
                try:
                    full = await self._deliver()
                except StoreBusy as busy:
                    self._refuse(busy)
                    await asyncio.sleep(busy.retry_after_s)
                    continue
                except LogGap as gap:
                    self._lost(gap)
                    self._taken = gap.last
                    continue
                if not full:
                    await asyncio.sleep(_PAUSE_S)
            for task in (following, relieving):
                if task.done():
                    task.result()
        finally:
            following.cancel()
            relieving.cancel()

    async def _relieve(self) -> None:
        """While the output log is full, let the store seal what it has: the fold waits for the room."""
        while True:
            await self._outputs.pressed()
            before = self._store.covered
            if self.taken > before:
                with suppress(StoreBusy):  # `run` tells of it, and tries again
                    await self._work(self._store.seal)
                self._outputs.release(self._store.covered)
            if self._store.covered == before:
                await asyncio.sleep(_PAUSE_S)

    async def _deliver(self) -> bool:
        """One portion; whether there is more."""
        there = self._outputs.stats().last_offset
        entries = await self._work(self._read, self._taken)
        # Never let the store seal what a power cut could still take from the output log: those offsets
        # would be given out again, and the store would skip what then stands there.
        await self._outputs.sync()
        await self._work(self._store.write, entries)
        self._taken = entries[-1][0]
        self._outputs.release(self._store.covered)
        if self._refused_at is not None and self._store.covered > self._refused_at:
            _log.info("store: writing again")
            self._refused_at = None
        return self._taken < there

    def _read(self, after: int) -> list[tuple[int, Outputs]]:
        return [(offset, decode_outputs(data)) for offset, data in self._outputs.read(after, _AT_ONCE)]

    async def _keep_up(self) -> None:
        """While the store lacks what was there half a second ago, follow the log's end in its place."""
        follower = self._follower
        if follower is None:
            await asyncio.Event().wait()
        while follower is not None:
            there = self._outputs.stats().last_offset
            await asyncio.sleep(_BEHIND_S)
            if self.taken >= there:
                self._followed = None
                continue
            loop = asyncio.get_running_loop()
            before = self._followed
            while await loop.run_in_executor(self._second, self._follow, follower):
                pass
            if self._followed is not None and self._followed != before:
                await self._outputs.sync()  # else a power cut could take what is kept of it
                await loop.run_in_executor(self._second, follower.save, self._followed)

    def _follow(self, follower: Follower) -> bool:
        """One portion of the log's end; whether there is more."""
        if self._followed is None:
            self._followed = follower.begin(self._store.covered)
        if self._followed is None:
            return False
        try:
            entries = self._read(self._followed)
        except LogGap as gap:  # trimmed since, and so the store has it, or dropped for good
            begun = follower.begin(self._store.covered)
            self._followed = None if begun is None else max(begun, gap.last)
            return begun is not None
        if entries:
            follower.add(entries)
            self._followed = entries[-1][0]
        return bool(entries)

    def _refuse(self, busy: StoreBusy) -> None:
        if self._refused_at is None:
            _log.warning("store: %s; trying again until it works", busy)
            self._refused_at = self._store.covered

    async def _work(self, method: Callable[[Unpack[_Arguments]], _T], *arguments: *_Arguments) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, method, *arguments)

    async def close(self) -> None:
        """Let the store seal what it has taken; what it refuses stays in the output log."""
        try:
            await self._outputs.sync()
            await self._work(self._store.close)
        except (StoreBusy, LogError) as error:
            _log.warning("store: %s; what it lacks stands in the output log until the next start", error)
        else:
            if self.is_refused and self.taken < self._outputs.stats().last_offset:
                _log.warning("store: what it lacks stands in the output log until the next start")
        self._thread.shutdown(wait=False)
        self._second.shutdown(wait=False)
        self._outputs.release(self._store.covered)
