"""The client id a broker keeps our session under is the same for the life of a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.build import build_loop
from twinloop.config.plantfile import load
from twinloop.loop.metrics import Metrics
from twinloop.workplace import workplace

PLANT = """
plant: test
data_dir: ./data
sources:
  field: {type: mqtt, url: "mqtt://127.0.0.1:1", topics: {"{asset}/{tag}": {format: json}}}
tags: {temperature: {unit: degC}}
assets: {R101: {tags: [temperature]}}
"""


async def own_part(folder: Path) -> str:
    """The random part of the client id after a start, as the data directory keeps it."""
    plant = folder / "plant.yaml"
    plant.write_text(PLANT)
    with workplace(load(plant, {})) as place:
        await build_loop(place, Metrics()).close()
    assert not list((folder / "data").glob("*.tmp"))
    return (folder / "data/client-id").read_text().strip()


async def test_it_stays_over_a_start(tmp_path: Path) -> None:
    assert await own_part(tmp_path) == await own_part(tmp_path) != ""


@pytest.mark.parametrize("left", ["", "\n"])
async def test_a_file_that_a_crash_left_empty_is_no_client_id(tmp_path: Path, left: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/client-id").write_text(left)
    made = await own_part(tmp_path)
    assert len(made) == 12
    assert await own_part(tmp_path) == made
