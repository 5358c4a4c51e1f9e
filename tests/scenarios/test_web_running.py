"""`twinloop run` as a browser and its neighbours meet it: what is shown is what is stored, and to whom."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from support.browser import browser as chromium
from support.mosquitto import Mosquitto, mosquitto
from support.services import free_port
from support.tls import make_certificates
from support.twin import PATIENCE_S, Run, command, eventually, query, running
from test_web_live import Page, deaf
from twinloop.passwords import PasswordHash
from twinloop.present import time_text
from twinloop.running import running as twin_running
from twinloop.status import format_reasons, severity_name

TAGS = ("temperature", "pressure")
SECRETS = {"PASSWORD": "a pässword of mine", "TOKEN": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"}


def plant_file(folder: Path, port: int, web: str, more: str = "") -> Path:
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: test
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature: {{unit: degC, range: [-50, 400], spike: 20%, stale: 2s, noise: 0.5}}
  pressure: {{unit: bar, stale: off}}
assets:
  R101: {{tags: [temperature, pressure]}}
web: {web}
{more}""")
    return path


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder) as made:
        yield made


def send(port: int, tag: str, value: float | None, at_s: float, **more: Any) -> None:
    from support.plants import publisher

    with publisher(port) as made:
        payload = {"value": value, "timestamp": time_text(round(at_s * 1e9)), **more}
        made.send(payload, f"reactor/R101/sensor/{tag}")


@contextmanager
def page(port: int, **options: Any) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{port}/live", **options) as connection:
        yield Page(connection)


def begun(run: Run, port: int) -> None:
    """Return when the twin runs and its source is connected."""
    run.says("field: connected")
    url = f"http://127.0.0.1:{port}/readyz"
    eventually(lambda: httpx.get(url).status_code, lambda status: status == 200)


def shown(told: Page, tag_names: list[str]) -> dict[str, tuple[Any, ...]]:
    """What a page knows of each tag that had a sample, in the words of a question."""
    known: dict[str, tuple[Any, ...]] = {}
    for frame in told.frames:
        columns = (frame[name].tolist() for name in ("index", "time_ms", "value", "status", "reasons"))
        for index, time_ms, value, status, reasons in zip(*columns, strict=True):
            if not math.isnan(time_ms):
                number = None if math.isnan(value) else value
                words = severity_name(status), format_reasons(reasons)
                known[tag_names[index]] = (round(time_ms), number, *words)
    return known


def stored(plant: Path) -> dict[str, tuple[Any, ...]]:
    """The same by `twinloop query latest`."""
    from datetime import datetime

    return {
        row["tag"]: (
            round(1000 * datetime.fromisoformat(row["time"]).timestamp()),
            float(row["value"]) if row["value"] else None,
            row["status"],
            row["reasons"],
        )
        for row in query(plant, "latest")
    }


NAMES = [f"R101.{tag}" for tag in TAGS]


def test_a_page_shows_what_latest_says_also_after_the_server_has_come_back(
    tmp_path: Path, broker: Mosquitto
) -> None:
    port = free_port()
    plant = plant_file(tmp_path, broker.port, f"{{port: {port}}}")
    now_s = round(time.time())
    with running(plant) as run:
        begun(run, port)
        with page(port) as told, deaf(port):
            for n, value in enumerate([20.0, 21.0, 90.0, 21.5]):
                send(broker.port, "temperature", value, now_s - 10 + n)
            send(broker.port, "temperature", 19.0, now_s - 20)  # late
            send(broker.port, "pressure", None, now_s, quality="BadSensorFailure")
            eventually(lambda: stored(plant), lambda rows: len(rows) == 2)
            told.until(lambda: shown(told, NAMES).get(NAMES[1]), PATIENCE_S)
            # Silence lowers it in both, in its own time.
            eventually(lambda: stored(plant)[NAMES[0]][2], lambda status: status == "Bad")
            told.until(lambda: shown(told, NAMES) == stored(plant), PATIENCE_S)
            assert shown(told, NAMES)[NAMES[0]][1:] == (21.5, "Bad", "STALE")
            first_run = told.texts[0]["run"]
            assert run.stop() == 0
            with pytest.raises(ConnectionClosed):
                told.until(lambda: False)
    with running(plant) as run:
        begun(run, port)
        with page(port) as told:
            told.until(lambda: told.frames)
            assert told.frames[0]["index"].tolist() == [0, 1], "all tags at first"
            told.until(lambda: shown(told, NAMES) == stored(plant), PATIENCE_S)
            assert told.texts[0]["run"] != first_run
            send(broker.port, "pressure", 2.5, now_s + 1)
            told.until(lambda: shown(told, NAMES)[NAMES[1]][1] == 2.5, PATIENCE_S)
            told.until(lambda: told.of("pipeline")[-1]["sources"][0]["link"] == "up", PATIENCE_S)
            told.until(lambda: told.of("pipeline")[-1]["cycles"]["cycles"] >= 1, PATIENCE_S)
            pipeline = told.of("pipeline")[-1]
            assert {log["name"] for log in pipeline["logs"]} == {"received", "outputs"}
            assert sum(each["count"] for each in pipeline["cycles"]["histogram"]) >= 1
        assert run.stop() == 0


def test_off_loopback_without_a_login_nothing_starts(tmp_path: Path) -> None:
    plant = plant_file(tmp_path, free_port(), f"{{host: 0.0.0.0, port: {free_port()}}}")
    done = command("run", plant)
    assert done.returncode == 2
    assert re.search(r"plant.yaml:\d+: web.host: .* there is no login: set `username`", done.stderr)
    assert not (tmp_path / "data").exists()


