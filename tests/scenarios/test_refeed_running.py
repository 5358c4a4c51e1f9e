"""`twinloop refeed` beside a running twin: the twin itself takes the letters up, once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from support.mosquitto import mosquitto
from support.plants import plant_file, publisher
from support.twin import eventually, query, running
from twinloop.refeeding import Refed, Selection, refeed


def feed(plant: Path) -> Refed:
    return asyncio.run(refeed(plant, os.environ, Selection()))


def test_letters_are_fed_by_the_twin_that_runs_once_it_has_the_mended_file(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker", persistence=True) as broker, publisher(broker.port) as plant_side:
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{broker.port}")
        mended = plant.read_text()
        plant.write_text(mended.replace("unit: degC", "unit: bar"))
        with running(plant) as run:
            run.says("field: connected")
            for second in range(5):
                stamp = f"2026-03-01T10:00:0{second}Z"
                plant_side.send({"value": 20 + second, "unit": "degC", "timestamp": stamp})
            eventually(lambda: query(plant, "dead"), lambda rows: len(rows) == 5)
            plant.write_text(mended)
            old = feed(plant)
            assert (old.fed, old.refused, old.waiting) == (0, 5, 0), "it still has the file as it was"
            assert run.stop() == 0
        assert len(query(plant, "dead")) == 5
        with running(plant) as run:
            run.says("field: connected")
            told = feed(plant)
            assert (told.fed, told.became, told.waiting, told.refused) == (5, 5, 0, 0)
            run.says("5 dead letters became 5 samples")
            rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 5)
            assert [row["value"] for row in rows] == ["20.0", "21.0", "22.0", "23.0", "24.0"]
            assert query(plant, "dead") == []
            assert feed(plant).letters == 0
            assert run.stop() == 0
        assert query(plant, "range", "R101.temperature") == rows
