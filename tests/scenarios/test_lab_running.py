"""A lab sample sent in by HTTP goes through the log of the twin that runs, into its history."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from support.imported import plant_without_sources
from support.twin import eventually, query, running

TAG = "R101.temperature"


@pytest.mark.long
def test_a_lab_sample_is_judged_estimated_and_stored_once(tmp_path: Path) -> None:
    path = plant_without_sources(tmp_path)
    path.write_text(path.read_text().replace("web: {port: 0}", "web: {port: 0, writable: true}"))
    sample = {"tag": TAG, "time": "2026-03-01T10:00:00Z", "value": 338.15, "unit": "K"}
    with running(path) as run:
        found = re.search(r"http://[\d.:]+", run.says("web: http"))
        assert found
        with httpx.Client(base_url=f"{found[0]}/api/v1", timeout=30) as client:
            eventually(lambda: client.get("tags").status_code, lambda status: status == 200)
            for _ in range(2):
                assert client.post("samples", json=[sample]).status_code == 202
            eventually(lambda: list((tmp_path / "data" / "import").glob("*")), lambda waiting: not waiting)
            [row] = eventually(lambda: query(path, "range", TAG), bool)
            answer = client.get(f"range?tag={TAG}&format=csv")
            asset = client.get("assets/R101").json()
            foreign = client.post("samples", json=[sample], headers={"Origin": "http://elsewhere.example"})
        assert run.stop() == 0
    assert (row["time"], row["value"]) == ("2026-03-01T10:00:00Z", "65.0")
    assert (row["status"], row["reasons"]) == ("Uncertain", "WARN_RANGE")
    assert float(row["estimate"]) == 65.0
    assert answer.text.splitlines()[1].startswith(
        f"{TAG},2026-03-01T10:00:00Z,65.0,degC,Uncertain,WARN_RANGE"
    )
    assert asset["uncertain"] == 1
    assert foreign.status_code == 403
