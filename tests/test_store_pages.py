"""A page of history is the beginning of the whole answer; quality of all tags is that of each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.influx import Influx, influxdb
from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.batch import Batch
from twinloop.errors import QueryError
from twinloop.records import DeadLetter, DeadReason, Event, EventKind, Outputs
from twinloop.status import BAD, GOOD, UNCERTAIN
from twinloop.stores import paging
from twinloop.stores import queries as queries_module
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.local import LocalStore
from twinloop.stores.quality import MOST_CELLS
from twinloop.stores.queries import LocalQueries
from twinloop.stores.segments import Segment

MINUTE = 60 * SECOND
USED = NAMES[:3]
SAMPLE_REST = (
    st.floats(-1e6, 1e6),
    st.sampled_from([GOOD, UNCERTAIN, BAD, 0x40A4_0000, 0x803C_0000]),
    st.just(0),
)
SAMPLE = st.tuples(st.integers(0, 2), st.integers(-300, 300), *SAMPLE_REST)
AGAIN = st.tuples(st.integers(0, 2), st.integers(-20, 20).map(lambda at: 13 * at), *SAMPLE_REST)
"""Such that times come again."""
ENTRIES = st.lists(st.lists(SAMPLE, max_size=8), max_size=12)
SEALED = st.lists(st.booleans(), min_size=12, max_size=12)
Sample = tuple[int, int, float, int, int]


def stored(directory: Path, entries: list[tuple[int, Outputs]], sealed: list[bool]) -> LocalQueries:
    """Queries over entries of which some are sealed, one by one, and the rest not."""
    log = OutputLog(entries)
    store = LocalStore(directory, NAMES)
    for each, seal in zip(log.entries, sealed, strict=False):
        store.write([each])
        if seal:
            store.seal()
    return LocalQueries(directory, NAMES, UNITS, log.after)


@settings(max_examples=12, deadline=None)
@given(ENTRIES, SEALED, st.integers(1, 9), st.none() | st.integers(-300, 300))
def test_pages_of_a_tag_are_its_rows_each_once(
    entries: list[list[Sample]], sealed: list[bool], most: int, start: int | None
) -> None:
    low = None if start is None else T0 + start * SECOND
    with tempfile.TemporaryDirectory() as directory:
        made = [samples(offset, *rows) for offset, rows in enumerate(entries)]
        queries = stored(Path(directory), made, sealed)
        whole = queries.range(NAMES[0], low, None)
        pages, at = [], low
        while len(page := queries.range(NAMES[0], at, None, most=most)):
            pages.append(page)
            at = int(page["time"].cast(pa.int64())[-1].as_py()) + 1
        queries.close()
    assert all(len(page) == most for page in pages[:-1])
    assert pa.concat_tables([whole.slice(0, 0), *pages]).equals(whole)


def told(offset: int, seconds: list[int]) -> tuple[int, Outputs]:
    """Events and dead letters at some seconds."""
    events = [Event(T0 + at * SECOND, f"R{at % 2}.x", EventKind.STATUS, why=f"{offset}") for at in seconds]
    dead = [
        DeadLetter(T0 + at * SECOND, "field", "a/b", b"\xff", DeadReason.UNDECODABLE, f"{at} {offset}")
        for at in seconds
    ]
    return offset, Outputs(offset, T0, events=events, dead=dead)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=12),
    SEALED,
    st.integers(1, 20),
    st.sampled_from(["events", "dead"]),
)
def test_a_page_of_events_is_the_beginning_of_all(
    entries: list[list[int]], sealed: list[bool], most: int, kind: str
) -> None:
    def even(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array([each.startswith("R0") for each in rows["subject"].to_pylist()], bool)

    with tempfile.TemporaryDirectory() as directory:
        queries = stored(Path(directory), [told(*each) for each in enumerate(entries)], sealed)
        start, end = T0 + SECOND, T0 + 5 * SECOND
        whole = queries.events(start, end) if kind == "events" else queries.dead(start, end)
        page, more = queries.page(kind, start, end, most)
        picked = queries.page("events", None, None, most, even).rows
        everything = queries.events(None, None)
        queries.close()
    assert not more
    assert page.equals(whole.slice(0, most))
    assert picked.equals(everything.filter(pa.array(even(everything))).slice(0, most))


def test_a_page_reads_no_segment_beyond_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path, NAMES)
    for number in range(7):  # one fewer than are merged
        rows = [(0, number * 10 + at, 1.0) for at in range(10)]
        sample = samples(number, *rows)[1]
        events = told(number, [number * 10 + at for at in range(10)])[1].events
        store.write([(number, Outputs(number, T0, sample.samples, events=events))])
        store.seal()
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _: [])
    read: list[str] = []
    for module, name in ((queries_module, "read_rows"), (paging, "read_parts")):
        real = getattr(module, name)

        def counted(segment: Segment, *rest: Any, real: Any = real) -> Any:
            read.append(segment.kind)
            return real(segment, *rest)

        monkeypatch.setattr(module, name, counted)
    assert len(queries.range(NAMES[0], T0 + 15 * SECOND, None, most=10)) == 10
    assert len(queries.page("events", T0 + 15 * SECOND, None, 10).rows) == 10
    assert read == ["samples"] * 2 + ["events"] * 2
    store.close()


def by_windows(queries: LocalQueries, every: int, start: int, end: int) -> dict[tuple[str, int], list[int]]:
    """Count and Good samples, as each tag's own windows say."""
    low, high = start // every * every, -(-end // every) * every
    found = {}
    for name in USED:
        for row in queries.window(name, every, low, high).to_pylist():
            time = int(row["time"].value)
            found[name, time] = [row["count"], round(row["good_fraction"] * row["count"])]
    return found


