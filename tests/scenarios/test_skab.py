"""A real pump's recording, replayed through a real broker: every row arrives with its own time.

The data (../shared/data/skab) stands beside the checkout; where it does not, these tests skip.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.mosquitto import mosquitto
from support.twin import PATIENCE_S, eventually, query, running

ROOT = Path(__file__).parents[2]
SKAB = ROOT.parent / "shared" / "data" / "skab"
SENSORS = 8
IN_FLIGHT = 5_000
Sent = dict[str, list[tuple[str, str]]]


def publish(port: int, files: list[Path]) -> Sent:
    """Send every row of the files, QoS 1, a message a value; what was sent, by tag."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(500)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent: Sent = defaultdict(list)
    last = None
    count = 0
    for file in files:
        with file.open() as lines:
            for row in csv.DictReader(lines, delimiter=";"):
                time = row["datetime"].replace(" ", "T") + "Z"
                for column in list(row)[1 : 1 + SENSORS]:
                    payload = json.dumps({"value": float(row[column]), "timestamp": time})
                    last = client.publish(f"skab/valve1/{column}", payload, qos=1)
                    count += 1
                    if count % IN_FLIGHT == 0:
                        last.wait_for_publish(PATIENCE_S)
                    sent[f"valve1.{column.replace(' ', '')}"].append((time, row[column]))
    assert last is not None
    last.wait_for_publish(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    return sent


def replay(folder: Path, files: list[Path], within_s: float) -> None:
    if not SKAB.is_dir():
        pytest.skip("the SKAB data is not beside the checkout")
    broker_folder = folder / "broker"
    broker_folder.mkdir()
    plant = folder / "skab.yaml"
    plant.write_text((ROOT / "examples" / "skab.yaml").read_text() + "\nweb: {port: 0}\ndata_dir: ./data\n")
    with mosquitto(broker_folder) as broker:
        port = {"MQTT_PORT": str(broker.port)}
        with running(plant, env=port) as run:
            run.says("loop: connected")
            sent = publish(broker.port, files)
            total = sum(len(rows) for rows in sent.values())
            eventually(
                lambda: sum(len(query(plant, "range", tag)) for tag in sent),
                lambda stored: stored >= total,
                within_s,
            )
            assert run.stop() == 0
            assert f"{total} samples received" in run.lines[-1]
    for tag, rows in sent.items():
        stored = query(plant, "range", tag)
        assert [row["time"] for row in stored] == [time for time, _ in sorted(rows)]
        assert [float(row["value"]) for row in stored] == [float(value) for _, value in sorted(rows)]
    assert query(plant, "dead") == []


def test_a_recording_through_the_broker_is_stored_row_for_row(tmp_path: Path) -> None:
    replay(tmp_path, [SKAB / "valve1" / "0.csv"], 60)


@pytest.mark.long
def test_all_of_skab_through_the_broker_is_stored_row_for_row(tmp_path: Path) -> None:
    files = sorted(SKAB.glob("valve1/*.csv"), key=lambda path: int(path.stem))
    replay(tmp_path, [SKAB / "anomaly-free" / "anomaly-free.csv", *files], 600)
