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

from twinloop.already import Already
from twinloop.batch import NO_TIME, Received
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import ConfigError, LogError, SpoolDamage, StartError
from twinloop.records import DeadLetter
from twinloop.sources.file_rows import REPLAY, Rows, read_parts
from twinloop.sources.importing import FOLDER, ImportSpool, Part
from twinloop.spooling import alone, feed
from twinloop.storedunits import check_units
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
        differ: rows of a time that the store, or an earlier row, has another value of; that one stays.
        late: of the rows taken, those older than what their tag has; not every check judges these.
        buried: rows that cannot be used, and became dead letters.
        first: where the first of each kind of those is.
        waiting: spool files left for the twin that has the data directory.
        stopped: whether the import ended there, with rows that were not looked at.
        set_aside: spool files that were found damaged meanwhile; their rows are not taken in.
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
    stopped: bool = False
    set_aside: int = 0


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
        patience_s: how long to wait, once, for a running twin that does nothing. Where the store has to
            know what waits before more can be judged, or enough waits, the import ends with that.

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
            await _take_all(taking, chosen, names)
            await taking.feed()
        except OSError as error:
            raise StartError(f"{config.data_dir / FOLDER}: {error.strerror or error}") from error
        finally:
            taking.close()
    return taking.report


async def _take_all(taking: _Taking, files: Sequence[Path], names: _Names) -> None:
    """Take the rows of files, as far as there is somebody to take them in."""
    for file in files:
        for rows in read_parts(file, names):
            if not await taking.take(rows):
                return
        taking.report.files += 1


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
        self._aside = self._spool.set_aside()
        self._already = Already(config)
        self._pending = {} if dry_run else _spans(self._spool)
        self._newest: dict[str, int] = {}
        self._is_stuck = False
        self.report = Imported()

    async def take(self, rows: Rows) -> bool:
        """Put a part of a file into the spool: what the store does not have yet, and what is of no use.

        False where the import ends there, as nobody takes in what waits.
        """
        report = self.report
        spans = {name: (int(rows.time[at[0]]), int(rows.time[at[-1]])) for name, at in self._by_tag(rows)}
        if any(self._is_pending(name, *span) for name, span in spans.items()) and not await self._fed():
            return False
        for name, span in spans.items():
            self._pending.setdefault(name, []).append(span)
        fresh, late = self._judged(rows)
        report.rows += len(rows.time)
        kept = np.flatnonzero(fresh)
        report.done = report.rows - len(kept)
        for first in range(0, len(kept), _ROWS_IN_A_FILE):
            piece = kept[first : first + _ROWS_IN_A_FILE]
            if not await self._has_room():
                return False
            self._put(rows, piece, [])
            report.taken += len(piece)
            report.late += int(late[piece].sum())
            report.done += len(piece)
            self._told(report)
        return await self._bury(rows)

    async def _bury(self, rows: Rows) -> bool:
        """Put what is of no use into the spool; as `take`."""
        report = self.report
        for letters in rows.dead:
            if not await self._has_room():
                return False
            report.rows += len(letters.letters)
            for letter in letters.letters:
                kind = Buried(letter.reason, letter.detail)
                report.buried[kind] += 1
                report.first.setdefault(kind, letter.origin)
            report.done += len(letters.letters)
            self._put(rows, np.empty(0, np.intp), letters.letters)
        self._told(report)
        return True

    async def feed(self) -> None:
        """Have what was put taken in, and say what came of it."""
        if self._dry_run:
            return
        if not self._is_stuck:
            self._is_stuck = not await feed(self._config, self._spool, self._patience_s)
        self.report.waiting = len(self._spool.waiting())
        self.report.set_aside = self._spool.set_aside() - self._aside

    def close(self) -> None:
        """Let go of the store."""
        self._already.close()

    async def _fed(self) -> bool:
        """Have what was put taken in, so that the store's answers include it; False where nobody does.

        Who did nothing for so long is not waited for again.
        """
        await self.feed()
        if self._is_stuck:
            self.report.stopped = True
            return False
        self._pending.clear()
        self._already.close()
        return True

    async def _has_room(self) -> bool:
        """Whether the spool takes another file; a full one is fed first."""
        return self._dry_run or len(self._spool.waiting()) < _FILES_IN_A_SPOOL or await self._fed()

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

    def _judged(self, rows: Rows) -> tuple[Bool, Bool]:
        """Which rows are new, neither twice in the file nor in the store, and which of those are late."""
        fresh, late = np.zeros((2, len(rows.time)), bool)
        routes = self._names.routes
        factor = np.array([route.factor for route in routes])
        offset = np.array([route.offset for route in routes])
        for name, at in self._by_tag(rows):
            self.report.tags.add(name)
            series, time = rows.series[at], rows.time[at]
            value = rows.value[at] * factor[series] + offset[series]
            first = np.searchsorted(time, time)  # of the rows of a time, the one that the file has first
            there, stored = self._already.standing(name, time)
            new = ~there & (first == np.arange(len(time)))
            alike = _equal(value, np.where(there, stored, value[first]))
            self.report.duplicates += int((~new & alike).sum())
            self.report.differ += int((~new & ~alike).sum())
            fresh[at] = new
            late[at] = new & self._is_late(name, time)
        return fresh, late

    def _is_late(self, name: str, time: npt.NDArray[np.int64]) -> Bool:
        """Of rows in ascending time, which are older than the newest their tag has by then."""
        newest = max(self._newest.get(name, NO_TIME), self._already.newest(name))
        self._newest[name] = max(newest, int(time[-1]))
        late: Bool = time < newest
        return late

    def _by_tag(self, rows: Rows) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
        """Each tag with its rows, in whatever units, which are in ascending time."""
        if not len(rows.series):
            return
        names, of_series = np.unique([name for name, _ in self._names.keys], return_inverse=True)
        tag = of_series[rows.series]
        order = np.argsort(tag, kind="stable")
        numbers, first = np.unique(tag[order], return_index=True)
        for number, at in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
            yield str(names[number]), at


def _spans(spool: ImportSpool) -> dict[str, list[tuple[int, int]]]:
    """The times of each tag that wait in a spool, of an import before this one.

    Raises:
        LogError: what waits cannot be read now.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for path in spool.waiting():
        try:
            part = spool.read(path)
        except (FileNotFoundError, SpoolDamage):
            continue
        except OSError as error:
            raise LogError(f"{path} waits, and cannot be read now: {error}") from error
        rows = part.received()
        for number, (name, _) in enumerate(part.names):
            at = rows.source_time[rows.series == number]
            if len(at):
                found.setdefault(name, []).append((int(at.min()), int(at.max())))
    return found


def _equal(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> Bool:
    equal: Bool = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal
