"""`twinloop run` against a real mosquitto: what is sent is stored as sent, through restarts and stops."""

from __future__ import annotations

import csv
import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.mosquitto import Mosquitto, mosquitto
from support.twin import PATIENCE_S, command, eventually, query, running

T0 = "2026-03-01T10:00:0{}Z"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder, persistence=True) as running_broker:
        yield running_broker


def plant_file(folder: Path, port: int, extra: str = "") -> Path:
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: test
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature: {{unit: degC, range: [-50, 400], spike: 20%, noise: 0.5}}
  pressure: {{unit: bar}}
assets:
  R101: {{tags: [temperature, pressure]}}
web: {{port: 0}}
{extra}""")
    return path


class Publisher:
    """An ordinary client of the plant that waits until the broker has each message."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.sent = 0

    def send(self, topic: str, payload: object, *, retain: bool = False) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload)
        told = self._client.publish(topic, raw, qos=1, retain=retain)
        told.wait_for_publish(PATIENCE_S)
        self.sent += 1

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def publisher(broker: Mosquitto) -> Iterator[Publisher]:
    made = Publisher(broker.port)
    yield made
    made.close()


TEMPERATURE = "reactor/R101/sensor/temperature"


def test_values_units_statuses_and_times_arrive_as_sent(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        publisher.send(TEMPERATURE, {"value": 85.0, "unit": "degC", "timestamp": T0.format(0)})
        publisher.send(TEMPERATURE, {"value": 185.0, "unit": "degF", "timestamp": T0.format(1)})
        publisher.send(TEMPERATURE, {"value": 120.0, "timestamp": "2026-03-01T12:00:02+02:00"})
        publisher.send(TEMPERATURE, {"value": 500.0, "timestamp": T0.format(3)})
        publisher.send(TEMPERATURE, {"value": 86.0, "timestamp": T0.format(4), "quality": "Uncertain"})
        publisher.send(TEMPERATURE, {"value": None, "timestamp": T0.format(5), "quality": "BadSensorFailure"})
        rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 6)
        assert [row["time"] for row in rows] == [T0.format(i) for i in range(6)]
        assert [row["value"] for row in rows[:2]] == ["85.0", "85.0"]
        assert [row["status"] for row in rows] == ["Good", "Good", "Uncertain", "Bad", "Uncertain", "Bad"]
        assert rows[2]["reasons"].split("|")[0] == "SPIKE"
        assert rows[3]["reasons"].split("|")[0] == "RANGE"
        assert rows[3]["value"] == "500.0", "a Bad row keeps its value"
        assert rows[5]["value"] == ""
        assert all(row["estimate"] for row in rows), "every row has its estimate"
        assert run.stop() == 0
    again = query(plant, "range", "R101.temperature")
    assert again == rows, "a clean stop changes nothing that was seen"


def test_what_makes_no_sample_is_kept_with_its_bytes_and_reason(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        publisher.send(TEMPERATURE, b"\xff{not json")
        publisher.send("reactor/R102/sensor/temperature", {"value": 1})
        publisher.send(TEMPERATURE, {"value": 1, "unit": "bar"})
        publisher.send(TEMPERATURE, {"value": "hot"})
        publisher.send(TEMPERATURE, {"value": 20.5, "timestamp": T0.format(0)})
        assert "UNDECODABLE" in run.says("became a dead letter"), "the first of each reason is said"
        assert "did you mean R101.temperature?" in run.says("UNKNOWN_TAG")
        dead = eventually(lambda: query(plant, "dead"), lambda rows: len(rows) == 4)
        assert [row["reason"] for row in dead] == [
            "UNDECODABLE",
            "UNKNOWN_TAG",
            "WRONG_UNIT",
            "NOT_NUMERIC",
        ]
        assert dead[1]["origin"] == "reactor/R102/sensor/temperature"
        eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 1)
        assert run.stop(signal.SIGINT) == 0, "dead letters do not change the exit code"


def test_a_broker_that_restarts_is_connected_again_without_help(tmp_path: Path, broker: Mosquitto) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        before = Publisher(broker.port)
        before.send(TEMPERATURE, {"value": 20.0, "timestamp": T0.format(0)})
        eventually(lambda: query(plant, "latest"), lambda rows: len(rows) == 1)
        before.close()
        broker.restart()
        run.says("field: connected again")
        after = Publisher(broker.port)
        after.send(TEMPERATURE, {"value": 21.0, "timestamp": T0.format(1)})
        after.close()
        rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 2)
        assert [row["value"] for row in rows] == ["20.0", "21.0"]
        assert run.stop() == 0
        lost = [line for line in run.lines if "trying again" in line]
        assert len(lost) <= 2, f"one outage is said once, or twice as its cause changes: {lost}"


