"""Ten million samples behind, and live data never waits: the store's backlog, and the fold's."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import twinloop
from support.disks import small_disk
from support.load import Publisher, figures, memory_mib, p99_s, peak_mib
from support.mosquitto import mosquitto
from support.services import free_port
from support.twin import eventually, query, running

SAMPLES: Final = int(os.environ.get("TWINLOOP_BACKLOG", "10000000"))
AT_ONCE: Final = 1000
LIVE_PER_S: Final = 2000
CYCLE_S: Final = 1.0
LINES: Final = 20
TAGS: Final = [f"line{n}/flow" for n in range(LINES)]
START_S: Final = 120.0
MOST_MIB: Final = 1500.0
PLANT: Final = """
plant: backlog
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics: {{"{{asset}}/{{tag}}": {{format: json, timestamp_format: us}}}}
tags:
  flow: {{unit: m3/h, noise: 0.5, zscore: off}}
  level: {{unit: m, noise: 0.5, zscore: off}}
assets: {{{assets}}}
web: {{port: {web}}}
"""


class Plant:
    """A plant file, its broker's port and its web port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "plant.yaml"
        self.port, self.web = port, free_port()
        assets = ", ".join(f"line{n}: {{tags: [flow, level]}}" for n in range(LINES))
        self.path.write_text(PLANT.format(port=port, web=self.web, assets=assets))

    def newest(self) -> float:
        """The newest live value anybody can ask for."""
        rows = query(self.path, "latest", *(tag.replace("/", ".") for tag in TAGS))
        return max((float(row["value"]) for row in rows if row["value"]), default=-1.0)


def flood(port: int) -> int:
    """Publish all samples in large messages, QoS 1; returns how many once the broker has them all."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    begin_us = (time.time_ns() - 6 * 3600 * 10**9) // 1000
    last = None
    for first in range(0, SAMPLES, AT_ONCE):
        line = first // AT_ONCE % LINES
        rows = [{"value": n % 977, "timestamp": begin_us + 1000 * n} for n in range(first, first + AT_ONCE)]
        last = client.publish(f"line{line}/level", json.dumps(rows), qos=1)
        if first % (200 * AT_ONCE) == 0:
            last.wait_for_publish(120)
    assert last is not None
    last.wait_for_publish(120)
    client.disconnect()
    client.loop_stop()
    return SAMPLES


class Watch:
    """Looks at live data as a user would, until something holds.

    Attributes:
        lags_s: how old the newest live value was at each look, at most.
    """

    def __init__(self, plant: Plant, live: Publisher) -> None:
        self._plant, self._live = plant, live
        self.lags_s: list[float] = []
        plant.newest()  # the first question loads what asks it

    def until(self, holds: Callable[[], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "it never came true"
            self.look()

    def look(self) -> None:
        """From the moment a sample was sent until the question that shows it was answered."""
        wanted, began = self._live.sent - 1, time.monotonic()
        while self._plant.newest() < wanted:
            assert time.monotonic() < began + 120, f"sample {wanted} cannot be seen"
        self.lags_s.append(time.monotonic() - began)


def stored(plant: Plant, tag: str) -> tuple[int, int]:
    """Rows of all lines' tag in the store, and how many different ones."""
    total = different = 0
    with twinloop.open(plant.path) as asked:
        for line in range(LINES):
            table = asked.range(f"line{line}.{tag}")
            total += len(table)
            pairs = np.stack([table["time"].cast("int64").to_numpy(), table["value"].to_numpy()])
            different += np.unique(pairs, axis=1).shape[1] if len(table) else 0
    return total, different


@contextmanager
def plant_with_broker(folder: Path) -> Iterator[Plant]:
    (folder / "broker").mkdir()
    with mosquitto(folder / "broker", config="max_inflight_messages 0\nmax_inflight_bytes 0") as broker:
        yield Plant(folder, broker.port)


def sealed(told: dict[str, float]) -> float:
    """The newest offset that the store has for good."""
    return told['twinloop_log_last_offset{log="outputs"}'] - told["twinloop_store_lag_entries"]


