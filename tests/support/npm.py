"""Packages of npm that tests use, each folder's `package.json` installed into `.services/`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from support.services import missing

__all__ = ["installed"]

_SERVICES = Path(__file__).parents[2] / ".services"
_TIMEOUT_S = 300


def installed(source: Path, what: str) -> Path:
    """The folder with the packages of `source/package.json`, installed at the first use; else skips.

    Args:
        source: its name is that of the folder in `.services/`.
        what: the service, for people.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing(what, "install Node.js and npm (apt install nodejs npm)")
    cache = _SERVICES / source.name
    wanted = (source / "package.json").read_text()
    stamp = cache / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "package.json").write_text(wanted)
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            command, cwd=cache, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            missing(what, f"npm install failed: {done.stderr.strip()[-300:]}")
        stamp.write_text(wanted)
    return cache
