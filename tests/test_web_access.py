"""Who may look: hosts, origins, logins, tokens, limits; asked over real sockets."""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import Gauge
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from support.looks import HandMade, Held, serving
from support.tls import Authority
from support.twin import eventually
from twinloop.cli.password import make_hash
from twinloop.config.plantfile import load, read
from twinloop.config.web import WebConfig, web_warnings
from twinloop.errors import ConfigError, StartError
from twinloop.passwords import PasswordHash
from twinloop.web.access import Access, Asking, TooManyError
from twinloop.web.attempts import Attempts, Pace
from twinloop.web.figures import encoder_of
from twinloop.web.probe import Probe
from twinloop.web.server import WebServer
from twinloop.web.sessions import Sessions

PASSWORD = "correct horse battery"
TOKEN = "0123456789abcdef0123456789abcdef"
# Cheap, so that tests need not wait: what `twinloop password` makes takes a quarter of a second to check.
HASH = "scrypt:4:8:1:AAECAwQFBgcICQoLDA0ODw:" + "{}"


@pytest.fixture(scope="module")
def password_hash() -> str:
    import base64
    import hashlib

    key = hashlib.scrypt(PASSWORD.encode(), salt=bytes(range(16)), n=16, r=8, p=1, dklen=32)
    return HASH.format(base64.urlsafe_b64encode(key).decode().rstrip("="))


@pytest.fixture
def login(password_hash: str) -> dict[str, Any]:
    return {"username": "operator", "password_hash": password_hash}


def client(server: WebServer | Probe, **options: Any) -> httpx.Client:
    scheme = "https" if "verify" in options else "http"
    return httpx.Client(base_url=f"{scheme}://127.0.0.1:{server.port}", timeout=10, **options)


def running_look() -> HandMade:
    look = HandMade()
    look.begin()
    return look


def log_in(
    browser: httpx.Client, password: str = PASSWORD, username: str = "operator", **more: str
) -> httpx.Response:
    return browser.post("/login", data={"username": username, "password": password, **more})


