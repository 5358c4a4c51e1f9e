"""What happens, as it happens: a hub that puts a tick's news together once, and the sockets it goes to.

A socket that has not taken its last portion gets none; once it has, it gets everything as it is then. So
nobody's slowness costs memory, or anybody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import msgspec
import numpy as np
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from twinloop.config.expand import cycle_ns
from twinloop.records import Event, Snapshot
from twinloop.status import Reason
from twinloop.timetext import time_text
from twinloop.web.access import Grant
from twinloop.web.figures import WebFigures
from twinloop.web.frames import changed_rows, encode
from twinloop.web.guard import GRANT
from twinloop.web.look import Look, TagsNow, TwinLook
from twinloop.web.problems import problem

__all__ = ["Hub", "LiveLimits", "live_router"]

_log = logging.getLogger("twinloop.web")

_EVENTS_AT_FIRST: Final = 50
_NOT_ASKED: Final = 1003
_LOGGED_OUT: Final = 4401

Portion = Sequence[bytes | str]


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """How much is given to live sockets.

    Attributes:
        every_s: a portion of news at most that often.
        figures_every_s: the pipeline's figures that often; also how soon a logged out socket is closed.
        patience_s: a socket that takes nothing for so long is closed.
        sockets: at most so many.
    """

    every_s: float = 0.1
    figures_every_s: float = 1.0
    patience_s: float = 30.0
    sockets: int = 200


class _Client:
    """A socket's place at the hub: at most one portion, given while it waits for one.

    Attributes:
        grant: leave to look.
        missed: whether something was told while it did not wait: it has everything to get, as at first.
        ended: it is to be closed.
    """

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.missed = True
        self.ended = False
        self._waits = False
        self._portion: Portion = ()
        self._given = asyncio.Event()

    def offer(self, portion: Portion) -> bool:
        """Give a portion to who waits for one; whether it was taken."""
        if not self._waits:
            self.missed = True
            return False
        self._waits, self._portion = False, portion
        self._given.set()
        return True

    def end(self) -> None:
        """Let who waits for a portion go."""
        self.ended = True
        self.offer(())

    async def next(self) -> Portion:
        """The next portion there is."""
        self._waits = True
        self._given.clear()
        await self._given.wait()
        return self._portion


class Hub:
    """Looks at the twin ten times a second and tells all sockets what is new, all on the web's thread.

    Args:
        look: what is shown.
        figures: where it counts.
        has_login: whether pages should offer to log out.
        limits: how much is given.
    """

    def __init__(
        self, look: Look, figures: WebFigures, *, has_login: bool = False, limits: LiveLimits | None = None
    ) -> None:
        self._look = look
        self._figures = figures
        self._has_login = has_login
        self.limits = limits or LiveLimits()
        self._clients: set[_Client] = set()
        self._before: TagsNow | None = None
        self._events: Sequence[Event] = ()
        self._snapshots: Mapping[str, Snapshot] = {}
        self._everything: Portion | None = None
        self._pipeline = ""
        self._pipeline_due_s = 0.0
        self._arrived = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether there is no place for another socket."""
        return len(self._clients) >= self.limits.sockets

    async def run(self) -> None:
        """Tell news until cancelled."""
        while (twin := self._look.twin) is None:  # noqa: ASYNC110 - it is set on another thread
            await asyncio.sleep(self.limits.every_s)
        encode(twin.now(), np.empty(0, np.int64), 0.0)  # compiled before a page waits for it
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                self._tell(twin)
            except Exception:  # noqa: BLE001 - else the pages of all would stand still for good
                _log.exception("web: the news cannot be told")
            due_s = max(due_s + self.limits.every_s, loop.time())  # what was missed is not made up for
            await asyncio.sleep(due_s - loop.time())
            if not self._clients:
                await self._arrived.wait()

    def _tell(self, twin: TwinLook) -> None:
        portion = self._news(twin)
        self._everything = None
        if not portion:
            return
        given = sum([client.offer(portion) for client in self._clients])
        self._figures.frames.inc(given)
        self._figures.skipped.inc(len(self._clients) - given)

    def _news(self, twin: TwinLook) -> list[bytes | str]:
        """What is new since the last time."""
        portion: list[bytes | str] = []
        now, before = twin.now(), self._before
        self._before = now
        if before is not None and now is not before and self._clients:
            rows = np.flatnonzero(changed_rows(before, now) & twin.table.active)
            if len(rows):
                portion.append(encode(now, rows, _clock_ms()))
        snapshots, known = twin.snapshots(), self._snapshots
        self._snapshots = snapshots
        if snapshots is not known:
            fresh = [shot for name, shot in snapshots.items() if known.get(name) is not shot]
            portion.append(_snapshots_text(fresh))
        events, last = twin.events(), self._events[-1] if self._events else None
        self._events = events
        if events and events[-1] is not last:
            portion.append(_events_text(_since(events, last)))
        if time.monotonic() >= self._pipeline_due_s:
            self._pipeline_due_s = time.monotonic() + self.limits.figures_every_s
            self._pipeline = _text("pipeline", twin.pipeline())
            portion.append(self._pipeline)
            for client in self._clients:
                if not client.grant.holds():
                    client.end()
        return portion

    def _all(self, twin: TwinLook) -> Portion:
        """Everything that was told: put together once for all who need it between two ticks."""
        if self._everything is None:
            now = twin.now()
            portion: list[bytes | str] = [encode(now, np.flatnonzero(twin.table.active), _clock_ms())]
            if snapshots := twin.snapshots():  # as they are now: before the first came, nobody looked
                portion.append(_snapshots_text(list(snapshots.values())))
            if events := twin.events():
                portion.append(_events_text(events[-_EVENTS_AT_FIRST:]))
            if self._pipeline:
                portion.append(self._pipeline)
            self._everything = portion
        return self._everything

    async def serve(self, socket: WebSocket, twin: TwinLook, grant: Grant) -> None:
        """Tell a socket the news for as long as it listens."""
        client = _Client(grant)
        self._clients.add(client)
        self._arrived.set()
        self._figures.sockets.inc()
        telling = asyncio.create_task(self._send(socket, twin, client))
        listening = asyncio.create_task(_until_gone(socket))
        try:
            done, _ = await asyncio.wait({telling, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening in done and listening.result():
                await socket.close(_NOT_ASKED, "nothing is to be sent here")
        finally:
            self._clients.discard(client)
            if not self._clients:
                self._arrived.clear()
                self._pipeline, self._pipeline_due_s = "", 0.0
            self._figures.sockets.dec()
            for task in (telling, listening):
                task.cancel()
            await asyncio.gather(telling, listening, return_exceptions=True)

    async def _send(self, socket: WebSocket, twin: TwinLook, client: _Client) -> None:
        try:
            await self._within_patience(socket, [self._hello(twin)])
            while not client.ended:
                if client.missed:
                    client.missed = False
                    await self._within_patience(socket, self._all(twin))
                    continue
                await self._within_patience(socket, await client.next())
            await socket.close(_LOGGED_OUT, "logged out")
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            pass  # it is gone, or takes nothing: what waits to be sent goes with it

    async def _within_patience(self, socket: WebSocket, portion: Portion) -> None:
        for message in portion:
            async with asyncio.timeout(self.limits.patience_s):
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_text(message)

    def _hello(self, twin: TwinLook) -> str:
        config = self._look.config
        return _text(
            "hello",
            {
                "run": self._look.run,
                "plant": config.plant,
                "tags": int(np.count_nonzero(twin.table.active)),
                "indices": len(twin.table),
                "period_s": cycle_ns(config) / 1e9,
                "version": version("twinloop"),
                "reasons": {str(int(reason)): reason.name for reason in Reason},
                "login": self._has_login,
            },
        )


def live_router(hub: Hub, look: Look) -> APIRouter:
    """The socket `/live`."""
    router = APIRouter()

    @router.websocket("/live")
    async def live(socket: WebSocket) -> None:
        twin = look.twin
        if twin is None or hub.is_full:
            text = "the twin is starting" if twin is None else "there are too many live pages open"
            await socket.send_denial_response(problem(503, text, {"Retry-After": "1"}))
            return
        await socket.accept()
        await hub.serve(socket, twin, socket.scope[GRANT])

    return router


async def _until_gone(socket: WebSocket) -> bool:
    """Return when the peer has gone: False, or True when it said something, which is not asked for."""
    message = await socket.receive()
    return bool(message["type"] == "websocket.receive")


def _since(events: Sequence[Event], last: Event | None) -> Sequence[Event]:
    """Those after the one told last; all of them where it is no longer kept."""
    for at in range(len(events) - 1, -1, -1):
        if events[at] is last:
            return events[at + 1 :]
    return events


def _events_text(events: Sequence[Event]) -> str:
    return _text("events", {"events": [_told(event) for event in events]})


def _snapshots_text(snapshots: Sequence[Snapshot]) -> str:
    return _text("snapshots", {"snapshots": [_told(shot) for shot in snapshots]})


def _told(record: Event | Snapshot) -> dict[str, Any]:
    """A record's fields with its time in words."""
    return {**msgspec.structs.asdict(record), "time": time_text(record.time)}


def _text(kind: str, fields: dict[str, Any]) -> str:
    """JSON; numbers that are none become null."""
    return msgspec.json.encode({"type": kind, **fields}).decode()


def _clock_ms() -> float:
    return time.time_ns() / 1e6
