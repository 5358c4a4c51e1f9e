"""A plant without sources whose history came from a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from twinloop.importing import Imported, import_files

__all__ = ["START", "import_into", "plant_without_sources", "recorded_rows"]

START = "2026-03-01T10:00:00"


def plant_without_sources(folder: Path, temperature: str = "") -> Path:
    """A plant file with a temperature in degC, a switch and a pressure, fed by nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: test
data_dir: ./data
tags:
  temperature: {{unit: degC, zscore: off, range: [-50, 400], warn_range: [0, 60], noise: 0.5{temperature}}}
  pressure: {{unit: bar, zscore: off, noise: 0.01}}
  running: {{type: boolean}}
assets:
  R101: {{tags: [temperature, pressure, running]}}
web: {{port: 0}}
""")
    return path


def recorded_rows(seconds: int = 120) -> str:
    """CSV of a temperature ramp with Bad, Uncertain and empty values, and of a switch."""
    rows = ["time,tag,value,status"]
    for i in range(seconds):
        at = f"2026-03-01T10:{i // 60:02}:{i % 60:02}.25Z"
        status = "BadSensorFailure" if 20 <= i < 25 else ""
        value = "" if i == 30 else 20 + i * 0.4
        rows.append(f"{at},R101.temperature,{value},{status}")
        if i % 40 == 0:
            rows.append(f"{at},R101.running,{i // 40 % 2},")
    rows.append(f"{START}.5Z,R101.temperature,999,")
    return "\n".join(rows) + "\n"


def import_into(plant: Path, *files: Path, dry_run: bool = False) -> Imported:
    """`twinloop import` in this process."""
    return asyncio.run(import_files(plant, {}, files, dry_run=dry_run))
