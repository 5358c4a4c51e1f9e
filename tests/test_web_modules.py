"""The page's pure modules: what they compute is tested by Node, without a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from support.services import missing
from twinloop.web.bundle import bundled, modules_of
from twinloop.web.files import Files

TESTS = Path(__file__).parent / "web"
STATIC = Path(__file__).parents[1] / "src" / "twinloop" / "web" / "static"


def test_the_pure_modules_of_the_page_keep_their_laws() -> None:
    node = shutil.which("node")
    if node is None:
        missing("node", "install Node.js (apt install nodejs)")
    files = sorted(str(path) for path in TESTS.glob("*.test.mjs"))
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_pure_modules_touch_no_document_and_import_none_that_does() -> None:
    for path in (STATIC / "js" / "pure").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r'from "([^"]+)"', text)
        assert all(name.startswith("./") for name in imported), path.name
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(document|window|navigator|localStorage)\b", code), path.name


def test_a_module_is_readable_in_one_sitting() -> None:
    for path in (STATIC / "js").rglob("*.js"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 400, path.name


def test_nothing_of_the_page_comes_from_elsewhere_or_stands_inline() -> None:
    """The page's Content-Security-Policy would stop it; so it works without a network, too."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in STATIC.rglob("*"):
        if path.suffix in {".html", ".css", ".js"} and path.parent.name != "vendor":
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(https?|wss?)://\w", text), path.name


def test_the_page_asks_for_all_its_scripts_at_once() -> None:
    """Fifty requests on a busy machine are seconds."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<script[^>]* src="([^"]+)"', page) == [
        "early.js",
        "app.js",
        "vendor/uPlot.iife.min.js",
    ]
    made = set((STATIC / "js").rglob("*.js"))
    assert set(modules_of(STATIC / "js" / "main.js")) == made, "none is left that nobody imports"


def test_scripts_put_together_do_what_they_do_apart(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.js").write_text(
        "let calls = 0;\nexport function count() {\n  calls += 1;\n  return calls;\n}\n"
        "export const NAME = `export ${1}`;\nexport class Box {}\n"
        "export async function later() { return 5; }\n"
    )
    (tmp_path / "two.js").write_text(
        'import { count as more, NAME } from "./deep/one.js";\nconst calls = 10;\n'
        "export function both() {\n  return [more(), calls, NAME];\n}\n"
    )
    (tmp_path / "main.js").write_text(
        'import { both } from "./two.js";\nimport {\n  Box,\n  count,\n  later,\n} from "./deep/one.js";\n'
        "const first = [both(), count(), new Box() instanceof Box];\n"
        "later().then((five) => console.log(JSON.stringify([...first, five])));\n"
    )
    node = shutil.which("node")
    if node is None:
        missing("node", "install Node.js (apt install nodejs)")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "together.mjs").write_bytes(bundled(tmp_path / "main.js"))
    said = [
        subprocess.run(
            [node, name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for name in ("main.js", "together.mjs")
    ]
    assert said[0] == said[1] == '[[1,10,"export 1"],2,true,5]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('export * from "./b.js";', "cannot be put together"),
        ("export default 1;", "cannot be put together"),
        ('import b from "./b.js";', "cannot be put together"),
        ('import { a } from "./main.js";', "imports itself"),
    ],
)
def test_a_form_that_would_mean_something_else_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "main.js").write_text(text)
    (tmp_path / "b.js").write_text("export const a = 1;")
    with pytest.raises(ValueError, match=told):
        bundled(tmp_path / "main.js")


async def served(files: Files, path: str, **headers: str) -> Response:
    asked = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/{path}",
        "headers": asked,
        "path_params": {"path": path},
    }
    return await files.serve(Request(scope))


async def test_what_the_page_names_is_served_with_a_tag_of_its_content() -> None:
    files = Files()
    page = await served(files, "")
    assert page.body == (await served(files, "index.html")).body
    for name in re.findall(r'(?:src|href)="([\w./-]+\.(?:js|css|svg))"', bytes(page.body).decode()):
        found = await served(files, name)
        assert found.body, name
        again = await served(Files(), name, if_none_match=found.headers["etag"])
        assert (again.status_code, again.body) == (304, b""), name


async def test_scripts_and_sheets_of_the_page_are_one_file_each() -> None:
    files = Files()
    script, sheet = await served(files, "app.js"), await served(files, "app.css")
    assert (script.media_type, sheet.media_type) == (
        "text/javascript; charset=utf-8",
        "text/css; charset=utf-8",
    )
    assert all(path.name.encode() in bytes(script.body) for path in modules_of(STATIC / "js" / "main.js"))
    for name in ("style.css", "views.css", "vendor/uPlot.min.css"):
        assert (STATIC / name).read_bytes() in bytes(sheet.body), name


@pytest.mark.parametrize("path", ["../app.py", "js", "js/", "%2e%2e/app.py", "a" * 5000, "\0"])
async def test_nothing_but_the_page_s_files_is_served(path: str) -> None:
    with pytest.raises(HTTPException) as refused:
        await served(Files(), path)
    assert refused.value.status_code == 404
