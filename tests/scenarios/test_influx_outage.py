"""InfluxDB killed under load and brought back: the loop stays live, and nothing is lost or doubled."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.influx import ADMIN, Influx, influxdb
from support.load import Publisher, figures
from support.mosquitto import mosquitto
from support.services import free_port
from support.twin import Run, eventually, query, running

PER_S = 1000
TAGS = ("temperature", "pressure", "level")
ASSETS = 4
ENV = {"INFLUX_PASSWORD": ADMIN[1]}
PLANT = """
plant: outage
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{broker}
    topics: {{"{{asset}}/{{tag}}": {{format: json, timestamp_format: us}}}}
tags:
  temperature: {{unit: degC, noise: 0.5, zscore: off}}
  pressure: {{unit: bar, noise: 0.1}}
  level: {{unit: m, fill: none}}
assets: {{{assets}}}
store: {{type: influxdb, url: {url}, bucket: plant, username: admin, password: "${{INFLUX_PASSWORD}}"}}
web: {{port: {web}}}
"""


def plant_file(folder: Path, broker: int, server: Influx) -> tuple[Path, int]:
    path, web = folder / "plant.yaml", free_port()
    server.ask("CREATE DATABASE plant")
    assets = ", ".join(f"A{n}: {{tags: [{', '.join(TAGS)}]}}" for n in range(ASSETS))
    path.write_text(PLANT.format(broker=broker, assets=assets, url=server.url, web=web))
    return path, web


def stored(server: Influx) -> tuple[int, int]:
    """How many points there are, and how many different values, of which each was sent once."""
    rows = server.ask('SELECT count("value"), count(distinct("value")) FROM twinloop', "plant")
    return (rows[0]["values"][0][1], rows[0]["values"][0][2]) if rows else (0, 0)


def comes_true(holds: Callable[[], bool]) -> None:
    eventually(holds, bool, within_s=60.0)


def test_influxdb_killed_under_load_and_brought_back_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFLUX_PASSWORD", ENV["INFLUX_PASSWORD"])
    topics = [f"A{n}/{tag}" for n in range(ASSETS) for tag in TAGS]
    for folder in ("broker", "influx"):
        (tmp_path / folder).mkdir()
    with influxdb(tmp_path / "influx") as server, mosquitto(tmp_path / "broker") as broker:
        plant, web = plant_file(tmp_path, broker.port, server)
        with running(plant, env=ENV) as run:
            run.says("running")
            with Publisher(broker.port, PER_S, topics) as publisher:
                comes_true(lambda: stored(server)[0] > PER_S)
                server.kill()
                run.says("cannot be reached")
                heard, before = publisher.sent, figures(web)
                comes_true(lambda: publisher.sent > heard + 2 * PER_S)
                newest = query(plant, "latest", "A0.temperature")[0]["time"]
                comes_true(lambda: query(plant, "latest", "A0.temperature")[0]["time"] > newest)
                behind = figures(web)
                server.start()
                run.says("writing again")
                comes_true(lambda: publisher.sent > heard + 3 * PER_S)
                publisher.stop()
                sent = publisher.sent
            comes_true(lambda: stored(server)[0] >= sent)
            figured = figures(web)
            assert run.stop(signal.SIGTERM) == 0
        points, distinct = stored(server)
        rows = sum(len(query(plant, "range", topic.replace("/", "."))) for topic in topics)
    missed = figured["twinloop_cycles_missed_total"] - before["twinloop_cycles_missed_total"]
    with capsys.disabled():
        print(  # noqa: T201 - the counts the law is about
            f"\nsent {sent}, stored {points}, distinct {distinct}, answered {rows}; "
            f"{behind['twinloop_store_lag_entries']:.0f} entries behind at most, "
            f"{missed:.0f} cycles missed"
        )
    assert sent == points == distinct == rows
    assert behind["twinloop_store_lag_entries"] > 0
    turned = behind["twinloop_cycle_seconds_count"] - before["twinloop_cycle_seconds_count"]
    assert turned > 0, "the loop turned without InfluxDB"
    assert missed == 0
    assert sum("cannot be reached" in line for line in run.lines) == 1, "told once"
    assert not [line for line in run.lines if ADMIN[1] in line]


def hung(run: Run, server: Influx) -> float:
    began = time.monotonic()
    server.signal(signal.SIGSTOP)
    try:
        run.says("cannot be reached")
        began = time.monotonic()
        assert run.stop(signal.SIGTERM) == 0
    finally:
        server.signal(signal.SIGCONT)
    return time.monotonic() - began


@pytest.mark.long
def test_a_run_whose_influxdb_hangs_stops_in_time_and_goes_on_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUX_PASSWORD", ENV["INFLUX_PASSWORD"])
    for folder in ("broker", "influx"):
        (tmp_path / folder).mkdir()
    with influxdb(tmp_path / "influx") as server, mosquitto(tmp_path / "broker") as broker:
        plant, _ = plant_file(tmp_path, broker.port, server)
        with ExitStack() as stack:
            with running(plant, env=ENV) as run:
                run.says("running")
                publisher = stack.enter_context(Publisher(broker.port, 100, ["A0/temperature"]))
                comes_true(lambda: stored(server)[0] > 0)
                assert hung(run, server) < 8, "nor does it wait for what is not there"
            with running(plant, env=ENV) as run:
                run.says("running")
                publisher.stop()
                eventually(lambda: (publisher.sent, *stored(server)), lambda each: len(set(each)) == 1)
                assert run.stop(signal.SIGTERM) == 0
