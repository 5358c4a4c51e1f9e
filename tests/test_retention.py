"""Samples go when they are as old as the plant file says, and their minutes stay if it says so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.outputs import NAMES, SECOND, UNITS, batch
from twinloop.records import Event, EventKind, Outputs
from twinloop.stores.local import LocalStore
from twinloop.stores.minutes import MINUTE_NS
from twinloop.stores.queries import LocalQueries
from twinloop.stores.retention import Retention

TAG = NAMES[0]
HOUR = 3600 * SECOND


def entry(offset: int, now: int, age_h: float) -> tuple[int, Outputs]:
    """Ten samples a second apart, of some hours ago, and an event."""
    at = (now - int(age_h * HOUR)) // MINUTE_NS * MINUTE_NS
    rows = batch([(0, each, float(each)) for each in range(10)])
    rows = rows.with_columns(time=rows.time - rows.time[0] + at)
    event = Event(at, "field", EventKind.LINK_UP, after=str(offset))
    return offset, Outputs(offset, at, rows.buffers(), fills=rows.buffers(), events=[event])


def kept(directory: Path, retention: Retention | None) -> tuple[LocalStore, LocalQueries]:
    now = time.time_ns()
    store = LocalStore(directory, NAMES, retention=retention)
    for offset, age_h in enumerate([5.0, 4.0, 3.0, 0.5, 0.25]):
        store.write([entry(offset, now, age_h)])
        store.seal()
    return store, LocalQueries(directory, NAMES, UNITS, lambda _after: [])


@pytest.mark.parametrize("minutes", [True, False])
def test_old_samples_go_and_their_minutes_stay_if_asked_for(tmp_path: Path, minutes: bool) -> None:  # noqa: FBT001
    store, queries = kept(tmp_path, Retention(2 * HOUR, minutes=minutes))
    assert len(queries.range(TAG, None, None)) == len(queries.fills(TAG, None, None)) == 20
    assert len(queries.events(None, None)) == 5
    windows = queries.window(TAG, MINUTE_NS, None, None)
    assert windows["count"].to_pylist() == [10] * (5 if minutes else 2)
    assert windows["mean"].to_pylist() == [4.5] * (5 if minutes else 2)
    assert store.covered == 4


def test_everything_stays_where_nothing_is_said(tmp_path: Path) -> None:
    _, queries = kept(tmp_path, None)
    assert len(queries.range(TAG, None, None)) == 50


def test_the_newest_segment_stays_however_old_it_is(tmp_path: Path) -> None:
    """Else a plant that stood still for long would forget how far its store had come."""
    store, queries = kept(tmp_path, Retention(1))
    assert store.covered == 4
    assert LocalStore(tmp_path, NAMES).covered == 4
    assert len(queries.range(TAG, None, None)) == 10


def test_a_merge_across_what_is_gone_keeps_its_minutes(tmp_path: Path) -> None:
    now = time.time_ns()
    store = LocalStore(tmp_path, NAMES, retention=Retention(2 * HOUR))
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    for offset in range(30):
        age_h = 50.0 + offset if offset in {4, 5} else 0.9 - offset * 0.02  # two seals of imported history
        store.write([entry(offset, now, age_h)])
        store.seal()
        assert sum(queries.window(TAG, MINUTE_NS, None, None)["count"].to_pylist()) == 10 * (offset + 1)
    assert store.stats.merges > 1
    assert len(queries.range(TAG, None, None)) == 280


def test_damage_after_what_is_gone_takes_nothing_that_is_kept_with_it(tmp_path: Path) -> None:
    now = time.time_ns()
    entries = [entry(offset, now, age_h) for offset, age_h in enumerate([5.0, 4.0, 3.0, 0.5, 0.25, 0.1])]
    store = LocalStore(tmp_path, NAMES, retention=Retention(2 * HOUR))
    for each in entries:
        store.write([each])
        store.seal()
    path = tmp_path / f"samples-{5:016d}-{5:016d}.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    store = LocalStore(tmp_path, NAMES, redeliverable_from=5)
    assert store.covered == 4
    store.write(entries[5:])
    store.close()
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    assert sum(queries.window(TAG, MINUTE_NS, None, None)["count"].to_pylist()) == 60
    assert len(queries.events(None, None)) == 6


def test_a_host_clock_that_runs_years_ahead_deletes_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    store = LocalStore(tmp_path, NAMES, retention=Retention(24 * HOUR))
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * 365 * 24 * HOUR)
    for offset, age_h in enumerate([5.0, 4.0, 3.0]):
        store.write([entry(offset, now, age_h)])
        store.seal()
    assert len(LocalQueries(tmp_path, NAMES, UNITS, lambda _after: []).range(TAG, None, None)) == 30
