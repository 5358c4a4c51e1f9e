"""Rows as JSON, CSV or Arrow, as `Accept` or `format` asks for; a page at a time, with a link to the next."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from twinloop.present import in_words, time_text, to_csv, to_json
from twinloop.web.api.problems import Problem

__all__ = ["DEFAULT_LIMIT", "FORMATS", "MOST", "Cursor", "Found", "Page", "Paged", "Standing", "as_object"]

DEFAULT_LIMIT: Final = 10_000
MOST: Final = 100_000
_PIECE: Final = 5_000
"""Rows made text at once: as Python objects they take many times their room."""
_FURTHEST: Final = 1_000_000
_NO_STORE: Final = {"Cache-Control": "no-store"}

FORMATS: Final[Mapping[str, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
}
Form = Literal["json", "csv", "arrow"]
_FORMS: Final[tuple[Form, ...]] = ("json", "csv", "arrow")
_CURSOR: Final = r"^-?\d{1,19}(\.\d{1,7})?$"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: after so many rows, in all or of a time; or after a time of a rank.

    Attributes:
        time: ns, of rows that come by time; None for those that are counted through.
        skip: rows before the first of the page; or the rank.
    """

    time: int | None
    skip: int

    def __str__(self) -> str:
        return str(self.skip) if self.time is None else f"{self.time}.{self.skip}"


class Found(NamedTuple):
    """Rows, and whether there are more though these are not as many as were asked for."""

    rows: pa.Table
    more: bool = False


