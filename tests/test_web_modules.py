"""The page's pure modules: what they compute is tested by Node, without a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from support.services import missing

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


def test_all_modules_are_asked_for_at_once() -> None:
    """Else a browser finds them one level of imports after the other, and the first number waits."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    preloaded = set(re.findall(r'<link rel="modulepreload" href="([^"]+)">', page))
    made = {path.relative_to(STATIC).as_posix() for path in (STATIC / "js").rglob("*.js")}
    assert preloaded | {"js/main.js"} == made
