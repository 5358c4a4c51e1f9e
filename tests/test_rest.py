"""What questions keep of the outputs not yet sealed: never seen in an answer, only in how long one takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.records import Event, EventKind, Outputs
from twinloop.stores import rest
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

SAMPLE = st.tuples(st.integers(0, 1), st.integers(-90, 90), st.floats(-9, 9))
STEP = st.one_of(
    st.lists(SAMPLE, min_size=1, max_size=6),
    st.sampled_from(["range", "window", "events", "seal", "trim"]),
)


def with_event(entry: tuple[int, Outputs]) -> tuple[int, Outputs]:
    offset, outputs = entry
    event = Event(
        time=T0 - offset % 3, subject=NAMES[0], kind=EventKind.STATUS, before="", after="", why=str(offset)
    )
    return offset, replace(outputs, events=[event])


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=30), kept_rows=st.sampled_from([0, 5, 1000]))
def test_an_answer_is_that_of_someone_who_never_asked_before(
    steps: list[list[tuple[int, int, float]] | str], kept_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rest, "_KEPT_ROWS", kept_rows)
        log, store = OutputLog(), LocalStore(Path(folder), NAMES)
        asked = LocalQueries(Path(folder), NAMES, UNITS, log.after)
        for offset, step in enumerate([*steps, "range", "window", "events"]):
            fresh = LocalQueries(Path(folder), NAMES, UNITS, log.after)
            if isinstance(step, list):
                log.entries.append(with_event(samples(log.next, *step)))
            elif step == "seal":
                store.write(log.after(store.covered))
                store.seal()
            elif step == "trim":
                log.trim(store.covered)
            elif step == "events":
                assert asked.events(None, None).equals(fresh.events(None, None))
            elif step == "range":
                assert asked.range(NAMES[offset % 2], None, None).equals(
                    fresh.range(NAMES[offset % 2], None, None)
                )
            else:
                assert asked.window(NAMES[offset % 2], 7 * SECOND, None, None).equals(
                    fresh.window(NAMES[offset % 2], 7 * SECOND, None, None)
                )


def test_a_question_reads_only_what_came_since_the_last_one(tmp_path: Path) -> None:
    log = OutputLog([samples(offset, (0, offset, 1.0)) for offset in range(50)])
    read: list[int] = []

    def after(offset: int) -> list[tuple[int, Outputs]]:
        read.append(offset)
        return log.after(offset)

    asked = LocalQueries(tmp_path, NAMES, UNITS, after)
    assert len(asked.range(NAMES[0], None, None)) == 50
    log.entries.append(samples(50, (0, 50, 1.0)))
    assert len(asked.range(NAMES[0], None, None)) == 51
    assert asked.window(NAMES[0], 3600 * SECOND, None, None)["count"].to_pylist() == [51]
    assert read == [-1, 49, 50]


def test_what_was_missing_of_the_log_once_is_looked_for_again(tmp_path: Path) -> None:
    log = OutputLog([samples(offset, (0, offset, 1.0)) for offset in range(10)])
    taken, log.entries[4:6] = log.entries[4:6], []
    asked = LocalQueries(tmp_path, NAMES, UNITS, log.after)
    assert len(asked.range(NAMES[0], None, None)) == 8
    log.entries[4:4] = taken
    assert len(asked.range(NAMES[0], None, None)) == 10