class Standing:
    """A table that never changes: all of it is made text once a format, however often it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._spelled: dict[Form, bytes] = {}

    def spelled(self, form: Form) -> bytes:
        """All of it in a format."""
        if form not in self._spelled:
            self._spelled[form] = _ENCODERS[form](in_words(self.table))
        return self._spelled[form]


@dataclass(frozen=True, slots=True)
class Page:
    """What a request wants of rows.

    Attributes:
        limit: how many at most.
        cursor: where they begin, as the page before said.
    """

    request: Request
    form: Form
    limit: int
    cursor: Cursor | None

    def whole(self, table: pa.Table, **pinned: int | None) -> Response:
        """A page of a table that is here as a whole."""
        if self.cursor is not None and self.cursor.time is not None:
            raise Problem(422, "cursor: it is of another question")
        first = self.cursor.skip if self.cursor else 0
        after = first + self.limit
        following = Cursor(None, after) if after < len(table) else None
        return self._answer(table.slice(first, self.limit), following, pinned)

    def standing(self, standing: Standing) -> Response:
        """A page of a table that never changes."""
        if self.cursor is None and len(standing.table) <= self.limit:
            return Response(standing.spelled(self.form), 200, _NO_STORE, FORMATS[self.form])
        return self.whole(standing.table)

    def in_order(
        self, table: pa.Table, ranks: npt.NDArray[np.int64] | None = None, **pinned: int | None
    ) -> Response:
        """A page of a table made anew for each: rows that came late in between move no other.

        Args:
            table: all of it, each row of a time and rank of its own, by rank and then by time.
            ranks: of each row; all the same by default.
            pinned: what relative times of the question meant.
        """
        times = table["time"].cast(pa.int64()).to_numpy()
        order = np.zeros(len(table), np.int64) if ranks is None else ranks
        first = 0
        if self.cursor is not None:
            if self.cursor.time is None:
                raise Problem(422, "cursor: it is of another question")
            at, rank = self.cursor.time, self.cursor.skip
            first = int(np.count_nonzero((order < rank) | ((order == rank) & (times <= at))))
        last = first + self.limit - 1
        following = Cursor(int(times[last]), int(order[last])) if last + 1 < len(table) else None
        return self._answer(table.slice(first, self.limit), following, pinned)

    def by_time(
        self, read: Callable[[int | None, int, int], Found], start: int | None, end: int | None
    ) -> Response:
        """A page of rows that come by time.

        Args:
            read: the first rows from a time on: so many that are left out, so many more, and one.
            start: where the first page begins.
            end: where the last one ends; the pages that follow are asked for the same.
        """
        at, skip = start, 0
        if self.cursor is not None:
            if self.cursor.time is None or self.cursor.skip > _FURTHEST:
                raise Problem(422, "cursor: it is of another question")
            at, skip = self.cursor.time, self.cursor.skip
        if at is not None and end is not None and at >= end:
            raise Problem(422, "cursor: it lies beyond the end")
        rows, more = read(at, skip, self.limit)
        more = more or len(rows) > skip + self.limit
        rows = rows.slice(0, skip + self.limit)
        following = _after(rows) if more and len(rows) > skip else None
        return self._answer(rows.slice(skip), following, {"start": start, "end": end})

    def _answer(
        self, table: pa.Table, following: Cursor | None, pinned: Mapping[str, int | None]
    ) -> Response:
        headers = dict(_NO_STORE)
        if following is not None:
            headers["Link"] = f'<{self._following(following, pinned)}>; rel="next"'
        media = FORMATS[self.form]
        return Response(_ENCODERS[self.form](in_words(table)), 200, headers, media)

    def _following(self, cursor: Cursor, pinned: Mapping[str, int | None]) -> str:
        """The same question from a cursor on; what was relative to now no longer is."""
        times = {key: time_text(at) for key, at in pinned.items() if at is not None}
        left = [
            (key, text)
            for key, text in self.request.query_params.multi_items()
            if key != "cursor" and key not in times
        ]
        # What Accept chose goes into the link, so that it leads on by itself.
        forms = [] if "format" in self.request.query_params else [("format", self.form)]
        return (
            f"{self.request.url.path}?{urlencode([*left, *times.items(), *forms, ('cursor', str(cursor))])}"
        )


def _after(rows: pa.Table) -> Cursor:
    """The cursor of what follows some rows, which begin with the first of their time."""
    times = rows["time"].cast(pa.int64()).to_numpy()
    return Cursor(int(times[-1]), int((times == times[-1]).sum()))


async def _page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST, description="rows of a page")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(pattern=_CURSOR, description="where the page begins: of a `Link` header")
    ] = None,
    form: Annotated[Form | None, Query(alias="format", description="in place of `Accept`")] = None,
) -> Page:
    return Page(request, form or _accepted(request), limit, _cursor(cursor))


Paged = Annotated[Page, Depends(_page)]


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    time, dot, skip = text.partition(".")
    number = int(time)
    if not dot and not 0 <= number < 2**63:
        raise Problem(422, "cursor: it is no cursor of a Link header")
    if dot and not -(2**63) < number < 2**63:
        raise Problem(422, "cursor: its time cannot be kept")
    return Cursor(number, int(skip)) if dot else Cursor(None, number)


def _accepted(request: Request) -> Form:
    """The format that `Accept` likes best; JSON where it leaves the choice.

    Raises:
        Problem: 406, there is none it takes.
    """
    text = ",".join(request.headers.getlist("accept"))
    if not text.strip():
        return "json"
    ranges = [[part.strip().lower() for part in each.split(";")] for each in text.split(",")]
    liked = {form: _liking(ranges, FORMATS[form]) for form in _FORMS}
    best = max(_FORMS, key=liked.__getitem__)  # the first of equals
    if liked[best] <= 0:
        raise Problem(406, f"there are {', '.join(FORMATS.values())}; {text[:80]!r} takes none of them")
    return best


def _liking(ranges: list[list[str]], media: str) -> float:
    """The weight that the range closest to a format gives it; 0 for none."""
    weights = {_exactness(kind, media): _weight(rest) for kind, *rest in ranges}
    closest = max(weights, default=0)
    return weights[closest] if closest else 0.0


def _exactness(kind: str, media: str) -> int:
    """How exactly a range of Accept names a format; 0 for not at all."""
    if kind == media:
        return 3
    return 2 if kind == f"{media.split('/', maxsplit=1)[0]}/*" else int(kind == "*/*")


def _weight(parameters: list[str]) -> float:
    for each in parameters:
        if found := re.fullmatch(r"q=([01](?:\.\d{0,3})?)", each):
            return float(found[1])
    return 1.0


def as_object(said: Mapping[str, Any]) -> Response:
    """An object as JSON; numbers that are none are null."""
    body = json.dumps(_plain(said), ensure_ascii=False, allow_nan=False)
    return Response(body.encode("utf-8", "replace"), 200, _NO_STORE, "application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(first, _PIECE) for first in range(0, max(len(table), 1), _PIECE))


def _json(table: pa.Table) -> bytes:
    """As `to_json`, some rows at a time."""
    if not len(table):
        return to_json(table).encode()
    bodies = ",\n".join(to_json(each).removeprefix("[\n").removesuffix("\n]\n") for each in _slices(table))
    return f"[\n{bodies}\n]\n".encode()


def _csv(table: pa.Table) -> bytes:
    """As `to_csv`, some rows at a time."""
    head = to_csv(table.slice(0, 0))
    return "".join([head, *(to_csv(each).removeprefix(head) for each in _slices(table))]).encode()


def _arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


_ENCODERS: Final[Mapping[str, Callable[[pa.Table], bytes]]] = {"json": _json, "csv": _csv, "arrow": _arrow}
