"""History from files into the log, as records that are not live.

So it is validated, estimated and stored like all else, and what is older than a tag's newest sample is LATE
and leaves the present alone. Where no twin runs, this process takes the data directory and does it itself;
where one runs, the rows are left in a spool that it watches. A time the store has already keeps what it has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twinloop.batch import NO_TIME, Received
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import ConfigError, QueryError, StartError
from twinloop.history import open_queries
from twinloop.records import DeadLetter
from twinloop.sources.file_rows import REPLAY, Rows, read_parts
from twinloop.sources.importing import FOLDER, ImportSpool, Part
from twinloop.spooling import alone, feed
from twinloop.storedunits import check_units
from twinloop.stores.store import RANGE_SCHEMA, Queries
from twinloop.tags import Refusal, Resolver, Route
from twinloop.workplace import borrowed_workplace, holder_of, workplace

__all__ = ["Buried", "Imported", "import_files", "rows_in"]

_ROWS_IN_A_FILE: Final = 10_000
_FILES_IN_A_SPOOL: Final = 200
_PIECE: Final = 1 << 20
_ENDS: Final = (".parquet", ".pq", ".csv")

Bool = npt.NDArray[np.bool_]


class Buried(NamedTuple):
    """Rows that cannot be used, by what they have in common; where the first of them is."""

    reason: str
    detail: str


@dataclass(slots=True)
class Imported:
    """What an import did.

    Attributes:
        files, rows: read.
        done: rows worked off, for a bar.
        tags: how many tags the rows are of.
        taken: rows that went into the log, or wait in the spool.
        duplicates: rows that were there already.
        differ: rows of a time that the store has another value of; it keeps that.
        late: of the rows taken, those older than what their tag has; not every check judges these.
        buried: rows that cannot be used, and became dead letters.
        first: where the first of each kind of those is.
        waiting: spool files left for the twin that has the data directory.
    """

    files: int = 0
    rows: int = 0
    done: int = 0
    taken: int = 0
    duplicates: int = 0
    differ: int = 0
    late: int = 0
    tags: set[str] = field(default_factory=set)
    buried: Counter[Buried] = field(default_factory=Counter)
    first: dict[Buried, str] = field(default_factory=dict)
    waiting: int = 0


async def import_files(
    path: Path,
    env: Mapping[str, str],
    files: Sequence[Path],
    *,
    dry_run: bool = False,
    told: Callable[[Imported], None] = lambda _: None,
    patience_s: float = 30.0,
) -> Imported:
    """Take rows of files into a plant's history.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from.
        files: CSV or Parquet with `time`, `tag`, `value` and, if they like, `status`, or exports; directories
            are taken for the files in them.
        dry_run: only say what would be done; nothing is written.
        told: called now and then with how far it has come.
        patience_s: how long to wait for a running twin that does nothing.

    Raises:
        ConfigError: the plant file or a file cannot be used.
        StartError: another import is under way, or the disk would not take the spool.
        LogError: a log or the dictionary cannot be read or written.
        QueryError: the store cannot be read.
    """
    config = load(path, env)
    chosen = list(_files(files))
    if not dry_run and not holder_of(config.data_dir):
        with workplace(config) as owned:  # there is a data directory then, and all tags have their numbers
            check_units(owned)
    with alone(config.data_dir), borrowed_workplace(config) as place:
        names = _Names(Resolver(place.table, {REPLAY: str}))
        taking = _Taking(config, names, told, patience_s, dry_run=dry_run)
        try:
            for file in chosen:
                for rows in read_parts(file, names):
                    await taking.take(rows)
                taking.report.files += 1
            await taking.feed()
        except OSError as error:
            raise StartError(f"{config.data_dir / FOLDER}: {error.strerror or error}") from error
        finally:
            taking.close()
    return taking.report


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix.lower() in _ENDS)
            if not found:
                raise ConfigError(f"{path}: no file in it ends in {', '.join(_ENDS)}")
            yield from found
        elif not path.is_file():
            raise ConfigError(f"{path}: no such file")
        else:
            yield path


def rows_in(paths: Sequence[Path]) -> int:
    """About how many rows there are in files and directories of files; none in what cannot be read."""
    return sum(_rows_in(path) for path in _files(paths))


def _rows_in(path: Path) -> int:
    with suppress(OSError, pa.ArrowException):
        if path.suffix.lower() != ".csv":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as file:
            return max(sum(piece.count(b"\n") for piece in iter(lambda: file.read(_PIECE), b"")) - 1, 0)
    return 0


class _Names:
    """An `Intake` that numbers the tags and units of files, and remembers where they lead."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._numbers: dict[tuple[str, str], int] = {}
        self.keys: list[tuple[str, str]] = []
        self.routes: list[Route] = []

    def series(self, address: str, unit: str) -> int | Refusal:
        """See `Intake.series`; the number means something here only."""
        key = (address, unit)
        if key not in self._numbers:
            answer = self._resolver.resolve((REPLAY, address, unit))
            if isinstance(answer, Refusal):
                return answer
            self._numbers[key] = len(self.keys)
            self.keys.append(key)
            self.routes.append(answer)
        return self._numbers[key]

    def now_ns(self) -> int:
        """See `Intake.now_ns`."""
        return time.time_ns()


