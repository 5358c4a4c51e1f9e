"""The demo plant: physics that balance, instruments that are honest, and a demo that ends clean."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from asyncua.client.client import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient
from rich.console import Console
from ruamel.yaml import YAML

from twinloop.batch import Batch
from twinloop.config import plantfile
from twinloop.errors import ConfigError, LinkError, LogError
from twinloop.records import Event, EventKind, Outputs, Prediction, Snapshot
from twinloop.screen import PlantView
from twinloop.simulate.demo import run_demo
from twinloop.simulate.demofile import fresh_data_dir, plant_file, write_plant_file
from twinloop.simulate.faults import FaultKind, FaultWindow
from twinloop.simulate.plant import GAS_CONSTANT, Plant, PlantParameters
from twinloop.simulate.score import Score, Scorer
from twinloop.simulate.sensors import INSTRUMENTS, TRUTH, Sensors, asset_names
from twinloop.simulate.summary import print_summary
from twinloop.status import UNCERTAIN, Reason, StatusCode

S = 1_000_000_000
START = 1_700_000_000 * S


# physics


def test_the_same_seed_gives_the_same_plant_and_another_seed_another() -> None:
    one, same, other = Plant(2, 7), Plant(2, 7), Plant(2, 8)
    for plant in (one, same, other):
        plant.advance(30)

    assert one.truth()["flow_rate"].tolist() == same.truth()["flow_rate"].tolist()
    assert one.truth()["flow_rate"].tolist() != other.truth()["flow_rate"].tolist()


def test_reactors_start_cold_and_full_of_feed_and_are_alive_within_half_a_minute() -> None:
    plant = Plant(3)
    begin = plant.truth()
    plant.advance(30)
    after = plant.truth()

    assert begin["conversion"].tolist() == [0, 0, 0]
    assert (after["temperature"] > begin["temperature"] + 10).all()
    assert after["conversion"][0] > 0.2


def test_at_rest_heat_and_mass_balance() -> None:
    # Without wander and with one setpoint the plant settles; then what goes in comes out.
    p = PlantParameters(flow_wander=0.0, setpoints_k=(358.15,))
    plant = Plant(1, 0, p)
    plant.advance(1500)
    truth = {name: float(value[0]) for name, value in plant.truth().items()}
    kelvin = truth["temperature"] + 273.15
    k = p.frequency_factor_per_s * math.exp(-p.activation_energy_j_per_mol / (GAS_CONSTANT * kelvin))
    residence_s = p.volume_m3 / p.flow_m3_per_s

    assert truth["temperature"] == pytest.approx(85.0, abs=1e-3)
    assert truth["conversion"] == pytest.approx(k * residence_s / (1 + k * residence_s), abs=1e-6)
    reaction_w = -p.reaction_heat_j_per_mol * p.flow_m3_per_s * 1000.0 * truth["conversion"]
    jacket_w = p.heat_transfer_w_per_k * (truth["jacket"] - truth["temperature"])
    feed_w = p.flow_m3_per_s * p.density_kg_per_m3 * p.heat_capacity_j_per_kg_k
    assert reaction_w + jacket_w == pytest.approx(feed_w * (kelvin - p.feed_temperature_k), rel=1e-4)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_no_wander_leads_out_of_what_is_physical(seed: int) -> None:
    plant = Plant(3, seed)
    for _ in range(40):
        plant.advance(10)
        truth = plant.truth()
        assert ((truth["conversion"] >= 0) & (truth["conversion"] <= 1)).all()
        assert ((truth["temperature"] > 15) & (truth["temperature"] < 110)).all()
        assert ((truth["pressure"] > 1) & (truth["pressure"] < 4)).all()
        assert ((truth["flow_rate"] > 15) & (truth["flow_rate"] < 50)).all()


def test_an_instrument_shows_truth_and_noise_of_the_deviation_it_claims() -> None:
    plant, sensors = Plant(500), Sensors(asset_names(500), 3)
    truth, readings = plant.truth(), sensors.read(plant)

    for instrument in INSTRUMENTS:
        shown = [readings[asset, instrument.tag].value for asset in asset_names(500)]
        error = np.array(shown) - truth[instrument.quantity]
        assert abs(error.mean()) <= 4 * instrument.noise / math.sqrt(500) + 5e-4
        assert error.std() == pytest.approx(instrument.noise, rel=0.15, abs=5e-4)


# the score


NAMES = ["R101.temperature", "R101.pressure"]


def truth_row(temperature: float = 80.0, conversion: float = 0.5) -> dict[str, list[float]]:
    values = dict.fromkeys(TRUTH, 2.0) | {"temperature": temperature, "conversion": conversion}
    return {"R101": [values[name] for name in TRUTH]}


def sample(
    second: int, value: float, estimate: float, status: int = 0, reasons: int = 0, tag: int = 0
) -> Outputs:
    batch = Batch.raw(tag=[tag], time=[START + second * S], value=[value], status=[status], reasons=[reasons])
    batch = batch.with_columns(estimate=np.array([estimate]))
    return Outputs(covers=second, time=START + second * S, samples=batch.buffers())


def window(begin: int, end: int, kind: FaultKind = FaultKind.SPIKE, number: int = 0) -> FaultWindow:
    end_ns = START + end * S if end else 0
    return FaultWindow(number, START + begin * S, end_ns, "R101", "temperature", kind, str(kind))


def scored(outputs: Sequence[Outputs], faults: Sequence[FaultWindow] = (), seconds: int = 30) -> Score:
    scorer = Scorer()
    for fault in faults:
        scorer.add_fault(fault)
    for second in range(seconds):
        scorer.add_truth(START + second * S, truth_row(80.0 + second, second / 100))
        for each in outputs:
            if each.covers == second:
                scorer.add_outputs(each, NAMES)
    return scorer.score()


def test_errors_are_root_mean_squares_against_the_truth_of_the_same_second() -> None:
    score = scored([sample(1, 82.0, 81.5), sample(2, 81.0, 82.5)])

    [tag] = score.tags
    assert (tag.tag, tag.clear.count) == ("temperature", 2)
    assert (tag.clear.given, tag.clear.made) == (1.0, 0.5)
    assert score.overall.given == 2.0  # a temperature's noise is 0.5 degC


def test_a_lowered_status_inside_a_fault_catches_it_and_outside_is_a_false_alarm() -> None:
    spike = window(5, 6)
    score = scored(
        [
            sample(2, 82, 82, UNCERTAIN, Reason.RATE),
            sample(5, 120, 85, UNCERTAIN, Reason.SPIKE),
            sample(8, 88, 88, UNCERTAIN, Reason.ZSCORE),
            sample(20, 100, 100),
        ],
        [spike],
    )

    [fault] = score.faults
    assert (fault.caught, fault.reasons, fault.delay_s) == (True, Reason.SPIKE, 0.0)
    assert score.false_alarms == {"RATE": 1}
    assert score.aftermath == 1
    assert score.judged == 2
    assert score.tags[0].faulty.given == pytest.approx(math.sqrt(35.0**2 / 2)), "the spike and its aftermath"
    assert score.tags[0].clear.given == 0.0, "neither counts against the estimate in quiet times"


def test_a_fault_nobody_noticed_while_it_lasted_is_not_caught() -> None:
    drift = window(5, 15, FaultKind.DRIFT)

    score = scored([sample(7, 88, 88), sample(15, 95, 95, UNCERTAIN, Reason.RATE)], [drift])

    assert [fault.caught for fault in score.faults] == [False]
    out = io.StringIO()
    print_summary(score, Console(file=out))
    assert "Caught 0 of 1 faults." in out.getvalue()


def test_a_dropout_is_caught_by_the_event_that_says_stale() -> None:
    stale = Event(START + 8 * S, NAMES[0], EventKind.STATUS, "Good", "Uncertain", "STALE")

    score = scored([Outputs(covers=9, time=0, events=[stale])], [window(5, 10, FaultKind.DROPOUT)])

    assert [(fault.reasons, fault.delay_s) for fault in score.faults] == [(Reason.STALE, 3.0)]


def test_conversion_and_predictions_are_held_against_the_truth_of_their_own_moment() -> None:
    snapshot = Snapshot(
        START + 2 * S + S // 2,
        "R101",
        "IN_SYNC",  # type: ignore[arg-type]
        state={"conversion": 0.035},
        horizon_s=10.0,
        predictions=[Prediction("temperature", "K", 355.65, 273.15 + 93.5, 355.65)],
    )

    score = scored([Outputs(covers=3, time=0, snapshots=[snapshot])])

    assert score.conversion.made == pytest.approx(0.01)  # truth half way between 0.02 and 0.03
    assert score.prediction.made == pytest.approx(1.0)  # truth is 92.5 degC at 12.5 s
    assert score.prediction.given == pytest.approx(10.0)


def test_a_sample_whose_truth_is_not_known_is_counted() -> None:
    assert scored([sample(3, 80, 80), sample(40, 80, 80)], seconds=41).unmatched == 0
    late = Scorer()
    late.add_outputs(sample(1, 80, 80), NAMES)
    assert late.score().unmatched == 1


# files


def test_the_plant_file_is_plain_yaml_with_every_reactor_and_the_ports() -> None:
    text = plant_file(mqtt_port=1, opcua_port=2, reactors=3, web_port=8800, data_dir="./demo-data")
    loaded = YAML(typ="safe").load(text)

    assert list(loaded["assets"]) == ["R101", "R102", "R103"]
    assert loaded["sources"]["field"]["url"] == "mqtt://127.0.0.1:1"
    assert loaded["sources"]["dcs"]["url"] == "opc.tcp://127.0.0.1:2"
    assert loaded["web"]["port"] == 8800
    parameters = loaded["assets"]["R103"]["parameters"]
    assert parameters["mass_kg"] == PlantParameters().mass_kg
    assert loaded["assets"]["R101"]["parameters"] == parameters


def test_the_plant_file_is_one_that_run_accepts(tmp_path: Path) -> None:
    path = tmp_path / "demo-plant.yaml"
    text = plant_file(mqtt_port=1, opcua_port=2, reactors=2, web_port=8800, data_dir="./demo-data")
    write_plant_file(path, text)
    write_plant_file(path, text)  # its own file it may replace

    config = plantfile.load(path, {})

    assert list(config.assets) == ["R101", "R102"]


def test_a_file_or_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    mine, data = tmp_path / "demo-plant.yaml", tmp_path / "demo-data"
    mine.write_text("plant: mine\n")
    data.mkdir()
    (data / "precious").write_text("history")

    with pytest.raises(ConfigError, match="not written by the demo"):
        write_plant_file(mine, "x")
    with pytest.raises(ConfigError, match="not made by the demo"), fresh_data_dir(data):
        pass
    assert mine.read_text() == "plant: mine\n"
    assert (data / "precious").read_text() == "history"


def test_each_demo_starts_with_an_empty_folder_and_leaves_its_data(tmp_path: Path) -> None:
    data = tmp_path / "demo-data"
    with fresh_data_dir(data):
        (data / "log").mkdir()
        (data / "log" / "old").write_text("old")
    assert (data / "log" / "old").exists()

    with fresh_data_dir(data):
        assert not (data / "log").exists()


def test_a_second_demo_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    data = tmp_path / "demo-data"
    with fresh_data_dir(data):
        (data / "live").write_text("live")
        with pytest.raises(LogError, match="another demo is running here"), fresh_data_dir(data):
            pass
        assert (data / "live").exists()


# the whole demo, with a stand-in for the twin that only listens


class Listener:
    """A twin that believes everything below 100 degC and calls the rest a spike."""

    def __init__(self) -> None:
        self.tag_names = ["R101.temperature"]
        self.messages: list[dict[str, Any]] = []
        self.nodes: dict[str, Any] = {}
        self._callback: Callable[[Outputs], None] = lambda _: None

    def view(self) -> PlantView:
        return PlantView("listener", time_ns=START)

    def subscribe(self, callback: Callable[[Outputs], None]) -> None:
        self._callback = callback

    async def wait(self) -> None:
        await asyncio.Event().wait()

    def hear(self, payload: bytes) -> None:
        message = json.loads(payload)
        self.messages.append(message)
        moment = datetime.fromisoformat(message["timestamp"])
        time_ns = round(moment.timestamp() * 1000) * 1_000_000
        odd = message["value"] > 100
        batch = Batch.raw(
            tag=[0],
            time=[time_ns],
            value=[message["value"]],
            status=[UNCERTAIN if odd else 0],
            reasons=[Reason.SPIKE if odd else 0],
        )
        self._callback(Outputs(covers=len(self.messages), time=time_ns, samples=batch.buffers()))


@asynccontextmanager
async def listening(path: Path, listener: Listener) -> AsyncIterator[Listener]:
    config = YAML(typ="safe").load(path)
    port = int(config["sources"]["field"]["url"].rsplit(":", 1)[1])
    client = AsyncClient("listener", protocol=MQTTProtocolVersion.MQTTv5)
    await client.connect("127.0.0.1", port)
    await client.subscribe("reactor/R101/sensor/temperature", qos=1)

    async def listen() -> None:
        async for message in client.messages():
            listener.hear(message.payload)

    async with Client(config["sources"]["dcs"]["url"]) as opcua:
        namespaces = await opcua.get_namespace_array()
        listener.nodes["uri"] = namespaces[2]
        for name in ("Temperature.PV", "Temperature.SV", "Pressure.PV", "Flow.PV", "Jacket.PV"):
            node = opcua.get_node(f"ns=2;s=Reactor.R101.{name}")
            listener.nodes[name] = await node.read_data_value()
    task = asyncio.create_task(listen())
    try:
        yield listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.disconnect()


def children() -> set[psutil.Process]:
    """Ours now; other tests' servers may be among them."""
    return set(psutil.Process().children(recursive=True))


