"""Answers from a real InfluxDB 1.6.7: those of the embedded store, for any name, and others' series."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.influx import Influx, influxdb
from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples, values
from twinloop.aggregates import AGGREGATES, Configuration
from twinloop.aggregates.asking import ask_aggregates
from twinloop.batch import Batch
from twinloop.errors import QueryError
from twinloop.exporting import export
from twinloop.records import Outputs
from twinloop.status import BAD, GOOD, UNCERTAIN
from twinloop.stores.influx.influxql import identifier, literal
from twinloop.stores.influx.options import Existing, InfluxOptions
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.store import RANGE_SCHEMA

TAG = NAMES[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


def store(options: InfluxOptions, folder: Path) -> InfluxStore:
    return InfluxStore(options, folder / "store", NAMES, UNITS)


def queries(options: InfluxOptions, folder: Path, log: OutputLog | None = None) -> InfluxQueries:
    return InfluxQueries(options, folder / "store", NAMES, UNITS, (log or OutputLog()).after)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


NAMED = st.tuples(TEXTS.filter(bool), st.floats(), st.floats(allow_nan=False, allow_infinity=False))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(NAMED, min_size=1, max_size=20, unique_by=lambda row: row[0]))
@example(
    [
        ("R1.t\\", -0.0, 5e-324),
        ("\"'; DROP MEASUREMENT twinloop;--", 1.7976931348623157e308, 0.0),
        ("x' OR 'a'='a", math.inf, 0.1),
        ("time", 1e21, 123456789012345680.0),
        ("%41\\n\n=,", math.nan, -1e-7),
        ("A", 0.1, 1e23),
    ]
)
def test_any_name_and_number_goes_through_the_server_and_back(
    server: Influx, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, float]]
) -> None:
    options = server.options("names")
    directory = tmp_path_factory.mktemp("names") / "store"
    names, value, estimate = zip(*rows, strict=True)
    n = len(names)
    sent = Batch.of(
        tag=range(n), time=[T0] * n, value=value, status=[0] * n, reasons=[0] * n, arrival=[T0] * n,
        estimate=estimate, estimate_std=[math.nan] * n, rate=[math.nan] * n,
    )  # fmt: skip
    server.ask('CREATE DATABASE "names"')
    server.ask("DROP SERIES FROM /.*/", "names")
    own = InfluxStore(options, directory, names, names)
    own.write([(0, Outputs(0, T0, sent.buffers()))])
    own.close()
    asked = InfluxQueries(options, directory, names, names, lambda _: [])
    found = [asked.range(name, None, None).to_pylist() for name in names]
    asked.close()

    assert [[row["tag"] for row in each] for each in found] == [[name] for name in names]
    assert [each[0]["value"] for each in found] == [v if math.isfinite(v) else None for v in value]
    assert [each[0]["estimate"] for each in found] == list(estimate)


@given(text=TEXTS)
@example("\\")
@example("\\'")
@example("a\\nb\nc")
def test_what_is_quoted_ends_where_it_should(text: str) -> None:
    for quote, made in (('"', identifier(text)), ("'", literal(text))):
        inner = made[1:-1]
        assert made[0] == made[-1] == quote
        plain = inner.replace("\\\\", "").replace(f"\\{quote}", "").replace("\\n", "")
        assert quote not in plain
        assert "\\" not in plain
        assert "\n" not in inner


ROW = st.tuples(
    st.integers(-40, 200),
    st.floats(-1e6, 1e6) | st.just(math.nan),
    st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD, 0x40A4_0000, 0x8030_0000]),
)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, min_size=1, max_size=60),
    sealed=st.integers(0, 60),
    every=st.sampled_from([1, 7, 10, 60, 10**9]),
    span=st.tuples(st.none() | st.integers(-50, 210), st.none() | st.integers(-50, 210)),
    wide=st.booleans(),
)
@example(rows=[(0, 1.0, BAD), (1, math.nan, GOOD)], sealed=2, every=10, span=(None, None), wide=True)
def test_answers_are_those_of_the_embedded_store(
    server: Influx,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, float, int]],
    sealed: int,
    every: int,
    span: tuple[int | None, int | None],
    *,
    wide: bool,
) -> None:
    folder = tmp_path_factory.mktemp("same")
    options = server.options("same")
    server.ask('CREATE DATABASE "same"')
    server.ask("DROP SERIES FROM /.*/", "same")
    log = OutputLog([samples(at, (0, *row, 0)) for at, row in enumerate(rows)])
    own, local = store(options, folder), LocalStore(folder / "local", NAMES)
    for each in (own, local):
        each.write(log.entries[:sealed])
        each.seal()
        each.write(log.entries[sealed : sealed + 2])
    here = LocalQueries(folder / "local", NAMES, UNITS, log.after)
    there = queries(options, folder, log)
    low, high = (None if each is None else T0 + each * SECOND for each in span)

    assert there.range(TAG, low, high).equals(here.range(TAG, low, high))
    assert there.points(TAG, low, high).equals(here.points(TAG, low, high))
    assert there.latest([]).equals(here.latest([]))
    ours = there.window(TAG, every * SECOND, low, high, uncertain_as_good=wide)
    theirs = here.window(TAG, every * SECOND, low, high, uncertain_as_good=wide)
    exact = ["time", "min", "max", "count", "good_fraction"]
    assert ours.select(exact).equals(theirs.select(exact))
    mean, expected = (np.array(each["mean"].to_pylist(), float) for each in (ours, theirs))
    np.testing.assert_allclose(mean, expected, rtol=1e-9, atol=1e-6)
    if every < 10**9:
        rules = Configuration(treat_uncertain_as_bad=not wide)
        by_part_13 = [
            ask_aggregates(asked, TAG, every * SECOND, low, high, names=AGGREGATES, configuration=rules)
            for asked in (there, here)
        ]
        assert by_part_13[0].equals(by_part_13[1])
    exported = [folder / "there.parquet", folder / "here.parquet"]
    for asked, path in zip((there, here), exported, strict=True):
        export(asked, path, "parquet", [TAG], (low, high))
    assert pq.read_table(exported[0]).equals(pq.read_table(exported[1]))
    there.close()
    here.close()


def telegraf(server: Influx, options: InfluxOptions) -> InfluxOptions:
    """A database with what Telegraf wrote before twinloop was there, and options that map it."""
    server.ask(f'CREATE DATABASE "{options.bucket}"')
    lines = [
        f'mqtt_consumer,host=h{at % 2},topic=plant/R101/t\\ 1 value={at},other="text" {T0 + at * SECOND}'
        for at in range(100)
    ]
    server.write("\n".join(lines), options.bucket)
    server.write(f"mqtt_consumer,topic=plant/R102/t value=-1 {T0 + SECOND}", options.bucket)
    series = Existing("mqtt_consumer", {"topic": "plant/R101/t 1"})
    return server.options(options.bucket, existing={TAG: series})


def test_what_others_wrote_is_a_tags_history_before_its_own(server: Influx, tmp_path: Path) -> None:
    options = telegraf(server, server.options())
    log = OutputLog()
    asked = queries(options, tmp_path, log)
    assert values(asked.range(TAG, None, None)) == [float(at) for at in range(100)], "alone"
    assert asked.window(TAG, 10 * SECOND, None, None)["count"].to_pylist() == [10] * 10

    log.entries = [samples(at, (0, 55.5 + at, 1000.0 + at)) for at in range(60)]
    own = store(options, tmp_path)
    for part in (log.entries[:0], log.entries[:30], log.entries):
        own.write(part)
        own.seal()
        found = asked.range(TAG, None, None)
        assert values(found) == [*map(float, range(56)), *(1000.0 + at for at in range(60))]
        assert set(found.to_pylist()[3].items()) >= {("status", GOOD), ("reasons", 0), ("estimate", None)}
        assert found.schema == RANGE_SCHEMA
        points = asked.points(TAG, None, None)
        assert values(points) == values(found)
        assert points["time"].equals(found["time"].cast(pa.int64()))
        assert values(asked.range(TAG, T0 + 50 * SECOND, T0 + 57 * SECOND)) == [
            50.0, 51.0, 52.0, 53.0, 54.0, 55.0, 1000.0, 1001.0,
        ]  # fmt: skip
        windows = asked.window(TAG, 10 * SECOND, None, None).to_pylist()
        assert [each["count"] for each in windows] == [10] * 5 + [6 + 5] + [10] * 5 + [5]
        assert windows[4]["mean"] == 44.5
        assert windows[5]["max"] == 1004.0
        assert all(each["good_fraction"] == 1.0 for each in windows)
    assert len(asked.range(NAMES[1], None, None)) == 0


def test_an_existing_field_may_be_of_any_type_and_elsewhere(server: Influx, tmp_path: Path) -> None:
    options = server.options()
    for name in (options.bucket, "telegraf"):
        server.ask(f'CREATE DATABASE "{name}"')
    for at, value in enumerate(["true", "false", "true"]):
        server.write(f'pump on={value},name="a",count={at}i {T0 + at * SECOND}', "telegraf")
    expected = {"on": [1.0, 0.0, 1.0], "count": [0.0, 1.0, 2.0], "name": []}
    for field, wanted in expected.items():
        series = Existing("pump", {}, field, "telegraf")
        asked = queries(server.options(options.bucket, existing={TAG: series}), tmp_path)
        assert values(asked.range(TAG, None, None)) == wanted
        assert asked.window(TAG, 60 * SECOND, None, None)["count"].to_pylist() == ([3] if wanted else [])
    series = Existing("pump", {}, "on", "nowhere")
    with pytest.raises(QueryError, match="database not found"):
        queries(server.options(options.bucket, existing={TAG: series}), tmp_path).range(TAG, None, None)
