from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinloop.errors import QueryError
from twinloop.present import FORMATS, _json_column, render, to_json, write
from twinloop.status import BAD, GOOD, Reason, StatusCode
from twinloop.stores.store import RANGE_SCHEMA, WINDOW_SCHEMA

T0 = 1_700_000_000_000_000_000
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def answer(*rows: tuple[str, int, float | None, int, int]) -> pa.Table:
    made = [
        dict(zip(RANGE_SCHEMA.names, (tag, time, value, "degC", status, reasons, value, 0.5), strict=True))
        for tag, time, value, status, reasons in rows
    ]
    return pa.Table.from_pylist(made, schema=RANGE_SCHEMA)


SPIKE = answer(
    ("R101.temperature", T0, 85.1, GOOD, 0),
    ("R101.temperature", T0 + 1_500_000_000, 120.0, StatusCode.UNCERTAIN, Reason.RATE | Reason.SPIKE),
    ("R101.temperature", T0 + 2_000_000_001, None, BAD, Reason.NON_FINITE),
)


def test_csv_has_a_header_words_times_in_z_and_empty_for_no_value() -> None:
    assert render(SPIKE, "range", "csv").decode() == (
        "tag,time,value,unit,status,reasons,estimate,estimate_std\n"
        "R101.temperature,2023-11-14T22:13:20Z,85.1,degC,Good,,85.1,0.5\n"
        "R101.temperature,2023-11-14T22:13:21.500Z,120.0,degC,Uncertain,RATE|SPIKE,120.0,0.5\n"
        "R101.temperature,2023-11-14T22:13:22.000000001Z,,degC,Bad,NON_FINITE,,0.5\n"
    )


def test_json_is_an_array_of_objects_with_null_for_no_value() -> None:
    rows = json.loads(render(SPIKE, "range", "json"))
    assert [row["value"] for row in rows] == [85.1, 120.0, None]
    assert [row["status"] for row in rows] == ["Good", "Uncertain", "Bad"]
    assert rows[1]["reasons"] == "RATE|SPIKE"
    assert list(rows[0]) == RANGE_SCHEMA.names


def test_not_a_number_is_null_however_arrow_holds_it() -> None:
    table = pa.Table.from_pylist([{"time": 0, "mean": float("nan"), "count": 1}], schema=WINDOW_SCHEMA)
    assert json.loads(render(table, "window", "json"))[0]["mean"] is None
    assert render(table, "window", "csv").decode().splitlines()[1] == "1970-01-01T00:00:00Z,,,,1,"


@given(st.lists(st.tuples(NAMES, NUMBERS), max_size=5))
@example([("\r", None), ("a\r\nb", 0.1), ('"', -0.0)])
def test_csv_and_json_give_names_and_numbers_back_exactly(rows: list[tuple[str, float | None]]) -> None:
    table = answer(*((name, T0, value, GOOD, 0) for name, value in rows))
    text = render(table, "range", "csv").decode()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    objects = json.loads(render(table, "range", "json"))

    assert [(row["tag"], float(row["value"]) if row["value"] else None) for row in read] == rows
    assert [(row["tag"], row["value"]) for row in objects] == rows


def test_parquet_keeps_nanoseconds_and_has_the_same_words(tmp_path: Path) -> None:
    write(SPIKE, "range", "parquet", tmp_path / "out.parquet")
    read = pq.read_table(tmp_path / "out.parquet")
    assert read["time"].cast(pa.int64()).to_pylist()[2] == T0 + 2_000_000_001
    assert read["status"].to_pylist() == ["Good", "Uncertain", "Bad"]


def test_off_a_terminal_a_table_is_one_line_a_row_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "R101." + "x" * 300
    text = render(
        answer((name, T0, 85.123456789, BAD, Reason.RANGE), ("a\nb[red]", T0, 1.0, 0, 0)), "range", "table"
    )
    lines = text.decode().splitlines()
    assert len(lines) == 3
    assert lines[0].split() == RANGE_SCHEMA.names
    assert lines[1].split() == [
        name,
        "2023-11-14T22:13:20Z",
        "85.12346",
        "degC",
        "Bad",
        "RANGE",
        "85.12346",
        "0.5",
    ]
    assert lines[2].startswith("a\\nb[red] ")
    assert "\x1b" not in text.decode()


def test_on_a_terminal_bad_rows_stand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in render(answer(("t", T0, 1.0, BAD, 0)), "range", "table", terminal=True).decode()


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_answer_is_still_an_answer(form: str) -> None:
    rendered = render(RANGE_SCHEMA.empty_table(), "range", form)
    empty = {"json": b"[]\n", "csv": b"tag,time,value,unit,status,reasons,estimate,estimate_std\n"}
    assert rendered == empty.get(form, rendered)
    assert rendered


def test_nested_columns_are_json_and_bytes_the_text_they_are_or_base64() -> None:
    state = pa.array([[("temperature_k", 358.15), ("nis", float("nan"))]], pa.map_(pa.string(), pa.float64()))
    table = pa.table({"state": state, "predictions": [[{"now": 1.0}]], "raw": pa.array([b"\xff{"])})
    assert json.loads(render(pa.table({"raw": pa.array([b"{bad", b""])}), "dead", "json")) == [
        {"raw": "{bad"},
        {"raw": ""},
    ]
    row = json.loads(render(table, "snapshots", "json"))[0]
    assert row == {
        "state": {"temperature_k": 358.15, "nis": None},
        "predictions": [{"now": 1.0}],
        "raw": "base64:/3s=",
    }
    read = next(csv.DictReader(io.StringIO(render(table, "snapshots", "csv").decode())))
    assert json.loads(read["state"]) == row["state"]
    assert render(table, "snapshots", "table").count(b"\n") == 2


def test_what_cannot_be_rendered_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="xml"):
        render(SPIKE, "range", "xml")
    with pytest.raises(QueryError, match="spectrum"):
        render(SPIKE, "spectrum", "csv")
    with pytest.raises(QueryError, match="missing"):
        write(SPIKE, "range", "csv", tmp_path / "missing" / "out.csv")
    with pytest.raises(QueryError, match="--output"):
        write(SPIKE, "range", "parquet", io.StringIO())


def test_a_stream_gets_the_same_bytes_as_a_file(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        write(SPIKE, "range", "csv", stream)
        write(SPIKE, "range", "csv", tmp_path / "out.csv")
        assert raw.getvalue() == (tmp_path / "out.csv").read_bytes()


def test_json_of_columns_is_that_of_rows() -> None:
    table = pa.table(
        {
            'a "%s" 100%': pa.array(["é\u2028", None, 'a "quoted" \\ text']),
            "f": pa.array([1e16, -0.0, None]),
            "g": pa.array([0.1, math.nan, math.inf]),
            "i": pa.array([2**63 - 1, None, -1]),
            "b": pa.array([True, None, False]),
            "t": pa.array([0, None, 1], pa.timestamp("ns", tz="UTC")),
            "m": pa.array([[("x", 1.0)], None, []], pa.map_(pa.string(), pa.float64())),
            "l": pa.array([[{"y": math.nan}], [], None]),
        }
    )
    columns = [_json_column(table, name) for name in table.column_names]
    rows = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    assert to_json(table) == f"[\n{lines}\n]\n"
    assert json.loads(to_json(table)) == rows
