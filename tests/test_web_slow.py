"""Who takes answers slowly, or sends slowly, costs the process little and keeps nobody else out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.looks import HandMade, plant_of, serving
from support.tls import Authority
from support.twin import eventually
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
