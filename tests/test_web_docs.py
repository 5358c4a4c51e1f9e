"""docs/HTTP.md: each of its examples works as it stands, against a real server, and each path has one."""

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


def test_every_path_has_an_example_and_a_row() -> None:
    asked = " ".join(EXAMPLES)
    for path in {*LINKS, "assets/R101", "samples"} - {"docs"}:
        assert re.search(rf"api/v1/{re.escape(path)}(?![\w/])", asked), path
        assert f"`/{path}`" in PAGE or path in {"openapi.json", "assets/R101", "samples"}, path
