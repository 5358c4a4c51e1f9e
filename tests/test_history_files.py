"""History out into files and in again: nothing changes on the way, nothing comes twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import twinloop
from support.imported import START, import_into, plant_without_sources, recorded_rows
from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.batch import NO_TIME, Received
from twinloop.cli.importing import render_imported
from twinloop.errors import ConfigError, QueryError, StartError
from twinloop.exporting import export, form_of
from twinloop.importing import rows_in
from twinloop.sources.importing import ImportSpool, Part
from twinloop.spooling import alone
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, status_from_text, status_text
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

TAG = "R101.temperature"


def history(plant: Path, tag: str = TAG) -> list[dict[str, object]]:
    with twinloop.open(plant) as opened:
        rows: list[dict[str, object]] = opened.range(tag).to_pylist()
        return rows


def file(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    plant = plant_without_sources(tmp_path / "one")
    import_into(plant, file(tmp_path, recorded_rows()))
    return plant


@pytest.mark.parametrize("target", ["out", "out.csv", "out.parquet"])
def test_what_is_exported_and_imported_elsewhere_is_the_same_history(
    tmp_path: Path, filled: Path, target: str
) -> None:
    with twinloop.open(filled) as opened:
        done = export(opened._queries, tmp_path / target, form_of(tmp_path / target, None), [])
    assert (done.rows, done.tags) == (124, 2)
    other = plant_without_sources(tmp_path / "other")
    report = import_into(other, tmp_path / target)
    assert (report.taken, report.rows, report.duplicates) == (124, 124, 0)
    assert history(other) == history(filled)
    assert history(other, "R101.running") == history(filled, "R101.running")
    # Once more, and into the plant it came from: there is nothing to take.
    for plant in (other, filled):
        again = import_into(plant, tmp_path / target)
        assert (again.taken, again.duplicates) == (0, 124)
    assert history(other) == history(filled)


def test_an_exported_status_is_exact_and_reasons_are_words(tmp_path: Path, filled: Path) -> None:
    with twinloop.open(filled) as plant:
        export(plant._queries, tmp_path / "out.csv", "csv", [TAG])
    with (tmp_path / "out.csv").open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert {row["status"] for row in rows} == {
        "Good",
        "BadSensorFailure",
        "UncertainEngineeringUnitsExceeded",
        "Bad",
        "BadOutOfRange",
    }
    assert rows[0]["time"] == f"{START}.250Z"
    assert {row["reasons"] for row in rows} >= {"", "SOURCE_STATUS", "NON_FINITE", "RANGE", "WARN_RANGE"}
    for code in (GOOD, UNCERTAIN, BAD, 0x4090_0000, 0x808C_0480, 0x0000_0401):
        assert status_from_text(status_text(code)) == code


def queries_over(folder: Path, rows: dict[int, int]) -> LocalQueries:
    """A store in which tag i has so many samples, one a second."""
    store = LocalStore(folder, NAMES)
    log = OutputLog()
    for offset, (tag, count) in enumerate(rows.items()):
        log.entries.append(samples(offset, *((tag, float(at), at % 7.0) for at in range(count))))
    store.write(log.entries)
    store.seal()
    return LocalQueries(folder, NAMES, UNITS, log.after)


def test_hostile_names_become_files_that_are_read_back(tmp_path: Path) -> None:
    queries = queries_over(tmp_path / "store", dict.fromkeys(range(len(NAMES)), 3))
    done = export(queries, tmp_path / "out", "parquet", [])
    assert (done.tags, done.files, done.rows) == (len(NAMES), len(NAMES), 3 * len(NAMES))
    found = [pq.read_table(path)["tag"][0].as_py() for path in (tmp_path / "out").iterdir()]
    assert sorted(found) == sorted(NAMES)
    export(queries, tmp_path / "all.csv", "csv", [])
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as text:
        assert [row["tag"] for row in csv.DictReader(text)] == [
            name for name in sorted(NAMES) for _ in range(3)
        ]
    queries.close()


def test_a_long_history_is_written_in_parts_and_is_whole(tmp_path: Path) -> None:
    queries = queries_over(tmp_path / "store", {0: 260_000})
    path = tmp_path / "out.parquet"
    end = T0 + 250_000 * SECOND
    export(queries, path, "parquet", NAMES[:1], (T0 + 5 * SECOND, end))
    with pq.ParquetFile(path) as written:
        groups = [written.metadata.row_group(at).num_rows for at in range(written.num_row_groups)]
        assert len(groups) > 1
        assert max(groups) <= 200_000
        time = written.read(["time"])["time"].cast(pa.int64()).to_numpy()
    assert np.array_equal(time, T0 + np.arange(5, 250_000) * SECOND)
    queries.close()


def test_an_export_that_fails_leaves_no_file_and_the_one_before(tmp_path: Path) -> None:
    queries = queries_over(tmp_path / "store", {0: 3})
    path = tmp_path / "out.csv"
    export(queries, path, "csv", NAMES[:1])
    before = path.read_bytes()
    with pytest.raises(QueryError, match="no tag"):
        export(queries, path, "csv", [NAMES[0], "R101.nothing"])
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.tmp")) == []
    with pytest.raises(QueryError, match="cannot be written"):
        export(queries, path / "below", "csv", NAMES[:1])
    with pytest.raises(QueryError, match="is the name of a csv file"):
        form_of(path, "parquet")
    queries.close()


def test_old_rows_are_late_and_leave_the_newest_value_alone(tmp_path: Path, filled: Path) -> None:
    with twinloop.open(filled) as plant:
        newest = plant.latest().to_pylist()
    old = file(
        tmp_path, f"time,tag,value\n2026-02-01T00:00:00Z,{TAG},33\n2026-02-01T00:00:01Z,{TAG},34\n", "o.csv"
    )
    report = import_into(filled, old)
    assert (report.taken, report.late, report.tags) == (2, 2, {TAG})
    assert "2 are older than what their tag has" in render_imported(
        report, "table", dry_run=False, terminal=False
    )
    rows = history(filled)
    assert [row["value"] for row in rows[:2]] == [33.0, 34.0]
    assert [row["reasons"] for row in rows[:3]] == [Reason.LATE, Reason.LATE, 0]
    with twinloop.open(filled) as plant:
        assert plant.latest().to_pylist() == newest


def test_a_time_that_is_there_keeps_its_value_and_what_is_of_no_use_is_told(
    tmp_path: Path, filled: Path
) -> None:
    before = history(filled)
    text = (
        f"time,tag,value\n{START}.25Z,{TAG},21\n{START}.25Z,R101.nope,1\nnoon,{TAG},1\n"
        f"2026-03-01T11:00:00Z,{TAG},30\n2026-03-01T11:00:00Z,{TAG},30\n"
    )
    report = import_into(filled, file(tmp_path, text, "more.csv"))
    said = render_imported(report, "table", dry_run=False, terminal=False)
    assert "1 of 5 rows taken, of 1 tag; 1 were there already; 1 differ" in said
    assert "2 became dead letters" in said
    assert "more.csv: row 2" in said
    told = json.loads(render_imported(report, "json", dry_run=False, terminal=False))
    assert (told["differ"], told["buried"], len(told["why_buried"])) == (1, 2, 2)
    rows = history(filled)
    assert rows[: len(before)] == before
    assert [row["value"] for row in rows[len(before) :]] == [30.0]
    with twinloop.open(filled) as plant:
        assert sorted(plant.dead().reason.to_pylist()) == ["BAD_TIMESTAMP", "UNKNOWN_TAG"]


def test_units_of_an_export_are_converted_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path / "plant")
    rows = file(
        tmp_path, f"tag,time,value,unit\nR101.pressure,{START}Z,200,kPa\nR101.pressure,{START}Z,1,degC\n"
    )
    report = import_into(plant, rows, dry_run=True)
    assert (report.taken, report.late, report.buried.total()) == (1, 0, 1)
    assert not (tmp_path / "plant" / "data").exists()
    import_into(plant, rows)
    assert [row["value"] for row in history(plant, "R101.pressure")] == [2.0]
    assert import_into(plant, rows).duplicates == 1, "compared in the tag's own unit"


def test_rows_are_judged_by_the_plant_file_of_today(tmp_path: Path, filled: Path) -> None:
    with twinloop.open(filled) as opened:
        export(opened._queries, tmp_path / "out.csv", "csv", [TAG])
    other = plant_without_sources(tmp_path / "other", ", spike: off").read_text()
    wider = file(
        tmp_path / "other",
        other.replace("[-50, 400]", "[-50, 2000]").replace("[0, 60]", "[0, 1500]"),
        "p.yaml",
    )
    import_into(wider, tmp_path / "out.csv")
    statuses = {row["value"]: row["status"] for row in history(wider)}
    assert (statuses[999.0], statuses[67.6]) == (GOOD, GOOD), "these were our checks"
    assert statuses[28.0] == 0x808C_0000, "this was the sensor's word"


def test_several_files_that_overlap_give_each_row_once(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path / "plant")
    (tmp_path / "files").mkdir()
    lines = recorded_rows().splitlines()
    for number, part in enumerate((lines[1:80], lines[50:], lines[1:])):
        file(tmp_path / "files", "\n".join([lines[0], *part]), f"{number}.csv")
    report = import_into(plant, tmp_path / "files")
    assert report.taken == len(lines) - 1
    assert report.rows == report.taken + report.duplicates
    whole = plant_without_sources(tmp_path / "whole")
    import_into(whole, file(tmp_path, recorded_rows()))
    assert [row["value"] for row in history(plant)] == [row["value"] for row in history(whole)]


def test_what_was_spooled_twice_is_a_row_once_and_what_is_damaged_is_set_aside(
    tmp_path: Path, filled: Path
) -> None:
    text = f"time,tag,value\n2026-03-02T00:00:00Z,{TAG},33\n"
    spool = ImportSpool(tmp_path / "one" / "data")
    at = T0 + 10**17
    received = Received.of(
        series=[0, 0, 1],
        source_time=[at, at + 1, at],
        server_time=[NO_TIME] * 3,
        arrival_time=[at, at + 1, at],
        value=[30.0, 31.0, 1.0],
        status=[0] * 3,
        reasons=[0] * 3,
    )
    before = history(filled)
    for _ in range(2):
        spool.put(Part([(TAG, ""), ("R101.gone", "bar")], received.buffers()))
    damaged = tmp_path / "one" / "data" / "import" / "00000000000000000001.rows"
    damaged.write_bytes(b"\x93nothing")
    import_into(filled, file(tmp_path, text, "a.csv"))
    assert len(history(filled)) == len(before) + 3
    assert spool.waiting() == []
    assert [path.suffix for path in damaged.parent.iterdir()] == [".damaged"]
    with twinloop.open(filled) as plant:
        assert plant.dead().origin.to_pylist() == ["R101.gone"] * 2, "a tag this twin does not know"


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path)
    ahead = file(tmp_path, f"time,tag,value\n2200-01-01T00:00:00Z,{TAG},1\n", "ahead.csv")
    report = import_into(plant, ahead, dry_run=True)
    assert [(kind.reason, count) for kind, count in report.buried.items()] == [("BAD_TIMESTAMP", 1)]
    for name, content, said in (
        ("a.csv", "when,tag,value\n1,R101.temperature,1\n", "no column time"),
        ("b.parquet", "nothing", "cannot be read"),
        ("c.csv", "", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=said):
            import_into(plant, file(tmp_path, content, name))
    with pytest.raises(ConfigError, match="no such file"):
        import_into(plant, tmp_path / "d.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no file in it"):
        import_into(plant, tmp_path / "empty")


def test_a_file_of_many_parts_is_read_in_order_with_its_rows_counted(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path)
    lines = [f"{T0 // SECOND + at},{TAG},{at % 50},{at}" for at in range(120_000)]
    lines[110_000] = "never," + lines[110_000].partition(",")[2]
    report = import_into(plant, file(tmp_path, "time,tag,value,more\n" + "\n".join(lines)), dry_run=True)
    assert (report.rows, report.taken) == (120_000, 119_999)
    assert rows_in([tmp_path / "rows.csv"]) in {119_999, 120_000}, "for the bar"
    assert list(report.first.values()) == ["rows.csv: row 110001"]


def test_two_imports_at_once_are_one_too_many(tmp_path: Path, filled: Path) -> None:
    with alone(tmp_path / "one" / "data"), pytest.raises(StartError, match="is under way"):
        import_into(filled, file(tmp_path, recorded_rows()))


def test_history_keeps_its_unit_and_a_plant_file_with_another_one_is_refused(tmp_path: Path) -> None:
    plant = plant_without_sources(tmp_path / "plant")
    rows = file(tmp_path, f"time,tag,value\n{START}Z,R101.pressure,2\n")
    import_into(plant, rows)
    text = plant.read_text()
    plant.write_text(text.replace("unit: bar", "unit: kPa"))
    assert history(plant, "R101.pressure")[0]["unit"] == "bar", "whatever the plant file says now"
    with pytest.raises(ConfigError, match=r"R101\.pressure \(bar, now kPa\)"):
        import_into(plant, rows)
    plant.write_text(text.replace("unit: degC", "unit: K"))
    import_into(plant, rows)  # a tag without history may have any
    with twinloop.open(plant) as opened:
        export(opened._queries, tmp_path / "out.csv", "csv", ["R101.pressure"])
    other = plant_without_sources(tmp_path / "other")
    other.write_text(other.read_text().replace("unit: bar", "unit: kPa"))
    import_into(other, tmp_path / "out.csv")
    assert [(row["value"], row["unit"]) for row in history(other, "R101.pressure")] == [(200.0, "kPa")]


def test_of_two_exports_to_one_file_each_is_whole_and_the_last_to_be_done_stays(tmp_path: Path) -> None:
    queries = queries_over(tmp_path / "store", {0: 300, 1: 40})
    for form in ("csv", "parquet"):
        path = tmp_path / f"out.{form}"
        seen: list[int] = []

        def meanwhile(_: object, path: Path = path, form: str = form, seen: list[int] = seen) -> None:
            if not seen:
                seen.append(export(queries, path, form, NAMES[1:2]).rows)
                other = path.read_bytes()
                assert b"PAR1" in other if form == "parquet" else other.count(b"\n") == 41

        export(queries, path, form, NAMES[:1], told=meanwhile)
        assert seen == [40]
        import_rows = pq.read_table(path) if form == "parquet" else pa.csv.read_csv(path)
        assert len(import_rows) == 300
    assert list(tmp_path.glob("*.tmp")) == []
    queries.close()
