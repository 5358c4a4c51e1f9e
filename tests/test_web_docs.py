"""What tells of the API: each example of docs/HTTP.md works as it stands, and the page asks it all."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from support.browser import browser
from support.looking import recorded_look, served
from support.services import free_port, missing
from support.twin import eventually
from twinloop.web.api.current import LINKS

PAGE = (Path(__file__).parents[1] / "docs" / "HTTP.md").read_text()
EXAMPLES = re.findall(r"^curl .*$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real server."""
    if shutil.which("curl") is None:
        missing("curl", "install it with `apt install curl`")
    app = served(recorded_look(tmp_path_factory.mktemp("plant"), writable=True))

    @app.middleware("http")
    async def strict(request: Request, answer: RequestResponseEndpoint) -> Response:
        response = await answer(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started, bool)
    yield port
    server.should_exit = True
    thread.join()


def test_every_example_works(port: int, tmp_path: Path) -> None:
    for example in EXAMPLES:
        command = shlex.split(example.replace("127.0.0.1:8800", f"127.0.0.1:{port}"))
        done = subprocess.run(
            [*command, "--fail"], capture_output=True, check=False, cwd=tmp_path, timeout=20
        )
        assert done.returncode == 0, (example, done.stderr)
        assert done.stdout or (tmp_path / "rows.arrow").stat().st_size, example


def test_the_page_shows_every_operation_and_asks_it_under_a_strict_policy(port: int) -> None:
    with browser() as chromium:
        page = chromium.new_page()
        wrong: list[str] = []
        page.on("console", lambda said: wrong.append(f"{said.text} {said.location}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/api/v1/docs")
        expect(page.locator("section")).to_have_count(len(LINKS) - 2 + 3)
        for name, given, said in (
            ("tags", {}, "200 application/json"),
            ("range", {"tag": "R101.temperature", "limit": "1"}, 'rel="next"'),
            ("assets_asset", {"asset": "R101"}, '"snapshot": {'),
            ("samples", {}, "202 application/json"),
        ):
            section = page.locator(f"#{name}")
            for key, value in given.items():
                section.locator(f"[name={key}]").fill(value)
            section.get_by_role("button").click()
            expect(section.locator("pre")).to_contain_text(said)
    assert [each for each in wrong if "favicon" not in each] == []


def test_every_path_has_an_example_and_a_row() -> None:
    asked = " ".join(EXAMPLES)
    for path in {*LINKS, "assets/R101", "samples"} - {"docs"}:
        assert re.search(rf"api/v1/{re.escape(path)}(?![\w/])", asked), path
        assert f"`/{path}`" in PAGE or path in {"openapi.json", "assets/R101", "samples"}, path
