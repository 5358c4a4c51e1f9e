"""Questions while the twin writes 10,000 samples a second: right, fresh and quick."""

from __future__ import annotations

import csv
import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest

import twinloop
from support.load import Publisher, figures, p99_s
from support.mosquitto import mosquitto
from support.services import free_port
from support.twin import command, eventually, running
from twinloop.history import Plant

LASTS_S: Final = float(os.environ.get("QUERY_LIVE_S", "180"))
PER_S: Final = 10_000
AT_ONCE: Final = 50
TOPICS: Final = 200
FRESH_S: Final = 1.0
PLANT: Final = """
plant: asked
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics: {{"{{asset}}/{{tag}}": {{format: json, timestamp_format: us}}}}
tags:
  level: {{unit: m, noise: 0.1}}
assets: {{{assets}}}
web: {{port: {web}}}
"""


def numbers_of(topic: int, upto: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """What the publisher has sent to a topic among its first samples: messages go round the topics."""
    firsts = np.arange(topic * AT_ONCE, upto, TOPICS * AT_ONCE)
    return (firsts[:, None] + np.arange(AT_ONCE)).ravel()


def assert_right(found: pa.Table, topic: int, acknowledged: int) -> None:
    """Nothing missing between the first and the last, and nothing older than a second missing at the end."""
    values = found["value"].to_numpy().astype(np.int64)
    expected = numbers_of(topic, int(values[-1]) + 1)
    np.testing.assert_array_equal(values, expected[len(expected) - len(values) :][: len(values)])
    fresh = numbers_of(topic, acknowledged)
    assert values[-1] >= fresh[-1], f"{fresh[-1] - values[-1]} behind"


class Looks:
    """Questions put to a running plant, each answer checked; how long they took."""

    def __init__(self, plant: Path, live: Publisher) -> None:
        self._plant = plant
        self._live = live
        self.took_ms: dict[str, list[float]] = {"latest": [], "range": [], "window": []}
        self.commands_s: list[float] = []

    def look(self, asked: Plant) -> None:
        """Once round, at a tag taken by chance."""
        topic = random.randrange(TOPICS)  # noqa: S311 - any
        tag, known = f"A{topic}.level", self._live.acknowledged
        time.sleep(FRESH_S)  # what was acknowledged so long ago is to be seen
        assert_right(self._timed("range", lambda: asked.range(tag, "-1m")), topic, known)
        windows = self._timed("window", lambda: asked.window(tag, "1m", "-10m"))
        assert sum(windows["count"].to_pylist()) >= len(numbers_of(topic, known))
        assert len(self._timed("latest", asked.latest)) == TOPICS
        if len(self.took_ms["range"]) % 10 == 0:
            self._command(tag, numbers_of(topic, known)[-1])

    def _timed(self, what: str, question: Callable[[], pa.Table]) -> pa.Table:
        began = time.perf_counter()
        found = question()
        self.took_ms[what].append((time.perf_counter() - began) * 1e3)
        return found

    def _command(self, tag: str, newest: float) -> None:
        began = time.perf_counter()
        made = command("query", self._plant, "range", tag, "--start", "-10s", "--format", "csv")
        self.commands_s.append(time.perf_counter() - began)
        assert made.returncode == 0, made.stderr
        assert float(list(csv.DictReader(io.StringIO(made.stdout)))[-1]["value"]) >= newest

    def __str__(self) -> str:
        told = (
            f"{what} p50 {np.median(ms):.1f} p99 {np.quantile(ms, 0.99):.1f} ms"
            for what, ms in self.took_ms.items()
        )
        return (
            f"{len(self.took_ms['range'])} looks from another process: {', '.join(told)}\n"
            f"the command {np.median(self.commands_s):.2f} s, {max(self.commands_s):.2f} at most"
        )


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_answers_are_right_fresh_and_quick_while_ten_thousand_samples_a_second_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, web = tmp_path / "plant.yaml", free_port()
    assets = ", ".join(f"A{n}: {{tags: [level]}}" for n in range(TOPICS))
    topics = [f"A{n}/level" for n in range(TOPICS)]
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker") as broker:
        plant.write_text(PLANT.format(port=broker.port, web=web, assets=assets))
        with running(plant) as run:
            run.says("connected", 120)
            with Publisher(broker.port, PER_S, topics, AT_ONCE) as live:
                eventually(lambda: live.acknowledged, lambda sent: sent > 3 * PER_S)
                looks, before, began = Looks(plant, live), figures(web), time.monotonic()
                with twinloop.open(plant) as asked:
                    while time.monotonic() - began < LASTS_S:
                        looks.look(asked)
                after = figures(web)
                live.stop()
                name = 'twinloop_source_samples_received{source="field"}'
                eventually(lambda: figures(web)[name], lambda received: received >= live.sent, 300)
            assert run.stop(within_s=60) == 0, "\n".join(run.lines)
    with twinloop.open(plant) as asked:
        stored = [asked.range(f"A{n}.level")["value"].to_numpy().astype(np.int64) for n in range(TOPICS)]
    np.testing.assert_array_equal(np.sort(np.concatenate(stored)), np.arange(live.sent))
    missed = after["twinloop_cycles_missed_total"] - before["twinloop_cycles_missed_total"]
    with capsys.disabled():
        print(  # noqa: T201 - the figures this test is for
            f"\n{live.sent} samples at {PER_S}/s, each stored once; {looks}; "
            f"cycle p99 below {p99_s(before, after):g} s, {missed:.0f} missed"
        )
