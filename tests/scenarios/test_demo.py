"""`twinloop demo` as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.twin import query


def test_the_demo_runs_ends_by_itself_and_leaves_a_plant_file_that_works(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twinloop", "demo", "--seconds", "14", "--port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout, "off a terminal nothing is coloured"
    assert re.search(r"^Caught \d of \d faults\.$", done.stdout, re.MULTILINE)
    spike = re.search(r"spike of .* (yes|no) .*", done.stdout)
    assert spike is not None
    assert "SPIKE" in spike.group(0), "the spike was injected and caught"
    temperature = next(line for line in done.stdout.splitlines() if line.startswith("temperature "))
    raw, estimate = (float(cell) for cell in temperature.split()[3:5])
    assert estimate < 1.2 * raw, "the estimate is no worse than the sensor"
    plant = tmp_path / "demo-plant.yaml"
    tags = {row["tag"] for row in query(plant, "latest")}
    assert {"R101.temperature", "R101.temperature_pv", "R102.flow_rate"} <= tags
    assert len(query(plant, "snapshots")) >= 10
