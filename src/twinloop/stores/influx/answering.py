"""What InfluxDB answers to InfluxQL, line by line; an answer counts when each statement's result is whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import msgspec

__all__ = ["Answered", "Series", "Whole", "decoder", "lines"]

_READ_BYTES: Final = 1 << 20
Row = TypeVar("Row")


class Series(msgspec.Struct, Generic[Row]):
    """One series of an answer: its rows, and the tags it was grouped by."""

    values: list[Row] = []
    tags: dict[str, str] = {}


class Result(msgspec.Struct, Generic[Row]):
    """The answer to one statement, or a part of it."""

    statement_id: int = 0
    series: list[Series[Row]] = []
    error: str = ""
    partial: bool = False


class Answered(msgspec.Struct, Generic[Row]):
    """One line of an answer; without `results` and `error` it is none of InfluxDB's."""

    results: list[Result[Row]] | None = None
    error: str = ""


@lru_cache(maxsize=64)
def decoder(row: Any) -> msgspec.json.Decoder[Answered[Any]]:
    """Reads lines of answers with rows of a type."""
    return msgspec.json.Decoder(Answered[row])


class Whole:
    """Whether each of so many statements has had its last result.

    A server that was cut off, or something else that answers in its place, may end with a good status and
    with less than was asked for: rows that are not there would look like rows that never were.
    """

    def __init__(self, statements: int) -> None:
        self._lacking = set(range(statements))
        self._statements = range(statements)

    def take(self, answered: Answered[Any]) -> bool:
        """Note a line; whether it can be part of the answer."""
        for result in answered.results or ():
            if result.statement_id not in self._statements:
                return False
            if result.partial:
                self._lacking.add(result.statement_id)
            else:
                self._lacking.discard(result.statement_id)
        return answered.results is not None

    def __bool__(self) -> bool:
        return not self._lacking


def lines(answer: Any) -> Iterator[bytes]:
    """The lines of an answer, as they come."""
    rest = b""
    for piece in answer.stream(_READ_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest
