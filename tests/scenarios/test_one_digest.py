"""A live run that was killed and its replays come to the same bits."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.mosquitto import mosquitto
from support.twin import PATIENCE_S, eventually, query, running
from twinloop.compare import compare
from twinloop.config.plantfile import load
from twinloop.log.reader import read_entries
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.digest import OutputChain
from twinloop.replaying import Recording, replay_log

TAGS = ("temperature", "pressure", "level")
ROUNDS = 40
PLANT = """
plant: digest
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature: {{unit: degC, range: [-50, 400], spike: 20%, fill: linear, every: 100ms, stale: 2s}}
  pressure: {{unit: bar, every: 100ms}}
  level: {{unit: m, every: 100ms, fill: model}}
assets:
  R101: {{model: stirred_tank, tags: [temperature, pressure, level]}}
web: off
"""


class Sender:
    """Sends rounds of samples whose times run on: some come late, some twice, some are spikes or empty."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._draw = random.Random(3)  # noqa: S311 - a test's plan, no secret
        self._held: list[tuple[str, str]] = []
        self._now_us = int(datetime.now(UTC).timestamp()) * 10**6
        self.different: set[tuple[str, str]] = set()

    def rounds(self, count: int) -> None:
        """Send so many rounds of all tags; returns when the broker has them."""
        due: list[tuple[str, str]] = []
        for _ in range(count):
            self._now_us += 20_000
            for tag in TAGS:
                due.append((tag, self._message()))
                if self._draw.random() < 0.1:
                    self._held.append(due.pop())
            if self._draw.random() < 0.3 and due:
                due.append(self._draw.choice(due))
        due += self._held
        self._held = []
        self.different |= set(due)
        told = [self._client.publish(f"reactor/R101/sensor/{tag}", text, qos=1) for tag, text in due]
        for each in told:
            each.wait_for_publish(PATIENCE_S)

    def _message(self) -> str:
        value: float | None = round(80 + self._draw.gauss(0, 0.5) + 60 * (self._draw.random() < 0.02), 3)
        stamp = datetime.fromtimestamp(self._now_us / 1e6, UTC).isoformat()
        return json.dumps({"value": value, "timestamp": stamp})

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant that ran live, was killed under load, went on, and was stopped in order."""
    folder = tmp_path_factory.mktemp("live")
    path = folder / "plant.yaml"
    (folder / "broker").mkdir()
    with mosquitto(folder / "broker", persistence=True) as broker:
        path.write_text(PLANT.format(port=broker.port))
        with running(path) as run:
            run.says("field: connected")
            sender = Sender(broker.port)
            sender.rounds(ROUNDS)
            run.process.kill()
            run.process.wait()
        sender.rounds(ROUNDS)
        with running(path) as run:
            run.says("field: connected")
            sender.rounds(ROUNDS)
            eventually(lambda: _stored(path), lambda count: count == len(sender.different))
            assert run.stop() == 0, "\n".join(run.lines)
        sender.close()
    return path


def _stored(plant: Path) -> int:
    return sum(len(query(plant, "range", f"R101.{tag}")) for tag in TAGS)


@pytest.mark.parametrize("at_once", [1, 7, 5000])
async def test_a_run_that_was_killed_and_its_replays_come_to_the_same_bits(
    plant: Path, tmp_path: Path, at_once: int
) -> None:
    data = load(plant, {}).data_dir
    live = next(iter(Checkpoints(data / "checkpoints").load()))
    chain = OutputChain.over(entry for _, entry in read_entries(data / "outputs", -1))
    report = await replay_log(Recording(plant, into=tmp_path / "again", at_once=at_once), {})
    assert report.last == live.offset
    assert report.state_digest == live.digest
    assert not report.differed
    assert (report.outputs, report.outputs_digest) == (chain.length, chain.digest())
    assert compare(data, tmp_path / "again").is_none
