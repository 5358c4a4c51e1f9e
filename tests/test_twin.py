"""The twin: in step with what is measured, honest about what is not, and each asset on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.records import Event, EventKind, Health, Snapshot, Tick
from twinloop.tags import Tag, TagTable
from twinloop.twin.twin import AssetSpec, Beliefs, Twin

SECOND = 1_000_000_000
UNITS = {"temperature": "degC", "pressure": "bar", "flow_rate": "L/min"}


def table_of(assets: Iterable[str], units: Mapping[str, str] = UNITS, **rules: Any) -> TagTable:
    return TagTable(
        Tag(name=f"{asset}.{tag}", asset=asset, unit=unit, **rules)
        for asset in assets
        for tag, unit in units.items()
    )


def reactor(table: TagTable, name: str = "R101", **settings_: Any) -> AssetSpec:
    return AssetSpec(name=name, tags=table.of_asset(name), model="stirred_tank", **settings_)


class Plant:
    """Beliefs of all tags as a test wants them, and the ticks that carry them to a twin."""

    def __init__(self, table: TagTable, twin: Twin) -> None:
        n = len(table)
        self.table, self.twin, self.now = table, twin, 0
        self.value, self.std = np.full(n, np.nan), np.full(n, 0.2)
        self.nis, self.stale = np.ones(n), np.zeros(n, np.uint8)
        self.severity = np.zeros(n, np.uint8)
        self.time = np.full(n, -1, np.int64)
        self.events: list[Event] = []

    def show(self, **values: float) -> None:
        """New samples: `R101_temperature=85.0`."""
        for name, value in values.items():
            index = self.table.index(name.replace("_", ".", 1))
            assert index is not None, name
            self.value[index], self.time[index] = value, self.now

    def silence(self, name: str, level: int) -> None:
        index = self.table.index(name)
        assert index is not None, name
        self.stale[index] = level

    def judge(self, name: str, severity: int) -> None:
        index = self.table.index(name)
        assert index is not None, name
        self.severity[index] = severity

    def tick(self, seconds: float = 1.0, missed: int = 0) -> list[Snapshot]:
        beliefs = Beliefs(
            value=self.value.copy(),
            std=self.std.copy(),
            rate=np.zeros(len(self.value)),
            time_ns=self.time.copy(),
            nis=self.nis.copy(),
            stale=self.stale.copy(),
            severity=self.severity.copy(),
        )
        snapshots = self.twin.tick(Tick(self.now, [SECOND], missed), beliefs, self.events)
        self.now += round(seconds * SECOND)
        return snapshots


def start(*names: str, units: Mapping[str, str] = UNITS, **settings_: Any) -> Plant:
    names = names or ("R101",)
    table = table_of(names, units)
    return Plant(table, Twin([reactor(table, name, **settings_) for name in names], table))


def k(celsius: float) -> float:
    return 1e10 * math.exp(-80_000 / (8.314 * (celsius + 273.15)))


def test_a_batch_held_at_85_degrees_converts_by_its_closed_form() -> None:
    plant = start()
    for _ in range(61):
        plant.show(R101_temperature=85.0, R101_pressure=2.0, R101_flow_rate=50.0)
        (snapshot,) = plant.tick()
    assert snapshot.health is Health.IN_SYNC
    assert snapshot.model == "stirred_tank"
    assert snapshot.state["temperature_k"] == pytest.approx(358.15)
    assert snapshot.state["conversion"] == pytest.approx(1 - math.exp(-60 * k(85.0)), abs=1e-6)
    assert snapshot.state["concentration_mol_per_m3"] == pytest.approx(
        1000 * math.exp(-60 * k(85.0)), abs=1e-3
    )
    assert snapshot.std["temperature_k"] == pytest.approx(0.2)


def test_before_the_first_temperature_there_is_no_state_and_no_prediction() -> None:
    plant = start()
    plant.show(R101_pressure=2.0)
    (snapshot,) = plant.tick()
    assert (snapshot.health, snapshot.why) == (
        Health.STARTING,
        "no usable sample yet of R101.temperature and 1 more",
    )
    assert snapshot.state == {}
    assert snapshot.predictions == []
    assert np.isnan(plant.twin.model_value).all()


def test_first_contact_with_a_batch_is_conversion_zero() -> None:
    plant = start()
    plant.now = 3600 * SECOND
    plant.show(R101_temperature=85.0)
    (snapshot,) = plant.tick()
    assert snapshot.state["conversion"] == 0.0
    assert snapshot.state["concentration_mol_per_m3"] == 1000.0


def test_predictions_are_in_the_tags_unit_with_persistence_beside_them() -> None:
    adiabatic = start(drift_s=0)
    adiabatic.show(R101_temperature=85.0)
    (snapshot,) = adiabatic.tick()
    by_name = {prediction.output: prediction for prediction in snapshot.predictions}
    temperature, conversion = by_name["temperature"], by_name["conversion"]
    assert (temperature.unit, snapshot.horizon_s) == ("degC", 60.0)
    assert temperature.now == temperature.persistence == pytest.approx(85.0)
    # An adiabatic batch warms by -dH c / (rho cp) for what it converts.
    assert temperature.value == pytest.approx(85.0 + conversion.value * 50_000 * 1000 / 4.2e6, abs=1e-3)
    assert conversion.persistence == 0.0
    assert 1 - math.exp(-60 * k(85.0)) < conversion.value < 1


def test_a_silent_thermometer_leaves_the_model_to_itself() -> None:
    plant = start(drift_s=0)
    plant.show(R101_temperature=85.0, R101_pressure=2.0, R101_flow_rate=50.0)
    (first,) = plant.tick()
    plant.silence("R101.temperature", 1)
    for _ in range(60):
        (snapshot,) = plant.tick()
    assert (snapshot.health, snapshot.why) == (Health.STALE, "no data from R101.temperature")
    assert "temperature_k" not in snapshot.std
    assert snapshot.state["temperature_k"] - 273.15 == pytest.approx(first.predictions[0].value, abs=1e-3)
    assert plant.twin.model_value[0] == pytest.approx(first.predictions[0].value, abs=1e-3)


def test_a_thermometer_that_speaks_again_is_believed_at_once() -> None:
    plant = start()
    plant.show(R101_temperature=85.0, R101_pressure=2.0, R101_flow_rate=50.0)
    plant.tick()
    plant.silence("R101.temperature", 2)
    plant.tick(30.0)
    plant.silence("R101.temperature", 0)
    plant.show(R101_temperature=60.0)
    (snapshot,) = plant.tick()
    assert snapshot.state["temperature_k"] == pytest.approx(333.15)
    assert snapshot.state["unexplained_temperature_k_per_s"] == 0.0, "a jump after silence teaches nothing"


def test_heat_the_plant_file_does_not_tell_of_is_learned_and_carried_on() -> None:
    plant = start(parameters={"reaction_heat_j_per_mol": 0.0}, drift_s=20.0)
    for second in range(200):
        plant.show(R101_temperature=30.0 + 0.05 * second)
        (snapshot,) = plant.tick()
    temperature = snapshot.predictions[0]
    assert snapshot.state["unexplained_temperature_k_per_s"] == pytest.approx(0.05, rel=1e-3)
    assert temperature.value - temperature.now == pytest.approx(0.05 * 20 * (1 - math.exp(-3)), rel=1e-2)


def test_a_measured_jacket_drives_the_prediction() -> None:
    units = {**UNITS, "jacket": "degC"}
    plant = start(
        units=units,
        measures={"coolant_temperature": "jacket"},
        parameters={"heat_transfer_w_per_k": 42_000.0, "reaction_heat_j_per_mol": 0.0},
    )
    plant.show(R101_temperature=50.0, R101_jacket=20.0)
    (snapshot,) = plant.tick()
    assert snapshot.predictions[0].value == pytest.approx(20 + 30 * math.exp(-0.6), abs=1e-3)


def test_an_analyser_is_used_when_it_speaks_and_not_held_in_between() -> None:
    units = {"temperature": "degC", "concentration": "mol/L"}
    table = TagTable(
        Tag(
            name=f"R101.{tag}",
            asset="R101",
            unit=unit,
            every_ns=(60 if tag == "concentration" else 1) * SECOND,
        )
        for tag, unit in units.items()
    )
    plant = Plant(table, Twin([reactor(table)], table))
    plant.show(R101_temperature=85.0, R101_concentration=0.8)
    (snapshot,) = plant.tick()
    assert snapshot.state["concentration_mol_per_m3"] == pytest.approx(800.0)
    plant.show(R101_temperature=85.0)
    (snapshot,) = plant.tick()
    assert snapshot.state["concentration_mol_per_m3"] == pytest.approx(800 * math.exp(-k(85.0)))
    plant.show(R101_temperature=85.0, R101_concentration=0.7)
    (snapshot,) = plant.tick()
    assert snapshot.state["concentration_mol_per_m3"] == pytest.approx(700.0)


def test_a_sample_called_bad_is_not_followed() -> None:
    plant = start()
    plant.show(R101_temperature=85.0)
    plant.tick()
    plant.judge("R101.temperature", 2)
    (snapshot,) = plant.tick()
    assert snapshot.state["temperature_k"] > 358.15, "the model warms by its own reaction"


def everything_heard(plant: Plant) -> Snapshot:
    plant.show(R101_temperature=85.0, R101_pressure=1.0, R101_flow_rate=1.0)
    (snapshot,) = plant.tick()
    return snapshot


def only_bad_pressure(plant: Plant, ticks: int) -> Health:
    """All tags were heard once; from then on the pressure is Bad."""
    if np.isnan(plant.value).any():
        everything_heard(plant)
        plant.judge("R101.pressure", 2)
    plant.severity[plant.table.index("R101.pressure")] = 2
    for _ in range(ticks):
        plant.show(R101_temperature=85.0, R101_flow_rate=1.0)
        (snapshot,) = plant.tick()
    return snapshot.health


def test_an_asset_whose_tag_gives_nothing_but_bad_samples_is_not_in_sync() -> None:
    plant = start()
    assert only_bad_pressure(plant, ticks=5) is Health.IN_SYNC, "it may pass"
    plant.show(R101_temperature=85.0, R101_flow_rate=1.0)
    (snapshot,) = plant.tick()
    assert (snapshot.health, snapshot.why) == (Health.STALE, "nothing but Bad samples from R101.pressure")
    plant.judge("R101.pressure", 0)
    assert [everything_heard(plant).health for _ in range(3)][-1] is Health.IN_SYNC


def test_a_tag_that_was_bad_from_the_first_sample_on_is_not_waited_for_for_ever() -> None:
    plant = start()
    plant.judge("R101.flow_rate", 2)
    for _ in range(6):
        plant.show(R101_temperature=85.0, R101_pressure=1.0)
        (snapshot,) = plant.tick()
    assert (snapshot.health, snapshot.why) == (Health.STALE, "nothing but Bad samples from R101.flow_rate")


def test_how_long_a_tag_may_be_bad_is_how_long_it_may_be_silent() -> None:
    table = table_of(["R101"], stale_ns=2 * SECOND)
    plant = Plant(table, Twin([reactor(table)], table))
    shown = [only_bad_pressure(plant, ticks=1) for _ in range(3)]
    assert shown == [Health.IN_SYNC, Health.IN_SYNC, Health.STALE]


def test_a_sample_now_and_then_that_is_not_bad_is_enough() -> None:
    plant = start()
    everything_heard(plant)
    plant.judge("R101.pressure", 2)
    for second in range(40):
        if second % 4 == 0:  # one of use came before the Bad one that is the newest at the tick
            plant.show(R101_pressure=1.0)
        plant.show(R101_temperature=85.0, R101_flow_rate=1.0)
        (snapshot,) = plant.tick()
        assert snapshot.health is Health.IN_SYNC


@pytest.mark.parametrize("by_s", [3600, -300])
def test_neither_time_away_nor_a_clock_that_is_set_makes_a_bad_tag_worse(by_s: int) -> None:
    for is_away in (True, False):
        plant = start()
        only_bad_pressure(plant, ticks=3)
        left = plant.now
        plant.now += by_s * SECOND
        if is_away:
            plant.twin.started(left, plant.now)
        else:
            plant.twin.clock_set(by_s * SECOND)
        assert only_bad_pressure(plant, ticks=2) is Health.IN_SYNC
        assert only_bad_pressure(plant, ticks=1) is Health.STALE


def test_a_bad_tag_is_as_bad_after_a_restart() -> None:
    before, after = start(), start()
    only_bad_pressure(before, ticks=4)
    after.now = before.now
    after.time[:], after.value[:] = before.time, before.value
    after.twin.restore(before.twin.snapshot())
    assert only_bad_pressure(after, ticks=1) is Health.IN_SYNC
    assert only_bad_pressure(after, ticks=1) is Health.STALE


def break_pressure(plant: Plant, name: str) -> None:
    """Vacuum under a negative pressure exponent: an infinite rate of reaction."""
    plant.show(**{f"{name}_pressure": 0.0})


def test_readings_beyond_all_reason_are_a_divergence_and_no_warning() -> None:
    plant = start(units={"temperature": "degC", "concentration": "mol/L"})
    for mol_per_l in (0.5, 1e100, 1.7e308, -1.7e308):
        plant.show(R101_temperature=85.0, R101_concentration=mol_per_l)
        (snapshot,) = plant.tick()
    assert snapshot.health is Health.DIVERGED
    plant.show(R101_concentration=0.5)
    for _ in range(5):
        (snapshot,) = plant.tick()
    assert snapshot.health is Health.IN_SYNC
    assert snapshot.state["concentration_mol_per_m3"] == pytest.approx(500.0)


def test_an_asset_that_diverges_is_reset_reported_and_alone() -> None:
    names = ("R101", "R102")
    sick, well = (
        start(*names, parameters={"pressure_exponent": -1.0}),
        start(*names, parameters={"pressure_exponent": -1.0}),
    )
    for step in range(12):
        for plant in (sick, well):
            for name in names:
                plant.show(**{f"{name}_temperature": 85.0, f"{name}_pressure": 1.0, f"{name}_flow_rate": 1.0})
        if 4 <= step < 6:
            break_pressure(sick, "R101")
        ill, good = sick.tick()
        assert good == well.tick()[1], "not one bit of R102 differs"
        if step == 4:
            assert ill.health is Health.DIVERGED
            assert ill.state["temperature_k"] == pytest.approx(358.15)
            assert ill.state["conversion"] > 0.0, "what was known of the batch is kept"
            assert math.isnan(ill.predictions[0].value)
    assert ill.health is Health.IN_SYNC
    diverged = [event for event in sick.events if event.kind is EventKind.DIVERGED]
    assert [(event.subject, event.before) for event in diverged] == [("R101", "IN_SYNC")]
    health = [
        event.after for event in sick.events if event.subject == "R101" and event.kind is EventKind.HEALTH
    ]
    assert health == ["IN_SYNC", "DIVERGED", "IN_SYNC"]


@settings(max_examples=25, deadline=None)
@given(
    temperatures=st.lists(st.floats(20.0, 250.0), min_size=3, max_size=6),
    others=st.lists(st.floats(20.0, 400.0), min_size=3, max_size=6),
)
def test_no_asset_changes_another_by_a_single_bit(temperatures: list[float], others: list[float]) -> None:
    alone, together = start("R101"), start("R100", "R101", "R102")
    for own, other in zip(temperatures, others, strict=False):
        alone.show(R101_temperature=own)
        together.show(R101_temperature=own, R100_temperature=other, R102_temperature=500.0 - other)
        ours, theirs = alone.tick(), together.tick()
        assert ours[0].state == theirs[1].state
        assert ours[0].predictions == theirs[1].predictions


def test_an_asset_without_a_model_has_health_and_nothing_else() -> None:
    table = table_of(["valve1"], {"current": "A", "pressure": "bar"})
    plant = Plant(table, Twin([AssetSpec(name="valve1", tags=table.of_asset("valve1"))], table))
    plant.nis[:] = [1.0, 2.0]
    plant.show(valve1_current=1.0, valve1_pressure=2.0)
    (snapshot,) = plant.tick()
    assert (snapshot.health, snapshot.model, snapshot.nis) == (Health.IN_SYNC, "", 1.5)
    assert (snapshot.state, snapshot.predictions, snapshot.horizon_s) == ({}, [], 0.0)
    assert np.isnan(plant.twin.model_value).all()


def test_missed_cycles_lag_and_the_state_still_covers_the_time() -> None:
    steady, missing = start(), start()
    for plant in (steady, missing):
        plant.show(R101_temperature=85.0, R101_pressure=1.0, R101_flow_rate=1.0)
    for _ in range(6):
        steady.show(R101_temperature=85.0)
        (whole,) = steady.tick()
    missing.tick(5.0)
    (snapshot,) = missing.tick(missed=4)
    assert (snapshot.health, snapshot.why) == (Health.LAGGING, "4 cycles missed")
    assert snapshot.state["conversion"] == pytest.approx(whole.state["conversion"], rel=1e-5)


def test_a_clock_set_back_stops_no_twin() -> None:
    plant = start()
    for _ in range(10):
        plant.show(R101_temperature=85.0, R101_pressure=1.0, R101_flow_rate=1.0)
        (before,) = plant.tick()
    plant.now -= 3600 * SECOND
    for second in range(11):
        plant.show(R101_temperature=60.0 + second, R101_pressure=1.0, R101_flow_rate=1.0)
        (snapshot,) = plant.tick()
    assert snapshot.health is Health.IN_SYNC
    assert snapshot.state["temperature_k"] == pytest.approx(273.15 + 70.0)
    # The jump itself teaches nothing; the degree a second that follows is learned.
    assert 0.0 < snapshot.state["unexplained_temperature_k_per_s"] < 1.0
    assert snapshot.state["conversion"] > before.state["conversion"]


def test_a_leap_from_the_earliest_time_there_is_to_the_latest_stops_no_twin() -> None:
    """As a damaged record may hold; the difference is more than an int64."""
    plant = start()
    for at in (-(2**63) + 1, 2**63 - 1):
        plant.now = at
        plant.show(R101_temperature=85.0, R101_pressure=1.0, R101_flow_rate=1.0)
        (snapshot,) = plant.tick(seconds=0.0)
    assert snapshot.state["temperature_k"] == pytest.approx(273.15 + 85.0)


def test_an_asset_is_only_touched_in_its_own_tier() -> None:
    table = table_of(["R101", "R102"])
    slow = reactor(table, "R102", every_ns=5 * SECOND)
    plant = Plant(table, Twin([reactor(table), slow], table))
    assert [snapshot.asset for snapshot in plant.tick()] == ["R101"]
    beliefs_twice = plant.twin.tick(
        Tick(5 * SECOND, [SECOND, 5 * SECOND]),
        Beliefs(
            value=plant.value,
            std=plant.std,
            rate=plant.std,
            time_ns=plant.time,
            nis=plant.nis,
            stale=plant.stale,
        ),
        [],
    )
    assert [snapshot.asset for snapshot in beliefs_twice] == ["R101", "R102"]


def run(plant: Plant, ticks: int) -> list[list[Snapshot]]:
    shown = []
    for _ in range(ticks):
        second = plant.now // SECOND
        plant.show(R101_temperature=60.0 + math.sin(second), R102_temperature=85.0 + 0.1 * second)
        plant.silence("R101.temperature", int(second % 7 == 3))
        plant.judge("R102.temperature", 2 * (second % 14 > 6))
        shown.append(plant.tick())
    return shown


def test_a_restored_twin_goes_on_bit_for_bit() -> None:
    original, copy = start("R101", "R102"), start("R101", "R102")
    run(original, 10)
    copy.now = original.now
    copy.twin.restore(original.twin.snapshot())
    assert run(original, 10) == run(copy, 10)
    assert original.twin.snapshot() == copy.twin.snapshot()


def test_a_changed_plant_file_keeps_what_did_not_change() -> None:
    before, after = start("R101", "R102"), start("R100", "R102")
    run(before, 10)
    after.now = before.now
    after.twin.restore(before.twin.snapshot())
    after.show(R102_temperature=86.0, R100_temperature=85.0)
    new, kept = after.tick()
    assert new.state["conversion"] == 0.0
    assert kept.state["conversion"] > 0.1


@pytest.mark.parametrize("state", [b"", b"\x00", b"\x81\xa7version\x01"])
def test_bytes_that_are_no_state_are_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match="not a state of the twin"):
        start().twin.restore(state)


def test_a_state_of_another_version_is_refused() -> None:
    state = start().twin.snapshot().replace(b"\xa7version\x01", b"\xa7version\x63")
    with pytest.raises(ValueError, match="version 99"):
        start().twin.restore(state)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"model": "stired_tank"}, "there is no model 'stired_tank'; did you mean 'stirred_tank'"),
        ({"parameters": {"mas_kg": 1}}, "R101: parameters.mas_kg: .*did you mean 'mass_kg'"),
        ({"measures": {"temprature": "temperature"}}, "measures.temprature: .*did you mean 'temperature'"),
        ({"measures": {"temperature": "temprature"}}, "no tag 'temprature'; did you mean 'temperature'"),
        ({"measures": {"temperature": "pressure"}}, "measures.temperature: tag R101.pressure"),
    ],
)
def test_what_the_plant_file_gets_wrong_is_named(settings_: dict[str, Any], words: str) -> None:
    table = table_of(["R101"])
    spec = AssetSpec(**{"name": "R101", "tags": table.of_asset("R101"), "model": "stirred_tank", **settings_})
    with pytest.raises(ConfigError, match=words):
        Twin([spec], table)


def test_a_mass_flow_of_the_same_name_is_left_alone() -> None:
    plant = start(units={"temperature": "degC", "flow_rate": "kg/h"}, parameters={"mode": "continuous"})
    plant.show(R101_temperature=85.0, R101_flow_rate=1e9)
    plant.tick()
    plant.show(R101_temperature=85.0)
    (snapshot,) = plant.tick()
    assert snapshot.state["conversion"] > 0.0, "1e9 kg/h would have washed everything out"


def test_the_twin_runs_for_a_table_without_tags() -> None:
    table = TagTable([])
    plant = Plant(table, Twin([AssetSpec(name="R101", tags=[], model="stirred_tank")], table))
    (first,) = plant.tick()
    (second,) = plant.tick()
    assert first.state["temperature_k"] == 298.15
    assert second.state["conversion"] > 0.0
