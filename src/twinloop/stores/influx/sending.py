"""Lines on their way to InfluxDB: what it takes, what it never will, and what is over a limit of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twinloop.errors import StoreBusy
from twinloop.stores.influx.client import Client, Refused
from twinloop.stores.influx.lines import Lines

__all__ = ["Bad", "Limited", "Sending"]

_BODY_BYTES: Final = 1 << 20
_HOPELESS: Final = 8
"""So many single lines refused, and none taken: it is not the lines."""


class Limited(StoreBusy):
    """All was sent, and points of new series are more than the server has room for."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A line InfluxDB will never take: which of the rows sent, its bytes, and why."""

    row: int
    raw: bytes
    why: str


class Sending:
    """Sends lines, cut in halves around those that InfluxDB will never take, or not before a limit is raised.

    With one line over a limit in a body, InfluxDB 1.6 loses others that it says it took: so that is cut, too.

    Attributes:
        bad: those.
        limited: the server's words where it left out points of series beyond a limit; empty where it did not.

    Raises:
        StoreBusy: it took some or none, and the rest not now.
    """

    def __init__(self, client: Client, lines: Lines) -> None:
        self._client = client
        self._lines = lines
        self._some_taken = False
        self.bad: list[Bad] = []
        self.limited = ""
        for first, last in lines.portions(_BODY_BYTES):
            self._send(first, last)

    def _send(self, first: int, last: int) -> None:
        try:
            self._client.write(self._lines.part(first, last))
        except Refused as refused:
            if last - first == 1 or refused.dropped == last - first:
                self._give_up(first, last, refused)
                return
        else:
            self._some_taken = True
            return
        middle = (first + last) // 2
        self._send(first, middle)
        self._send(middle, last)

    def _give_up(self, first: int, last: int, refused: Refused) -> None:
        if refused.limited:
            self.limited = refused.words
            return
        for row in range(first, last):
            raw = self._lines.part(row, row + 1).removesuffix(b"\n")
            self.bad.append(Bad(row, raw, refused.words))
        hopeless = len(self.bad) >= min(_HOPELESS, len(self._lines))
        if hopeless and not (self._some_taken or refused.sure):
            raise StoreBusy(f"{self._client.where} does not take points: {refused.words}")
