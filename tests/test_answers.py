"""Answers of the Python API: what a notebook does with them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator

import duckdb
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import twinloop
from support.imported import START, import_into, plant_without_sources, recorded_rows
from twinloop import Answer, Plant, QueryError
from twinloop.aggregates import Configuration
from twinloop.stores.store import RANGE_SCHEMA, WINDOW_SCHEMA

mpl.use("Agg")
TAG, SWITCH = "R101.temperature", "R101.running"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    path = plant_without_sources(folder)
    (folder / "rows.csv").write_text(recorded_rows() + f"{START}Z,R9.<script>,1,\n")
    import_into(path, folder / "rows.csv")
    with twinloop.open(path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_an_answer_is_an_arrow_table_to_whoever_takes_one(plant: Plant) -> None:
    answer = plant.range(TAG)
    assert answer.to_arrow().schema == RANGE_SCHEMA
    assert (len(answer), answer.num_rows, answer.column_names[:2]) == (121, 121, ["tag", "time"])
    assert answer.value.to_pylist()[0] == answer["value"].to_pylist()[0] == 20.0
    assert pa.table(answer) == answer.to_arrow()
    assert pl.DataFrame(answer).shape == (121, 8)
    bad = duckdb.sql("SELECT count(*) FROM answer WHERE status >> 30 = 2")
    assert bad is not None
    assert bad.fetchall() == [(7,)]
    assert answer == plant.range(TAG)
    assert answer != plant.range(TAG, end=f"{START}.3Z")
    assert copy.copy(answer) == answer
    with pytest.raises(AttributeError):
        _ = answer.nonsense
    with pytest.raises(TypeError, match="to_pylist"):
        iter(answer)
    assert plant.window(TAG, "1m").to_arrow().schema == WINDOW_SCHEMA


def test_pandas_has_utc_times_as_its_index_and_words_that_can_be_compared(plant: Plant) -> None:
    frame = plant.range(TAG, start=f"{START}Z").to_pandas()
    assert (str(frame.index.dtype), frame.index.name) == ("datetime64[ns, UTC]", "time")
    assert (frame.status > "Uncertain").sum() == 7, "five of the source, one empty, one beyond the range"
    assert set(frame.reasons.cat.categories) >= {"", "SOURCE_STATUS", "NON_FINITE", "WARN_RANGE", "RANGE"}
    assert frame.loc["2026-03-01T10:00:30"].value.isna().all()
    codes = plant.range(TAG).to_pandas(words=False)
    assert codes.status.dtype == "uint32"
    assert plant.latest().to_pandas().index.tolist() == [SWITCH, TAG]
    events = plant.events()
    assert events.to_pandas().index.name == "time"
    assert events.kind.to_pylist() == events["kind"].to_pylist()


def test_polars_has_the_same(plant: Plant) -> None:
    frame = plant.range(TAG).to_polars()
    assert frame.schema["time"] == pl.Datetime("ns", "UTC")
    assert frame.schema["status"] == pl.Categorical
    assert frame.filter(pl.col("status") == "Bad").height == 7
    assert plant.range(TAG).to_polars(words=False).schema["status"] == pl.UInt32


def test_a_time_may_be_a_datetime_with_a_zone_or_in_utc(plant: Plant) -> None:
    tag = plant.tags[0]
    whole = plant.range(tag).to_pandas()
    cut = whole.index[len(whole) // 2]
    assert len(plant.range(tag, start=cut)) == len(whole) - len(whole) // 2
    assert len(plant.range(tag, end=cut.tz_localize(None))) == len(whole) // 2


def test_several_tags_come_one_after_the_other_in_one_answer(plant: Plant) -> None:
    answer = plant.range([SWITCH, TAG, SWITCH])
    assert answer.tag.to_pylist() == [SWITCH] * 3 + [TAG] * 121
    windows = plant.window([TAG, SWITCH], "1m")
    assert windows.column_names == ["tag", *WINDOW_SCHEMA.names]
    assert windows.tag.to_pylist() == [TAG, TAG, SWITCH, SWITCH]
    with pytest.raises(QueryError, match=r"did you mean R101\.temperature"):
        plant.range([TAG, "R101.temprature"])
    with pytest.raises(QueryError, match="name a tag"):
        plant.range([])


def test_aggregates_are_asked_for_by_name_and_held_for_a_switch(plant: Plant) -> None:
    answer = plant.window(TAG, "1m", aggregate=["TimeAverage", "percent_good", "worst_quality"])
    names = [
        name
        for each in ("time_average", "percent_good", "worst_quality")
        for name in (each, f"{each}_status")
    ]
    assert answer.column_names == ["time", *names]
    frame = answer.to_pandas()
    assert frame.worst_quality.tolist() == ["Bad", "Uncertain"]
    assert frame.time_average_status.tolist()[0] == "Uncertain|Calculated|Partial"
    start = f"{START[:-2]}20Z"
    held = plant.window(SWITCH, "20s", start, aggregate="interpolative")
    joined = plant.window(SWITCH, "20s", start, aggregate="interpolative", configuration=Configuration())
    assert held.interpolative.to_pylist() == [0.0, 0.0, 1.0, 1.0]
    assert joined.interpolative.to_pylist() != held.interpolative.to_pylist()
    widened = plant.window(TAG, "1m", aggregate="time_average", uncertain_as_good=True)
    assert widened.time_average.to_pylist() != answer.time_average.to_pylist()


def test_a_notebook_shows_the_first_and_last_rows_and_runs_nothing_of_them(plant: Plant) -> None:
    answer = plant.range(TAG)
    assert answer._repr_html_().count("<tr>") == 1 + 5 + 1 + 5
    assert "121 rows" in answer._repr_html_()
    assert len(repr(answer).splitlines()) == 13
    dead = plant.dead()
    assert len(dead) == 1
    assert "<script>" not in dead._repr_html_()
    assert "&lt;script&gt;" in dead._repr_html_()


def labels(ax: object) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[attr-defined]


def test_a_plot_marks_what_is_not_good_and_names_tag_and_unit(plant: Plant) -> None:
    ax = plant.range(TAG).plot()
    assert ax.get_ylabel() == f"{TAG} (degC)"
    assert {"Uncertain", "Bad", f"{TAG} estimate", f"{TAG} estimate, 2 sigma"} <= set(labels(ax))
    bad = next(line for line in ax.get_lines() if line.get_label() == "Bad")
    assert len(bad.get_xdata()) == 7
    ax.figure.canvas.draw()
    again = plant.range(TAG).plot(ax=ax)
    assert again is ax


def test_each_unit_has_an_axis_of_its_own(plant: Plant) -> None:
    both = plant.range([TAG, SWITCH]).plot()
    assert [ax.get_ylabel() for ax in both] == [f"{TAG} (degC)", SWITCH]
    mean = plant.window(TAG, "1m").plot()
    assert labels(mean) == ["mean", "min to max"]
    names = ["time_average", "minimum", "percent_good", "total", "count"]
    axes = plant.window(TAG, "30s", aggregate=names).plot()
    assert [ax.get_ylabel() for ax in axes] == [
        f"{TAG} ({unit})" for unit in ("degC", "%", "degC s", "samples")
    ]
    axes[0].figure.canvas.draw()
    with pytest.raises(QueryError, match="one Axes is too few"):
        plant.range([TAG, SWITCH]).plot(ax=axes[0])
    for answer in (plant.latest(), plant.events(), plant.window([TAG, SWITCH], "1m")):
        with pytest.raises(QueryError):
            answer.plot()
    nothing = plant.range(TAG, end="2000-01-01").plot()
    assert not nothing.get_lines()


@pytest.mark.parametrize("library", ["pandas", "polars", "matplotlib"])
def test_a_missing_library_is_named_with_what_installs_it(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [library, *(each for each in sys.modules if each.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    answer = Answer(RANGE_SCHEMA.empty_table(), "range")
    calls: dict[str, Callable[[], object]]
    calls = {"pandas": answer.to_pandas, "polars": answer.to_polars, "matplotlib": answer.plot}
    with pytest.raises(ImportError, match=f"pip install {library}"):
        calls[library]()
    assert np.array(answer.value).size == 0, "the rest works without"
