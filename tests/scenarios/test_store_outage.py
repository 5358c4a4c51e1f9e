"""The store away for a while under load: the loop stays live, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.mosquitto import mosquitto
from support.twin import PATIENCE_S, query
from twinloop import build
from twinloop.loop.supervise import LinkPhase
from twinloop.running import running
from twinloop.stores import local

CYCLES = 10
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)


async def comes_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0.02)  # between two looks; the condition ends the wait


async def test_while_the_store_cannot_be_written_the_loop_goes_on_and_later_it_has_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "twinloop")
    monkeypatch.setattr(build, "SEAL_AFTER_S", 0.1)
    monkeypatch.setattr(local, "RETRY_S", 0.1)
    plant, store, away = tmp_path / "plant.yaml", tmp_path / "data/store", tmp_path / "away"
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sent: list[float] = []

    def publish(count: int) -> None:
        for _ in range(count):
            at = (BEGIN + timedelta(milliseconds=10 * len(sent))).isoformat(timespec="milliseconds")
            sent.append(20.0 + len(sent) % 50)
            client.publish("R101/temperature", json.dumps({"value": sent[-1], "timestamp": at}), qos=1)

    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker") as broker:
        plant.write_text(f"""
plant: outage
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{broker.port}
    topics: {{"{{asset}}/{{tag}}": {{format: json}}}}
tags: {{temperature: {{unit: degC, noise: 0.5, every: 100ms}}}}
assets: {{R101: {{tags: [temperature]}}}}
web: {{port: 0}}
""")
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        async with running(plant, {}) as twin:
            await comes_true(lambda: twin.links == {"field": LinkPhase.UP})
            publish(500)
            await comes_true(lambda: any(store.glob("samples-*")))
            store.rename(away)
            publish(500)
            await comes_true(lambda: "cannot seal" in caplog.text)
            cycles = twin.metrics.figures.cycles
            publish(500)
            await comes_true(lambda: twin.metrics.figures.cycles >= cycles + CYCLES)
            assert not store.exists(), "the outage lasted all the while"
            well, _ = twin.healthz()
            assert well, "the loop turns without the store"
            await comes_true(lambda: sum(twin.metrics.by_severity) == len(sent))
            away.rename(store)
            publish(500)
            await comes_true(lambda: "writing again" in caplog.text)
            await comes_true(lambda: len(query(plant, "range", "R101.temperature")) == len(sent))
        client.disconnect()
        client.loop_stop()
    stored = [float(row["value"]) for row in query(plant, "range", "R101.temperature")]
    assert stored == sent
