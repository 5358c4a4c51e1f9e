"""InfluxQL, with every name and text quoted: none of them is part of the language by accident.

Quoting stands in the statement itself, not in bound parameters, because every version of InfluxDB reads it in
the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["EARLIEST_NS", "LATEST_NS", "between", "identifier", "literal", "where"]

EARLIEST_NS: Final = -(2**63) + 2
LATEST_NS: Final = 2**63 - 2
"""The first and last time InfluxDB can hold."""
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})


def identifier(name: str) -> str:
    r"""A measurement, tag or field; keywords such as `tag` are names like any other when quoted.

    >>> print(identifier('tag'), identifier('a"b'))
    "tag" "a\"b"
    """
    return '"' + name.translate(_ESCAPES).replace('"', '\\"') + '"'


def literal(text: str) -> str:
    r"""A text.

    >>> print(literal("it's"))
    'it\'s'
    """
    return "'" + text.translate(_ESCAPES).replace("'", "\\'") + "'"


def between(low: int, high: int) -> list[str]:
    """The conditions of [low, high).

    Both ends are always said: without one, InfluxDB takes the epoch or the present time where it groups.
    """
    return [f"time >= {max(low, EARLIEST_NS)}", f"time < {min(high, LATEST_NS + 1)}"]


def where(tags: Mapping[str, str], more: Iterable[str] = ()) -> str:
    """The clause of a series' tags and further conditions; empty for none."""
    told = [f"{identifier(key)} = {literal(text)}" for key, text in tags.items()]
    conditions = " AND ".join([*told, *more])
    return f" WHERE {conditions}" if conditions else ""
