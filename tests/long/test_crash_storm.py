"""The crash storm: killed anywhere, any number of times, the twin is what it would have been."""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
import pyarrow as pa
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import twinloop
from support import lives
from support.lives import KEPT, REGIONS
from support.mosquitto import mosquitto
from support.twin import PATIENCE_S, eventually, running
from twinloop.build import build_loop
from twinloop.config.plantfile import load
from twinloop.history import open_queries
from twinloop.log.reader import read_entries
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.metrics import Metrics
from twinloop.records import Outputs, Samples, decode_record
from twinloop.stages.stage import units_of
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.workplace import workplace

KILLS: Final = int(os.environ.get("TWINLOOP_STORM_KILLS", "220"))
SEED: Final = int(os.environ.get("TWINLOOP_STORM_SEED", "1"))
TAGS: Final = ("temperature", "pressure", "flow_rate")
HOT: Final = 0.8
"""Share of the first tag: what is redelivered after a kill must be more than the fold remembers of it."""
BURST: Final = 1500
LATE: Final = 0.05
"""Share of the samples that are sent up to `LATE_S` after their time: the filter rewinds for them."""
LATE_S: Final = 3.0
PLANT: Final = """
plant: storm
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature: {{unit: degC, range: [-50, 400], warn_range: [0, 150], zscore: 4, noise: 0.5, every: 200ms}}
  pressure: {{unit: bar, rate_limit: 5, every: 200ms}}
  flow_rate: {{unit: L/min, spike: 20%, stale: 1s, every: 200ms}}
assets:
  R101: {{model: stirred_tank, tags: [temperature, pressure, flow_rate]}}
log: {{keep: 1s}}
web: {{port: 0}}
"""


