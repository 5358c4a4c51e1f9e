"""A disk that fills up or turns read-only, under each part: told once, nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.disks import Disk, small_disk
from support.mosquitto import mosquitto
from support.twin import Run, eventually, query, running

TESTS = Path(__file__).parents[1]
PLANT = """
plant: disks
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics: {{"{{asset}}/{{tag}}": {{format: json}}}}
tags: {{temperature: {{unit: degC, noise: 0.5, every: 200ms}}}}
assets: {{R101: {{tags: [temperature]}}}}
log: {{max_size: 100MB}}
web: {{port: 0}}
"""
START_S = 90.0
PATIENCE_S = 60.0
FULL = r"disk is full|No space left"
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)


class Plant:
    """A plant file and a publisher beside a broker that keeps what is not acknowledged."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "plant.yaml"
        self.path.write_text(PLANT.format(port=port))
        self.sent: list[float] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, count: int) -> None:
        for _ in range(count):
            at = (BEGIN + timedelta(milliseconds=10 * len(self.sent))).isoformat(timespec="milliseconds")
            self.sent.append(20.0 + len(self.sent) % 50)
            self._client.publish("R101/temperature", json.dumps({"value": self.sent[-1], "timestamp": at}), 1)

    def stored(self) -> list[float]:
        return [float(row["value"]) for row in query(self.path, "range", "R101.temperature")]

    @contextmanager
    def run(self) -> Iterator[Run]:
        """`twinloop run` in a hurry: a seal, a checkpoint and a log file take a fraction of a second."""
        env = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        with running(self.path, env=env, program="support.hurry") as run:
            yield run

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def plant_on(folder: Path, part: str, size: str = "6m") -> Iterator[tuple[Plant, Disk]]:
    """A plant of whose data directory one part has a small disk of its own."""
    (folder / "broker").mkdir()
    with small_disk(folder / "data" / part, size) as disk, mosquitto(folder / "broker") as broker:
        plant = Plant(folder, broker.port)
        try:
            yield plant, disk
        finally:
            plant.close()


def told(run: Run, pattern: str) -> list[str]:
    """What a run said of it, and that it said nothing a person cannot read."""
    assert not [line for line in run.lines if "Traceback" in line], "\n".join(run.lines)
    return [line for line in run.lines if re.search(pattern, line)]


def shows(plant: Plant, count: int) -> None:
    """So many samples can be asked for."""
    eventually(plant.stored, lambda stored: len(stored) >= count, PATIENCE_S)


def ends(run: Run, pattern: str) -> None:
    """It ends by itself with exit 1, and one paragraph; a merge beside it may have warned before."""
    assert run.process.wait(START_S) == 1
    run.drain()
    errors = [line for line in told(run, pattern) if "cannot be merged" not in line]
    assert len(errors) == 1, "\n".join(run.lines)


def goes_on(plant: Plant) -> None:
    """The next start has everything there ever was, once, and stops cleanly."""
    with plant.run() as run:
        run.says("connected", START_S)
        plant.publish(200)
        shows(plant, len(plant.sent))
        assert run.stop(within_s=30) == 0, "\n".join(run.lines)
    assert plant.stored() == plant.sent


@pytest.mark.parametrize("part", ["log", "outputs", "checkpoints"])
def test_a_full_disk_ends_the_run_with_one_paragraph_and_with_room_it_goes_on(
    tmp_path: Path, part: str
) -> None:
    with plant_on(tmp_path, part) as (plant, disk):
        with plant.run() as run:
            run.says("connected", START_S)
            plant.publish(300)
            shows(plant, 300)
            disk.fill()
            plant.publish(3000)
            ends(run, FULL)
        for _ in range(2):  # whoever starts it again and again hears the same, and harms nothing
            with plant.run() as run:
                ends(run, FULL)
        disk.make_room()
        goes_on(plant)


def test_a_full_disk_under_the_store_is_told_once_and_the_loop_goes_on(tmp_path: Path) -> None:
    with plant_on(tmp_path, "store") as (plant, disk):
        with plant.run() as run:
            run.says("connected", START_S)
            plant.publish(300)
            shows(plant, 300)
            disk.fill()
            plant.publish(1000)
            run.says("cannot seal", PATIENCE_S)
            shows(plant, 1300)
            assert run.stop(within_s=30) == 0
            assert len(told(run, "cannot seal")) <= 2, "once, and at the stop what it lacks"
        with plant.run() as run:
            run.says("connected", START_S)
            plant.publish(200)
            shows(plant, 1500)
            disk.make_room()
            run.says("writing again", PATIENCE_S)
            assert run.stop(within_s=30) == 0
        assert plant.stored() == plant.sent
        goes_on(plant)


@pytest.mark.parametrize("part", ["log", "outputs", "checkpoints", "store"])
def test_a_read_only_disk_is_told_in_one_paragraph_and_writable_again_it_goes_on(
    tmp_path: Path, part: str
) -> None:
    with plant_on(tmp_path, part) as (plant, disk):
        with plant.run() as run:
            run.says("connected", START_S)
            plant.publish(300)
            shows(plant, 300)
            assert run.stop(within_s=30) == 0
        disk.read_only()
        plant.publish(300)
        for _ in range(2):
            with plant.run() as run:
                if part != "store":
                    ends(run, "ead-only")
                    continue
                run.says("cannot seal", PATIENCE_S)
                shows(plant, len(plant.sent))
                assert run.stop(within_s=30) == 0
                told(run, "ead-only")
        disk.writable()
        goes_on(plant)
