"""Lab samples in: through the import spool and the log, as history from files; all of a request or none."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Final

import msgspec
import numpy as np
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from twinloop.batch import NO_TIME, Received
from twinloop.errors import QueryError
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.importing import ImportSpool, Part
from twinloop.status import GOOD, status_from_text
from twinloop.tags import Refusal, Resolver
from twinloop.timetext import parse_time
from twinloop.web.api.answering import as_object
from twinloop.web.api.desk import Desk
from twinloop.web.api.problems import Problem, unknown
from twinloop.web.sending import Room

__all__ = ["MOST_BYTES", "MOST_ROWS", "Intake"]

MOST_ROWS: Final = 10_000
MOST_BYTES: Final = 2 << 20
MOST_HEARD: Final = 32 << 20
"""Bytes of all that are being sent in or wait for their turn: silent senders hold little of it."""
_HEARD: Final = "twinloop.samples"
_AHEAD_NS: Final = 2 * 10**9
"""Of the sender's clock; a sample of a time to come would make the tag's next ones late."""
"""As of what is heard: a time that is further ahead is not sane."""
_MOST_WAITING: Final = 1_000
"""Files of the spool: it is on the disk that the log needs, too."""
_TOLD: Final = 100
_HINTED: Final = 10
_JSON: Final = "application/json"


class LabSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sample as it is sent in."""

    tag: Annotated[str, msgspec.Meta(max_length=300)]
    time: Annotated[str, msgspec.Meta(max_length=40)]
    value: float | bool
    unit: Annotated[str, msgspec.Meta(max_length=40)] = ""
    status: Annotated[str, msgspec.Meta(max_length=80)] = "Good"


class Intake:
    """The endpoint that takes samples.

    Args:
        desk: where names are known.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._spool = ImportSpool(desk.look.config.data_dir)
        self._lock = threading.Lock()
        self._room = Room(MOST_HEARD)
        self._row = msgspec.json.Decoder(LabSample)

    @asynccontextmanager
    async def hearing(self, request: Request) -> AsyncIterator[None]:
        """Hear a request out, and keep what it says while the context is open: slow senders have no turn.

        Raises:
            Problem: nothing is taken at all, or not this.
        """
        web = self._desk.look.config.web
        if web is None or not web.writable:
            raise Problem(
                403, "this twin is only looked at: `web: {writable: true}` in the plant file lets in"
            )
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON:
            raise Problem(415, f"samples come as {_JSON}", headers={"Accept-Post": _JSON})
        held: list[int] = []
        try:
            request.scope[_HEARD] = await self._body(request, held)
            yield
        finally:
            self._room.give_back(sum(held))

    async def samples(self, request: Request) -> Response:
        """Take lab samples, all or none: they are judged, estimated and stored as all that is received.

        The answer comes when they are safe on disk; the twin takes them up within a second.
        """
        taken = await run_in_threadpool(self._take, request.scope[_HEARD])
        response = as_object({"taken": taken})
        response.status_code = 202
        return response

    async def _body(self, request: Request, held: list[int]) -> bytes:
        """The body, where it is not too long and there is room for it; `held` is what it takes of that."""
        parts = []
        async for part in request.stream():
            if sum(held) + len(part) > MOST_BYTES:
                text = f"a request takes at most {MOST_BYTES >> 20} MiB of samples: send them in parts"
                raise Problem(413, text)
            if not self._room.take(len(part)):
                text = "too many send samples at once: send again in a moment"
                raise Problem(503, text, headers={"Retry-After": "5"})
            held.append(len(part))
            parts.append(part)
        return b"".join(parts)

    def _take(self, body: bytes) -> int:
        rows = _rows(body)
        now = time.time_ns()
        table = self._desk.twin.table
        resolver = Resolver(table, {REPLAY: str})
        names: dict[tuple[str, str], int] = {}
        columns: list[tuple[int, int, float, int]] = []
        errors: list[Mapping[str, str]] = []
        for number, raw in enumerate(rows):
            try:
                sample = self._row.decode(raw)
                if table.index(sample.tag) is None:
                    # To look for near names takes its time, and a request may have nothing but unknown ones.
                    known = [tag.name for _, tag in table.items()] if len(errors) < _HINTED else []
                    raise unknown("tag", sample.tag, known)
                columns.append(_checked(sample, names, resolver, now))
            except (msgspec.MsgspecError, QueryError, Problem, RecursionError, UnicodeDecodeError) as error:
                errors.append({"where": f"row {number}", "detail": str(error)})
        if errors:
            text = f"{len(errors)} of {len(rows)} rows cannot be used, and none was taken"
            raise Problem(422, text, errors=errors[:_TOLD])
        if columns:
            self._put(names, columns, now)
        return len(columns)

    def _put(
        self, names: Mapping[tuple[str, str], int], columns: list[tuple[int, int, float, int]], now: int
    ) -> None:
        series, at, value, status = (np.array(column) for column in zip(*columns, strict=True))
        order = np.argsort(at, kind="stable")
        received = Received.of(
            series=series[order],
            source_time=at[order],
            server_time=np.full(len(at), NO_TIME),
            arrival_time=np.minimum(at[order], now),  # none that would make a tag fresh for long
            value=value[order],
            status=status[order],
            reasons=np.zeros(len(at)),
        )
        if len(self._spool.waiting()) >= _MOST_WAITING:
            text = "the twin does not take up what waits already"
            raise Problem(503, text, headers={"Retry-After": "5"})
        try:
            with self._lock:
                self._spool.put(Part(list(names), received.buffers()))
        except OSError as error:
            text = f"the disk did not take them: {error.strerror or error}"
            raise Problem(503, text, headers={"Retry-After": "5"}) from error


def _rows(body: bytes) -> list[msgspec.Raw]:
    try:
        rows = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(422, f"the body is no JSON list of samples: {error}") from error
    if len(rows) > MOST_ROWS:
        raise Problem(413, f"{len(rows):,} samples are too many for a request, {MOST_ROWS:,} the most")
    return rows


def _checked(
    sample: LabSample, names: dict[tuple[str, str], int], resolver: Resolver, now: int
) -> tuple[int, int, float, int]:
    """Series, time, value and status of a sample.

    Raises:
        QueryError: it cannot be used.
    """
    at = parse_time(sample.time, now)
    if at > now + _AHEAD_NS:
        raise QueryError(f"its time {sample.time} is to come")
    status = GOOD if not sample.status else status_from_text(sample.status)
    if status is None:
        raise QueryError(
            f"{sample.status!r} is no status: Good, Uncertain, Bad, or the name of an OPC UA code"
        )
    key = (sample.tag, sample.unit)
    if key not in names:
        answer = resolver.resolve((REPLAY, *key))
        if isinstance(answer, Refusal):
            raise QueryError(answer.detail.removeprefix(f"{REPLAY}: "))
        names[key] = len(names)
    return names[key], at, float(sample.value), status
