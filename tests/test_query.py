"""`twinloop query`: what is asked of a plant where no twin runs is answered, and said to be of then."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.twin import command
from twinloop.cli.main import main
from twinloop.config.plantfile import load
from twinloop.workplace import workplace

PLANT = """
plant: test
data_dir: ./data
tags:
  temperature: {unit: degC, stale: 3s}
assets:
  R101: {tags: [temperature]}
web: off
"""
ROWS = (
    "time,tag,value\n2026-03-01T10:00:00Z,R101.temperature,85.0\n2026-03-01T10:00:01Z,R101.temperature,85.5\n"
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant with two samples, and no twin."""
    folder = tmp_path_factory.mktemp("plant")
    path, rows = folder / "plant.yaml", folder / "rows.csv"
    path.write_text(PLANT)
    rows.write_text(ROWS)
    done = command("import", path, rows)
    assert done.returncode == 0, done.stderr
    return path


def test_the_newest_values_of_a_plant_without_a_twin_are_said_to_be_its_last(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", str(plant), "latest", "--format", "csv"]) == 0
    answer, told = capsys.readouterr()
    assert answer.splitlines()[1].startswith("R101.temperature,2026-03-01T10:00:01Z,85.5,degC,Good")
    assert f"no twin runs on {plant.parent / 'data'}" in told
    assert "none newer than 2026-03-01T10:00:01Z" in told


def test_while_one_runs_they_are_what_is(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with workplace(load(plant, {})):
        assert main(["query", str(plant), "latest"]) == 0
    assert "no twin" not in capsys.readouterr().err


def test_history_is_history_whoever_runs(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(plant), "range", "R101.temperature"]) == 0
    assert capsys.readouterr().err == ""