async def test_the_demo_publishes_serves_injects_scores_and_ends_without_a_trace(tmp_path: Path) -> None:
    before = children()
    out, listener = io.StringIO(), Listener()

    code = await run_demo(
        7.5, 1, 8800, lambda path: listening(path, listener), folder=tmp_path, console=Console(file=out)
    )

    assert code == 0
    values = [message["value"] for message in listener.messages]
    assert len(values) >= 7
    assert {message["unit"] for message in listener.messages} == {"degC"}
    assert {message["quality"] for message in listener.messages} == {"Good"}
    assert sum(value > 100 for value in values) == 1
    assert listener.nodes["uri"] == "urn:twinloop:demo-plant"
    assert listener.nodes["Temperature.SV"].Value.Value == 85.0
    assert listener.nodes["Temperature.PV"].Value.Value == pytest.approx(70.0, abs=3.0)
    assert listener.nodes["Pressure.PV"].StatusCode.value == StatusCode.GOOD
    assert listener.nodes["Flow.PV"].SourceTimestamp is not None
    text = out.getvalue()
    assert "fault on R101.temperature: spike of +35 degC" in text
    assert "Caught 1 of 1 faults." in text
    assert "False alarms: 0" in text
    assert children() <= before


async def test_sigint_ends_the_demo_with_its_summary(tmp_path: Path) -> None:
    out = io.StringIO()

    @asynccontextmanager
    async def interrupted(_: Path) -> AsyncIterator[Listener]:
        os.kill(os.getpid(), signal.SIGINT)
        yield Listener()

    assert await run_demo(None, 1, 8800, interrupted, folder=tmp_path, console=Console(file=out)) == 0
    assert "Caught 0 of 0 faults." in out.getvalue()


async def test_a_broker_that_dies_ends_the_demo_with_a_sentence(tmp_path: Path) -> None:
    before = children()

    @asynccontextmanager
    async def killing(_: Path) -> AsyncIterator[Listener]:
        for child in psutil.Process().children():
            if "twinloop.simulate.broker" in child.cmdline():
                child.kill()
        yield Listener()

    with pytest.raises(LinkError, match="MQTT broker ended unexpectedly"):
        await run_demo(60, 1, 8800, killing, folder=tmp_path, console=Console(file=io.StringIO()))
    assert children() <= before
