"""Filling gaps from the server's history: raw values, a little at a time, behind the live ones.

One request is under way at a time, for a few nodes whose gaps are alike; its rows are durable in the log
before the next is sent, so memory is bounded by one answer and live data wait for one at most.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.batch import NO_TIME
from twinloop.errors import LinkError
from twinloop.records import Record
from twinloop.sources.opcua.foreign import foreign_bytes
from twinloop.sources.opcua.gaps import Gap, Gaps, times_of
from twinloop.sources.opcua.options import ENDED, NO_HISTORY, TOO_MUCH, OpcuaOptions, status_name
from twinloop.sources.opcua.session import Session
from twinloop.sources.opcua.table import NodeTable
from twinloop.sources.opcua.values import Rows, decode_values

__all__ = ["History", "HistoryPart", "decode_history"]

_log = logging.getLogger(__name__)

_HISTORY_DATA: Final = ObjectIds.HistoryData_Encoding_DefaultBinary
_HISTORIAN: Final = np.uint32(0x1F)
_INFO_BITS: Final = np.uint32(0x3FF)
_INFO_TYPE: Final = np.uint32(0xC00)
_SETTLE_S: Final = 0.5
"""Nodes report within a moment of each other after an outage; they are asked for together."""
_NODES: Final = 20
_ROWS: Final = 5_000
_ALIKE_NS: Final = 60 * 1_000_000_000
_ROWS_PER_S: Final = 50_000
_PAUSE_S: Final = 0.02
_TRIES: Final = 3
_MOST_IDLE: Final = 100
_MOST_REPEATED: Final = 5
"""Answers in a row that reach no further: without a value, and with values that fill the log."""
_LESS: Final = TOO_MUCH | {"BadNoContinuationPoints", "BadTimeout"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """What one HistoryRead answers of one node.

    Attributes:
        status: the operation's status code.
        rows: values in the order they came, with the status codes they had live; `handle` is the position.
        point: continuation point; empty where there is no more.
    """

    status: int
    rows: Rows | None
    point: bytes


def decode_history(data: bytes, count: int) -> list[HistoryPart]:
    """The results of a HistoryRead response, OPC 10000-4, 5.10.3 (behind its response header).

    Raises:
        UaError: it is not what `count` nodes are answered with.
    """
    with foreign_bytes():
        (found,) = struct.unpack_from("<i", data)
        if found != count:
            raise UaError(f"asked for the history of {count} nodes, got {found}")
        parts = []
        position = 4
        for _ in range(count):
            part, position = _decode_part(data, position)
            parts.append(part)
        return parts


def _decode_part(data: bytes, position: int) -> tuple[HistoryPart, int]:
    status, length = struct.unpack_from("<Ii", data, position)
    position += 8
    point = data[position : position + max(length, 0)]
    buffer = Buffer(data, position + max(length, 0))
    size = len(buffer)
    kind: Any = nodeid_from_binary(buffer).Identifier
    position += max(length, 0) + size - len(buffer)
    encoding = data[position]
    position += 1
    if encoding == 0:
        return HistoryPart(status, None, point), position
    (length,) = struct.unpack_from("<i", data, position)
    begin, end = position + 4, position + 4 + max(length, 0)
    if encoding != 1 or end > len(data):
        raise UaError("a history result has no readable body")
    if kind != _HISTORY_DATA or length < 4:
        return HistoryPart(status, None, point), end
    body = data[begin:end]
    rows, _ = decode_values(body, struct.unpack_from("<i", body)[0], handles=False, start=4)
    return HistoryPart(status, replace(rows, status=_as_it_was(rows.status)), point), end


def _as_it_was(status: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Status codes without what a historian adds (OPC 10000-11, 6.3.3): so they are those sent live."""
    plain = status & ~_HISTORIAN
    return np.where(plain & _INFO_BITS == 0, plain & ~_INFO_TYPE, plain)


@dataclass(slots=True)
class _Tally:
    """What filling came to, for its few lines."""

    nodes: set[int] = field(default_factory=set)
    rows: int = 0
    cut: int = 0
    refused: dict[str, list[int]] = field(default_factory=dict)
    later: dict[str, list[int]] = field(default_factory=dict)
    stuck: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Ask:
    """A gap being filled: from where on, how the server goes on, answers in a row that reached no further."""

    gap: Gap
    start: int
    point: bytes = b""
    idle: int = 0


