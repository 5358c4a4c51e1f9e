"""How laws are held against a part: all of them, each with a part of its own, the broken ones named."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

__all__ = ["PATIENCE_S", "AsyncLaw", "BrokenLawError", "Law", "expect", "hold", "hold_async"]

PATIENCE_S: Final = 30.0
"""Seconds one law may take before the part counts as stuck."""

Law = Callable[[Path], None]
"""Holds a part made in an empty directory to one promise; its docstring's first line is the promise."""
AsyncLaw = Callable[[Path], Awaitable[None]]


class BrokenLawError(AssertionError):
    """A part does not keep what its protocol promises; the message names every law it broke and how."""


def expect(kept: bool, how: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise AssertionError with `how` unless `kept`: `assert` is rewritten in tests only."""
    if not kept:
        raise AssertionError(how)


def hold(part: str, laws: Iterable[tuple[str, Law]]) -> None:
    """Run every law in a directory of its own.

    Raises:
        BrokenLawError: at least one did not hold.
    """
    broken: list[str] = []
    cause: Exception | None = None
    for name, law in laws:
        with tempfile.TemporaryDirectory(prefix="twinloop-law-", ignore_cleanup_errors=True) as directory:
            try:
                law(Path(directory))
            except Exception as error:  # noqa: BLE001 - any error breaks the law, and says how
                broken.append(f"  {name}\n    {type(error).__name__}: {error}".rstrip())
                cause = cause or error
    if broken:
        count = "one law is" if len(broken) == 1 else f"{len(broken)} laws are"
        raise BrokenLawError(f"{part}: {count} broken:\n" + "\n".join(broken)) from cause


def hold_async(part: str, laws: Iterable[tuple[str, AsyncLaw]]) -> None:
    """The same for laws that need an event loop: each has one of its own, and 30 s."""
    hold(part, ((name, _on_a_loop(law)) for name, law in laws))


def _on_a_loop(law: AsyncLaw) -> Law:
    async def limited(directory: Path) -> None:
        try:
            await asyncio.wait_for(law(directory), PATIENCE_S)
        except TimeoutError:
            raise AssertionError(f"not done after {PATIENCE_S:g} s") from None

    def run(directory: Path) -> None:
        asyncio.run(limited(directory))

    return run
