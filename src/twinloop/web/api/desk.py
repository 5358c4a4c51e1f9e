"""What every endpoint needs: the twin, once there is one; names that are known; times that can be read."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Final

from fastapi import Query

from twinloop.errors import QueryError
from twinloop.tags import Tag
from twinloop.timetext import parse_duration, parse_time
from twinloop.web.api.problems import Problem, unknown
from twinloop.web.look import Look, TwinLook

__all__ = [
    "AssetFilter",
    "Desk",
    "Every",
    "Moment",
    "TagName",
    "moment",
    "nanoseconds",
]

_LONGEST: Final = 300
_TIME: Final = "ISO 8601, UTC unless it says otherwise, or relative to now: `-1h`; open where it is not given"

Moment = Annotated[str | None, Query(max_length=40, description=_TIME)]
TagName = Annotated[str, Query(max_length=_LONGEST, description="full name, `ASSET.tag`")]
AssetFilter = Annotated[str | None, Query(max_length=_LONGEST, description="of this asset only")]
Every = Annotated[str, Query(max_length=20, description="an integer and ms, s, m, h or d", examples=["1m"])]


class Desk:
    """Where questions about one process come in.

    Args:
        look: the process.
    """

    def __init__(self, look: Look) -> None:
        self.look = look

    @property
    def twin(self) -> TwinLook:
        """The twin.

        Raises:
            Problem: 503, it has not started yet.
        """
        twin = self.look.twin
        if twin is None:
            raise Problem(503, "the twin is starting: ask again in a moment", headers={"Retry-After": "1"})
        return twin

    def index(self, name: str) -> int:
        """The index of a tag that there is or was.

        Raises:
            Problem: 404, there is no such tag; the nearest is named.
        """
        table = self.twin.table
        index = table.indices.get(name) if name else None
        if index is None:
            raise unknown("tag", name, [each for each in table.names if each])
        return index

    def tags(self, asset: str | None = None) -> list[tuple[int, Tag]]:
        """Index and tag of the plant file, of one asset or of all.

        Raises:
            Problem: 404, there is no such asset.
        """
        if asset is not None:
            self.asset(asset)
        return [(index, tag) for index, tag in self.twin.table.items() if asset in {None, tag.asset}]

    def asset(self, name: str) -> None:
        """Return where there is such an asset.

        Raises:
            Problem: 404, there is none; the nearest is named.
        """
        if name not in self.look.config.assets:
            raise unknown("asset", name, list(self.look.config.assets))

    def span(self, start: str | None, end: str | None) -> tuple[int | None, int | None]:
        """[start, end) in ns since the epoch.

        Raises:
            Problem: 422, one cannot be read; 400, the start is not before the end.
        """
        now = time.time_ns()
        low, high = (
            None if each is None else moment(key, each, now) for key, each in (("start", start), ("end", end))
        )
        if low is not None and high is not None and low >= high:
            raise Problem(400, f"the start ({start}) is not before the end ({end})")
        return low, high


def moment(key: str, text: str, now_ns: int) -> int:
    """A time, as users write it, also with a `+` that nobody has escaped.

    Raises:
        Problem: 422, it cannot be read.
    """
    try:
        return parse_time(text, now_ns)
    except QueryError as error:
        before, space, after = text.rpartition(" ")
        if space:  # what a `+` becomes in a query string
            with suppress(QueryError):
                return parse_time(f"{before}+{after}", now_ns)
        raise Problem(422, f"{key}: {error}", errors=[{"where": key, "detail": str(error)}]) from error


def nanoseconds(key: str, text: str) -> int:
    """A duration, as users write it. Raises Problem (422) where it cannot be read."""
    try:
        return parse_duration(text)
    except QueryError as error:
        raise Problem(422, f"{key}: {error}", errors=[{"where": key, "detail": str(error)}]) from error
