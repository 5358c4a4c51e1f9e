"""The live socket: what is shown is what is, whoever else listens, and however slowly."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.load import memory_mib
from support.looks import HandMade, HandMadeTwin, plant_of, serving
from support.outputs import SECOND, T0, batch
from support.twin import eventually
from twinloop.batch import Batch
from twinloop.records import Event, EventKind, Health, Prediction, Snapshot
from twinloop.status import Reason
from twinloop.web.frames import decode, encode
from twinloop.web.live import LiveLimits
from twinloop.web.server import WebServer

SOON_S = 10.0


class Page:
    """What a page has been told."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []

    def until(self, holds: Callable[[], object], within_s: float = SOON_S) -> None:
        """Listen until something holds."""
        deadline = time.monotonic() + within_s
        while not holds():
            message = self.connection.recv(max(0.01, deadline - time.monotonic()))
            if isinstance(message, bytes):
                self.frames.append(decode(message)[1])
            else:
                self.texts.append(json.loads(message))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [text for text in self.texts if text["type"] == kind]

    @property
    def values(self) -> dict[int, float]:
        """The newest value of each tag that it knows of."""
        known: dict[int, float] = {}
        for frame in self.frames:
            known.update(zip(frame["index"].tolist(), frame["value"].tolist(), strict=True))
        return known


@contextmanager
def page(port: int, **options: Any) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{port}/live", **options) as connection:
        yield Page(connection)


