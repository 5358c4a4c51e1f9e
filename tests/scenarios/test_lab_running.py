"""A lab sample sent in by HTTP goes through the log of the twin that runs, into its history."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.imported import plant_without_sources
from support.looking import StoredLook, StoredTwin, asking
from support.twin import eventually, query, running
from twinloop.config.expand import tags_of
from twinloop.config.plantfile import load
from twinloop.history import open_queries
from twinloop.tags import TagTable

TAG = "R101.temperature"


@pytest.mark.long
async def test_a_lab_sample_is_judged_estimated_and_stored_once(tmp_path: Path) -> None:
    path = plant_without_sources(tmp_path)
    path.write_text(path.read_text().replace("web: {port: 0}", "web: {port: 0, writable: true}"))
    config = load(path, os.environ)
    sample = {"tag": TAG, "time": "2026-03-01T10:00:00Z", "value": 338.15, "unit": "K"}
    with running(path) as run:
        eventually(lambda: list((config.data_dir / "outputs").glob("*")), bool)  # it folds: there are ticks
        queries = open_queries(config)
        look = StoredLook(path, config, StoredTwin(TagTable(tags_of(config)), queries, []))
        async with asking(look) as client:
            for _ in range(2):
                assert (await client.post("samples", json=[sample])).status_code == 202
            eventually(lambda: list((config.data_dir / "import").glob("*")), lambda waiting: not waiting)
            [row] = eventually(lambda: query(path, "range", TAG), bool)
            answer = await client.get(f"range?tag={TAG}&format=csv")
        assert run.stop() == 0
    queries.close()
    assert (row["time"], row["value"]) == ("2026-03-01T10:00:00Z", "65.0")
    assert (row["status"], row["reasons"]) == ("Uncertain", "WARN_RANGE")
    assert float(row["estimate"]) == 65.0
    assert answer.text.splitlines()[1].startswith(
        f"{TAG},2026-03-01T10:00:00Z,65.0,degC,Uncertain,WARN_RANGE"
    )
