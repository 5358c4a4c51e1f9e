"""The soak: half an hour at 2,000 samples a second; memory stays flat, and nothing falls behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import twinloop
from support.load import Publisher, figures, memory_mib, p99_s, peak_mib
from support.mosquitto import mosquitto
from support.services import free_port
from support.twin import eventually, running

SOAK_S: Final = float(os.environ.get("SOAK_S", "1800"))
PER_S: Final = 2000
ASSETS: Final = 50
TAGS: Final = ("temperature", "pressure", "flow", "level")
START_S: Final = 120.0
LOOK_S: Final = 1.0
SLOPE_MIB: Final = 1.0
"""Growth a minute over the second half: more than noise, less than a leak of a byte a sample."""
PLANT: Final = """
plant: soak
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    topics: {{"{{asset}}/{{tag}}": {{format: json, timestamp_format: us}}}}
tags:
  temperature: {{unit: degC, noise: 0.5, zscore: off}}
  pressure: {{unit: bar, noise: 0.1}}
  flow: {{unit: m3/h, stuck: 10m}}
  level: {{unit: m, range: [0, 1000000000]}}
assets: {{{assets}}}
web: {{port: {web}}}
"""


def slope(at_s: list[float], values: list[float]) -> float:
    """Growth a minute, by least squares."""
    return float(np.polyfit(np.array(at_s) / 60, np.array(values), 1)[0])


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_half_an_hour_at_two_thousand_samples_a_second_costs_no_memory_and_no_lag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, web = tmp_path / "plant.yaml", free_port()
    assets = ", ".join(f"A{n}: {{tags: [{', '.join(TAGS)}]}}" for n in range(ASSETS))
    topics = [f"A{n}/{tag}" for n in range(ASSETS) for tag in TAGS]
    at_s: list[float] = []
    memory: list[float] = []
    lag: list[float] = []
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker") as broker:
        plant.write_text(PLANT.format(port=broker.port, web=web, assets=assets))
        with running(plant) as run:
            run.says("connected", START_S)
            with Publisher(broker.port, PER_S, topics) as live:
                before, began = figures(web), time.monotonic()
                while (now_s := time.monotonic() - began) < SOAK_S:
                    time.sleep(LOOK_S)  # between two measurements
                    told = figures(web)
                    at_s.append(now_s)
                    memory.append(memory_mib(run.process.pid))
                    lag.append(told["twinloop_fold_lag_seconds"])
                live.stop()
                eventually(
                    lambda: figures(web)['twinloop_source_samples_received{source="field"}'] >= live.sent,
                    bool,
                    600,
                )
                after, peak = figures(web), peak_mib(run.process.pid)
            assert run.stop(within_s=60) == 0, "\n".join(run.lines)
    stored = different = 0
    with twinloop.open(plant) as asked:
        for topic in topics:
            values = asked.range(topic.replace("/", "."))["value"].to_numpy()
            stored += len(values)
            different += len(np.unique(values))
    half = len(at_s) // 2
    memory_slope, lag_slope = slope(at_s[half:], memory[half:]), slope(at_s[half:], lag[half:])
    tenths = [f"{np.mean(part):.0f}" for part in np.array_split(memory, 10)]
    missed = after["twinloop_cycles_missed_total"] - before["twinloop_cycles_missed_total"]
    with capsys.disabled():
        print(  # noqa: T201 - the figures this test is for
            f"\n{SOAK_S:.0f} s at {PER_S}/s: sent {live.sent}, stored {stored}, different {different}\n"
            f"memory by tenths {' '.join(tenths)} MiB, at most {peak:.0f}; second half "
            f"{memory_slope:+.2f} MiB/min\n"
            f"lag at most {max(lag):.2f} s, second half {lag_slope:+.3f} s/min; "
            f"cycle p99 below {p99_s(before, after):g} s, {missed:.0f} missed"
        )
    assert stored == different == live.sent
    assert memory_slope < SLOPE_MIB
    assert lag_slope < 0.05
