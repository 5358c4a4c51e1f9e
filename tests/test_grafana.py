"""The Grafana dashboard of the examples: each of its questions is answered by a real InfluxDB 1.6.7."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from support.influx import Influx, influxdb
from support.outputs import SECOND
from support.recorded import TAGS, recorded_outputs
from twinloop.batch import Batch
from twinloop.records import Outputs
from twinloop.status import StatusCode
from twinloop.stores.influx.store import InfluxStore

DASHBOARD: Final = json.loads(
    (Path(__file__).parents[1] / "examples" / "grafana" / "twinloop-influxdb.json").read_text()
)
START: Final = 1_800_000_000


@cache
def outputs() -> list[Outputs]:
    """What was recorded, and a Bad sample with a value."""
    bad = Batch.raw(
        tag=[0], time=[(START + 40) * SECOND], value=[500.0], status=[StatusCode.BAD_OUT_OF_RANGE]
    )
    return [*recorded_outputs(), Outputs(1_000, START * SECOND, bad.buffers())]


def questions(node: Any) -> Iterator[str]:
    """Every InfluxQL statement of the dashboard."""
    if isinstance(node, dict):
        if "query" in node and re.match("SELECT|SHOW", str(node["query"])):
            yield node["query"]
        for each in node.values():
            yield from questions(each)
    elif isinstance(node, list):
        for each in node:
            yield from questions(each)


def substituted(statement: str, **chosen: list[str]) -> str:
    """As Grafana puts in what was chosen: alternatives in regular expressions, and the time shown."""
    time = f"time >= {START - 60}000ms and time <= {START + 300}000ms"
    statement = statement.replace("$timeFilter", time).replace("$__interval", "10s")
    for name, values in {"measurement": ["twinloop"], **chosen}.items():
        alternatives = "|".join(re.sub(r"([\\/^$.*+?()[\]{}|-])", r"\\\1", value) for value in values)
        statement = statement.replace(f"${{{name}:regex}}", f"({alternatives})")
        statement = statement.replace(f"${{{name}}}", values[0])
    return statement


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        options = running.options("grafana")
        names, units = [tag.name for tag in TAGS], [tag.unit for tag in TAGS]
        store = InfluxStore(options, tmp_path_factory.mktemp("journal"), names, units)
        store.write(list(enumerate(outputs())))
        store.close()
        yield running


@pytest.mark.parametrize("statement", sorted(set(questions(DASHBOARD))))
def test_every_question_of_the_dashboard_gives_rows(server: Influx, statement: str) -> None:
    asked = substituted(statement, plant=["demo"], asset=["R101"], tag=["R101.temperature"])
    assert "$" not in asked.replace("$/", "")
    series = server.ask(asked, "grafana")
    assert series
    assert all(each["values"] for each in series)
    assert any(value is not None for each in series for row in each["values"] for value in row[1:])


def found(server: Influx, refers: str) -> dict[int, float]:
    """The rows of the one question with some text in it, by second."""
    [statement] = [each for each in questions(DASHBOARD) if refers in each]
    asked = substituted(statement, plant=["demo"], asset=["R101"], tag=["R101.temperature"])
    [series] = server.ask(asked, "grafana")
    return {row[0] // SECOND: row[1] for row in series["values"]}


def test_the_good_share_is_that_of_the_samples(server: Influx) -> None:
    counted: dict[int, list[bool]] = {}
    for batch in (each.batch() for each in outputs()):
        for time, status in zip(batch.time.tolist(), batch.status.tolist(), strict=True):
            counted.setdefault(time // (10 * SECOND) * 10, []).append(status >> 30 == 0)
    assert found(server, '"good"') == pytest.approx(
        {time: 100 * sum(good) / len(good) for time, good in counted.items()}
    )


def test_the_band_lies_around_the_estimate(server: Influx) -> None:
    upper, lower = found(server, '+ 2 * mean("estimate_std")'), found(server, '- 2 * mean("estimate_std")')
    assert upper.keys() == lower.keys()
    assert all(upper[time] > lower[time] for time in upper)


def test_several_tags_can_be_chosen(server: Influx) -> None:
    statement = next(each for each in questions(DASHBOARD) if "last(" in each)
    asked = substituted(statement, plant=["demo"], asset=["R101", "R9/9"], tag=[tag.name for tag in TAGS])
    assert {each["tags"]["tag"] for each in server.ask(asked, "grafana")} == {tag.name for tag in TAGS}


def test_every_panel_asks_the_source_that_was_chosen() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "influxdb", "uid": "${datasource}"}
            assert target["rawQuery"] is True
