"""Compiled loops and their cache on disk: never stale, never a reason not to start."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

LOOP = """
import numpy as np
from twinloop.kernel import kernel
from {constants} import STEP

@kernel
def total(numbers):
    out = 0
    for i in range(len(numbers)):
        out += STEP
    return out

def run():
    return total(np.zeros(3))
"""

Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Imports a file of `tmp_path`, written anew, as a fresh process would."""
    made: list[str] = []
    for_name = itertools.count()

    def loaded(name: str, text: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        module_name = name if name.startswith("constants") else f"{name}_{next(for_name)}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        made.append(module_name)
        # By hand: Python's own cache of a file goes by its time, which here may not have moved.
        exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102
        return module

    yield loaded
    for name in made:
        sys.modules.pop(name, None)


def loop(load: Load, step: int) -> ModuleType:
    load("constants_of_loop", f"STEP = {step}")
    return load("loop", LOOP.format(constants="constants_of_loop"))


def hits(module: ModuleType) -> int:
    return sum(module.total.stats.cache_hits.values())


def test_a_kernel_is_compiled_once_and_then_read_from_disk(load: Load) -> None:
    assert (loop(load, 2).run(), loop(load, 2).run()) == (6, 6)
    again = loop(load, 2)
    assert (again.run(), hits(again)) == (6, 1)


def test_a_constant_imported_from_another_file_is_never_stale(load: Load) -> None:
    assert [loop(load, step).run() for step in (2, 5)] == [6, 15]


def test_code_of_another_source_is_never_taken_for_this_one(load: Load, tmp_path: Path) -> None:
    loop(load, 2).run()
    written = {path: path.read_bytes() for path in (tmp_path / "__pycache__").glob("*.nbc")}
    load("constants_of_loop", "STEP = 2")
    changed = LOOP.format(constants="constants_of_loop").replace("out += STEP", "out += 7 * STEP")
    load("loop", changed).run()
    # A process killed between index and code leaves the new index beside the old code.
    for path, old in written.items():
        path.write_bytes(old)
    assert load("loop", changed).run() == 42


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_cache_torn_by_a_power_cut_is_made_anew(load: Load, tmp_path: Path, suffix: str) -> None:
    loop(load, 2).run()
    torn = list((tmp_path / "__pycache__").glob(f"*.{suffix}"))
    assert torn
    for path in torn:
        path.write_bytes(b"")
    assert loop(load, 2).run() == 6
    mended = loop(load, 2)
    assert (mended.run(), hits(mended)) == (6, 1)


def test_a_kernel_runs_where_no_directory_can_be_written(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__pycache__").write_text("a file where a directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "__pycache__"))
    assert loop(load, 2).run() == 6


def test_a_disk_that_fills_up_stops_no_kernel(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    made = loop(load, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made.total._cache._cache_file, "save", full)
    assert made.run() == 6


PART = """
from twinloop.kernel import kernel
{imports}

@kernel
def {name}(x):
    return {what}
"""


def chain(load: Load, inner: str, step: int = 1) -> ModuleType:
    """A kernel that calls one of another file, which calls one of a third, and a number of a fourth."""
    load("constants_of_chain", f"STEP = {step}")
    imports = "from constants_of_chain import STEP"
    load("constants_inner", PART.format(imports=imports, name="inner", what=inner))
    imports = "from constants_inner import inner"
    load("constants_outer", PART.format(imports=imports, name="outer", what="inner(x)"))
    text = LOOP.format(constants="constants_of_chain").replace("out += STEP", "out += outer(i)")
    return load("loop", text.replace("@kernel", "from constants_outer import outer\n\n@kernel"))


def test_a_kernel_of_another_file_that_is_called_is_never_stale_however_far_down(load: Load) -> None:
    assert chain(load, "x + 1").run() == 6
    again = chain(load, "x + 1")
    assert (again.run(), hits(again)) == (6, 1)
    assert chain(load, "x * 10").run() == 30
    assert [chain(load, "x + STEP", step).run() for step in (2, 5)] == [9, 18]