@dataclass
class Load:
    """A publisher that goes on until told to stop, and knows what the broker has acknowledged.

    Attributes:
        sent: value by (tag, time in ns); every time is a tag's own.
    """

    port: int
    seed: int
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(500)
        self._client.max_queued_messages_set(0)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        self._stop = threading.Event()
        self._held: list[tuple[float, str, str]] = []
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _on_publish(self, *_: object) -> None:
        self.acknowledged += 1

    def _publish(self) -> None:
        draw = random.Random(self.seed)  # noqa: S311 - a load, no secret
        newest_us = 0
        while not self._stop.wait(0.04):
            for _ in range(BURST if draw.random() < 0.02 else 20):
                tag = TAGS[0] if draw.random() < HOT else draw.choice(TAGS[1:])
                newest_us = max(newest_us + 1, time.time_ns() // 1000)
                value = round(80 + draw.gauss(0, 0.5) + 60 * (draw.random() < 0.01), 4)
                self.sent[f"R101.{tag}", 1000 * newest_us] = value
                stamp = datetime.fromtimestamp(newest_us // 10**6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
                text = json.dumps({"value": value, "timestamp": f"{stamp}.{newest_us % 10**6:06d}Z"})
                late_s = draw.uniform(0, LATE_S) if draw.random() < LATE else 0.0
                heapq.heappush(self._held, (newest_us + late_s * 1e6, tag, text))
            self._send_due(time.time() * 1e6)
        self._send_due(math.inf)

    def _send_due(self, now_us: float) -> None:
        while self._held and self._held[0][0] <= now_us:
            _, tag, text = heapq.heappop(self._held)
            self._client.publish(f"reactor/R101/sensor/{tag}", text, qos=1)

    def stop(self) -> None:
        """Return when the broker has acknowledged everything."""
        self._stop.set()
        self._thread.join()
        eventually(lambda: self.acknowledged, lambda count: count == len(self.sent))
        self._client.disconnect()
        self._client.loop_stop()


class Storm:
    """Lives of the twin, each ended by SIGKILL."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def live(self, **order: object) -> dict[str, Any]:
        """One life; how it ended."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def storm(plant: Path, messages: Path) -> Iterator[Storm]:
    with subprocess.Popen(
        [sys.executable, lives.__file__, str(plant), str(messages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Storm(process)
        finally:
            process.kill()


def orders(count: int, seed: int) -> Iterator[dict[str, object]]:
    """How each life is to end: a quarter at any moment, the others in one region after another."""
    draw = random.Random(seed)  # noqa: S311 - a test's plan, no secret
    names = list(REGIONS)
    for number in range(count):
        if number % 4 == 3:
            yield {"region": None, "within_s": draw.uniform(0.02, 1.5)}
            continue
        name = names[(number - number // 4) % len(names)]
        call = draw.randint(1, REGIONS[name].calls)
        yield {"region": name, "call": call, "event": round(2 ** draw.uniform(0, 8)), "within_s": 4.0}


@dataclass
class Truth:
    """What an uninterrupted fold over the whole log gives."""

    digest: str
    offset: int
    names: list[str]
    units: list[str]
    received: int
    outputs: list[tuple[int, Outputs]]


async def uninterrupted(plant: Path) -> Truth:
    config = load(plant, os.environ)
    data = config.data_dir
    whole = {offset: entry for name in (KEPT, "log") for offset, entry in read_entries(data / name, -1)}
    assert sorted(whole) == list(range(len(whole))), "the log has a gap"
    with workplace(config) as place:
        loop = build_loop(place, Metrics())
        records = [decode_record(whole[offset]) for offset in range(len(whole))]
        outputs = [loop.fold.step(offset, record) for offset, record in enumerate(records)]
        digest = loop.fold.digest()
        await loop.close()
        names, units = list(place.table.names), units_of(place.table)
    told = [each for each in outputs if not each.is_empty]
    received = sum(len(record.unpack()) for record in records if isinstance(record, Samples))
    return Truth(digest, len(whole) - 1, names, units, received, list(enumerate(told)))


def history(queries: LocalQueries) -> dict[str, str]:
    """Everything the store answers, by name, as text: that is bit for bit, and NaN is like NaN."""
    answers = {tag: queries.range(tag, None, None) for tag in (f"R101.{each}" for each in TAGS)}
    answers["events"] = queries.events(None, None)
    answers["snapshots"] = queries.snapshots(None, None, None)
    return {name: repr(table.to_pylist()) for name, table in answers.items()}


def rows(plant: Path) -> Counter[tuple[str, int, float]]:
    """Every stored sample, with how often it is there."""
    with twinloop.open(plant) as asked:
        tables = [asked.range(f"R101.{tag}") for tag in TAGS]
    return Counter(
        (row["tag"], row["time"], row["value"])
        for table in tables
        for row in table.set_column(1, "time", table["time"].cast(pa.int64())).to_pylist()
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_anywhere_two_hundred_times_nothing_is_lost_nothing_doubled_and_the_state_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, messages = tmp_path / "plant.yaml", tmp_path / "messages.txt"
    where: Counter[str] = Counter()
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker", persistence=True) as broker:
        plant.write_text(PLANT.format(port=broker.port))
        with running(plant) as run:  # subscribes: from here on the broker keeps everything for us
            run.says("field: connected")
            run.process.kill()
        load_on = Load(broker.port, SEED)
        began = time.monotonic()
        try:
            with storm(plant, messages) as lived:
                for order in orders(KILLS, SEED):
                    ended = lived.live(**order)
                    assert ended["killed"], f"{order}: it ended by itself:\n{messages.read_text()[-4000:]}"
                    where[str(order["region"]) if ended["aimed"] else "any moment"] += 1
        finally:
            load_on.stop()
        took_s = time.monotonic() - began
        sent = Counter((tag, at, value) for (tag, at), value in load_on.sent.items())
        plant.write_text(PLANT.format(port=broker.port).replace("keep: 1s", "keep: 1d"))
        with running(plant) as run:
            deadline, most = time.monotonic() + PATIENCE_S, 0
            while (stored := rows(plant)) != sent and time.monotonic() < deadline:
                if stored.total() > most:  # the broker still has some for us
                    deadline, most = time.monotonic() + PATIENCE_S, stored.total()
                time.sleep(0.2)  # between two looks; the condition ends the wait
            assert run.stop() == 0, "\n".join(run.lines)
    stored = rows(plant)
    config = load(plant, os.environ)
    checkpoint = next(iter(Checkpoints(config.data_dir / "checkpoints").load()))
    kept = open_queries(config)
    truth = asyncio.run(uninterrupted(plant))
    ideal = LocalStore(tmp_path / "ideal", truth.names)
    ideal.write(truth.outputs)
    ideal.close()
    told = LocalQueries(tmp_path / "ideal", truth.names, truth.units, lambda _after: [])
    found, expected = history(kept), history(told)
    lost, doubled = (sent - stored).total(), (stored - sent).total()
    redelivered = truth.received - len(sent)
    same = checkpoint.digest == truth.digest
    alike = [name for name in found if found[name] == expected[name]]
    with capsys.disabled():
        print(  # noqa: T201 - the figures this test is for
            f"\nkills {where.total()} in {took_s:.0f} s, samples {len(sent)}, redelivered {redelivered}, "
            f"lost {lost}, doubled {doubled}, digest equal {same}, history equal {len(alike) == len(found)}\n"
            + "\n".join(f"{count:5} {name}" for name, count in where.most_common())
        )
    assert (lost, doubled) == (0, 0)
    assert checkpoint.offset == truth.offset
    assert same, "the state differs from an uninterrupted fold's"
    assert alike == list(found), "the history differs from an uninterrupted fold's"
    assert "Traceback" not in messages.read_text()
