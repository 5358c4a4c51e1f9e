"""History out of and into a plant whose twin runs, and windows of it by the standard."""

from __future__ import annotations

from pathlib import Path

from support.imported import plant_without_sources, recorded_rows
from support.twin import command, eventually, query, running

TAG = "R101.temperature"


def test_history_is_taken_in_asked_for_and_written_out_while_the_twin_runs(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path)
    (tmp_path / "rows.csv").write_text(recorded_rows() + "2026-03-01T10:00:00Z,R9.nope,1,\n")
    with running(plant) as run:
        run.says("SIGINT or SIGTERM stops it")
        done = command("import", plant, tmp_path / "rows.csv")
        said = "124 of 125 rows taken, of 2 tags; 1 became a dead letter\n"
        assert (done.returncode, done.stdout[-len(said) :]) == (1, said), done.stderr
        rows = eventually(lambda: query(plant, "range", TAG), lambda found: len(found) == 121)
        assert list((tmp_path / "data" / "import").iterdir()) == []

        names = ("--aggregate", "time_average,PercentGood", "--aggregate", "count", "--uncertain-as-good")
        asked = command("query", plant, "window", TAG, "--every", "1m", *names, "--format", "csv")
        head, first, second = asked.stdout.splitlines()
        assert head == (
            "time,time_average,time_average_status,percent_good,percent_good_status,count,count_status"
        )
        assert first.startswith("2026-03-01T10:00:00Z,31.")
        assert first.endswith(",Good|Calculated|Partial,54,Uncertain|Calculated|Partial")
        assert second.startswith("2026-03-01T10:01:00Z,5")

        out = command("export", plant, tmp_path / "out")
        assert (out.returncode, out.stdout) == (0, ""), out.stderr
        assert "124 rows of 2 tags" in out.stderr
        assert len(list((tmp_path / "out").iterdir())) == 2
        run.says("124 samples of history were taken in")
        assert run.process.poll() is None
        assert run.stop() == 0
    assert query(plant, "range", TAG) == rows
