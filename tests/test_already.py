"""What a store has of rows that are to come is found whole, and hardly more than that is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.imported import plant_without_sources
from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop import already
from twinloop.already import Already
from twinloop.config.plantfile import load
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

HOUR = 3_600
ROWS = 100_000


class Counted(LocalQueries):
    """A store that knows how many rows were read of it, and how many at once at most."""

    read, most, questions = 0, 0, 0

    def points(self, tag: str, start: int | None, end: int | None, *, most: int | None = None) -> pa.Table:
        rows = super().points(tag, start, end, most=most)
        self.read, self.most, self.questions = (
            self.read + len(rows),
            max(self.most, len(rows)),
            self.questions + 1,
        )
        return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tag with a row every second but each tenth, some of them not sealed: see `queries`."""
    folder = tmp_path_factory.mktemp("store")
    store = LocalStore(folder, NAMES)
    log = OutputLog()
    log.entries.append(samples(0, *((0, float(at), at % 7.0) for at in range(ROWS) if at % 10)))
    store.write(log.entries)
    store.seal()
    return folder


@pytest.fixture
def queries(store: Path) -> Iterator[Counted]:
    rest = [samples(1, *((0, float(at), at % 7.0) for at in range(ROWS, ROWS + 100)))]
    opened = Counted(store, NAMES, UNITS, lambda after: iter(rest if after < 1 else []))
    yield opened
    opened.close()


def over(folder: Path, queries: LocalQueries) -> Already:
    made = Already(load(plant_without_sources(folder), {}))
    made._queries = queries
    return made


def test_rows_far_apart_cost_no_more_than_what_lies_at_them(tmp_path: Path, queries: Counted) -> None:
    asked = over(tmp_path, queries)
    time = T0 + np.array([-HOUR * 9_000, 3, 3, 4, ROWS - 1, ROWS + 50, ROWS + HOUR * 9_000]) * SECOND
    found = asked.standing(NAMES[0], time)
    assert found.there.tolist() == [False, True, True, True, True, True, False]
    assert found.value[1:6].tolist() == [3.0, 3.0, 4.0, (ROWS - 1) % 7, (ROWS + 50) % 7]
    assert np.isnan(found.value[[0, 6]]).all()
    assert queries.read <= 60, "of a day and more of rows"


def test_times_are_found_as_in_the_whole_history_however_it_is_read(
    tmp_path: Path, queries: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(already, "_MOST_ROWS", 700)
    random = np.random.default_rng(5)
    whole = queries.range(NAMES[0], None, None)
    there, values = whole["time"].cast(pa.int64()).to_numpy(), whole["value"].to_numpy()
    for count, upto in ((1, ROWS), (30, ROWS * 2), (5_000, ROWS + 200), (20_000, 30_000)):
        time = np.sort(T0 + random.integers(-100, upto, count) * SECOND)
        found = over(tmp_path, queries).standing(NAMES[0], time)
        assert np.array_equal(found.there, np.isin(time, there))
        at = np.searchsorted(there, time[found.there])
        assert np.array_equal(found.value[found.there], values[at])
    assert queries.most <= 700


def test_of_a_plant_without_data_nothing_is_there(tmp_path: Path) -> None:
    asked = Already(load(plant_without_sources(tmp_path), {}))
    assert not asked.standing("R101.temperature", np.array([T0, T0])).there.any()
    assert asked.newest("R101.temperature") < T0
