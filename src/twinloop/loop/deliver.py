"""From the output log into the store: a reader with its own progress, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from twinloop.errors import LogError, LogGap, StoreBusy
from twinloop.log.log import Log
from twinloop.records import decode_outputs
from twinloop.stores.store import Store

__all__ = ["StoreReader"]

_log = logging.getLogger("twinloop.store")

_AT_ONCE: Final = 2000
_PAUSE_S: Final = 0.2


class StoreReader:
    """Delivers outputs to a store, again and again until it takes them; the loop never waits for it.

    Args:
        outputs: the output log; what the store has for good is released there.
        store: its blocking methods run on one thread, so one call is over before the next begins.
        lost: told of outputs that are gone before the store had them.
    """

    def __init__(self, outputs: Log, store: Store, lost: Callable[[LogGap], None] = lambda _: None) -> None:
        self._outputs = outputs
        self._store = store
        self._lost = lost
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._taken = -1
        self._refused_at: int | None = None

    @property
    def lag(self) -> int:
        """Outputs the store does not have for good yet."""
        return self._outputs.stats().last_offset - self._store.covered

    @property
    def taken(self) -> int:
        """The newest offset the store has taken, for good or not."""
        return max(self._taken, self._store.covered)

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._taken = self._store.covered
        while True:
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

    async def _deliver(self) -> bool:
        """One portion; whether it was a full one."""
        entries = self._outputs.read(self._taken, _AT_ONCE)
        decoded = [(offset, decode_outputs(data)) for offset, data in entries]
        # Never let the store seal what a power cut could still take from the output log: those offsets
        # would be given out again, and the store would skip what then stands there.
        await self._outputs.sync()
        await self._work(self._store.write, decoded)
        self._taken = entries[-1][0]
        self._outputs.release(self._store.covered)
        if self._refused_at is not None and self._store.covered > self._refused_at:
            _log.info("store: writing again")
            self._refused_at = None
        return len(entries) == _AT_ONCE

    def _refuse(self, busy: StoreBusy) -> None:
        if self._refused_at is None:
            _log.warning("store: %s; trying again until it works", busy)
            self._refused_at = self._store.covered

    async def _work(self, method: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, method, *arguments)

    async def close(self) -> None:
        """Let the store seal what it has taken; what it refuses stays in the output log."""
        try:
            await self._outputs.sync()
            await self._work(self._store.close)
        except (StoreBusy, LogError) as error:
            _log.warning("store: %s; what it lacks stands in the output log until the next start", error)
        self._thread.shutdown(wait=False)
        self._outputs.release(self._store.covered)
