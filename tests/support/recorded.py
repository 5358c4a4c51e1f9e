"""A small plant's fold and a short recorded history of every kind of record, for tests of logs."""

from __future__ import annotations

from typing import Final

from twinloop.batch import NO_TIME, Received
from twinloop.log.dictionary import Dictionary
from twinloop.loop.fold import Fold
from twinloop.records import (
    Alive,
    ClockSet,
    DeadLetter,
    DeadLetters,
    DeadReason,
    Link,
    LinkState,
    Outputs,
    Record,
    Samples,
    Started,
    Thinned,
    Tick,
)
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.tags import Resolver, Tag, TagTable
from twinloop.twin.twin import AssetSpec, Twin

__all__ = ["SERIES", "TAGS", "new_fold", "recorded_outputs", "recorded_records"]

_S: Final = 1_000_000_000
_START: Final = 1_800_000_000 * _S
TAGS: Final = (
    Tag(
        name="R101.temperature",
        asset="R101",
        unit="degC",
        low=-50,
        high=400,
        spike_fraction=0.2,
        rate_limit=5.0,
        stuck_ns=600 * _S,
        stale_ns=3 * _S,
        noise=0.5,
    ),
    Tag(name="R101.pressure", asset="R101", unit="bar", fill="linear"),
    Tag(name="R101.running", asset="R101", analogue=False, fill="none"),
)
SERIES: Final = ("R101.temperature", "R101.pressure", "R101.running", "R999.gone")


def new_fold() -> Fold:
    """A fold of the plant, as `build` makes it; the last series leads to no tag."""
    table = TagTable(TAGS)
    dictionary = Dictionary(None)
    for name in SERIES:
        dictionary.index(("field", name, ""))
    twin = Twin([AssetSpec(name="R101", tags=[0, 1, 2], model="stirred_tank")], table)
    route = RouteStage(Resolver(table, {"field": str}), dictionary.key)
    return Fold(route, ValidateStage(table), ImputeStage(table, twin.model_value), EstimateStage(table), twin)


def recorded_records() -> list[Record]:
    """Half a minute of the plant."""
    made: list[Record] = [Link(_START, "field", LinkState.UP)]
    for second in range(30):
        arrival = _START + second * _S
        series = [0, 1, 2] if second % 7 else [0, 1, 2, 3]
        n = len(series)
        values = [85.0 + second % 3, 2.5, float(second % 2), 1.0][:n]
        values[0] = float("nan") if second == 11 else 120.0 if second == 12 else values[0]
        received = Received.of(
            series=series,
            source_time=[arrival - 1000] * (n - 1) + [NO_TIME],
            server_time=[NO_TIME] * n,
            arrival_time=[arrival] * n,
            value=values,
            status=[0] * (n - 1) + [0x4000_0000],
            reasons=[0] * n,
        )
        made += [Samples.pack(received), Tick(arrival, [_S], int(second % 5 == 4))]
    letter = DeadLetter(_START, "field", "a/b", b"\x00\xff{", DeadReason.UNDECODABLE, "not JSON")
    lost = Link(_START, "field", LinkState.ADDRESS_LOST, "ns=2;s=X", "no such node")
    set_back, start = ClockSet(_START + 20 * _S, -11 * _S), Started(_START + 50 * _S)
    alive = Alive(_START + 31 * _S, [0, 1])
    thinned = Samples(made[1].columns, thinned=Thinned([1, 2], [_START, _START + _S], 3, 17))  # type: ignore[union-attr]
    end = Tick(_START + 60 * _S, [_S])
    return [*made, thinned, DeadLetters([letter]), lost, alive, set_back, start, end]


def recorded_outputs() -> list[Outputs]:
    """What folding the recorded records gives."""
    fold = new_fold()
    return [fold.step(offset, record) for offset, record in enumerate(recorded_records())]