# Host names


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with serving(running_look(), names=["twin.plant.example"]) as made:
        yield made


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:8800", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:8800", True),
        ("twin.plant.example", True),
        ("twin.plant.example.:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_on_loopback_only_its_own_names_are_answered_to(server: WebServer, host: str, known: bool) -> None:  # noqa: FBT001
    with client(server) as asking:
        answer = asking.get("/healthz", headers={"Host": host})
    assert answer.status_code == (200 if known else 421)
    if not known:
        assert "web: {names:" in answer.json()["detail"], "it says what to do"


def test_beyond_loopback_addresses_are_answered_to_and_foreign_names_not(login: dict[str, Any]) -> None:
    access = Access(WebConfig.model_validate({"host": "0.0.0.0", **login}), 8800)  # noqa: S104
    for host in ("10.0.0.1:8800", "[fe80::1]:8800", "localhost", socket.gethostname()):
        assert access.knows_host([host]), host
    for hosts in (["evil.example"], ["localhost", "localhost"], ["10.0.0.1.evil.example"], ["0x7f.1"]):
        assert not access.knows_host(hosts), hosts


@pytest.mark.parametrize(
    ("origin", "site", "known"),
    [
        ("", "", True),
        ("http://127.0.0.1:8800", "same-origin", True),
        ("http://127.0.0.1:8800", "cross-site", False),
        ("http://127.0.0.1:8801", "", False),
        ("http://127.0.0.1", "", False),
        ("null", "", False),
        ("https://evil.example", "", False),
        ("http://127.0.0.1:8800.evil.example", "", False),
        ("http://user@127.0.0.1:8800", "", False),
        ("file://127.0.0.1:8800", "", False),
        ("http://[", "", False),
    ],
)
def test_what_acts_must_come_from_a_page_of_ours(origin: str, site: str, known: bool) -> None:  # noqa: FBT001
    access = Access(WebConfig(), 8800)
    assert access.knows_origin(Asking("127.0.0.1", ["127.0.0.1:8800"], origin, site)) is known


def test_behind_tls_a_page_without_it_is_not_ours(tmp_path: Path) -> None:
    made = Authority(tmp_path).sign("localhost")
    access = Access(WebConfig.model_validate({"tls": {"cert": made.certificate, "key": made.key}}), 8800)
    assert access.knows_origin(Asking("", ["twin"], "https://twin:443"))
    assert not access.knows_origin(Asking("", ["twin"], "http://twin"))


def test_behind_a_proxy_with_tls_cookies_are_secure_and_pages_without_it_are_not_ours(
    login: dict[str, Any],
) -> None:
    proxied = {"Host": "twin.plant.example", "Origin": "https://twin.plant.example"}
    keys = {"names": ["twin.plant.example"], "behind_tls": True, **login}
    with serving(running_look(), **keys) as server, client(server, headers=proxied) as browser:
        entered = log_in(browser)
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith(f"__Host-twinloop-{server.port}=")
        assert "Secure" in cookie
        header = {"Cookie": cookie.partition(";")[0], "Connection": "upgrade"}
        assert browser.get("/metrics", headers=header).status_code == 200
        assert log_in(browser, PASSWORD).status_code == 303
        plain = {"Origin": "http://twin.plant.example"}
        assert browser.post("/logout", headers=plain).status_code == 403
    config = WebConfig.model_validate({"host": "0.0.0.0", "behind_tls": True, **login})  # noqa: S104
    assert not list(web_warnings(config))


def test_another_page_can_neither_post_nor_open_a_socket(server: WebServer) -> None:
    evil = Origin("https://evil.example")
    with client(server) as asking:
        assert asking.post("/logout", headers={"Origin": evil}).status_code == 403
        assert asking.delete("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{server.port}/live", origin=evil):
        pass
    assert refused.value.response.status_code == 403


# What every answer has


def test_every_answer_keeps_itself_to_its_own_page(server: WebServer) -> None:
    with client(server) as asking:
        answers = [
            asking.get("/"),
            asking.get("/nothing"),
            asking.get("/metrics"),
            asking.get("/api/v1/nothing"),
            asking.get("/", headers={"Host": "evil.example"}),
            asking.post("/healthz"),
        ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"]
        assert "server" not in answer.headers
    assert [answer.status_code for answer in answers] == [200, 404, 200, 404, 421, 405]
    for answer in answers[1], answers[3], answers[4], answers[5]:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


def test_the_pages_files_are_asked_about_and_sent_once(server: WebServer) -> None:
    with client(server) as asking:
        first = asking.get("/")
        again = asking.get("/", headers={"If-None-Match": first.headers["etag"]})
        head = asking.head("/login.css")
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert head.status_code == 200


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/a%00b", "//etc/passwd", "/" + "x" * 5000]
)
def test_no_other_file_is_ever_given(server: WebServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(12) == b"HTTP/1.1 404"


# Limits


def test_a_body_is_only_so_large_said_or_unsaid(login: dict[str, Any]) -> None:
    with serving(running_look(), **login) as server, client(server) as asking:
        assert asking.post("/login", content=b"x" * 20_000).status_code == 413

        def unsaid() -> Iterator[bytes]:
            for _ in range(20):
                yield b"x" * 1000

        assert asking.post("/login", content=unsaid()).status_code == 413


def test_headers_are_only_so_long(server: WebServer) -> None:
    with client(server) as asking:
        assert asking.get("/", headers={"X": "x" * 40_000}).status_code in {400, 431}
        assert asking.get("/" + "x" * 50_000).status_code in {400, 431}
        assert asking.get("/", headers={"X": "x" * 30_000}).status_code == 200


def test_a_request_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.web.patient.REQUEST_WITHIN_S", 0.3)
    monkeypatch.setattr("twinloop.web.guard.BODY_WITHIN_S", 0.3)
    monkeypatch.setattr("twinloop.web.server.KEEP_ALIVE_S", 1)
    body = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(running_look()) as server:
        for said in (b"", b"GET / HTTP/1.1\r\n", body, whole + b"GET / HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
                raw.sendall(said)
                heard = b"".join(iter(partial(raw.recv, 1 << 16), b""))
            assert heard.count(b" 408 ") == (said == body)
            assert heard.count(b" 200 ") == said.startswith(whole)


def tls(folder: Path) -> dict[str, Any]:
    made = Authority(folder).sign("localhost")
    return {"tls": {"cert": made.certificate, "key": made.key}}


def test_a_handshake_that_never_comes_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.web.server.HANDSHAKE_WITHIN_S", 0.3)
    with serving(running_look(), **tls(tmp_path)) as server:
        for said in (b"", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
                raw.sendall(said)
                assert raw.recv(1) == b""


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_probe_has_patience_for_a_request_and_not_for_each_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr("twinloop.web.probe.REQUEST_WITHIN_S", 0.5)
    config = WebConfig.model_validate({"port": 0, **(tls(tmp_path) if encrypted else {})})
    with (
        closing(Probe(running_look(), config)) as probe,
        socket.create_connection(("127.0.0.1", probe.port), 10) as raw,
    ):
        began = time.monotonic()
        raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" if encrypted else b"GET /")
        with suppress(ConnectionError):
            while time.monotonic() - began < 5:
                raw.sendall(b"\x03" if encrypted else b"x")
                time.sleep(0.05)  # a slow sender
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("encrypted", [False, True])
def test_more_connections_than_there_is_room_for_are_cut(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr("twinloop.web.listening.CONNECTIONS", 3)
    with serving(running_look(), **tls(tmp_path) if encrypted else {}) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", server.port), 5) as one:
            assert one.recv(1) == b"", "before it has said a word"
        for each in idle:
            each.close()

        def answered() -> bool:
            with socket.create_connection(("127.0.0.1", server.port), 5) as one:
                one.settimeout(0.2)
                with suppress(TimeoutError):
                    return one.recv(1) != b""
            return True

        eventually(answered, bool)


# Logins


def test_without_a_login_nothing_is_asked_for(server: WebServer) -> None:
    with client(server) as asking:
        assert asking.get("/metrics").status_code == 200
        assert asking.get("/login").headers["location"] == "/"
        assert asking.get("/healthz").json() == {"status": "ok", "plant": "test"}


def test_with_a_login_only_the_bare_health_is_seen_without_it(login: dict[str, Any]) -> None:
    look = running_look()
    with serving(look, **login) as server, client(server) as stranger:
        assert stranger.get("/healthz").json() == {"status": "ok"}
        assert stranger.get("/readyz").json() == {"status": "ready"}
        assert look.twin is not None
        look.twin.well = False
        assert stranger.get("/readyz").status_code == 503
        for path in ("/", "/metrics", "/api/v1/tags", "/api/v1/openapi.json", "/nothing"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        asked = stranger.get("/tags?x=1", headers={"Accept": "text/html,*/*"})
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Ftags%3Fx%3D1")
        page = stranger.get(asked.headers["location"])
        assert 'value="/tags?x=1"' in page.text
        assert '<label for="password">' in page.text
        assert stranger.get("/login.css").status_code == 200
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{server.port}/live"):
            pass
        assert refused.value.response.status_code == 401


def test_who_logs_in_may_look_until_the_logout(login: dict[str, Any]) -> None:
    with serving(running_look(), **login) as server, client(server) as browser:
        entered = log_in(browser, next="/tags")
        assert (entered.status_code, entered.headers["location"]) == (303, "/tags")
        cookie = entered.headers["set-cookie"]
        assert re.match(rf"twinloop-{server.port}=[\w-]{{43}}; ", cookie)
        for word in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"):
            assert word in cookie
        assert "Secure" not in cookie, "without TLS it would not come back"
        assert browser.get("/metrics").status_code == 200
        assert browser.get("/healthz").json()["plant"] == "test"
        assert browser.get("/login").headers["location"] == "/"
        header = {"Cookie": cookie.partition(";")[0]}
        with connect(f"ws://127.0.0.1:{server.port}/live", additional_headers=header) as live:
            assert '"login":true' in str(live.recv(5))
            left = browser.post("/logout")
            assert left.headers["location"] == "/login"
            with pytest.raises(ConnectionClosed):
                list(iter(partial(live.recv, 5), None))
            assert live.close_code == 4401
        assert browser.get("/metrics").status_code == 401
        with client(server, headers=header) as thief:
            assert thief.get("/metrics").status_code == 401, "and not by the old cookie"


@pytest.mark.parametrize(
    ("username", "password"), [("operator", "wrong"), ("admin", PASSWORD), ("", ""), ("operator", "")]
)
def test_a_wrong_login_is_refused_and_says_not_what_was_wrong(
    login: dict[str, Any], username: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(running_look(), **login) as server, client(server) as browser:
        answer = log_in(browser, password, username)
        assert answer.status_code == 401
        assert "User name or password is wrong." in answer.text
        assert "set-cookie" not in answer.headers
        assert browser.get("/metrics").status_code == 401
    assert "a login from 127.0.0.1 failed" in caplog.text
    assert not password or password not in caplog.text


def test_a_login_leads_nowhere_else(login: dict[str, Any]) -> None:
    others = ["//evil.example", "https://evil.example", "/\\evil.example", "x", "/a\r\nX: y", "/login?next=/"]
    with serving(running_look(), **login) as server, client(server) as browser:
        for following in others:
            assert log_in(browser, next=following).headers["location"] == "/"


def test_what_a_page_is_asked_with_is_not_taken_for_its_own_text(login: dict[str, Any]) -> None:
    with serving(running_look(), **login) as server, client(server) as browser:
        page = browser.get("/login", params={"next": '/"><script>alert(1)</script>'})
        assert "<script" not in page.text


def test_a_token_lets_programs_look_and_logs_people_in_where_there_is_no_password() -> None:
    with serving(running_look(), token=TOKEN) as server, client(server) as program:
        assert program.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert program.get("/metrics", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
        for wrong in (f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", "Bearer ü"):
            headers = {"Authorization": wrong.encode("utf-8")}
            assert program.get("/metrics", headers=headers).status_code == 401  # type: ignore[arg-type]
        assert '<label for="password">Token</label>' in program.get("/login").text
        assert log_in(program, "wrong").status_code == 401
        assert log_in(program, TOKEN).status_code == 303
        assert program.get("/metrics").status_code == 200
        header = {"Authorization": f"Bearer {TOKEN}"}
        with connect(f"ws://127.0.0.1:{server.port}/live", additional_headers=header) as live:
            assert live.recv(5)


def test_secrets_come_from_files_too(tmp_path: Path, password_hash: str) -> None:
    (tmp_path / "hash").write_text(f"{password_hash}\n")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    keys: dict[str, Any] = {
        "username": "operator",
        "password_hash_file": tmp_path / "hash",
        "token_file": tmp_path / "token",
    }
    with serving(running_look(), **keys) as server, client(server) as browser:
        assert browser.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert log_in(browser).status_code == 303


@pytest.mark.parametrize("content", [None, b"", b"hunter2 in clear", b"\xff\xfe"])
@pytest.mark.parametrize("key", ["password_hash_file", "token_file"])
def test_a_file_without_a_usable_secret_is_refused_at_the_start_and_not_shown(
    tmp_path: Path, key: str, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content[:15])
    more: dict[str, Any] = {key: path} | ({"username": "operator"} if key == "password_hash_file" else {})
    with (
        pytest.raises(ConfigError, match=rf"web\.{key} .*secret") as refused,
        serving(running_look(), **more),
    ):
        pass
    assert "hunter2" not in str(refused.value)


def test_guessing_is_slowed_down_for_the_guesser(login: dict[str, Any]) -> None:
    look = running_look()
    with serving(look, **login) as server, client(server) as guesser:
        answers = [log_in(guesser, f"guess{n}") for n in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
        assert log_in(guesser).status_code == 429, "the right one, too: else it would tell"
        assert guesser.get("/healthz").status_code == 200


def test_wrong_tokens_are_slowed_down_too() -> None:
    with serving(running_look(), token=TOKEN) as server, client(server) as guesser:
        answers = [guesser.get("/metrics", headers={"Authorization": f"Bearer {n:032}"}) for n in range(25)]
        assert answers[0].status_code == 401
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        for _ in range(30):
            right = guesser.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert right.status_code == 200, "Prometheus at the same address is not shut out"
        wrong = guesser.get("/metrics", headers={"Authorization": f"Bearer {1:032}"})
        assert wrong.status_code == 429


class Clock:
    """Seconds that a test lets go by."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_attempts_are_limited_for_each_address_and_for_all_and_come_back_with_time() -> None:
    clock = Clock()
    attempts = Attempts(Pace(2, 10.0), Pace(5, 1.0), clock)
    assert [attempts.take("10.0.0.1") for _ in range(3)] == [0, 0, 10]
    assert attempts.take("::ffff:10.0.0.1") == 10, "the same address in another spelling"
    assert [attempts.take(f"10.0.1.{n}") for n in range(4)] == [0, 0, 0, 1], "all together"
    clock.now_s += 10
    assert [attempts.take("10.0.0.1") for _ in range(2)] == [0, 10]
    attempts.give_back("10.0.0.1")
    assert attempts.take("10.0.0.1") == 0, "what was right does not count"


def test_an_ipv6_network_is_one_guesser() -> None:
    attempts = Attempts(Pace(1, 10.0), Pace(100, 1.0), Clock())
    assert attempts.take("2001:db8::1") == 0
    assert attempts.take("2001:db8::2%eth0") == 10
    assert attempts.take("2001:db8:0:1::1") == 0


def test_many_addresses_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.web.attempts._ADDRESSES", 100)
    attempts = Attempts(Pace(1, 10.0), Pace(10_000, 1.0), Clock())
    for n in range(1000):
        attempts.take(f"10.0.{n // 256}.{n % 256}")
    assert len(attempts._buckets) == 100


def test_many_at_once_are_no_way_around(login: dict[str, Any]) -> None:
    access = Access(WebConfig.model_validate(login), 8800)
    refused = 0
    for _ in range(6):
        try:
            assert not access.log_in("operator", "wrong", "10.0.0.1")
        except TooManyError:
            refused += 1
    assert refused == 1


def test_sessions_end_by_time_by_word_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    sessions = Sessions(60.0, clock)
    first, second = sessions.begin(), sessions.begin()
    assert sessions.holds(first)
    assert not sessions.holds(first[:-1])
    assert not sessions.holds("")
    sessions.end(second)
    assert not sessions.holds(second)
    clock.now_s += 60
    assert not sessions.holds(first)
    monkeypatch.setattr("twinloop.web.sessions._MOST", 3)
    names = [sessions.begin() for _ in range(4)]
    assert [sessions.holds(name) for name in names] == [False, True, True, True]


# TLS


def test_with_certificates_pages_and_sockets_are_encrypted_and_cookies_secure(
    tmp_path: Path, login: dict[str, Any]
) -> None:
    authority = Authority(tmp_path)
    made = authority.sign("localhost")
    tls = {"cert": made.certificate, "key": made.key}
    context = ssl.create_default_context(cafile=made.authority)
    with (
        serving(running_look(), tls=tls, **login) as server,
        client(server, verify=context) as browser,
    ):
        entered = log_in(browser)
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith(f"__Host-twinloop-{server.port}=")
        assert "Secure" in cookie
        assert browser.get("/metrics").status_code == 200
        header = {"Cookie": cookie.partition(";")[0]}
        url = f"wss://127.0.0.1:{server.port}/live"
        with connect(url, ssl=context, additional_headers=header) as live:
            assert live.recv(5)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/healthz")
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 1.5


def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinloop.web.server.RENEW_EVERY_S", 0.05)
    authority = Authority(tmp_path)
    made = authority.sign("first", files="server")

    with serving(running_look(), tls={"cert": made.certificate, "key": made.key}) as renewing:

        def shown() -> bytes:
            return ssl.get_server_certificate(("127.0.0.1", renewing.port)).encode()

        first = shown()
        made.certificate.write_bytes(b"half of it")
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            assert shown() == first, "what cannot be used is not shown"
        second = authority.sign("second", files="server").certificate.read_bytes()
        deadline = time.monotonic() + 10
        while shown() != second:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("broken", ["missing", "other", "encrypted"])
def test_certificates_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path, broken: str) -> None:
    authority = Authority(tmp_path)
    made, other = authority.sign("localhost"), authority.sign("other")
    keys = {"missing": tmp_path / "none.key", "other": other.key, "encrypted": tmp_path / "encrypted.key"}
    if broken == "encrypted":
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(made.key.read_bytes(), None)
        keys["encrypted"].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
    tls = {"cert": made.certificate, "key": keys[broken]}
    with pytest.raises(ConfigError, match=r"web\.tls: "), serving(running_look(), tls=tls):
        pass


# Ports


def test_a_taken_port_is_refused_with_a_way_out(server: WebServer) -> None:
    with (
        pytest.raises(StartError, match=rf"127.0.0.1:{server.port} cannot be listened on .*port"),
        serving(running_look(), port=server.port),
    ):
        pass


def test_a_server_that_fails_lets_nobody_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no app")

    monkeypatch.setattr("twinloop.web.app.make_app", fail)
    with serving(running_look()) as server:
        server._thread.join(10)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5)
    assert "the server has failed" in caplog.text


ACCEPTED = st.lists(
    st.builds(
        ";".join,
        st.lists(
            st.one_of(
                st.sampled_from(["application/openmetrics-text", "text/plain", "*/*", "q=0.5"]),
                st.text(st.characters(max_codepoint=255), max_size=10).map("version={}".format),
                st.sampled_from(["version=a=b", "version=1.0.0", "version=2", "version=1.", "version=-1"]),
                st.text(st.characters(max_codepoint=255), max_size=10).map("escaping={}".format),
                st.text(st.characters(max_codepoint=255), max_size=20),
            ),
            max_size=4,
        ),
    ),
    max_size=3,
).map(",".join)


@given(ACCEPTED)
@example("application/openmetrics-text; version=a=b")
def test_metrics_are_told_whatever_is_accepted(accept: str) -> None:
    look = running_look()
    Gauge("of_a_test", "A figure", registry=look.registry).set(7)
    encode, kind = encoder_of(accept)
    assert b"of_a_test 7.0" in encode(look.registry)
    assert kind.startswith(("text/plain", "application/openmetrics-text"))
    assert kind.isprintable()


@pytest.mark.parametrize("kind", [WebServer, Probe])
def test_an_accept_that_cannot_be_read_is_answered_in_plain_text(kind: type[WebServer | Probe]) -> None:
    with closing(kind(running_look(), WebConfig(port=0))) as made, client(made) as asking:
        answer = asking.get("/metrics", headers={"Accept": "application/openmetrics-text; version=a=b"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str, login: dict[str, Any]) -> None:
    with (
        pytest.raises(StartError, match="cannot be listened on"),
        serving(running_look(), host=host, **login),
    ):
        pass


def test_leaving_does_not_wait_for_an_answer_under_way() -> None:
    look, held = running_look(), Held()
    with serving(look) as server:
        look.registry.register(held)
        with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
            raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.asked.wait(10)
            began = time.monotonic()
            server.close()
            assert time.monotonic() - began < 1.5
        held.go.set()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_is_served() -> None:
    with serving(running_look(), host="::1") as server:
        answer = httpx.get(f"http://[::1]:{server.port}/healthz")
        assert answer.status_code == 200


# The plant file and the command


def plant_file(folder: Path, web: str) -> Path:
    path = folder / "plant.yaml"
    path.write_text(f"plant: p\nweb: {web}\n")
    return path


@pytest.mark.parametrize(
    ("web", "line"),
    [
        ("{host: 0.0.0.0}", "web.host: 0.0.0.0 can be reached from other hosts, and there is no login"),
        ("{host: '::'}", "web.host: :: can be reached"),
        ("{username: me}", "web.username: username and password_hash go together"),
        ("{password_hash_file: x}", "web.password_hash: username and password_hash go together"),
        ("{token: 0123456789abcdef, token_file: x}", "web.token_file: token or token_file, not both"),
        ("{token: short}", "web.token: too short"),
        (
            "{username: me, password_hash: hunter2}",
            "web.password_hash: expected a hash as `twinloop password`",
        ),
        (
            "{username: me, password_hash: 'scrypt:30:8:1:AAECAwQFBgc:AAECAwQFBgcICQoLDA0ODw'}",
            "cannot be used",
        ),
        ("{session: 1s}", "web.session: too small"),
        ("{tls: {cert: a.pem}}", "web.tls.key: missing"),
        ("{tokn: x}", "web.tokn: unknown key; did you mean 'token'?"),
    ],
)
def test_a_web_section_that_cannot_be_meant_is_refused(tmp_path: Path, web: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(plant_file(tmp_path, web), {})
    assert line in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_refused_hash_is_not_also_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(plant_file(tmp_path, "{host: 0.0.0.0, username: me, password_hash: hunter2}"), {})
    assert len(str(refused.value).splitlines()) == 1


def test_secrets_of_the_web_come_from_the_environment_and_an_open_door_without_tls_is_told(
    tmp_path: Path, password_hash: str
) -> None:
    text = "{host: 0.0.0.0, username: me, password_hash: '${HASH}', token: '${TOKEN}'}"
    loaded = read(plant_file(tmp_path, text), {"HASH": password_hash, "TOKEN": TOKEN})
    assert [warning for warning in loaded.warnings if "nothing is encrypted" in warning]
    assert TOKEN not in repr(loaded.config)
    assert password_hash not in repr(loaded.config)


def test_a_password_fits_its_hash_and_no_other_does() -> None:
    made = PasswordHash.of("pässword")
    again = PasswordHash.parse(str(made))
    assert again == made
    assert again.fits("pa\u0308ssword"), "however the accent is written"
    assert not again.fits("password")
    assert "$" not in str(made)
    assert str(made) not in repr(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scrypt",
        "bcrypt:15:8:3:AAECAwQFBgc:AAEC",
        "scrypt:x:8:3:AA:AA",
        "scrypt:15:8:3:*:*",
        "scrypt:1:1:1:AA:AA",
    ],
)
def test_what_is_no_hash_is_refused_unseen(text: str) -> None:
    with pytest.raises(ValueError, match="hash"):
        PasswordHash.parse(text)


def test_the_command_makes_a_hash_of_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twinloop", "password"],
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert PasswordHash.parse(done.stdout).fits(PASSWORD)
    assert PASSWORD not in done.stdout + done.stderr


def test_on_a_terminal_a_password_is_asked_for_twice_and_not_shown() -> None:
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", "twinloop", "password"])  # noqa: S606
    heard = b""
    for prompt in (b"password: ", b"once more: "):
        while prompt not in heard:
            heard += os.read(terminal, 1024)
        os.write(terminal, f"{PASSWORD}\n".encode())
    with suppress(OSError):  # as Linux ends a terminal
        while part := os.read(terminal, 1024):
            heard += part
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert PASSWORD.encode() not in heard
    assert PasswordHash.parse(heard.decode().split()[-1]).fits(PASSWORD)


def test_a_password_to_be_guessed_at_once_is_refused() -> None:
    with pytest.raises(ConfigError, match="too short"):
        make_hash(io.StringIO("short\n"))


# Without the extra


def test_the_probe_asks_for_the_token_and_the_host_too(login: dict[str, Any]) -> None:
    probe = Probe(running_look(), WebConfig.model_validate({"port": 0, "token": TOKEN, **login}))
    try:
        with client(probe) as asking:
            assert asking.get("/healthz").json() == {"status": "ok"}
            assert asking.get("/metrics").status_code == 401
            headers = {"Authorization": f"Bearer {TOKEN}"}
            assert asking.get("/metrics", headers=headers).status_code == 200
            assert asking.get("/healthz", headers=headers).json()["plant"] == "test"
            assert asking.get("/healthz", headers={"Host": "evil.example"}).status_code == 421
            for n in range(25):
                last = asking.get("/metrics", headers={"Authorization": f"Bearer {n:032}"})
            assert last.status_code == 429
    finally:
        probe.close()


def test_the_probe_has_tls(tmp_path: Path) -> None:
    made = Authority(tmp_path).sign("localhost")
    config = WebConfig.model_validate({"port": 0, "tls": {"cert": made.certificate, "key": made.key}})
    probe = Probe(running_look(), config)
    try:
        context = ssl.create_default_context(cafile=made.authority)
        with client(probe, verify=context) as asking:
            assert asking.get("/readyz").status_code == 200
    finally:
        probe.close()
