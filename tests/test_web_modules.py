"""The page's pure modules: what they compute is tested by Node, without a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
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
    assert re.findall(r'<script[^>]* src="([^"]+)"', page) == ["app.js", "vendor/uPlot.iife.min.js"]
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


async def test_a_script_that_was_edited_is_served_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "main.js").write_text('import { a } from "./a.js";\nconsole.log(a);\n')
    (tmp_path / "js" / "a.js").write_text("export const a = 1;\n")
    files = Files(tmp_path)

    async def served() -> Response:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/app.js",
            "headers": [],
            "path_params": {"path": "app.js"},
        }
        return await files.serve(Request(scope))

    before = await served()
    assert b"a = 1" in before.body
    assert (await served()).headers["etag"] == before.headers["etag"]
    (tmp_path / "js" / "a.js").write_text("export const a = 22;\n")
    after = await served()
    assert b"a = 22" in after.body
    assert after.headers["etag"] != before.headers["etag"]
    assert after.media_type == "text/javascript; charset=utf-8"
