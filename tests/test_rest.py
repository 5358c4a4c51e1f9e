"""What questions keep of the outputs not yet sealed: never seen in an answer, only in how long one takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.records import DeadLetter, DeadReason, Event, EventKind, Outputs
from twinloop.stores import rest
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.reading import Unsealed

SAMPLE = st.tuples(st.integers(0, 1), st.integers(-90, 90), st.floats(-9, 9))
QUESTIONS: dict[str, Callable[[LocalQueries, str], pa.Table]] = {
    "range": lambda asked, tag: asked.range(tag, None, None),
    "fills": lambda asked, tag: asked.fills(tag, None, None),
    "window": lambda asked, tag: asked.window(tag, 7 * SECOND, None, None),
    "minutes": lambda asked, tag: asked.window(tag, 60 * SECOND, None, None),
    "events": lambda asked, _: asked.events(None, None),
    "page": lambda asked, _: asked.page("events", None, None, 3).rows,
    "quality": lambda asked, _: asked.quality(60 * SECOND, T0 - 120 * SECOND, T0 + 120 * SECOND),
}
STEP = st.one_of(
    st.lists(SAMPLE, min_size=1, max_size=6),
    st.sampled_from([*QUESTIONS, "seal", "trim"]),
)


def with_event(entry: tuple[int, Outputs]) -> tuple[int, Outputs]:
    offset, outputs = entry
    event = Event(
        time=T0 - offset % 3, subject=NAMES[0], kind=EventKind.STATUS, before="", after="", why=str(offset)
    )
    return offset, replace(outputs, events=[event])


@settings(max_examples=150)
@given(steps=st.lists(STEP, max_size=30), kept_bytes=st.sampled_from([0, 3_000, 1 << 20]))
def test_an_answer_is_that_of_someone_who_never_asked_before(
    steps: list[list[tuple[int, int, float]] | str], kept_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rest, "_KEPT_BYTES", kept_bytes)
        log, store = OutputLog(), LocalStore(Path(folder), NAMES)
        asked = LocalQueries(Path(folder), NAMES, UNITS, log.after)
        for offset, step in enumerate([*steps, *QUESTIONS]):
            if isinstance(step, list):
                log.entries.append(with_event(samples(log.next, *step)))
            elif step == "seal":
                store.write(log.after(store.covered))
                store.seal()
            elif step == "trim":
                log.trim(store.covered)
            else:
                fresh = LocalQueries(Path(folder), NAMES, UNITS, log.after)
                question, tag = QUESTIONS[step], NAMES[offset % 2]
                assert question(asked, tag).equals(question(fresh, tag))


def test_entries_come_in_portions_by_their_bytes_whatever_is_in_them() -> None:
    letter = DeadLetter(T0, "field", "a/b", bytes(1 << 20), DeadReason.UNDECODABLE, "no JSON")
    entries = [(offset, Outputs(offset, T0, dead=[letter])) for offset in range(100)]
    portions = list(Unsealed(lambda after: entries[after + 1 :], -1).portions())
    assert [entry for portion in portions for entry in portion] == entries
    assert max(map(len, portions)) <= 17


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
