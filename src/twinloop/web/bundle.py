"""The page's scripts as one file: fifty requests on a busy machine are seconds, one is none.

Each stays a module of its own in the package, and can be read there as it is served alone. Together each is
a function that gives what it exports; those it imports stand before it. Only two forms occur: `import {...}
from "./x.js";` and `export` before a function, class or const at the beginning of a line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["bundled", "modules_of"]

_IMPORT: Final = re.compile(r'^import \{([^}]*)\} from "([^"]+)";$', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
_OTHER: Final = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


def modules_of(entry: Path) -> list[Path]:
    """A script and all it imports, each after those it imports itself.

    Raises:
        ValueError: two import each other.
        OSError: one cannot be read.
    """
    found: list[Path] = []
    under_way: list[Path] = []

    def visit(path: Path) -> None:
        if path in found:
            return
        if path in under_way:
            raise ValueError(f"{path.name} imports itself by way of {under_way[-1].name}")
        under_way.append(path)
        for _, where in _IMPORT.findall(path.read_text("utf-8")):
            visit((path.parent / where).resolve())
        under_way.pop()
        found.append(path)

    visit(entry.resolve())
    return found


def bundled(entry: Path) -> bytes:
    """One script that does what a script and its imports do.

    Raises:
        ValueError: a form that is not among the two.
        OSError: one cannot be read.
    """
    names: dict[Path, str] = {}
    parts = []
    for number, path in enumerate(modules_of(entry)):
        names[path] = f"module{number}"
        parts.append(f"// {path.name}\nconst {names[path]} = (() => {{\n{_wrapped(path, names)}\n}})();\n")
    return "".join(parts).encode()


def _wrapped(path: Path, names: dict[Path, str]) -> str:
    """A module's body as that of a function."""

    def brought(match: re.Match[str]) -> str:
        wanted = match[1].replace(" as ", ": ")
        return f"const {{{wanted}}} = {names[(path.parent / match[2]).resolve()]};"

    text = _IMPORT.sub(brought, path.read_text("utf-8"))
    exported = _EXPORT.findall(text)
    text = _EXPORT.sub("", text)
    if other := _OTHER.search(text):
        raise ValueError(f"{path.name}: cannot be put together with others: {other[0]}")
    return f"{text}\nreturn {{ {', '.join(exported)} }};" if exported else text