def by_quality(table: pa.Table) -> dict[tuple[str, int], list[int]]:
    rows = zip(
        table["tag"].to_pylist(), table["time"].cast(pa.int64()).to_pylist(),
        *(table[name].to_pylist() for name in ("count", "good")), strict=True,
    )  # fmt: skip
    return {(tag, time): [count, good] for tag, time, count, good in rows}


@settings(max_examples=10, deadline=None)
@given(ENTRIES, SEALED, st.sampled_from([1, 2, 60]), st.integers(-300, 300), st.integers(0, 300))
def test_quality_of_all_tags_is_that_of_each_tags_windows(
    entries: list[list[Sample]], sealed: list[bool], every: int, start: int, length: int
) -> None:
    span = T0 + start * SECOND, T0 + (start + length) * SECOND
    with tempfile.TemporaryDirectory() as directory:
        made = [samples(offset, *rows) for offset, rows in enumerate(entries)]
        queries = stored(Path(directory), made, sealed)
        found = queries.quality(every * MINUTE, *span)
        expected = by_windows(queries, every * MINUTE, *span)
        uncertain = sum(
            (
                queries.range(name, found_low(span[0], every), found_high(span[1], every))[
                    "status"
                ].to_numpy()
                >> 30
                == 1
            ).sum()
            for name in USED
        )
        queries.close()
    assert by_quality(found) == expected
    assert sum(found["uncertain"].to_pylist()) == uncertain
    total = sum(sum(found[name].to_pylist()) for name in ("good", "uncertain", "bad"))
    assert total == sum(found["count"].to_pylist())


def found_low(start: int, every: int) -> int:
    return start // (every * MINUTE) * every * MINUTE


def found_high(end: int, every: int) -> int:
    return -(-end // (every * MINUTE)) * every * MINUTE


def test_too_much_quality_at_once_is_refused(tmp_path: Path) -> None:
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _: [])
    minutes = MOST_CELLS // len(NAMES)
    assert len(queries.quality(60 * MINUTE, T0, T0 + (minutes - 120) * MINUTE)) == 0
    with pytest.raises(QueryError, match=f"at most {minutes:,} minutes"):
        queries.quality(60 * MINUTE, T0, T0 + (minutes + 120) * MINUTE)
    with pytest.raises(QueryError, match="whole minutes"):
        queries.quality(SECOND, T0, T0 + MINUTE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(AGAIN, min_size=1, max_size=60),
    sealed=st.integers(0, 60),
    sent=st.integers(0, 60),
    every=st.sampled_from([1, 3]),
)
@example(rows=[(0, 5, 1.0, GOOD, 0), (0, 5, 2.0, BAD, 0)], sealed=1, sent=0, every=1)
@example(rows=[(0, 5, 1.0, GOOD, 0), (0, 5, 2.0, BAD, 0), (0, 5, 3.0, GOOD, 0)], sealed=1, sent=2, every=1)
@example(rows=[(0, at, 1.0, GOOD, 0) for at in (0, 120, 0, 120, 240)], sealed=2, sent=3, every=1)
def test_influxdb_gives_the_same_pages_and_quality(
    server: Influx,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Sample],
    sealed: int,
    sent: int,
    every: int,
) -> None:
    options, folder = server.options(), tmp_path_factory.mktemp("there")
    log = OutputLog([samples(offset, row) for offset, row in enumerate(rows)])
    there, here = InfluxStore(options, folder / "store", USED, UNITS[:3]), LocalStore(folder / "own", USED)
    there.write(log.entries[:sealed])
    there.seal()
    there.write(log.entries[: max(sealed, sent)])  # accepted, and no more than that
    here.write(log.entries)
    here.seal()
    asked = InfluxQueries(options, folder / "store", USED, UNITS[:3], log.after)
    plain = LocalQueries(folder / "own", USED, UNITS[:3], lambda _: [])
    span = T0 - 200 * SECOND, T0 + 250 * SECOND
    assert asked.quality(every * MINUTE, *span).equals(plain.quality(every * MINUTE, *span))
    for most in (1, 5):
        assert asked.range(NAMES[0], span[0], None, most=most).equals(
            plain.range(NAMES[0], span[0], None, most=most)
        )
        assert asked.points(NAMES[0], *span, most=most).equals(plain.points(NAMES[0], *span, most=most))
    there.close()
    asked.close()
    plain.close()


@pytest.mark.long
def test_an_hour_of_a_thousand_tags_is_counted_in_well_under_a_second(tmp_path: Path) -> None:
    """1,000 tags at 1 s, sealed each minute; measured, with room for a busy machine."""
    import time

    names = [f"R{index // 10}.t{index % 10}" for index in range(1_000)]
    store = LocalStore(tmp_path, names)
    for minute in range(60):
        at = T0 + minute * MINUTE + np.repeat(np.arange(60), 1_000) * SECOND
        tag = np.tile(np.arange(1_000), 60)
        made = Batch.raw(tag=tag, time=at, value=np.ones(len(tag)), status=np.where(tag % 7, GOOD, UNCERTAIN))
        store.write([(minute, Outputs(minute, T0, made.buffers()))])
        store.seal()
    queries = LocalQueries(tmp_path, names, [""] * 1_000, lambda _: [])
    began = time.perf_counter()
    found = queries.quality(MINUTE, T0, T0 + 60 * MINUTE)
    took = time.perf_counter() - began
    store.close()
    print(f"{took:.3f} s")  # noqa: T201 - the figure is the test's point
    assert len(found) == 61_000
    assert took < 0.5