def deaf(port: int) -> socket.socket:
    """A page that opens the socket and never reads it again."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.sendall(
        f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert made.recv(12) == b"HTTP/1.1 101"
    return made


def all_tags(twin: HandMadeTwin, at_s: float, value: float) -> None:
    n = len(twin.table)
    twin.told(
        Batch.raw(tag=np.arange(n), time=np.full(n, T0 + round(at_s * SECOND)), value=np.full(n, value))
    )


def sockets_open(look: HandMade) -> float:
    return look.registry.get_sample_value("twinloop_web_sockets") or 0.0


def connections(server: WebServer) -> int:
    """How many the system still holds."""
    return sum(each.get_extra_info("socket").fileno() >= 0 for each in list(server._transports))


def test_a_frame_holds_what_it_was_made_of() -> None:
    twin = HandMade(plant_of(4)).begin()
    twin.told(batch([(0, 1.0, 20.0), (2, 1.5, math.nan, 0x80000000, int(Reason.NON_FINITE))]))
    now = twin.now()
    clock, columns = decode(encode(now, np.array([0, 2, 3]), 1234.5))
    assert clock == 1234.5
    assert columns["index"].tolist() == [0, 2, 3]
    assert columns["time_ms"].tolist()[:2] == [T0 / 1e6 + 1000, T0 / 1e6 + 1500]
    assert columns["value"][0] == 20.0
    assert np.isnan([columns["value"][1], columns["time_ms"][2], columns["arrival_ms"][2]]).all()
    assert columns["status"].tolist()[:2] == [0, 0x80000000]
    assert columns["reasons"].tolist()[:2] == [0, 1]
    assert columns["std"][0] == 0.5


@pytest.mark.parametrize("damage", [b"", b"TWL1", b"XXXX" + bytes(60)])
def test_what_is_no_frame_is_refused(damage: bytes) -> None:
    twin = HandMade().begin()
    frame = encode(twin.now(), np.arange(3), 0.0)
    for broken in (damage, frame[:-1], frame + b"x"):
        with pytest.raises(ValueError, match="frame"):
            decode(broken)


def test_a_page_is_told_everything_first_and_then_only_what_is_new() -> None:
    look = HandMade()
    twin = look.begin()
    twin.told(batch([(0, 1.0, 20.0), (1, 1.0, 2.0)]))
    with serving(look) as server, page(server.port) as first:
        first.until(lambda: len(first.frames) == 1)
        hello = first.texts[0]
        assert hello["type"] == "hello"
        assert (hello["run"], hello["plant"], hello["tags"], hello["period_s"]) == (look.run, "test", 3, 1.0)
        assert hello["reasons"]["16"] == "SPIKE"
        assert first.frames[0]["index"].tolist() == [0, 1, 2]
        assert first.frames[0]["value"].tolist()[:2] == [20.0, 2.0]
        twin.told(batch([(1, 2.0, 3.0)]))
        first.until(lambda: len(first.frames) == 2)
        assert first.frames[1]["index"].tolist() == [1]
        assert first.values[1] == 3.0


def test_events_snapshots_and_figures_come_as_text_with_times_in_words_and_no_number_that_is_none() -> None:
    look = HandMade()
    twin = look.begin()
    for second in range(60):
        twin.told(events=[Event(T0 + second * SECOND, "A", EventKind.HEALTH, after=str(second))])
    shot = Snapshot(T0, "A", Health.IN_SYNC, predictions=[Prediction("t", "K", 1.0, 2.0, 1.0)])
    twin.told(snapshots=[shot])
    with serving(look) as server, page(server.port) as told:
        told.until(lambda: told.of("events") and told.of("snapshots") and told.of("pipeline"))
        events = [event for text in told.of("events") for event in text["events"]]
        assert [event["after"] for event in events][-50:] == [str(second) for second in range(10, 60)]
        assert events[-1]["time"] == "2023-11-14T22:14:19Z"
        assert told.of("snapshots")[0]["snapshots"][0]["nis"] is None, "NaN is no JSON"
        assert told.of("snapshots")[0]["snapshots"][0]["predictions"][0]["persistence"] == 1.0
        before = len(told.of("events"))
        twin.told(events=[Event(T0, "A", EventKind.HEALTH, after="new")])
        told.until(lambda: len(told.of("events")) > before)
        assert [event["after"] for event in told.of("events")[-1]["events"]] == ["new"]


def test_while_the_twin_starts_a_page_is_asked_to_come_again() -> None:
    with serving(HandMade()) as server:
        with pytest.raises(InvalidStatus) as refused, page(server.port):
            pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "1"


def test_a_page_that_comes_again_has_everything_that_is() -> None:
    look = HandMade()
    twin = look.begin()
    with serving(look) as server:
        with page(server.port) as first:
            first.until(lambda: first.frames)
        all_tags(twin, 5, 7.0)
        with page(server.port) as second:
            second.until(lambda: second.values == {0: 7.0, 1: 7.0, 2: 7.0})
            assert second.frames[0]["index"].tolist() == [0, 1, 2]


def test_who_does_not_read_neither_slows_others_nor_costs_memory_and_has_everything_when_it_reads() -> None:
    look = HandMade(plant_of(2000))
    twin = look.begin()
    with serving(look) as server, page(server.port) as other:
        asleep = [deaf(server.port) for _ in range(8)]
        eventually(lambda: sockets_open(look), lambda n: n == 9)
        before = memory_mib(os.getpid())
        slowest = 0.0
        for at in range(1, 60):
            all_tags(twin, at, float(at))
            began = time.monotonic()
            other.until(lambda at=at: other.values.get(0) == at)  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
            other.frames.clear()
        assert slowest < 2.0, "one that sleeps holds nobody up"
        assert memory_mib(os.getpid()) - before < 60, "a portion each would be 45 MB by now"
        assert (look.registry.get_sample_value("twinloop_web_frames_skipped_total") or 0) > 8
        late = asleep[0]
        late.settimeout(SOON_S)
        newest = struct.pack("<d", 59.0) * 100
        heard = b""
        while newest not in heard:
            heard = heard[-1000:] + late.recv(1 << 20)
        for each in asleep:
            each.close()
        eventually(lambda: sockets_open(look), lambda n: n == 1)


def test_who_takes_nothing_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.web.listening.PATIENCE_S", 1.0)
    look = HandMade(plant_of(5000))
    twin = look.begin()
    with serving(look, LiveLimits(patience_s=1.0)) as server, deaf(server.port) as asleep:
        eventually(lambda: sockets_open(look), lambda n: n == 1)
        done = threading.Event()

        def keep_telling() -> None:
            at = 0
            while not done.wait(0.05):
                all_tags(twin, at := at + 1, float(at))

        telling = threading.Thread(target=keep_telling)
        telling.start()
        try:
            eventually(lambda: sockets_open(look), lambda n: n == 0)
            eventually(lambda: connections(server), lambda n: n == 0)
        finally:
            done.set()
            telling.join()
        asleep.settimeout(SOON_S)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(partial(asleep.recv, 1 << 20), b""))


def test_only_so_many_pages_are_told() -> None:
    look = HandMade()
    look.begin()
    with serving(look, LiveLimits(sockets=2)) as server, page(server.port) as one, page(server.port) as two:
        for each in (one, two):
            each.until(lambda each=each: each.frames)  # type: ignore[misc]
        with pytest.raises(InvalidStatus) as refused, page(server.port):
            pass
        assert refused.value.response.status_code == 503
        two.connection.close()
        eventually(lambda: sockets_open(look), lambda n: n == 1)
        with page(server.port) as third:
            third.until(lambda: third.frames)


def test_nothing_is_to_be_sent_on_the_socket() -> None:
    look = HandMade()
    look.begin()
    with serving(look) as server, page(server.port) as rude:
        rude.connection.send("hello?")
        with pytest.raises(ConnectionClosed):
            rude.until(lambda: False)
        assert rude.connection.close_code == 1003


def test_a_message_too_long_to_be_meant_is_not_kept() -> None:
    look = HandMade()
    look.begin()
    with serving(look) as server, page(server.port) as rude:
        rude.connection.send(b"x" * 100_000)
        with pytest.raises(ConnectionClosed):
            rude.until(lambda: False)
        assert rude.connection.close_code in {1003, 1009}


def test_a_frame_of_a_tick_is_made_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(*arguments: Any) -> bytes:
        made.append(len(arguments[1]))
        return encode(*arguments)

    monkeypatch.setattr("twinloop.web.live.encode", counting)
    look = HandMade()
    twin = look.begin()
    with serving(look) as server, ExitStack() as stack:
        told = [stack.enter_context(page(server.port)) for _ in range(5)]
        for each in told:
            each.until(lambda each=each: each.frames)  # type: ignore[misc]
        made.clear()
        twin.told(batch([(1, 1.0, 3.0)]))
        for each in told:
            each.until(lambda each=each: each.values.get(1) == 3.0)  # type: ignore[misc]
        assert made == [1]


def test_leaving_takes_a_second_whoever_listens_or_does_not() -> None:
    look = HandMade(plant_of(5000))
    twin = look.begin()
    with serving(look) as server, page(server.port) as listening:
        listening.until(lambda: listening.frames)
        asleep = deaf(server.port)
        for at in range(1, 10):
            all_tags(twin, at, float(at))
            listening.until(lambda at=at: listening.values.get(0) == at)  # type: ignore[misc]
        idle = socket.create_connection(("127.0.0.1", server.port))
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 1.5
        with pytest.raises(ConnectionClosed):
            listening.until(lambda: False)
        assert listening.connection.close_code == 1012, "the page knows that it may come back"
        for each in (asleep, idle):
            each.close()


def test_hands_off_others_pages() -> None:
    look = HandMade()
    look.begin()
    with serving(look) as server:
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
            with pytest.raises(InvalidStatus) as refused, page(server.port, origin=origin):
                pass
            assert refused.value.response.status_code == 403
            assert re.search(rb"other servers", refused.value.response.body or b"")
        with page(server.port, origin=f"http://127.0.0.1:{server.port}") as ours:
            ours.until(lambda: ours.frames)
