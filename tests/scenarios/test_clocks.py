"""Clocks that are wrong, jump and are put right under `twinloop run`: this host's, and a source's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.faketime import HostClock
from support.mosquitto import Mosquitto, mosquitto
from support.twin import PATIENCE_S, Run, eventually, query, running

HOUR = 3600
EVERY_S = 0.1
STALE_S = 2
TAGS = ("temperature", "pressure")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder, persistence=True) as running_broker:
        yield running_broker


def plant_file(folder: Path, port: int) -> Path:
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: clocks
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics: {{"{{asset}}/{{tag}}": {{format: json}}}}
tags:
  temperature: {{unit: degC, noise: 0.5, every: 200ms, stale: {STALE_S}s, zscore: off}}
  pressure: {{unit: bar, every: 200ms, stale: {STALE_S}s, zscore: off}}
assets: {{R101: {{tags: [temperature, pressure], every: 200ms}}}}
web: {{port: 0}}
""")
    return path


class Device:
    """Sends both tags ten times a second: one with its own clock's time, the other without any.

    Attributes:
        off_s: how far its clock is off.
        sent: the values sent so far, each once.
    """

    def __init__(self, port: int) -> None:
        self.off_s = 0
        self.sent: list[float] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        while not self._ended.wait(EVERY_S):
            value = 20.0 + 0.25 * len(self.sent)
            at = datetime.fromtimestamp(time.time() + self.off_s, UTC).isoformat()
            self._client.publish("R101/temperature", json.dumps({"value": value, "timestamp": at}), qos=1)
            told = self._client.publish("R101/pressure", json.dumps({"value": value}), qos=1)
            told.wait_for_publish(PATIENCE_S)
            self.sent.append(value)

    def stop(self) -> list[float]:
        """Send no more; what was sent."""
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()
        return self.sent


@contextmanager
def sending_to(run: Run, port: int) -> Iterator[Device]:
    run.says("field: connected")  # from here on the broker keeps what is sent
    device = Device(port)
    try:
        yield device
    finally:
        device.stop()


def rows(plant: Path, tag: str) -> list[dict[str, str]]:
    return query(plant, "range", f"R101.{tag}")


def events(plant: Path, kind: str) -> list[dict[str, str]]:
    return [event for event in query(plant, "events") if event["kind"] == kind]


def stale(plant: Path) -> list[dict[str, str]]:
    return [event for event in events(plant, "STATUS") if "STALE" in event["why"]]


def goes_on(plant: Path, seconds: float) -> None:
    """Cycles go on for so long, and samples are stored."""
    cycles, count = len(query(plant, "snapshots")), len(rows(plant, "temperature"))
    eventually(lambda: len(query(plant, "snapshots")), lambda now: now >= cycles + seconds / 0.2)
    eventually(lambda: len(rows(plant, "temperature")), lambda now: now >= count + seconds / EVERY_S / 2)


def reasons(found: list[dict[str, str]]) -> set[str]:
    return {reason for row in found for reason in row["reasons"].split("|") if reason}


def newest_is(plant: Path, tag: str, holds: Callable[[str], bool]) -> None:
    def ask() -> list[str]:
        return [row["reasons"] for row in query(plant, "latest", f"R101.{tag}")]

    eventually(ask, lambda found: len(found) == 1 and holds(found[0]))


@pytest.mark.long
def test_a_host_clock_that_jumps_makes_nothing_stale_and_loses_nothing(
    tmp_path: Path, broker: Mosquitto
) -> None:
    plant, clock = plant_file(tmp_path, broker.port), HostClock(tmp_path)
    with running(plant, env=clock.env) as run, sending_to(run, broker.port) as device:
        eventually(lambda: len(rows(plant, "temperature")), lambda count: count >= 10)
        for jump, off_s in enumerate([HOUR, 0, -HOUR, 0], 1):
            clock.set(off_s)
            eventually(lambda: len(events(plant, "CLOCK_SET")), jump.__eq__)
            goes_on(plant, 2 * STALE_S + 1)
            assert stale(plant) == [], f"the clock is {off_s} s off"
        newest_is(plant, "temperature", lambda found: found == "")
        newest_is(plant, "pressure", lambda found: found == "")
        clock.set(HOUR)
        run.process.kill()
        run.process.wait()
        with running(plant, env=clock.env) as again:
            again.says("field: connected")
            goes_on(plant, 2 * STALE_S + 1)
            clock.set(0)
            goes_on(plant, 2 * STALE_S + 1)
            sent = device.stop()
            eventually(lambda: len(rows(plant, "temperature")), lambda count: count >= len(sent))
            assert len(events(plant, "STARTED")) == 2
            assert again.stop() == 0
    stored = sorted(float(row["value"]) for row in rows(plant, "temperature"))
    assert stored == sent, "every sample once"
    # What has no time of its own may come twice after a kill.
    assert {float(row["value"]) for row in rows(plant, "pressure")} == set(sent)
    moved = {event["subject"] for event in events(plant, "CLOCK_BACK")}
    assert moved == {"R101.temperature", "R101.pressure"}


def test_a_source_s_clock_that_is_wrong_and_put_right_is_followed(tmp_path: Path, broker: Mosquitto) -> None:
    plant = plant_file(tmp_path, broker.port)
    with running(plant) as run, sending_to(run, broker.port) as device:
        newest_is(plant, "temperature", lambda found: found == "")
        device.off_s = HOUR
        newest_is(plant, "temperature", lambda found: found == "CLOCK")
        device.off_s = 0
        newest_is(plant, "temperature", lambda found: found == "")
        assert events(plant, "CLOCK_BACK") == [], "what was not believed needs not be taken back"
        for count, off_s in enumerate([-300, -300 - HOUR], 1):
            device.off_s = off_s
            eventually(lambda: len(events(plant, "CLOCK_BACK")), count.__eq__)
            newest_is(plant, "temperature", lambda found: found == "")
        device.off_s = 0
        newest_is(plant, "temperature", lambda found: found == "")
        sent = device.stop()
        eventually(lambda: len(rows(plant, "temperature")), lambda count: count >= len(sent))
        assert run.stop() == 0
    found = rows(plant, "temperature")
    assert sorted(float(row["value"]) for row in found) == sent
    assert reasons(found) == {"CLOCK", "LATE", "CLOCK_BACK"}
    assert stale(plant) == []
    assert {event["subject"] for event in events(plant, "CLOCK_BACK")} == {"R101.temperature"}
    assert {row["status"] for row in found if "CLOCK" not in row["reasons"].split("|")} == {"Good"}