class History:
    """Fills the gaps of one session.

    Args:
        options: whether and how far back.
        session: an open session.
        ids: NodeIds by place, as this session numbers them.
        table: makes records of rows.
        gaps: which gaps there are.
        deliver: hands records on, with their number of samples and what to do when they are durable.
    """

    def __init__(
        self,
        options: OpcuaOptions,
        session: Session,
        *,
        ids: Mapping[int, ua.NodeId],
        table: NodeTable,
        gaps: Gaps,
        deliver: Callable[[list[Record], int, Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._options = options
        self._session = session
        self._ids = ids
        self._table = table
        self._gaps = gaps
        self._deliver = deliver
        self._refused: set[int] = set()
        self._nobody = False
        self._waiting: dict[int, Gap] = {}
        self._again_at = 0.0
        self._resting = False
        self._told: set[str] = set()
        self._invalid: dict[int, int] = {}
        self._nodes = min(session.history_nodes or _NODES, _NODES)
        self._rows = _ROWS

    async def run(self) -> None:
        """Fill what gaps there are, and those that come; never returns. Raises when the link is gone."""
        while True:
            await self._some()
            await asyncio.sleep(max(_SETTLE_S, 2 * self._options.publishing_interval_s))
            tally = _Tally()
            self._resting = False
            while gaps := sorted(self._gaps.take(), key=lambda gap: (gap.start, gap.place)):
                tally.nodes |= {gap.place for gap in gaps}
                tally.cut += sum(gap.cut for gap in gaps)
                await self._fill(gaps, tally)
            self._tell(tally)

    async def _some(self) -> None:
        """Wait for gaps to take; those refused for now are among them again after `retry_s`."""
        try:
            async with asyncio.timeout_at(self._again_at if self._waiting else None):
                await self._gaps.some.wait()
        except TimeoutError:
            self._gaps.put_back(self._waiting.values())
            self._waiting.clear()

    async def _fill(self, gaps: Sequence[Gap], tally: _Tally) -> None:
        for gap in gaps:
            self._waiting.pop(gap.place, None)  # one found since reaches further
        while gaps:
            if self._resting:
                self._waiting |= {gap.place: gap._replace(cut=False) for gap in gaps}
                return
            group, gaps = self._group(gaps)
            asks = [_Ask(gap, gap.start) for gap in group if not self._refuses(gap.place)]
            details = self._details(group)
            while asks:
                asks = await self._step(details, asks, tally)

    def _group(self, gaps: Sequence[Gap]) -> tuple[Sequence[Gap], Sequence[Gap]]:
        """The gaps of one request, and the rest: they begin alike, as a request has one time for all."""
        limit = gaps[0].start + _ALIKE_NS
        end = next((i for i, gap in enumerate(gaps) if gap.start > limit), len(gaps))
        end = min(end, self._nodes)
        return gaps[:end], gaps[end:]

    def _refuses(self, place: int) -> bool:
        """Whether the server has no history of a node, as it said earlier in this session."""
        if not self._nobody and place not in self._refused:
            return False
        self._gaps.close([place])
        return True

    def _details(self, group: Sequence[Gap]) -> ua.ReadRawModifiedDetails:
        details = ua.ReadRawModifiedDetails()
        no: Any = False  # asyncua types the fields as classes of its own
        details.IsReadModified = details.ReturnBounds = no
        details.StartTime = _datetime(min(gap.start for gap in group))
        # Microseconds are all that a request can say, and an end may itself be left out.
        details.EndTime = _datetime(max(gap.end for gap in group)) + timedelta(microseconds=2)
        details.NumValuesPerNode = ua.Counter(max(1, self._rows // len(group)))
        return details

    async def _step(
        self, details: ua.ReadRawModifiedDetails, asks: Sequence[_Ask], tally: _Tally
    ) -> list[_Ask]:
        """One request and what came of it, durable in the log; what is still to be asked for."""
        began = time.monotonic()
        try:
            nodes = [(self._ids[ask.gap.place], ask.point) for ask in asks]
            parts = decode_history(await self._session.raw.history_raw(details, nodes), len(asks))
        except UaStatusCodeError as error:
            self._fault(asks, status_name(error.code), tally)
            return []
        except TimeoutError:
            self._fault(asks, "BadTimeout", tally)
            return []
        following: dict[int, _Ask] = {}
        records: list[Record] = []
        samples = 0
        for ask, part in zip(asks, parts, strict=True):
            if part.status >> 31:
                self._bad(ask, status_name(part.status), tally)
                continue
            made, count, reached = self._take(ask, part)
            records += made
            samples += count
            idle = 0 if reached > ask.start else ask.idle + 1
            if part.point and idle < (_MOST_REPEATED if count else _MOST_IDLE):
                following[ask.gap.place] = _Ask(ask.gap, reached, part.point, idle)
            elif part.point:
                tally.stuck.append(ask.gap.place)
        open_ = following.keys() | self._waiting.keys()
        done = [ask.gap.place for ask in asks if ask.gap.place not in open_]
        await self._hand_on(records, samples, following, done)
        tally.rows += samples
        await asyncio.sleep(max(_PAUSE_S, samples / _ROWS_PER_S, time.monotonic() - began))
        return list(following.values())

    def _take(self, ask: _Ask, part: HistoryPart) -> tuple[list[Record], int, int]:
        """Records of one node's part, how many samples, and the time they reach to."""
        if part.rows is None or not len(part.rows):
            return [], 0, ask.start
        times = times_of(part.rows, NO_TIME)
        inside = (times >= ask.gap.start) & (times <= ask.gap.end)
        # What ended the gap has been delivered, however many values come between now and then.
        same = (part.rows.value.view(np.int64) == ask.gap.value) & (part.rows.status == ask.gap.status)
        inside &= ~(same & (times == ask.gap.end))
        records, samples = self._table.recall(ask.gap.place, part.rows, inside)
        return records, samples, min(int(times.max(initial=ask.start)), ask.gap.end)

    async def _hand_on(
        self, records: list[Record], samples: int, following: Mapping[int, _Ask], done: Sequence[int]
    ) -> None:
        """Deliver rows, and wait until they are durable: only then are gaps smaller."""
        durable = asyncio.Event()

        def ack() -> None:
            for place, ask in following.items():
                self._gaps.filled(place, ask.start)
            self._gaps.close(place for place in done if place not in self._gaps)
            durable.set()

        await self._deliver(records, samples, ack)
        await durable.wait()

    def _fault(self, asks: Sequence[_Ask], name: str, tally: _Tally) -> None:
        """A whole request was refused: ask for less, or later, or for nothing any more."""
        if name in ENDED:
            raise LinkError(f"{self._options.name}: {self._options.endpoint}: {ENDED[name]} ({name})")
        if name in _LESS and (len(asks) > 1 or self._rows > 1):
            if len(asks) > 1:
                self._nodes = max(1, len(asks) // 2)
            else:
                self._rows = max(1, self._rows // 4)
            self._put_back(asks)
            return
        if name not in NO_HISTORY:
            self._resting = True
            self._rows = _ROWS  # what was too much is not for ever
            self._put_off(asks, name, tally)
            return
        self._nobody = True
        places = [ask.gap.place for ask in asks]
        tally.refused.setdefault(name, []).extend(places)
        self._gaps.close(places)

    def _bad(self, ask: _Ask, name: str, tally: _Tally) -> None:
        """The history of one node was refused: try again where that may help, else say so once."""
        place = ask.gap.place
        if name == "BadContinuationPointInvalid" and self._invalid.get(place, 0) < _TRIES:
            self._invalid[place] = self._invalid.get(place, 0) + 1
            self._put_back([ask])
        elif name == "BadNoContinuationPoints" and self._nodes > 1:
            self._nodes = 1
            self._put_back([ask])
        elif name not in NO_HISTORY:
            self._put_off([ask], name, tally)
        else:
            self._refused.add(place)
            tally.refused.setdefault(name, []).append(place)

    def _put_back(self, asks: Iterable[_Ask]) -> None:
        self._gaps.put_back(ask.gap._replace(start=ask.start, cut=False) for ask in asks)

    def _put_off(self, asks: Sequence[_Ask], name: str, tally: _Tally) -> None:
        """A passing refusal: the gaps stay open, for `retry_s` or until the next session."""
        tally.later.setdefault(name, []).extend(ask.gap.place for ask in asks)
        if not self._waiting:
            self._again_at = asyncio.get_running_loop().time() + self._options.retry_s
        self._waiting |= {ask.gap.place: ask.gap._replace(start=ask.start, cut=False) for ask in asks}

    def _named(self, places: Sequence[int], *, all_: bool = False) -> str:
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return f"{self._options.nodes[places[0]].address}{' and the rest' if all_ else more}"

    def _tell(self, tally: _Tally) -> None:
        name = self._options.name
        for why, places in tally.refused.items():
            named = self._named(places, all_=self._nobody)
            _log.warning("%s: the server has no history of %s (%s): the gap stays", name, named, why)
        for why, places in tally.later.items():
            if why not in self._told:
                self._told.add(why)
                _log.warning(
                    "%s: the server cannot give the history of %s now (%s): it is asked again every %g s",
                    name,
                    self._named(places, all_=self._resting),
                    why,
                    self._options.retry_s,
                )
        if tally.stuck:
            _log.warning(
                "%s: %s: the server does not go on with the history of %s: the rest of the gap stays",
                name,
                self._options.endpoint,
                self._named(tally.stuck),
            )
        if tally.cut:
            _log.warning(
                "%s: %d nodes were away for longer than history_max (%g s): what is older stays missing",
                name,
                tally.cut,
                self._options.history_max_s,
            )
        if tally.rows:
            _log.info(
                "%s: the gap was filled with %d values of %d nodes from the server's history",
                name,
                tally.rows,
                len(tally.nodes) - sum(map(len, [*tally.refused.values(), *tally.later.values()])),
            )


def _datetime(time_ns: int) -> Any:
    return _EPOCH + timedelta(microseconds=time_ns // 1000)