def test_what_is_published_while_the_twin_is_stopped_arrives_when_it_is_back(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        publisher.send(TEMPERATURE, {"value": 20.0, "timestamp": T0.format(0)})
        eventually(lambda: query(plant, "latest"), lambda rows: len(rows) == 1)
        assert run.stop() == 0
    publisher.send(TEMPERATURE, {"value": 21.0, "timestamp": T0.format(1)})
    with running(plant) as run:
        rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 2)
        assert [row["value"] for row in rows] == ["20.0", "21.0"]
        assert run.stop() == 0


def test_a_killed_twin_goes_on_with_everything_it_had(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        for i in range(5):
            publisher.send(TEMPERATURE, {"value": 20.0 + i, "timestamp": T0.format(i)})
        before = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 5)
        run.process.kill()
        run.process.wait()
    assert query(plant, "range", "R101.temperature") == before, "readable after kill -9"
    with running(plant) as run:
        run.says("field: connected")
        publisher.send(TEMPERATURE, {"value": 25.0, "timestamp": T0.format(5)})
        rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) >= 6)
        assert rows[:5] == before
        assert len(rows) == 6
        assert run.stop() == 0


def _aside_from_age(row: dict[str, str]) -> dict[str, str]:
    """A row without what silence does to it: a busy machine may take long to ask."""
    return {name: text for name, text in row.items() if name not in {"status", "reasons"}}


def test_latest_and_windows_are_answered_while_the_twin_runs(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        for second, value in [(1, 20.0), (2, 22.0), (3, 999.0)]:
            publisher.send(TEMPERATURE, {"value": value, "timestamp": T0.format(second)})
        publisher.send("reactor/R101/sensor/pressure", b"2.5")
        latest = eventually(lambda: query(plant, "latest"), lambda rows: len(rows) == 2)
        asked = command("query", plant, "latest", "--format", "csv")
        again = list(csv.DictReader(io.StringIO(asked.stdout)))
        assert list(map(_aside_from_age, again)) == list(map(_aside_from_age, latest)), "from another process"
        window = query(plant, "window", "R101.temperature", every="1m")
        assert window == [
            {
                "time": "2026-03-01T10:00:00Z",
                "mean": "21.0",
                "min": "20.0",
                "max": "22.0",
                "count": "3",
                "good_fraction": str(2 / 3),
            }
        ]
        silent = eventually(
            lambda: query(plant, "latest", "R101.pressure"), lambda rows: rows[0]["status"] == "Bad"
        )
        assert "STALE" in silent[0]["reasons"]
        assert run.stop() == 0


def test_a_plant_file_may_change_and_old_tags_keep_their_history(
    tmp_path: Path, broker: Mosquitto, publisher: Publisher
) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        publisher.send(TEMPERATURE, {"value": 20.0, "timestamp": T0.format(0)})
        eventually(lambda: query(plant, "latest"), lambda rows: len(rows) == 1)
        assert run.stop() == 0
    text = plant.read_text().replace(
        "R101: {tags: [temperature, pressure]}", "R101: {tags: [flow, temperature]}"
    )
    plant.write_text(text.replace("  pressure: {unit: bar}", "  flow: {unit: L/min}"))
    with running(plant) as run:
        run.says("field: connected")
        publisher.send("reactor/R101/sensor/flow", {"value": 5, "unit": "m3/h"})
        publisher.send(TEMPERATURE, {"value": 21.0, "timestamp": T0.format(1)})
        rows = eventually(lambda: query(plant, "latest"), lambda rows: len(rows) == 2)
        assert {row["tag"]: row["value"] for row in rows}["R101.temperature"] == "21.0"
        assert run.stop() == 0
    assert [row["value"] for row in query(plant, "range", "R101.temperature")] == ["20.0", "21.0"]


def test_a_second_run_on_one_data_directory_is_refused(tmp_path: Path, broker: Mosquitto) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run:
        run.says("field: connected")
        second = command("run", plant)
        assert second.returncode == 1
        assert "in use by another twinloop" in second.stderr
        assert "Traceback" not in second.stderr
        assert run.stop() == 0
