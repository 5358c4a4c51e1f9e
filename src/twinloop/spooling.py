"""Spools beside the log: worked off by the twin that runs, or here where none does."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from twinloop.build import build_loop
from twinloop.config.models import PlantConfig
from twinloop.errors import StartError
from twinloop.loop.metrics import Metrics
from twinloop.sources.refeed import FOLDER
from twinloop.workplace import holder_of, workplace

__all__ = ["Waiting", "alone", "feed"]

_LOOK_S: Final = 0.1


class Waiting(Protocol):
    """A spool."""

    def waiting(self) -> list[Path]:
        """The files there are."""
        ...


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep other re-feedings and imports out meanwhile.

    Raises:
        StartError: one is under way.
    """
    if not data_dir.is_dir():
        yield  # where there is no data, what follows says so
        return
    try:
        (data_dir / FOLDER).mkdir(exist_ok=True)
        with (data_dir / FOLDER / "lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise StartError(f"another `twinloop refeed` or `import` is under way in {data_dir}") from None


async def feed(config: PlantConfig, spool: Waiting, patience_s: float) -> bool:
    """Whether the spool was emptied; False where the twin that should do it does nothing for too long.

    Raises:
        LogError: no twin runs, and a log, the dictionary or a file of the spool cannot be used now.
    """
    before, since_s = len(spool.waiting()), time.monotonic()
    while count := len(spool.waiting()):
        if not holder_of(config.data_dir):
            await _feed_here(config)
            return not spool.waiting()
        if count != before:
            before, since_s = count, time.monotonic()
        if time.monotonic() - since_s > patience_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def _feed_here(config: PlantConfig) -> None:
    with workplace(config) as place:
        await build_loop(place, Metrics(), only_refeed=True).run(asyncio.Event())