def samples_judged(plant: Plant) -> float:
    return sum(value for name, value in figures(plant.web).items() if name.startswith("twinloop_samples_t"))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_samples_the_store_lacks_are_drained_while_live_data_stays_within_two_cycles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "data" / "store", "3g") as disk, plant_with_broker(tmp_path) as plant:
        with running(plant.path) as run:
            run.says("connected", START_S)
            eventually(disk.path.exists, bool)
            disk.read_only()
            began = time.monotonic()
            count = flood(plant.port)
            eventually(lambda: samples_judged(plant), lambda judged: judged >= count, 1800)
            flooded_s = time.monotonic() - began
            backlog = figures(plant.web)["twinloop_store_lag_entries"]
            with Publisher(plant.port, LIVE_PER_S, TAGS, at_once=20) as live:
                away = Watch(plant, live)
                for _ in range(10):
                    away.look()
                disk.writable()
                before, began = figures(plant.web), time.monotonic()
                behind = before['twinloop_log_last_offset{log="outputs"}']
                drain = Watch(plant, live)
                drain.until(lambda: sealed(figures(plant.web)) >= behind, 600)
                drained_s = time.monotonic() - began
                after = figures(plant.web)
                live.stop()
                peak = peak_mib(run.process.pid)
            assert run.stop(within_s=60) == 0, "\n".join(run.lines)
        missed = after["twinloop_cycles_missed_total"] - before["twinloop_cycles_missed_total"]
        p99 = p99_s(before, after)
        with capsys.disabled():
            print(  # noqa: T201 - the figures this test is for
                f"\nbacklog of {count} samples in {backlog:.0f} entries made in {flooded_s:.0f} s\n"
                f"drained in {drained_s:.1f} s ({count / drained_s:,.0f}/s) under {LIVE_PER_S}/s live\n"
                f"live data seen after at most {max(away.lags_s):.2f} s with the store away, "
                f"{max(drain.lags_s):.2f} s in the drain ({len(drain.lags_s)} looks)\n"
                f"cycle p99 below {p99:g} s, {missed:.0f} missed, peak memory {peak:.0f} MiB"
            )
        assert stored(plant, "level") == (count, count)
        assert stored(plant, "flow") == (live.sent, live.sent)
    assert max([*away.lags_s, *drain.lags_s]) <= 2 * CYCLE_S
    assert peak < MOST_MIB


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_samples_not_folded_yet_are_folded_while_live_data_is_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with plant_with_broker(tmp_path) as plant:
        with running(plant.path) as run:
            run.says("connected", START_S)
            count = flood(plant.port)
            eventually(lambda: samples_judged(plant), lambda judged: judged >= count, 1800)
            run.process.kill()
        forget_what_was_folded(plant)
        with running(plant.path) as run:
            run.says("connected", START_S)
            began = time.monotonic()
            with Publisher(plant.port, LIVE_PER_S, TAGS, at_once=20) as live:
                eventually(lambda: plant.newest() >= 0, bool, 900)
                caught_up_s = time.monotonic() - began
                told = figures(plant.web)
                behind = live.sent - live.acknowledged
                eventually(lambda: figures(plant.web)["twinloop_fold_lag_seconds"] == 0, bool, 60)
                live.stop()
                peak, memory = peak_mib(run.process.pid), memory_mib(run.process.pid)
            assert run.stop(within_s=60) == 0, "\n".join(run.lines)
        with capsys.disabled():
            print(  # noqa: T201 - the figures this test is for
                f"\n{count} samples folded and live again after {caught_up_s:.1f} s "
                f"({count / caught_up_s:,.0f} samples/s); not acknowledged then: {behind} of {live.sent}\n"
                f"{told['twinloop_cycles_missed_total']:.0f} cycles missed and counted, "
                f"peak memory {peak:.0f} MiB, {memory:.0f} at the end"
            )
        assert stored(plant, "level") == (count, count)
        assert stored(plant, "flow") == (live.sent, live.sent)
    assert behind < LIVE_PER_S
    assert peak < MOST_MIB


def forget_what_was_folded(plant: Plant) -> None:
    """As if the twin had heard everything and folded nothing: log and dictionary stay, all else goes."""
    for part in ("outputs", "checkpoints", "store"):
        shutil.rmtree(plant.path.parent / "data" / part)
