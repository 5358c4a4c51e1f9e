"""The laws of a `Store`, and of the `Queries` that read what it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from twinloop.batch import Batch
from twinloop.errors import QueryError, StoreBusy
from twinloop.records import Event, EventKind, Outputs
from twinloop.status import BAD, GOOD, Reason
from twinloop.stores.store import RANGE_SCHEMA, WINDOW_SCHEMA, Queries, Store
from twinloop.testing.laws import PATIENCE_S, Law, expect, hold

__all__ = ["Entries", "check_store"]

Entries = Callable[[int], Sequence[tuple[int, Outputs]]]
"""What the output log has after an offset."""
MakeStore = Callable[[Path, Sequence[str]], Store]
MakeQueries = Callable[[Path, Sequence[str], Sequence[str], Entries], Queries]
"""Queries over a directory, from names and units by index and the output log, for what is not sealed yet."""
_S: Final = 1_000_000_000
_T0: Final = 1_700_000_000 * _S
_TAG: Final = "R101.temperature"
_NAMES: Final = (
    _TAG,
    "R101.pressure",
    "R\"1.te'mp",
    "R1,2.a;b =c",
    "R1.line\nbreak",
    "Rö1.température °C",
    "R1.'; DROP TABLE x;--",
    "R1.%s{}$1",
    "R1.back\\slash",
)
_UNITS: Final = ("degC", "bar", *("m" for _ in _NAMES[2:]))
_Row = tuple[int, float, float] | tuple[int, float, float, int, int]


def check_store(make_store: MakeStore, make_queries: MakeQueries | None = None) -> None:
    """Hold a store to what `twinloop.stores.store.Store` promises, and its queries to `Queries`.

    A store that raises `StoreBusy` is given the same entries again after the time it asks for.

    Args:
        make_store: a store kept in the given directory, for tags of the given names by index; made again
            with the same directory, the same store is opened again, also where the one before was not
            closed (a crash). A store on a server can take the directory's name for its database.
        make_queries: the queries over it; without, only delivery is tried. They are asked after `close`.

    Raises:
        BrokenLawError: a law is broken; the message names it.
    """
    laws = _Laws(make_store, make_queries)
    kept: list[tuple[str, Law]] = [
        ("a new store covers nothing: `covered` is -1", laws.new),
        ("`covered` never falls and never passes what was written; `close` brings it there", laws.covers),
        ("entries without samples are covered too", laws.nothing),
        ("a store opened again covers no less than it said before", laws.opened_again),
        ("delivering again changes nothing that it covers", laws.again),
    ]
    if make_queries is not None:
        kept += [
            ("what was written is answered whole, in columns of RANGE_SCHEMA", laws.answered),
            ("delivered again, also after a crash, everything is there once", laws.once),
            ("rows come in ascending time, however late they were", laws.late),
            ("of two samples of a tag with one time the first stored wins", laws.first),
            ("start is included, end is not, and None is no bound", laws.bounds),
            ("what is no number is null and keeps its status", laws.no_number),
            ("Bad rows keep value, status code and reasons", laws.bad),
            ("any text is a tag name like any other", laws.hostile),
            (
                "windows are aligned to the epoch, use Good rows, count all, and are left out empty",
                laws.window,
            ),
            ("latest is each tag's newest row, STALE while the tag is silent", laws.latest),
            ("an empty answer has all its columns", laws.empty),
            ("an unknown tag is a QueryError", laws.unknown),
        ]
    hold("store", kept)


@dataclass
class _Bench:
    """A store and its output log, as the loop puts them together."""

    make: MakeStore
    make_queries: MakeQueries | None
    directory: Path
    log: list[tuple[int, Outputs]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = self.make(self.directory, _NAMES)

    def deliver(self, *entries: tuple[int, Outputs]) -> None:
        newest = self.log[-1][0] if self.log else -1
        self.log += [entry for entry in entries if entry[0] > newest]
        _patiently(lambda: self.store.write(entries))

    def close(self) -> None:
        _patiently(self.store.close)

    def settle(self) -> None:
        """Close and open: everything taken is in the store for good."""
        self.close()
        self.store = self.make(self.directory, _NAMES)

    def crash(self) -> None:
        """Open without closing, and deliver what the store does not have, as a restart does."""
        self.store = self.make(self.directory, _NAMES)
        self.deliver(*self.after(self.store.covered))

    def after(self, offset: int) -> list[tuple[int, Outputs]]:
        return [entry for entry in self.log if entry[0] > offset]

    def ask(self, question: Callable[[Queries], pa.Table]) -> pa.Table:
        """An answer over the settled store."""
        self.settle()
        if self.make_queries is None:
            raise AssertionError("there are no queries to ask")
        queries = self.make_queries(self.directory, _NAMES, _UNITS, self.after)
        try:
            return question(queries)
        finally:
            close = getattr(queries, "close", None)
            if close is not None:
                close()

    def latest(self, *tags: str) -> pa.Table:
        return self.ask(lambda queries: queries.latest(tags))

    def range(self, tag: str = _TAG, start: int | None = None, end: int | None = None) -> pa.Table:
        return self.ask(lambda queries: queries.range(tag, start, end))


class _Laws:
    def __init__(self, make: MakeStore, make_queries: MakeQueries | None) -> None:
        self._make, self._make_queries = make, make_queries

    def _bench(self, directory: Path) -> _Bench:
        return _Bench(self._make, self._make_queries, directory)

    def new(self, directory: Path) -> None:
        bench = self._bench(directory)
        covered = bench.store.covered
        bench.close()
        expect(covered == -1, f"it covers {covered}")

    def covers(self, directory: Path) -> None:
        bench = self._bench(directory)
        before = -1
        for offset in range(10):
            bench.deliver(_samples(offset, (0, offset, 1.0)))
            covered = bench.store.covered
            expect(before <= covered <= offset, f"after offset {offset} it went from {before} to {covered}")
            before = covered
        bench.close()
        expect(bench.store.covered == 9, f"closed after offset 9 it covers {bench.store.covered}")

    def nothing(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(*((offset, Outputs(offset, _T0)) for offset in range(5)))
        bench.settle()
        covered = bench.store.covered
        bench.close()
        expect(covered == 4, f"after empty entries up to 4 it covers {covered}")

    def opened_again(self, directory: Path) -> None:
        bench = self._bench(directory)
        for offset in range(12):
            bench.deliver(_samples(offset, (0, offset, 1.0)))
            told = bench.store.covered
            if offset % 4 == 3:
                bench.close()
                told = bench.store.covered
            bench.store = bench.make(directory, _NAMES)
            found = bench.store.covered
            expect(found >= told, f"it said {told}, and opened again {found}")
            bench.deliver(*bench.after(found))
        bench.close()

    def again(self, directory: Path) -> None:
        bench = self._bench(directory)
        entries = [_samples(offset, (0, offset, 1.0)) for offset in range(4)]
        bench.deliver(*entries)
        bench.deliver(*entries[2:])
        bench.settle()
        bench.deliver(*entries)
        bench.close()
        expect(
            bench.store.covered == 3, f"entries up to 3 came three times, and it covers {bench.store.covered}"
        )

    def answered(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, (0, 1, 85.0), (1, 1, 2.5)), _samples(1, (0, 2, 85.5)))
        found = bench.range()
        expect(found.schema.equals(RANGE_SCHEMA), f"the columns are {found.schema}")
        wanted = [
            {"tag": _TAG, "value": value, "unit": "degC", "status": GOOD, "reasons": 0, "estimate": value}
            for value in (85.0, 85.5)
        ]
        columns = found.select(list(wanted[0])).to_pylist()
        expect(columns == wanted, f"the rows are {columns}")
        expect(_seconds(found) == [1.0, 2.0], f"the times are {_seconds(found)}")
        errors = found["estimate_std"].to_pylist()
        expect(all(abs(each - 0.5) < 1e-6 for each in errors), f"deviations of 0.5 are {errors}")

    def once(self, directory: Path) -> None:
        bench = self._bench(directory)
        for offset in range(20):
            bench.deliver(_samples(offset, (0, offset, float(offset))))
            bench.deliver(*bench.log[-3:])
            if offset % 3 == 0:
                bench.settle()
            if offset % 5 == 0:
                bench.crash()
        found = _values(bench.range())
        expect(found == [float(each) for each in range(20)], f"the values are {found}")

    def late(self, directory: Path) -> None:
        bench = self._bench(directory)
        late = (GOOD, int(Reason.LATE))
        bench.deliver(_samples(0, (0, 5, 5.0), (0, 1, 1.0, *late)))
        bench.settle()
        bench.deliver(_samples(1, (0, 3, 3.0, *late), (0, 0, 0.0, *late)))
        found = _values(bench.range())
        expect(found == [0.0, 1.0, 3.0, 5.0], f"the values are {found}")
        newest = _values(bench.latest(_TAG))
        expect(newest == [5.0], f"the latest is {newest}")

    def first(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, (0, 1, 1.0), (0, 1, 1.5)))
        bench.settle()
        bench.deliver(_samples(1, (0, 1, 2.0)))
        found = _values(bench.range())
        expect(found == [1.0], f"the values are {found}")

    def bounds(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, *((0, at, float(at)) for at in range(5))))
        for start, end in ((None, None), (1, 3), (None, 2), (3, None), (2, 2), (4, 1)):
            found = _values(bench.range(_TAG, _at(start), _at(end)))
            wanted = [float(at) for at in range(5) if at >= (start or 0) and (end is None or at < end)]
            expect(found == wanted, f"[{start}, {end}) s gave {found}")

    def no_number(self, directory: Path) -> None:
        bench = self._bench(directory)
        odd = [float("nan"), float("inf"), float("-inf")]
        rows = [(0, at, value, BAD, int(Reason.NON_FINITE)) for at, value in enumerate(odd)]
        bench.deliver(_samples(0, *rows))
        found = bench.range()
        expect(_values(found) == [None] * 3, f"the values are {_values(found)}")
        expect(found["status"].to_pylist() == [BAD] * 3, f"the statuses are {found['status'].to_pylist()}")

    def bad(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, (0, 1, 500.0, 0x803C_0000, 0x8000_0001)))
        row = bench.range().select(["value", "status", "reasons"]).to_pylist()
        wanted = [{"value": 500.0, "status": 0x803C_0000, "reasons": 0x8000_0001}]
        expect(row == wanted, f"the row is {row}")

    def hostile(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, *((index, 1, float(index)) for index in range(len(_NAMES)))))
        for index, name in enumerate(_NAMES):
            found = bench.range(name).select(["tag", "value"]).to_pylist()
            expect(found == [{"tag": name, "value": float(index)}], f"range of {name!r} gave {found}")
            found = bench.latest(name)["tag"].to_pylist()
            expect(found == [name], f"latest of {name!r} gave {found}")

    def window(self, directory: Path) -> None:
        bench = self._bench(directory)
        begin = -(_T0 // _S) % 10  # the first whole ten seconds of the epoch
        rows = [(0, begin + at, value, status, 0) for at, value, status in _WINDOWED]
        bench.deliver(_samples(0, *rows))
        found = bench.ask(lambda queries: queries.window(_TAG, 10 * _S, None, None))
        expect(found.schema.equals(WINDOW_SCHEMA), f"the columns are {found.schema}")
        expect(_seconds(found) == [begin, begin + 20.0], f"the windows begin at {_seconds(found)} s")
        told = found.drop_columns(["time"]).to_pylist()
        wanted = [
            {"mean": 2.0, "min": 1.0, "max": 3.0, "count": 4, "good_fraction": 0.5},
            {"mean": None, "min": None, "max": None, "count": 1, "good_fraction": 0.0},
        ]
        expect(told == wanted, f"the windows are {told}")
        wide = bench.ask(lambda queries: queries.window(_TAG, 10 * _S, None, None, uncertain_as_good=True))
        expect(wide["max"].to_pylist()[0] == 9.0, "uncertain_as_good does not widen max")
        expect(wide["good_fraction"].to_pylist()[0] == 0.5, "uncertain_as_good changes good_fraction")

    def latest(self, directory: Path) -> None:
        bench = self._bench(directory)
        silence = Event(_T0 + 9 * _S, _TAG, EventKind.STATUS, "Good", "Bad", "STALE")
        bench.deliver(_samples(0, (0, 1, 1.0), (0, 2, 2.0), (1, 1, 5.0)))
        found = bench.latest()
        rows = dict(zip(found["tag"].to_pylist(), _values(found), strict=True))
        expect(rows == {_TAG: 2.0, "R101.pressure": 5.0}, f"the latest rows are {rows}")
        bench.deliver((1, Outputs(1, _T0 + 9 * _S, events=[silence])))
        [row] = bench.latest(_TAG).to_pylist()
        expect(bool(row["reasons"] & Reason.STALE), "a silent tag is not STALE")
        expect(row["status"] >> 30 == 2, f"a silent tag has the status {row['status']:#x}")
        bench.deliver(_samples(2, (0, 10, 3.0)))
        [row] = bench.latest(_TAG).to_pylist()
        expect(row["status"] == GOOD, "a tag that is heard again is still STALE")

    def empty(self, directory: Path) -> None:
        bench = self._bench(directory)
        bench.deliver(_samples(0, (0, 0, 1.0)))
        found = bench.range("R101.pressure")
        expect(found.equals(RANGE_SCHEMA.empty_table()), f"range gave {found}")
        found = bench.ask(lambda queries: queries.window("R101.pressure", _S, None, None))
        expect(found.equals(WINDOW_SCHEMA.empty_table()), f"window gave {found}")
        found = bench.latest("R101.pressure")
        expect(found.equals(RANGE_SCHEMA.empty_table()), f"latest gave {found}")

    def unknown(self, directory: Path) -> None:
        bench = self._bench(directory)
        questions: dict[str, Callable[[Queries], pa.Table]] = {
            "range": lambda queries: queries.range("R101.temprature", None, None),
            "latest": lambda queries: queries.latest(["R101.temprature"]),
            "window": lambda queries: queries.window("R101.temprature", _S, None, None),
        }
        for name, question in questions.items():
            try:
                bench.ask(question)
            except QueryError as error:
                expect(_TAG in str(error), f"{name} does not name the nearest tag: {error}")
                continue
            raise AssertionError(f"{name} answered for a tag that is not known")


_WINDOWED: Final = (
    (0, 1.0, GOOD), (9, 3.0, GOOD), (5, 9.0, 0x4000_0000), (6, 99.0, BAD), (29, 7.0, BAD),
)  # fmt: skip


def _patiently(step: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return step()
        except StoreBusy as busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(busy.retry_after_s)


def _at(second: float | None) -> int | None:
    return None if second is None else _T0 + round(second * _S)


def _samples(offset: int, *rows: _Row) -> tuple[int, Outputs]:
    """An entry of rows of (tag, seconds, value[, status, reasons])."""
    full = [(*row, GOOD, 0)[:5] for row in rows]
    tag, at, value, status, reasons = zip(*full, strict=True)
    when = [_T0 + round(each * _S) for each in at]
    batch = Batch.of(
        tag=tag,
        time=when,
        value=value,
        status=status,
        reasons=reasons,
        arrival=when,
        estimate=value,
        estimate_std=[0.5] * len(full),
        rate=[0.0] * len(full),
    )
    return offset, Outputs(offset, _T0, batch.buffers())


def _seconds(table: pa.Table) -> list[float]:
    return [(each - _T0) / _S for each in table["time"].cast(pa.int64()).to_pylist()]


def _values(table: pa.Table) -> list[float | None]:
    made: list[float | None] = table["value"].to_pylist()
    return made
