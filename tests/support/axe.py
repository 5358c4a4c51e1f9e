"""axe-core, installed by npm into `.services/`: what keeps people from using a page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from support.npm import installed

__all__ = ["install", "serious_findings"]

_SOURCE = Path(__file__).parent / "axe"
_SERIOUS = {"serious", "critical"}


def install() -> Path:
    """axe.min.js; installed at the first use. Skips where that cannot be."""
    return installed(_SOURCE, "axe-core") / "node_modules" / "axe-core" / "axe.min.js"


def serious_findings(page: Any) -> list[str]:
    """Serious and critical findings on a page of playwright's, one a line; by WCAG and by good practice."""
    # Evaluated, not added as a script: the page's policy takes none but its own.
    page.evaluate(install().read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
        for node in each["nodes"]
    ]


if __name__ == "__main__":
    # Called before the tests, so that no test waits for the registry.
    with contextlib.suppress(pytest.skip.Exception, pytest.fail.Exception):
        install()
