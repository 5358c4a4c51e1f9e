"""The demo's faults: planned beforehand, told when they happen, and nothing but the fault is changed."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.simulate.faults import Fault, FaultKind, FaultWindow, Injector, schedule
from twinloop.simulate.sensors import INSTRUMENTS, Reading, Readings, asset_names
from twinloop.status import StatusCode

SECOND_NS = 1_000_000_000
KEY = ("R101", "temperature")


def planned(assets: list[str], run_s: float | None) -> list[Fault]:
    return list(islice(schedule(assets, run_s), 40))


def test_thirty_seconds_have_every_kind_of_fault() -> None:
    faults = planned(asset_names(3), 30)

    assert [fault.kind for fault in faults] == list(FaultKind)
    assert len({fault.name for fault in faults}) == len(faults)


@given(reactors=st.integers(1, 7), run_s=st.floats(0, 500) | st.none())
def test_faults_begin_in_order_end_within_the_run_and_name_real_tags(
    reactors: int, run_s: float | None
) -> None:
    assets = asset_names(reactors)
    faults = planned(assets, run_s)

    assert faults == planned(assets, run_s)  # nothing random
    assert [fault.start_s for fault in faults] == sorted(fault.start_s for fault in faults)
    for fault in faults:
        assert fault.asset in assets
        assert fault.tag in {each.tag for each in INSTRUMENTS}
        assert 5 <= fault.start_s < fault.end_s
        assert run_s is None or fault.end_s < run_s


@given(reactors=st.integers(1, 7), run_s=st.floats(30, 500) | st.none())
def test_a_tag_recovers_from_one_fault_before_the_next(reactors: int, run_s: float | None) -> None:
    by_tag: dict[str, list[Fault]] = {}
    for fault in planned(asset_names(reactors), run_s):
        by_tag.setdefault(fault.name, []).append(fault)

    for faults in by_tag.values():
        assert all(after.start_s - before.end_s >= 2 for before, after in pairwise(faults))


def test_a_run_without_end_has_a_schedule_without_end_over_all_field_tags() -> None:
    assets = asset_names(2)

    touched = {(fault.asset, fault.tag) for fault in planned(assets, None)}

    assert {(asset, tag) for asset in assets for tag in ("temperature", "pressure", "flow_rate")} <= touched


def test_a_run_too_short_for_a_fault_has_none() -> None:
    assert planned(["R101"], 5) == []


def one(kind: FaultKind, magnitude: float = 0.0) -> Fault:
    return Fault(
        kind=kind, asset="R101", tag="temperature", start_s=2, end_s=5, magnitude=magnitude, unit="degC"
    )


def shown(fault: Fault) -> tuple[list[Reading | None], list[FaultWindow]]:
    told: list[FaultWindow] = []
    injector = Injector(iter([fault]), told.append)
    readings: list[Readings] = [{KEY: Reading(80.0 + second)} for second in range(7)]
    bent = [injector.apply(t, t * SECOND_NS, given) for t, given in enumerate(readings)]
    assert all(given == {KEY: Reading(80.0 + t)} for t, given in enumerate(readings)), "the input was changed"
    return [each.get(KEY) for each in bent], told


@pytest.mark.parametrize(
    ("kind", "magnitude", "during"),
    [
        (FaultKind.SPIKE, 35.0, [Reading(117.0), Reading(118.0), Reading(119.0)]),
        (FaultKind.STUCK, 0.0, [Reading(81.0)] * 3),
        (FaultKind.OUT_OF_RANGE, 500.0, [Reading(500.0)] * 3),
        (FaultKind.DROPOUT, 0.0, [None] * 3),
        (FaultKind.DRIFT, 0.5, [Reading(82.5), Reading(84.0), Reading(85.5)]),
        (
            FaultKind.SENSOR_FAILURE,
            0.0,
            [Reading(value, StatusCode.BAD_SENSOR_FAILURE) for value in (82.0, 83.0, 84.0)],
        ),
    ],
)
def test_a_fault_bends_only_the_readings_it_lasts_for(
    kind: FaultKind, magnitude: float, during: list[Reading | None]
) -> None:
    readings, _ = shown(one(kind, magnitude))

    assert readings == [Reading(80.0), Reading(81.0), *during, Reading(85.0), Reading(86.0)]


def test_beginning_and_end_are_told_with_the_times_of_the_readings_concerned() -> None:
    _, told = shown(one(FaultKind.STUCK))

    assert [(window.number, window.begin, window.end) for window in told] == [
        (0, 2 * SECOND_NS, 0),
        (0, 2 * SECOND_NS, 5 * SECOND_NS),
    ]
    assert told[0].name == "R101.temperature"
    assert told[0].what == "stuck for 3 s"