def test_beyond_loopback_there_are_tls_a_login_a_limit_on_guesses_and_no_secret_in_any_log(
    tmp_path: Path, broker: Mosquitto
) -> None:
    certificates = make_certificates(tmp_path)
    port = free_port()
    tls = f"{{cert: {certificates.certificate}, key: {certificates.key}}}"
    login = f"username: me, password_hash: '${{HASH}}', token: '${{TOKEN}}', tls: {tls}"
    plant = plant_file(tmp_path, broker.port, f"{{host: 0.0.0.0, port: {port}, {login}}}")
    env = {"HASH": str(PasswordHash.of(SECRETS["PASSWORD"])), "TOKEN": SECRETS["TOKEN"]}
    trusted = ssl.create_default_context(cafile=certificates.authority)
    base = f"https://127.0.0.1:{port}"
    with running(plant, "--debug", env=env) as run, httpx.Client(base_url=base, verify=trusted) as browser:
        assert f"web: https://0.0.0.0:{port}" in run.says("web: https")
        run.says("field: connected")
        token = {"Authorization": f"Bearer {env['TOKEN']}"}
        eventually(lambda: browser.get("/readyz").status_code, lambda status: status == 200)
        assert list(browser.get("/healthz").json()) == ["status"]
        assert browser.get("/metrics").status_code == 401
        assert "twinloop_cycle_seconds" in browser.get("/metrics", headers=token).text
        entered = browser.post("/login", data={"username": "me", "password": SECRETS["PASSWORD"]})
        assert entered.status_code == 303
        cookie = browser.cookies.jar
        session = next(each.value for each in cookie if each.name.startswith("__Host-twinloop"))
        live = f"wss://127.0.0.1:{port}/live"
        headers = {"Cookie": f"__Host-twinloop-{port}={session}"}
        with connect(live, ssl=trusted, additional_headers=headers, origin=Origin(base)) as ours:
            assert json.loads(ours.recv(PATIENCE_S))["login"] is True
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(live, ssl=trusted, additional_headers=headers, origin=Origin("https://evil.example")),
        ):
            pass
        assert refused.value.response.status_code == 403
        guesses = [
            browser.post("/login", data={"username": "me", "password": f"guess number {n}"}) for n in range(7)
        ]
        assert [guess.status_code for guess in guesses] == [401] * 5 + [429] * 2
        assert int(guesses[-1].headers["retry-after"]) > 0
        assert browser.get("/metrics").status_code == 200, "who is logged in goes on"
        assert browser.post("/logout").status_code == 303
        assert browser.get("/metrics").status_code == 401
        assert run.stop() == 0
        run.drain()
    said = "\n".join(run.lines)
    for secret in (SECRETS["PASSWORD"], env["TOKEN"], env["HASH"], str(session), "guess number"):
        assert secret not in said
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [path for path in files if any(each.encode() in path.read_bytes() for each in env.values())]


async def test_with_a_log_in_memory_what_is_not_sealed_is_seen_in_this_process(
    tmp_path: Path, broker: Mosquitto
) -> None:
    plant = plant_file(tmp_path, broker.port, "{port: 0}", "log: {type: memory}\n")
    async with asyncio.timeout(60), twin_running(plant, os.environ) as twin:
        look = twin.looking

        def ask() -> list[float]:
            eventually(lambda: look.pipeline()["sources"][0]["link"], lambda link: link == "up")
            send(broker.port, "temperature", 20.0, time.time())
            rows = eventually(lambda: look.queries.range(NAMES[0], None, None), lambda rows: len(rows) > 0)
            assert look.now().value[0] == 20.0
            return [float(value) for value in rows["value"].to_pylist()]

        assert await asyncio.to_thread(ask) == [20.0]


def test_without_the_extra_health_and_metrics_are_served_and_one_line_says_so(tmp_path: Path) -> None:
    port = free_port()
    plant = plant_file(tmp_path, free_port(), f"{{port: {port}}}")
    missing = ("fastapi", "starlette", "uvicorn", "websockets", "anyio")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}));"
        "from twinloop.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", program, "run", str(plant)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        run = Run(process)
        try:
            assert "pip install 'twinloop[web]'" in run.says("without fastapi and uvicorn and websockets")
            run.says("web: http")
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: httpx.get(f"{url}/healthz").status_code, lambda status: status == 200)
            assert "twinloop_cycle_seconds" in httpx.get(f"{url}/metrics").text
            assert run.stop() == 0
        finally:
            process.kill()
    run.drain()
    assert sum("twinloop[web]" in line for line in run.lines) == 1


def test_a_taken_port_ends_the_start_before_anything_else(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("run", plant_file(tmp_path, free_port(), f"{{port: {port}}}"))
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_person_logs_in_and_out_in_a_browser(tmp_path: Path, broker: Mosquitto) -> None:
    port = free_port()
    web = f"{{port: {port}, username: me, password_hash: '${{HASH}}'}}"
    plant = plant_file(tmp_path, broker.port, web)
    with (
        running(plant, env={"HASH": str(PasswordHash.of(SECRETS["PASSWORD"]))}) as run,
        chromium() as program,
    ):
        run.says("field: connected")
        page = program.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("User name").fill("me")
        page.get_by_label("Password").fill("a wrong one")
        page.keyboard.press("Enter")
        page.get_by_label("Password").fill(SECRETS["PASSWORD"])
        page.get_by_label("User name").fill("me")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Pipeline").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in").wait_for()
        page.goto(f"http://127.0.0.1:{port}/")
        assert "/login" in page.url, "the session is over"
