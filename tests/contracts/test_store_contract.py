"""The laws every store keeps, run against each store there is."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.influx import Influx, influxdb
from support.outputs import HOSTILE, NAMES, SECOND, T0, UNITS, OutputLog, batch, samples, seconds, values
from twinloop.cli.query import Question, ask
from twinloop.errors import QueryError
from twinloop.records import DeadLetter, DeadReason, Event, EventKind, Health, Outputs, Prediction, Snapshot
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason, StatusCode
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.store import RANGE_SCHEMA, WINDOW_SCHEMA, Queries, Store


@dataclass
class Bench:
    """A store, its output log and its queries, as the loop puts them together."""

    make_store: Callable[[], Store]
    queries: Queries
    log: OutputLog
    store: Store

    def deliver(self, *entries: tuple[int, Outputs]) -> None:
        newest = self.log.entries[-1][0] if self.log.entries else -1
        self.log.entries += [entry for entry in entries if entry[0] > newest]
        self.store.write(entries)

    def settle(self) -> None:
        """Close and open: everything taken is in the store for good."""
        self.store.close()
        self.store = self.make_store()

    def reopen(self) -> None:
        """What a restart after a crash does: open, and deliver again what the store does not have."""
        self.store = self.make_store()
        self.store.write(self.log.after(self.store.covered))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


@pytest.fixture(params=["local", "influxdb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    log = OutputLog()
    directory = tmp_path / "store"
    queries: LocalQueries
    make: Callable[[], Store]
    if request.param == "local":
        make = partial(LocalStore, directory, NAMES)
        queries = LocalQueries(directory, NAMES, UNITS, log.after)
    else:
        options = request.getfixturevalue("server").options()
        make = partial(InfluxStore, options, directory, NAMES, UNITS)
        queries = InfluxQueries(options, directory, NAMES, UNITS, log.after)
    yield Bench(make, queries, log, make())
    queries.close()


def test_what_was_written_is_answered_at_once_and_after_closing(bench: Bench) -> None:
    bench.deliver(samples(0, (0, 1, 85.0), (1, 1, 2.5)), samples(1, (0, 2, 85.5)))
    before = bench.queries.range("R101.temperature", None, None)
    bench.settle()

    assert before.schema == RANGE_SCHEMA
    assert before["unit"].to_pylist() == ["degC", "degC"]
    assert (seconds(before), values(before)) == ([1, 2], [85.0, 85.5])
    assert bench.queries.range("R101.temperature", None, None) == before


def test_delivering_again_changes_nothing(bench: Bench) -> None:
    entries = [samples(0, (0, 1, 1.0)), samples(1, (0, 2, 2.0)), samples(2, (0, 3, 3.0))]
    bench.deliver(*entries)
    bench.deliver(*entries[1:])
    bench.settle()
    bench.deliver(*entries)
    bench.settle()

    assert values(bench.queries.range("R101.temperature", None, None)) == [1.0, 2.0, 3.0]
    assert bench.store.covered == 2


def test_rows_come_in_ascending_time_however_late_they_were(bench: Bench) -> None:
    bench.deliver(samples(0, (0, 5, 5.0), (0, 1, 1.0, GOOD, Reason.LATE)))
    bench.settle()
    bench.deliver(samples(1, (0, 3, 3.0, GOOD, Reason.LATE)))
    bench.settle()
    bench.deliver(samples(2, (0, 4, 4.0, GOOD, Reason.LATE), (0, 0, 0.0, GOOD, Reason.LATE)))

    assert values(bench.queries.range("R101.temperature", None, None)) == [0.0, 1.0, 3.0, 4.0, 5.0]
    assert values(bench.queries.latest(["R101.temperature"])) == [5.0]


def test_of_two_samples_with_one_time_the_first_stored_wins(bench: Bench) -> None:
    bench.deliver(samples(0, (0, 1, 1.0), (0, 1, 1.5)))
    bench.settle()
    bench.deliver(samples(1, (0, 1, 2.0)))
    unsealed = values(bench.queries.range("R101.temperature", None, None))
    bench.settle()

    assert unsealed == values(bench.queries.range("R101.temperature", None, None)) == [1.0]
    assert values(bench.queries.latest(["R101.temperature"])) == [1.0]
    assert bench.queries.window("R101.temperature", SECOND, None, None)["count"].to_pylist() == [1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tag_name_is_a_name_like_any_other(bench: Bench, name: str) -> None:
    bench.deliver(samples(0, (NAMES.index(name), 1, 7.0), (0, 1, 1.0)))
    bench.settle()

    assert bench.queries.range(name, None, None).select(["tag", "value"]).to_pylist() == [
        {"tag": name, "value": 7.0}
    ]
    assert bench.queries.latest([name])["tag"].to_pylist() == [name]
    assert bench.queries.window(name, SECOND, None, None)["mean"].to_pylist() == [7.0]


def test_what_is_no_number_is_empty_and_keeps_its_status(bench: Bench) -> None:
    rows = [(0, at, value, BAD, Reason.NON_FINITE) for at, value in enumerate([np.nan, np.inf, -np.inf])]
    bench.deliver(samples(0, *rows, (0, 3, 1.0)))
    bench.settle()
    found = bench.queries.range("R101.temperature", None, None)

    assert values(found) == [None, None, None, 1.0]
    assert found["status"].to_pylist() == [BAD, BAD, BAD, GOOD]
    assert bench.queries.window("R101.temperature", 10 * SECOND, None, None).to_pylist()[0]["mean"] == 1.0


def test_a_bad_row_keeps_its_value_status_code_and_reasons(bench: Bench) -> None:
    bench.deliver(samples(0, (0, 1, 500.0, StatusCode.BAD_OUT_OF_RANGE, Reason.RANGE | Reason.RATE)))
    bench.settle()
    row = bench.queries.range("R101.temperature", None, None).to_pylist()[0]

    assert row["value"] == 500.0
    assert row["status"] == StatusCode.BAD_OUT_OF_RANGE
    assert row["reasons"] == Reason.RANGE | Reason.RATE


def test_start_is_included_and_end_is_not(bench: Bench) -> None:
    bench.deliver(samples(0, *((0, at, float(at)) for at in range(5))))
    for _ in range(2):
        found = bench.queries.range("R101.temperature", T0 + SECOND, T0 + 3 * SECOND)
        assert values(found) == [1.0, 2.0]
        bench.settle()


def test_a_time_with_a_zone_is_the_same_moment(bench: Bench) -> None:
    bench.deliver(samples(0, *((0, at, float(at)) for at in range(5))))
    bench.settle()
    assert isinstance(bench.queries, LocalQueries)
    for start in ("2023-11-14T22:13:22Z", "2023-11-15T03:58:22+05:45", "2023-11-14T15:13:22-07:00"):
        found = ask(bench.queries, Question("range", ("R101.temperature",), start=start), 0)
        assert values(found) == [2.0, 3.0, 4.0]
        assert found["time"].type.tz == "UTC"


def test_times_before_the_epoch_and_far_from_it_are_times_like_any_other(bench: Bench) -> None:
    seconds_ = [-(2**33), -62, -61, -60, -1, 0, 1, 59, 2**33]
    rows = batch([(0, 0, float(at)) for at in range(len(seconds_))])
    at = np.array(seconds_) * SECOND
    bench.deliver((0, Outputs(0, T0, rows.with_columns(time=at, arrival=at).buffers())))
    for _ in range(2):
        found = bench.queries.range("R101.temperature", None, None)
        assert found["time"].cast("int64").to_pylist() == at.tolist()
        assert values(bench.queries.range("R101.temperature", -61 * SECOND, 0)) == [2.0, 3.0, 4.0]
        windows = bench.queries.window("R101.temperature", 60 * SECOND, None, None)
        starts = [-(2**33) // 60 * 60, -120, -60, 0, 2**33 // 60 * 60]
        assert windows["time"].cast("int64").to_pylist() == [each * SECOND for each in starts]
        assert windows["count"].to_pylist() == [1, 2, 2, 3, 1]
        bench.settle()


def test_windows_use_good_rows_and_count_all(bench: Bench) -> None:
    begin = -(T0 // SECOND) % 10  # the first whole ten seconds of the epoch
    rows = [(0, 1.0, GOOD), (9, 3.0, GOOD), (5, 9.0, UNCERTAIN), (6, 99.0, BAD), (29, 7.0, BAD)]
    bench.deliver(samples(0, *((0, begin + at, value, status, 0) for at, value, status in rows)))
    for _ in range(2):
        found = bench.queries.window("R101.temperature", 10 * SECOND, None, None)
        assert seconds(found) == [begin, begin + 20]
        assert found.drop_columns(["time"]).to_pylist() == [
            {"mean": 2.0, "min": 1.0, "max": 3.0, "count": 4, "good_fraction": 0.5},
            {"mean": None, "min": None, "max": None, "count": 1, "good_fraction": 0.0},
        ]
        wide = bench.queries.window("R101.temperature", 10 * SECOND, None, None, uncertain_as_good=True)
        assert wide["max"].to_pylist() == [9.0, None]
        assert wide["good_fraction"].to_pylist() == [0.5, 0.0]
        cut = bench.queries.window(
            "R101.temperature", 10 * SECOND, T0 + (begin + 1) * SECOND, T0 + (begin + 6) * SECOND
        )
        assert (seconds(cut), cut["count"].to_pylist()) == ([begin], [1]), "only what lies in [start, end)"
        bench.settle()


def test_an_empty_answer_has_all_its_columns(bench: Bench) -> None:
    for _ in range(2):
        assert bench.queries.range("R101.pressure", None, None).equals(RANGE_SCHEMA.empty_table())
        assert bench.queries.window("R101.pressure", SECOND, None, None).equals(WINDOW_SCHEMA.empty_table())
        assert bench.queries.latest(["R101.pressure"]).equals(RANGE_SCHEMA.empty_table())
        assert bench.queries.range("R101.temperature", T0 + SECOND, T0).equals(RANGE_SCHEMA.empty_table())
        bench.deliver(samples(0, (0, 0, 1.0)))
        bench.settle()


def test_a_hundred_thousand_rows_come_back_whole(bench: Bench) -> None:
    at = np.arange(100_000)
    for offset, part in enumerate(np.array_split(at, 7)):
        bench.deliver(samples(offset, *((0, int(each), float(each)) for each in part)))
        if offset == 4:
            bench.settle()
    found = bench.queries.range("R101.temperature", None, None)

    np.testing.assert_array_equal(found["value"].to_numpy(), at)
    assert len(bench.queries.range("R101.temperature", T0, T0 + 60_000 * SECOND)) == 60_000


def test_an_unknown_tag_is_refused_with_the_nearest_name(bench: Bench) -> None:
    with pytest.raises(QueryError, match=r"R101\.temprature.*did you mean R101\.temperature\?"):
        bench.queries.range("R101.temprature", None, None)
    with pytest.raises(QueryError):
        bench.queries.latest(["nowhere"])
    with pytest.raises(QueryError):
        bench.queries.window("nowhere", SECOND, None, None)


def test_after_reopening_everything_is_there_once(bench: Bench) -> None:
    for offset in range(20):
        bench.deliver(samples(offset, (0, offset, float(offset)), (1, offset, -float(offset))))
        if offset % 3 == 0:
            bench.settle()
        if offset % 5 == 0:
            bench.reopen()
    assert values(bench.queries.range("R101.temperature", None, None)) == [float(each) for each in range(20)]
    assert values(bench.queries.latest([])) == [-19.0, 19.0]


def test_a_silent_tag_shows_stale_in_latest_only_until_it_is_heard_again(bench: Bench) -> None:
    silence = Event(T0 + 9 * SECOND, "R101.temperature", EventKind.STATUS, "Good", "Bad", "STALE")
    bench.deliver(samples(0, (0, 1, 85.0)), (1, Outputs(1, T0, events=[silence])))
    for _ in range(2):
        shown = bench.queries.latest(["R101.temperature"]).to_pylist()[0]
        assert (shown["value"], shown["status"]) == (85.0, StatusCode.BAD_NO_COMMUNICATION)
        assert shown["reasons"] == Reason.STALE
        assert bench.queries.range("R101.temperature", None, None)["status"].to_pylist() == [GOOD]
        bench.settle()
    bench.deliver(samples(2, (0, 0.5, 84.0, GOOD, Reason.LATE)))
    assert bench.queries.latest(["R101.temperature"])["status"].to_pylist() == [GOOD]


def test_a_dead_letter_fed_again_does_not_make_a_silent_tag_look_alive(bench: Bench) -> None:
    silence = Event(T0 + 9 * SECOND, "R101.temperature", EventKind.STATUS, "Good", "Bad", "STALE")
    bench.deliver(samples(0, (0, 1, 85.0)), (1, Outputs(1, T0, events=[silence])))
    fed = batch([(0, 0.5, 84.0, GOOD, Reason.LATE)])
    fed = fed.with_columns(arrival=fed.time)
    bench.deliver((2, Outputs(2, T0, fed.buffers())))
    for _ in range(2):
        assert bench.queries.latest(["R101.temperature"])["reasons"].to_pylist() == [Reason.STALE]
        bench.settle()


def test_an_answer_that_has_not_changed_ends_the_silence_without_a_sample(bench: Bench) -> None:
    silence = Event(T0 + 9 * SECOND, "R101.temperature", EventKind.STATUS, "Good", "Uncertain", "STALE")
    alive = Event(T0 + 10 * SECOND, "R101.temperature", EventKind.STATUS, "Uncertain", "Good")
    bench.deliver(samples(0, (0, 1, 85.0)), (1, Outputs(1, T0, events=[silence])))
    bench.settle()
    bench.deliver((2, Outputs(2, T0, events=[alive])))
    for _ in range(2):
        assert bench.queries.latest(["R101.temperature"])["reasons"].to_pylist() == [0]
        bench.settle()


def test_events_dead_letters_snapshots_and_fills_come_back_as_they_went_in(bench: Bench) -> None:
    queries = bench.queries
    assert isinstance(queries, LocalQueries)
    event = Event(T0, "R101", EventKind.HEALTH, "STARTING", "IN_SYNC", "all 'well'\n")
    letter = DeadLetter(T0 + 1, "field", "a/b", b"\x00\xff{", DeadReason.UNDECODABLE, "not JSON")
    shot = Snapshot(
        T0 + 2,
        "R101",
        Health.IN_SYNC,
        model="stirred_tank",
        state={"temperature_k": 358.15, "conversion": 0.5},
        std={"temperature_k": 0.1},
        horizon_s=60.0,
        predictions=[Prediction("temperature", "degC", 85.0, 86.0, 85.0)],
        nis=1.02,
    )
    fill = batch([(0, 1, 85.0, StatusCode.UNCERTAIN_LAST_USABLE_VALUE, 0)])
    bench.deliver((0, Outputs(0, T0, [], fill.buffers(), [event], [shot], [letter])))
    for _ in range(2):
        assert queries.events(T0, T0 + 1).to_pylist()[0]["why"] == "all 'well'\n"
        assert queries.dead(None, None).to_pylist()[0]["raw"] == b"\x00\xff{"
        found = queries.snapshots("R101", None, None).to_pylist()[0]
        assert dict(found["state"]) == shot.state
        assert found["predictions"][0]["persistence"] == 85.0
        assert len(queries.snapshots("R102", None, None)) == len(queries.events(T0 + 1, None)) == 0
        assert values(queries.fills("R101.temperature", None, None)) == [85.0]
        assert len(queries.range("R101.temperature", None, None)) == 0
        bench.settle()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.influx import Influx, influxdb
from support.outputs import NAMES, samples
from twinloop.stores.local import LocalStore
store = LocalStore(Path(sys.argv[1]), NAMES)
while True:
    offset = store.covered + 1
    store.write([samples(offset, (0, offset, float(offset)))])
    store.seal()
    print(offset, flush=True)
"""


@pytest.mark.parametrize("seals", [1, 15, 47])
def test_a_writer_killed_anywhere_loses_nothing_that_the_output_log_has(tmp_path: Path, seals: int) -> None:
    """The child seals after every entry and merges every 16, as fast as it can, until SIGKILL stops it."""
    directory = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(directory), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = [int(line) for line in itertools.islice(child.stdout, seals)]
        child.kill()
    log = [samples(offset, (0, offset, float(offset))) for offset in range(told[-1] + 20)]
    queries = LocalQueries(directory, NAMES, UNITS, lambda after: log[after + 1 :])
    expected = [float(offset) for offset in range(len(log))]

    assert values(queries.range("R101.temperature", None, None)) == expected
    store = LocalStore(directory, NAMES)
    assert not store.damage
    assert store.covered >= told[-1]
    assert not list(directory.glob("*.tmp"))
    store.write(log)
    store.close()
    assert store.covered == len(log) - 1
    assert values(queries.range("R101.temperature", None, None)) == expected
    assert values(queries.latest([])) == expected[-1:]
