"""From a series to its tag: units, times, and what leads nowhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from twinloop.batch import NO_TIME, Received
from twinloop.log.dictionary import Dictionary
from twinloop.records import DeadLetter, DeadReason
from twinloop.stages.route import RouteStage
from twinloop.status import UNCERTAIN, Reason
from twinloop.tags import Refusal, Resolver, Tag, TagTable

NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
TABLE = TagTable(
    [Tag(name="R101.t", asset="R101", unit="degC"), Tag(name="R101.p", asset="R101", unit="bar")]
)
ADDRESSES = {"a/t": "R101.t", "a/p": "R101.p"}


@pytest.fixture
def stage() -> tuple[RouteStage, Dictionary]:
    dictionary = Dictionary(None)
    return RouteStage(Resolver(TABLE, {"field": ADDRESSES.get}), dictionary.key), dictionary


def received(series: npt.ArrayLike, value: npt.ArrayLike, time: npt.ArrayLike | None = None) -> Received:
    n = len(np.asarray(series))
    return Received.of(
        series=series,
        source_time=np.full(n, NOW) if time is None else time,
        server_time=np.full(n, NO_TIME),
        arrival_time=np.full(n, NOW),
        value=value,
        status=np.zeros(n),
        reasons=np.zeros(n),
    )


def test_a_value_arrives_in_the_unit_of_its_tag(stage: tuple[RouteStage, Dictionary]) -> None:
    route, dictionary = stage
    fahrenheit = dictionary.index(("field", "a/t", "degF"))
    silent = dictionary.index(("field", "a/t", ""))
    psi = dictionary.index(("field", "a/p", "psi"))
    dead: list[DeadLetter] = []
    batch = route.step(received([fahrenheit, silent, psi], [212.0, 100.0, 14.503773773]), dead)
    assert batch.tag.tolist() == [0, 0, 1]
    assert batch.value == pytest.approx([100.0, 100.0, 1.0], rel=1e-9)
    assert not dead


def test_what_leads_nowhere_is_buried_with_its_reason_and_the_rest_goes_on(
    stage: tuple[RouteStage, Dictionary],
) -> None:
    route, dictionary = stage
    good = dictionary.index(("field", "a/t", "degC"))
    lost = dictionary.index(("field", "x/y", ""))
    wrong = dictionary.index(("field", "a/t", "bar"))
    dead: list[DeadLetter] = []
    batch = route.step(received([lost, good, wrong], [1.5, 2.5, 3.5]), dead)
    assert batch.value.tolist() == [2.5]
    assert [(letter.reason, letter.origin, letter.raw) for letter in dead] == [
        (DeadReason.UNKNOWN_TAG, "x/y", b"1.5"),
        (DeadReason.WRONG_UNIT, "a/t", b"3.5 bar"),
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("R101.temprature", "R101.temperature"),
        ("R10l.temperature", "R101.temperature"),
        ("R101.speed", ""),
        ("R9.speed", ""),
        ("speed", ""),
        ("", ""),
    ],
)
def test_the_nearest_of_a_name_that_is_none_is_a_tag_of_the_asset_or_that_tag_of_another(
    name: str, meant: str
) -> None:
    table = TagTable([Tag(name=f"R101.{tag}", asset="R101") for tag in ("temperature", "pressure")])
    resolver = Resolver(table, {"field": lambda address: address or None})
    assert isinstance(resolver.resolve(("field", name, "")), Refusal)
    assert resolver.nearest("field", name) == meant


def test_the_time_is_the_source_s_when_sane_else_the_arrival_with_a_reason(
    stage: tuple[RouteStage, Dictionary],
) -> None:
    route, dictionary = stage
    series = dictionary.index(("field", "a/t", ""))
    old = NOW - 6 * 365 * 86400 * SECOND
    times = [old, NO_TIME, 946_684_800 * SECOND, NOW + 601 * SECOND, NOW + 599 * SECOND]
    batch = route.step(received([series] * 5, [1.0] * 5, times), [])
    assert batch.time.tolist() == [old, NOW, NOW, NOW, NOW + 599 * SECOND]
    assert (batch.reasons == Reason.CLOCK).tolist() == [False, False, True, True, False]
    assert (batch.status == UNCERTAIN).tolist() == [False, False, True, True, False]


def test_a_value_too_large_for_the_tag_s_unit_is_no_number_and_no_warning(
    stage: tuple[RouteStage, Dictionary],
) -> None:
    route, dictionary = stage
    kilobar = dictionary.index(("field", "a/p", "kbar"))
    assert route.step(received([kilobar], [1.7e308]), []).value.tolist() == [np.inf]


def test_a_replayed_file_may_be_older_than_2001(stage: tuple[RouteStage, Dictionary]) -> None:
    route, dictionary = stage
    time = np.array([915_148_800 * SECOND])
    old = received([dictionary.index(("field", "a/t", ""))], [1.0], time).with_columns(arrival_time=time)
    batch = route.step(old, [])
    assert (batch.time[0], batch.status[0], batch.reasons[0]) == (time[0], 0, 0)


def test_the_server_s_time_stands_in_where_the_device_gave_none(
    stage: tuple[RouteStage, Dictionary],
) -> None:
    route, dictionary = stage
    series = dictionary.index(("field", "a/t", ""))
    one = received([series], [1.0], [NO_TIME]).with_columns(server_time=np.array([NOW - 5]))
    assert route.step(one, []).time.tolist() == [NOW - 5]
