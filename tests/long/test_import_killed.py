"""An import killed again and again and then let be gives the history of one that was not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import twinloop
from support.imported import import_into, plant_without_sources
from support.outputs import SECOND, T0

TAG = "R101.temperature"
ROWS = 120_000
KILLS = 8


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_import_killed_at_any_point_is_whole_after_the_next_one_and_nothing_is_there_twice(
    tmp_path: Path,
) -> None:
    plant, draw = plant_without_sources(tmp_path), np.random.default_rng(7)
    lines = [f"{T0 // SECOND + at},{TAG},{20 + at % 37}" for at in range(ROWS)]
    (tmp_path / "rows.csv").write_text("time,tag,value\n" + "\n".join(lines))
    killed = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-m", "twinloop", "import", str(plant), str(tmp_path / "rows.csv")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(1.5, 7.0))
            killed += process.poll() is None
            process.kill()
    report = import_into(plant, tmp_path / "rows.csv")
    assert report.taken + report.duplicates == ROWS
    with twinloop.open(plant) as opened:
        rows = opened.range(TAG)
        assert rows.value.to_pylist() == [20.0 + at % 37 for at in range(ROWS)]
        assert len(opened.dead()) == 0
    assert import_into(plant, tmp_path / "rows.csv", dry_run=True).duplicates == ROWS
    assert killed > KILLS // 4, "it was hardly ever killed at work"
