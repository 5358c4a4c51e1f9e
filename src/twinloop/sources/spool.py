"""What sources that read a spool beside the log have in common: each file is delivered once.

Only a file whose bytes are none of a spool is set aside. Whatever else stands in the way (a full disk, too
many open files, a ledger that cannot be read) passes: the file stays, and those after it wait for it, so that
rows come in the order they were put.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final

from twinloop.errors import LinkError, LogError, SpoolDamage, TwinloopError
from twinloop.sources.source import Delivery, Reading

__all__ = ["SpoolSource", "set_aside_in"]

_DAMAGED: Final = ".damaged"
_LOOK_S: Final = 0.5
_PAUSE_S: Final = 0.02
"""Between two files, so that what the plant says now need not wait."""


def set_aside_in(folder: Path) -> int:
    """How many files of a spool's folder were found damaged."""
    return sum(1 for _ in folder.glob(f"*{_DAMAGED}"))


class SpoolSource(ABC):
    """A `Source` that delivers the files of a spool, and lets go of each when it is durable in the log.

    Args:
        watch: go on looking for new files; else it ends when there are none.
    """

    name: ClassVar[str]
    says: ClassVar[logging.Logger]
    """Where it says what cannot be read, and what came of the rest."""

    def __init__(self, *, watch: bool) -> None:
        self._watch = watch
        self._taken: set[Path] = set()

    @abstractmethod
    def waiting(self) -> list[Path]:
        """The files there are, oldest first."""

    @abstractmethod
    def delivery(self, path: Path) -> Delivery:
        """A file as a delivery, whose acknowledgement removes it.

        Raises:
            SpoolDamage: its bytes are no file of this spool; it is set aside then.
            LogError, OSError: it cannot be read now; it waits then.
        """

    @abstractmethod
    def say(self) -> None:
        """Tell what was taken in since it was told last, if anything was."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncIterator[Delivery]]:
        """There is always a spool, if an empty one.

        Where a file cannot be read now a watched spool ends with LinkError, to be connected again, and one
        that is worked off once with LogError; the file is still there.
        """
        deliveries = self._deliveries()
        try:
            yield deliveries
        finally:
            await deliveries.aclose()

    async def check(self, timeout_s: float) -> list[Reading]:
        """Nothing: a spool feeds no tag of its own."""
        del timeout_s
        return []

    async def _deliveries(self) -> AsyncGenerator[Delivery, None]:
        while True:
            waiting = self._found()
            self._taken.intersection_update(waiting)
            fresh = [path for path in waiting if path not in self._taken]
            for path in fresh:
                self._taken.add(path)
                if (delivery := self._sound(path)) is not None:
                    yield delivery
                await asyncio.sleep(_PAUSE_S if self._watch else 0)
            if not self._watch and not fresh:
                return
            if self._watch:
                self.say()
                await asyncio.sleep(_LOOK_S)

    def _found(self) -> list[Path]:
        try:
            return self.waiting()
        except OSError as error:
            raise self._passing(f"the spool cannot be looked into: {error}") from error

    def _passing(self, problem: str) -> TwinloopError:
        """What to raise where nothing is wrong with the files themselves."""
        said = f"{self.name}: {problem}"
        return LinkError(said) if self._watch else LogError(said)

    def _sound(self, path: Path) -> Delivery | None:
        """A file as a delivery; None where it is damaged, which is set aside, or gone."""
        try:
            return self.delivery(path)
        except SpoolDamage as error:
            self.says.error("%s: cannot be taken in, and is set aside: %s", path, error)
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(_DAMAGED))
        except FileNotFoundError:
            self.says.warning("%s: was removed before it was taken in", path)
        except (LogError, OSError) as error:
            self._taken.discard(path)
            raise self._passing(f"{path} waits: {error}") from error
        return None
