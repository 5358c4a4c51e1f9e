"""What is installed is whole: a wheel has the page's files beside the code."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from support.services import missing

ROOT = Path(__file__).parents[1]


def test_a_wheel_has_every_file_of_the_page(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if built.returncode and "hatchling" in built.stderr:
        missing("hatchling", f"it builds wheels and could not be had: {built.stderr.strip()[-200:]}")
    assert not built.returncode, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    package = ROOT / "src" / "twinloop"
    expected = {
        f"twinloop/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as files:
        there = set(files.namelist())
    assert expected <= there
    assert "twinloop/web/static/index.html" in there
