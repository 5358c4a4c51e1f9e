"""A whole plant: 1,000 tags at 1 s over MQTT through mosquitto into `twinloop run`, for a minute.

python benchmarks/plant.py [--tags N] [--seconds N] [--qos 0|1]

Prints the cycle's p50 and p99, the share of a core, peak memory, and what was sent and stored. Beside it, as
a baseline, the same messages heard by a bare paho client that decodes the JSON and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.mosquitto import mosquitto
from support.services import free_port
from twinloop.history import open_plant
from twinloop.present import time_text

ASSETS = 100
PLANT = """\
plant: bench
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    qos: {qos}
    topics:
      "bench/{{asset}}/{{tag}}": {{format: json}}
tags:
{tags}
assets:
{assets}
web: {{port: {web}}}
"""
BASELINE = """
import json, sys
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
client.on_message = lambda client, data, message: json.loads(message.payload)["value"]
client.connect("127.0.0.1", int(sys.argv[1]))
client.subscribe("bench/#", int(sys.argv[2]))
print("ready", flush=True)
client.loop_forever()
"""


@dataclass(frozen=True)
class Load:
    """What is sent: `tags` messages a second for `seconds`, at `qos`."""

    tags: int
    seconds: int
    qos: int


def plant_file(folder: Path, port: int, web: int, load: Load) -> Path:
    """A plant of 100 assets with the load's tags."""
    names = [f"t{i}" for i in range(load.tags // ASSETS)]
    rules = "\n".join(
        f"  {name}: {{unit: degC, range: [-50, 400], spike: 20%, noise: 0.5}}" for name in names
    )
    assets = "\n".join(f"  A{i}: {{tags: [{', '.join(names)}]}}" for i in range(ASSETS))
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(port=port, web=web, qos=load.qos, tags=rules, assets=assets))
    return path


def send(port: int, load: Load) -> int:
    """Send every tag once a second, spread over the second as a plant would; returns how many."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    topics = [f"bench/A{i % ASSETS}/t{i // ASSETS}" for i in range(load.tags)]
    begin = time.monotonic()
    sent = 0
    burst = max(1, load.tags // 100)
    told = None
    for second in range(load.seconds):
        for first in range(0, load.tags, burst):
            due = begin + second + first / load.tags
            time.sleep(max(0.0, due - time.monotonic()))
            stamp = time_text(time.time_ns())
            for i in range(first, min(first + burst, load.tags)):
                value = 80 + (i % 7) + 0.5 * ((sent * 2654435761) % 1000) / 1000
                payload = json.dumps({"value": value, "unit": "degC", "timestamp": stamp})
                told = client.publish(topics[i], payload, qos=load.qos)
                sent += 1
    if told is not None and load.qos:
        told.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()
    return sent


class Usage:
    """CPU seconds and peak memory of a process while the load is on."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._process.cpu_times()
        self._begin = time.monotonic()
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.peak_mib = max(self.peak_mib, self._process.memory_info().rss / 2**20)

    def share(self) -> float:
        """Share of one core since the start."""
        self._stop.set()
        self._thread.join()
        now = self._process.cpu_times()
        used = now.user + now.system - self._before.user - self._before.system
        return float(used / (time.monotonic() - self._begin))


def twin(load: Load) -> tuple[float, int]:
    """Run the load into a twin; prints its figures and returns its share of a core and messages lost."""
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as broker:
        web = free_port()
        plant = plant_file(Path(name), broker.port, web, load)
        process = subprocess.Popen(
            [sys.executable, "-m", "twinloop", "run", str(plant)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "field: connected" in line:
                break
        usage = Usage(process.pid)
        sent = send(broker.port, load)
        time.sleep(2)
        share = usage.share()
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/healthz", timeout=5) as answer:
            health = json.load(answer)["status"]
        process.send_signal(signal.SIGTERM)
        summary = process.stderr.read().strip().splitlines()[-1]
        process.wait()
        with open_plant(plant, dict(os.environ)) as history:
            names = [f"A{i % ASSETS}.t{i // ASSETS}" for i in range(load.tags)]
            stored = sum(history.range(each).num_rows for each in names)
    print(f"twinloop: {summary.split('info', 1)[-1].strip()}")
    print(
        f"twinloop: {100 * share:.1f} % of a core, peak {usage.peak_mib:.0f} MiB, health {health}, "
        f"sent {sent}, stored {stored}, lost {sent - stored}"
    )
    return share, sent - stored


def baseline(load: Load) -> float:
    """The same load into a client that only decodes; returns its share of a core."""
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as broker:
        process = subprocess.Popen(
            [sys.executable, "-c", BASELINE, str(broker.port), str(load.qos)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        usage = Usage(process.pid)
        send(broker.port, load)
        share = usage.share()
        process.terminate()
        process.wait()
    print(
        f"baseline (paho, json, nothing else): {100 * share:.1f} % of a core, peak {usage.peak_mib:.0f} MiB"
    )
    return share


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--qos", type=int, default=1)
    options = parser.parse_args()
    load = Load(options.tags, options.seconds, options.qos)
    print(f"{load.tags} tags at 1 s for {load.seconds} s, QoS {load.qos}")
    share, lost = twin(load)
    print(f"ratio of CPU to the baseline: {share / baseline(load):.2f}")
    assert not lost, f"{lost} samples were lost"


if __name__ == "__main__":
    main()
