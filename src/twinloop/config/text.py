"""How a plant file's texts are read and shown: durations, sizes, near names, values that are no secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

__all__ = [
    "SECOND_NS",
    "FromEnvironment",
    "alternatives",
    "nearest",
    "parse_duration",
    "parse_size",
    "show",
    "wrong",
]

SECOND_NS: Final = 1_000_000_000
DURATIONS: Final = {
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
    "d": 86400 * SECOND_NS,
}
SIZES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
LARGEST: Final = 2**63 - 1


class FromEnvironment(str):
    """A text in which an environment variable was substituted; it is not shown in messages."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(from the environment)"


def show(value: object) -> str:
    """A value as a message may show it."""
    if isinstance(value, FromEnvironment):
        return "what the environment gives"
    if isinstance(value, str):
        return repr(str(value)) if len(value) <= 60 else repr(value[:57] + "...")
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value)[:60]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'range'?`, or nothing where no known name is near."""
    folded = {str(word).lower(): str(word) for word in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.55)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def wrong(expected: str, value: object) -> ValueError:
    """The error for a value that is not what was expected."""
    return ValueError(f"expected {expected}, got {show(value)}")


def alternatives(options: tuple[str, ...]) -> str:
    """`a, b or c`."""
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def parse_duration(value: object) -> int:
    """A duration in ns: an integer and ms, s, m, h or d; a bare 0 needs no unit.

    >>> parse_duration("500ms"), parse_duration("24h") // SECOND_NS
    (500000000, 86400)

    Raises:
        ValueError: it is written in another way, or is longer than 292 years.
    """
    return _counted(value, DURATIONS, "a duration such as 500ms, 5s, 10m, 24h or 30d")


def parse_size(value: object) -> int:
    """A size in bytes: an integer and B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024).

    >>> parse_size("10GB"), parse_size("64MiB")
    (10000000000, 67108864)

    Raises:
        ValueError: it is written in another way.
    """
    return _counted(value, SIZES, "a size such as 500MB, 10GB or 64MiB")


def _counted(value: object, units: dict[str, int], expected: str) -> int:
    """An integer and a unit; only 0 may go without."""
    if value == 0 and not isinstance(value, bool):
        return 0
    text = (
        re.fullmatch(r"\s*(\d{1,19})\s*([a-zA-Z]*)\s*", value, re.ASCII) if isinstance(value, str) else None
    )
    if text is None or (text[2] not in units and text[1].strip("0")):
        raise wrong(expected, value)
    count = int(text[1]) * units.get(text[2], 1)
    if count > LARGEST:
        raise wrong(expected, value)
    return count
