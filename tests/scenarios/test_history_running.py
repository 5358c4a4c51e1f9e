"""History out of and into a plant whose twin runs."""

from __future__ import annotations

from pathlib import Path

from support.imported import plant_without_sources, recorded_rows
from support.twin import command, eventually, query, running

TAG = "R101.temperature"


def test_history_is_taken_in_and_written_out_while_the_twin_runs(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path)
    (tmp_path / "rows.csv").write_text(recorded_rows())
    with running(plant) as run:
        run.says("SIGINT or SIGTERM stops it")
        done = command("import", plant, tmp_path / "rows.csv", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert '"taken": 124' in done.stdout
        rows = eventually(lambda: query(plant, "range", TAG), lambda found: len(found) == 121)
        assert list((tmp_path / "data" / "import").iterdir()) == []
        out = command("export", plant, tmp_path / "out")
        assert (out.returncode, out.stdout) == (0, ""), out.stderr
        assert "124 rows of 2 tags" in out.stderr
        run.says("124 samples of history were taken in")
        assert run.process.poll() is None
        assert run.stop() == 0
    assert query(plant, "range", TAG) == rows
    again = command("import", plant, tmp_path / "out")
    assert (again.returncode, again.stdout) == (0, "0 of 124 rows taken, of 2 tags; 124 were there already\n")


def test_windows_by_the_standard_are_asked_for_by_name(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path)
    (tmp_path / "rows.csv").write_text(recorded_rows())
    command("import", plant, tmp_path / "rows.csv")
    names = ("--aggregate", "time_average,PercentGood", "--aggregate", "count", "--uncertain-as-good")
    done = command("query", plant, "window", TAG, "--every", "1m", *names, "--format", "csv")
    head, first, second = done.stdout.splitlines()
    assert head == "time,time_average,time_average_status,percent_good,percent_good_status,count,count_status"
    assert first.startswith("2026-03-01T10:00:00Z,31.")
    assert first.endswith(",Good|Calculated|Partial,53,Uncertain|Calculated|Partial")
    assert second.startswith("2026-03-01T10:01:00Z,5")
    refused = command("query", plant, "window", TAG, "--every", "1m", "--stepped")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--aggregate" in refused.stderr