class _Taking:
    """An import under way."""

    def __init__(
        self,
        config: PlantConfig,
        names: _Names,
        told: Callable[[Imported], None],
        patience_s: float,
        *,
        dry_run: bool,
    ) -> None:
        self._config, self._names, self._told = config, names, told
        self._patience_s, self._dry_run = patience_s, dry_run
        self._spool = ImportSpool(config.data_dir)
        self._queries: Queries | None = None
        self._pending: dict[str, list[tuple[int, int]]] = {}
        self._newest: dict[str, int] | None = None
        self.report = Imported()

    async def take(self, rows: Rows) -> None:
        """Put a part of a file into the spool: what the store does not have yet, and what is of no use."""
        report = self.report
        spans = {name: (int(rows.time[at[0]]), int(rows.time[at[-1]])) for _, name, at in self._by_tag(rows)}
        if any(self._is_pending(name, *span) for name, span in spans.items()):
            await self.feed()
        for name, span in spans.items():
            self._pending.setdefault(name, []).append(span)
        fresh = self._fresh(rows)
        report.rows += len(rows.time)
        report.taken += int(fresh.sum())
        kept = np.flatnonzero(fresh)
        report.done = report.rows - len(kept)
        for first in range(0, len(kept), _ROWS_IN_A_FILE):
            piece = kept[first : first + _ROWS_IN_A_FILE]
            self._put(rows, piece, [])
            report.done += len(piece)
            self._told(report)
            await self._feed_when_full()
        for letters in rows.dead:
            report.rows += len(letters.letters)
            for letter in letters.letters:
                kind = Buried(letter.reason, letter.detail)
                report.buried[kind] += 1
                report.first.setdefault(kind, letter.origin)
            report.done += len(letters.letters)
            self._put(rows, kept[:0], letters.letters)
            await self._feed_when_full()
        self._told(report)

    async def feed(self) -> None:
        """Have what was put taken in; what the store says afterwards includes it."""
        if not self._dry_run:
            await feed(self._config, self._spool, self._patience_s)
            self.report.waiting = len(self._spool.waiting())
        self._pending.clear()
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        close = getattr(self._queries, "close", None)
        if close is not None:
            close()
        self._queries = None

    async def _feed_when_full(self) -> None:
        if not self._dry_run and len(self._spool.waiting()) >= _FILES_IN_A_SPOOL:
            await self.feed()

    def _put(self, rows: Rows, picked: npt.NDArray[np.intp], dead: list[DeadLetter]) -> None:
        if self._dry_run:
            return
        used, series = np.unique(rows.series[picked], return_inverse=True)
        at = rows.time[picked]
        nothing = np.full(len(picked), NO_TIME)
        received = Received.of(
            series=series,
            source_time=at,
            server_time=nothing,
            arrival_time=np.minimum(at, self._names.now_ns()),  # none that would make a tag fresh for long
            value=rows.value[picked],
            status=rows.status[picked],
            reasons=rows.reasons[picked],
        )
        names = [self._names.keys[number] for number in used.tolist()]
        self._spool.put(Part(names, received.buffers(), dead))

    def _is_pending(self, name: str, low: int, high: int) -> bool:
        """Whether rows of a tag and of that time may wait in the spool, of which the store knows nothing."""
        return any(low <= last and first <= high for first, last in self._pending.get(name, ()))

    def _fresh(self, rows: Rows) -> Bool:
        """Which rows are new: neither twice in the file nor in the store."""
        fresh = np.ones(len(rows.time), bool)
        for number, name, at in self._by_tag(rows):
            self.report.tags.add(name)
            route = self._names.routes[number]
            time, value = rows.time[at], rows.value[at] * route.factor + route.offset
            same = np.zeros(len(at), bool)
            same[1:] = (time[1:] == time[:-1]) & _equal(value[1:], value[:-1])
            stored_time, stored = self._stored(name, int(time[0]), int(time[-1]))
            place = np.minimum(np.searchsorted(stored_time, time), max(len(stored_time) - 1, 0))
            there = np.zeros(len(at), bool)
            if len(stored_time):
                there = stored_time[place] == time
                alike = there & _equal(stored[place], value)
                self.report.differ += int((there & ~alike & ~same).sum())
                same |= alike
            self.report.duplicates += int(same.sum())
            fresh[at] = ~(same | there)
            self._count_late(name, time[fresh[at]])
        return fresh

    def _count_late(self, name: str, fresh: npt.NDArray[np.int64]) -> None:
        """Of new rows in ascending time, those that are older than the newest their tag has by then."""
        if self._newest is None:
            queries = self._asked()
            rows = queries.latest(()) if queries else RANGE_SCHEMA.empty_table()
            times = rows["time"].cast(pa.int64()).to_pylist()
            self._newest = dict(zip(rows["tag"].to_pylist(), times, strict=True))
        newest = self._newest.get(name, NO_TIME)
        self.report.late += int((fresh < newest).sum())
        self._newest[name] = max(newest, int(fresh[-1])) if len(fresh) else newest

    def _by_tag(self, rows: Rows) -> Iterator[tuple[int, str, npt.NDArray[np.intp]]]:
        """For each series its number, its tag and its rows, which are in ascending time."""
        if not len(rows.series):
            return
        order = np.argsort(rows.series, kind="stable")
        numbers, first = np.unique(rows.series[order], return_index=True)
        for number, at in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
            yield number, self._names.keys[number][0], at

    def _asked(self) -> Queries | None:
        """The store's answers; None of a plant that has no data yet."""
        if self._queries is None:
            with suppress(QueryError):
                self._queries = open_queries(self._config)
        return self._queries

    def _stored(
        self, name: str, low: int, high: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        nothing = np.empty(0, np.int64), np.empty(0)
        queries = self._asked()
        if queries is None:
            return nothing
        try:
            found = queries.range(name, low, high + 1)
        except QueryError:
            if name in queries.latest(())["tag"].to_pylist():
                raise
            return nothing  # a tag the twin that runs does not know yet
        return found["time"].cast(pa.int64()).to_numpy(), found["value"].to_numpy()


def _equal(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> Bool:
    equal: Bool = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal
