"""The laws of a `Stage`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from twinloop.batch import Batch
from twinloop.records import Event, Tick
from twinloop.stages.stage import Stage
from twinloop.status import severity
from twinloop.tags import TagTable
from twinloop.testing.laws import expect, hold

__all__ = ["check_stage", "example_batches"]

MakeStage = Callable[[TagTable], Stage]
_S: Final = 1_000_000_000
_START: Final = 1_800_000_000 * _S
_COLUMNS: Final = tuple(Batch.DTYPES)


def check_stage(make_stage: MakeStage, table: TagTable, batches: Sequence[Batch] = ()) -> None:
    """Hold a stage to what `twinloop.stages.stage.Stage` promises. Each batch is followed by a tick.

    Args:
        make_stage: a new stage for the table.
        table: the tags.
        batches: what to try it with; `example_batches(table)` when empty.

    Raises:
        BrokenLawError: a law is broken; the message names it.
    """
    laws = _Laws(make_stage, table, list(batches) or example_batches(table))
    hold(
        "stage",
        [
            ("the same input gives the same output, bit for bit", laws.same),
            ("it does not matter how many samples come at once", laws.cut),
            ("a restored stage goes on as if nothing had happened", laws.restored),
            ("taking a snapshot changes nothing", laws.snapshot),
            ("a batch is not changed in place", laws.in_place),
            ("an empty batch is given back empty and changes nothing", laws.empty),
            ("a status is only ever lowered, and no row is made up", laws.lowered),
            ("bytes that are no state are refused with ValueError", laws.garbage),
        ],
    )


def example_batches(table: TagTable, *, count: int = 20, seed: int = 1) -> list[Batch]:
    """Samples of all tags as plants send them: noise, steps, gaps, NaN, repeats, late and Bad ones."""
    random = np.random.default_rng(seed)
    tags = np.array([index for index, _ in table.items()], np.int32)
    made = []
    for second in range(count):
        n = int(random.integers(1, 3 * len(tags) + 1))
        since_s = second + np.sort(random.random(n)) - np.where(random.random(n) < 0.05, 5.0, 0.0)
        time = _START + np.round(since_s * _S).astype(np.int64)
        value = 20.0 + random.normal(0.0, 0.5, n)
        value[random.random(n) < 0.05] += 200.0
        value[random.random(n) < 0.05] = math.nan
        status = np.where(random.random(n) < 0.1, 0x8000_0000, 0)
        arrival = np.full(n, _START + (second + 1) * _S)
        tag = random.choice(tags, n) if len(tags) else np.empty(0, np.int32)
        batch = Batch.raw(tag=tag, time=time, value=value, status=status, arrival=arrival)
        rows = np.arange(n)
        made.append(batch.take(np.append(rows, rows[-1:]) if second % 4 == 0 else rows))
    return made


class _Laws:
    def __init__(self, make_stage: MakeStage, table: TagTable, batches: list[Batch]) -> None:
        self._make_stage, self._table = make_stage, table
        self._batches = batches

    def _make(self) -> Stage:
        return self._make_stage(self._table)

    def _run(self, stage: Stage, batches: Iterable[Batch], events: list[Event]) -> list[Batch]:
        made = []
        for batch in batches:
            made.append(stage.step(batch, events))
            stage.tick(_tick(batch), events)
        return made

    def same(self, _: Path) -> None:
        runs = []
        for _run in range(2):
            events: list[Event] = []
            made = self._run(self._make(), self._batches, events)
            runs.append(([batch.buffers() for batch in made], events))
        expect(runs[0][0] == runs[1][0], "two new stages gave other rows for the same batches")
        expect(runs[0][1] == runs[1][1], "two new stages gave other events for the same batches")

    def cut(self, _: Path) -> None:
        whole, parts = self._make(), self._make()
        for number, batch in enumerate(self._batches):
            events: tuple[list[Event], list[Event]] = ([], [])
            made = whole.step(batch, events[0])
            rows = [parts.step(batch.take(slice(i, i + 1)), events[1]) for i in range(len(batch))]
            _compare(Batch.concat(rows), made, f"batch {number} row by row differs from the whole")
            expect(events[0] == events[1], f"batch {number} row by row gave other events")
            for stage, found in zip((whole, parts), events, strict=True):
                stage.tick(_tick(batch), found)

    def restored(self, _: Path) -> None:
        stage = self._make()
        for number, batch in enumerate(self._batches):
            again = self._make()
            again.restore(stage.snapshot())
            events: tuple[list[Event], list[Event]] = ([], [])
            [made], [remade] = self._run(stage, [batch], events[0]), self._run(again, [batch], events[1])
            _compare(remade, made, f"restored before batch {number}, it gave other rows")
            expect(events[0] == events[1], f"restored before batch {number}, it gave other events")
            expect(again.snapshot() == stage.snapshot(), f"restored before batch {number}, its state differs")

    def snapshot(self, _: Path) -> None:
        stage, watched = self._make(), self._make()
        for number, batch in enumerate(self._batches):
            expect(watched.snapshot() == watched.snapshot(), "two snapshots in a row differ")
            [made], [remade] = self._run(stage, [batch], []), self._run(watched, [batch], [])
            _compare(remade, made, f"after a snapshot, batch {number} gave other rows")

    def in_place(self, _: Path) -> None:
        stage = self._make()
        for number, batch in enumerate(self._batches):
            given = Batch.from_buffers(batch.buffers())  # as from a log: read-only memory
            stage.step(given, [])
            _compare(given, batch, f"batch {number} was changed")

    def empty(self, _: Path) -> None:
        stage, events = self._make(), list[Event]()
        for batch in (None, *self._batches):
            if batch is not None:
                self._run(stage, [batch], [])
            before = stage.snapshot()
            expect(len(stage.step(Batch.empty(), events)) == 0, "rows were made of nothing")
            expect(stage.snapshot() == before, "the state changed")
        expect(not events, "events were made of nothing")

    def lowered(self, _: Path) -> None:
        stage = self._make()
        for number, batch in enumerate(self._batches):
            for row in range(len(batch)):
                one = batch.take(slice(row, row + 1))
                made = stage.step(one, [])
                where = f"batch {number}, row {row}"
                expect(len(made) <= 1, f"{where}: one row became {len(made)}")
                if len(made):
                    expect(made.tag[0] == one.tag[0], f"{where}: another tag")
                    expect(made.arrival[0] == one.arrival[0], f"{where}: another arrival")
                    kept = severity(made.status)[0] >= severity(one.status)[0]
                    expect(bool(kept), f"{where}: {one.status[0]:#x} became {made.status[0]:#x}")
            stage.tick(_tick(batch), [])

    def garbage(self, _: Path) -> None:
        for state in (b"", b"\0", b"garbage", b"\xc0", b"\x90", b"\x81\xa1a\x01"):
            try:
                self._make().restore(state)
            except ValueError:
                continue
            raise AssertionError(f"{state!r} was taken for a state")


def _tick(batch: Batch) -> Tick:
    return Tick(int(batch.arrival.max(initial=_START)), [_S])


def _compare(found: Batch, wanted: Batch, how: str) -> None:
    expect(len(found) == len(wanted), f"{how}: {len(found)} rows, not {len(wanted)}")
    for name, left, right in zip(_COLUMNS, found.buffers(), wanted.buffers(), strict=True):
        expect(left == right, f"{how}: column {name}")
