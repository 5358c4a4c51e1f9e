"""Who takes answers slowly, or sends slowly, costs the process little and keeps nobody else out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.looking import StoredLook, recorded_look
from support.looks import HandMade, Held, plant_of, serving
from support.tls import Authority
from support.twin import eventually
from twinloop.config.web import WebConfig
from twinloop.web.sending import PIECE, Room
from twinloop.web.server import WebServer

TAGS = b"GET /api/v1/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def many() -> HandMade:
    """A plant whose list of tags is longer than a megabyte."""
    look = HandMade(plant_of(4000))
    look.begin()
    return look


def reader(port: int, asked: bytes) -> socket.socket:
    """Who asks, and takes the first bytes of the answer at most."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(20)
    made.connect(("127.0.0.1", port))
    made.sendall(asked)
    return made


def status(of: socket.socket) -> int:
    return int(of.recv(12).split()[1])


def in_buffers(server: WebServer) -> int:
    return sum(each.get_write_buffer_size() for each in list(server._transports))


def connections(server: WebServer) -> int:
    """How many the system still holds."""
    return sum(each.get_extra_info("socket").fileno() >= 0 for each in list(server._transports))


def get(server: WebServer, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", timeout=20)


def test_what_waits_for_slow_readers_is_bounded_and_others_are_told(
    many: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinloop.web.guard.MOST_UNSENT", 4 << 20)
    with serving(many) as server, ExitStack() as open_ones:
        whole = get(server, "/api/v1/tags")
        assert len(whole.content) > 1 << 20
        room = (4 << 20) // len(whole.content)
        slow = [open_ones.enter_context(reader(server.port, TAGS)) for _ in range(room + 4)]
        assert sorted(map(status, slow)) == [200] * room + [503] * 4
        assert in_buffers(server) <= room * 3 * PIECE, "a piece or two of each, not its whole answer"
        refused = get(server, "/api/v1/tags")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.headers["content-type"] == "application/problem+json"
        for path in ("/healthz", "/metrics", "/", "/api/v1/tags?limit=10"):
            assert get(server, path).status_code == 200, path
        open_ones.close()
        again = eventually(lambda: get(server, "/api/v1/tags"), lambda answer: answer.status_code == 200)
        assert again.content == whole.content


def secure(folder: Path) -> dict[str, Any]:
    made = Authority(folder).sign("localhost")
    return {"tls": {"cert": made.certificate, "key": made.key}}


@pytest.mark.parametrize("asked", [TAGS, TAGS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
def test_an_answer_must_be_taken_in_time(
    many: HandMade, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    monkeypatch.setattr("twinloop.web.sending.GRACE_S", 0.3)
    monkeypatch.setattr("twinloop.web.sending.LEAST_BYTES_PER_S", 100 << 20)
    with serving(many) as server, reader(server.port, asked) as slow:
        assert status(slow) == 200
        eventually(lambda: connections(server), lambda left: left == 0)
        heard = b"".join(_until_cut(slow))
        assert len(heard) < 1 << 20


def _until_cut(connection: socket.socket) -> Iterator[bytes]:
    try:
        yield from iter(partial(connection.recv, 1 << 16), b"")
    except ConnectionResetError:
        return


def test_the_end_of_an_answer_must_be_taken_in_time_too(
    many: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinloop.web.patient.REQUEST_WITHIN_S", 0.3)
    monkeypatch.setattr("twinloop.web.sending.PIECE", 1 << 30)
    with serving(many) as server, reader(server.port, TAGS) as slow:
        assert status(slow) == 200
        eventually(lambda: connections(server), lambda left: left == 0)


def test_with_tls_no_more_waits_either(many: HandMade, tmp_path: Path) -> None:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(many, **secure(tmp_path)) as server:
        raw = reader(server.port, b"")
        with context.wrap_socket(raw) as slow:
            slow.sendall(TAGS)
            assert slow.recv(12).split()[1] == b"200"
            assert in_buffers(server) <= 3 * PIECE


def test_room_is_given_back() -> None:
    room = Room(10)
    assert room.take(10)
    assert not room.take(1)
    room.give_back(10)
    assert room.take(10)


LAB = [{"tag": "R101.temperature", "time": "-5m", "value": 85.2}]


@contextmanager
def stored(folder: Path) -> Iterator[tuple[WebServer, StoredLook]]:
    """A plant with a history that takes lab samples, served."""
    look = recorded_look(folder, writable=True)
    with closing(WebServer(look, WebConfig.model_validate({"port": 0}))) as server:
        yield server, look


def posted(server: WebServer) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{server.port}/api/v1/samples", json=LAB, timeout=20)


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def send(body: bytes, of: int) -> bytes:
    head = f"POST /api/v1/samples HTTP/1.1\r\nHost: localhost\r\nContent-Length: {of}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


class Hang:
    """Stands where something hangs, until it may go on."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Semaphore(0), threading.Event()

    def __call__(self, *_: object, **__: object) -> Any:
        self.asked.release()
        assert self.go_on.wait(60)
        raise OSError("it hung")


def test_whatever_hangs_hangs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored(tmp_path) as (server, look), ExitStack() as open_ones:
        assert look.twin is not None
        store, twin, disk = Hang(), Hang(), Hang()
        for hang in (store, twin, disk):
            open_ones.callback(hang.go_on.set)

        def crowd(asked: bytes, hang: Hang, at_once: int) -> None:
            for _ in range(at_once + 5):
                open_ones.enter_context(reader(server.port, asked))
            for _ in range(at_once):
                assert hang.asked.acquire(timeout=20)

        monkeypatch.setattr(look.twin.queries, "range", store)
        crowd(ask("/api/v1/range?tag=R101.temperature"), store, 2)
        for path in ("/metrics", "/api/v1/health", "/api/v1/assets", "/api/v1/pipeline"):
            assert get(server, path).status_code == 200, path
        assert posted(server).status_code == 202
        monkeypatch.setattr(look.twin, "counts", twin)
        crowd(ask("/api/v1/trouble"), twin, 1)
        assert posted(server).status_code == 202
        assert get(server, "/metrics").status_code == 200
        monkeypatch.setattr("twinloop.web.api.intake.ImportSpool.put", disk)
        body = json.dumps(LAB).encode()
        crowd(send(body, len(body)), disk, 1)
        for path in ("/metrics", "/healthz", "/"):
            assert get(server, path).status_code == 200, path


def test_figures_that_hang_keep_nobody_from_the_twin(tmp_path: Path) -> None:
    with stored(tmp_path) as (server, look), ExitStack() as open_ones:
        held = Held()
        open_ones.callback(held.go.set)
        look.registry.register(held)
        for _ in range(5):
            open_ones.enter_context(reader(server.port, ask("/metrics")))
        assert held.asked.wait(20)
        for path in ("/api/v1/assets", "/api/v1/range?tag=R101.temperature"):
            assert get(server, path).status_code == 200, path
        assert posted(server).status_code == 202


def test_silent_senders_keep_no_honest_one_out(tmp_path: Path) -> None:
    with stored(tmp_path) as (server, _), ExitStack() as open_ones:
        for _ in range(80):
            open_ones.enter_context(reader(server.port, send(b"[", 100_000)))
        assert posted(server).status_code == 202


def test_what_is_sent_in_is_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.web.api.intake.MOST_HEARD", 100_000)
    with stored(tmp_path) as (server, _), ExitStack() as open_ones:
        for _ in range(3):
            open_ones.enter_context(reader(server.port, send(b"[" + b" " * 33_000, 50_000)))
        refused = eventually(lambda: posted_much(server), lambda answer: answer.status_code == 503)
        assert refused.headers["retry-after"]
        open_ones.close()
        eventually(lambda: posted(server), lambda answer: answer.status_code == 202)


def posted_much(server: WebServer) -> httpx.Response:
    body = json.dumps(LAB).encode() + b" " * 20_000
    kind = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{server.port}/api/v1/samples"
    return httpx.post(url, content=body, headers=kind, timeout=20)
