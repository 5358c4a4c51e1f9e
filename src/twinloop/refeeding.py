"""Dead letters fed again: those that a mended plant file can read become samples, once each.

Where no twin runs, this process takes the data directory and feeds them itself; where one runs, they are
left in the spool that it watches.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from twinloop.config.models import OpcuaSourceConfig, PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import SpoolDamage, StartError
from twinloop.history import open_queries
from twinloop.linking import build_readers
from twinloop.records import DeadLetter, DeadReason
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.refeed import FOLDER, Again, Ledger, Reader, Spool, key_of
from twinloop.spooling import alone, feed
from twinloop.stores.influx.store import SOURCE
from twinloop.workplace import borrowed_workplace

__all__ = ["Refed", "Selection", "Stay", "refeed"]

_PART: Final = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters to feed; those of [start, end) that fit everything given.

    Attributes:
        sources, reasons: any of these; empty for all.
        origins: topics, `*` for any text; empty for all.
        start_ns, end_ns: by arrival; None is open.
    """

    sources: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None

    def has(self, letter: DeadLetter) -> bool:
        """Whether a letter fits; its time was asked for before."""
        return (
            (not self.sources or letter.source in self.sources)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.origins or any(fnmatch.fnmatchcase(letter.origin, each) for each in self.origins))
        )


@dataclass(frozen=True, slots=True, order=True)
class Stay:
    """Letters that stay dead, by what they have in common; why the first of them does."""

    source: str
    origin: str
    reason: str
    why: str = field(default="", compare=False)


@dataclass(slots=True)
class Refed:
    """What a re-feeding did.

    Attributes:
        letters: dead letters that fit the selection.
        readable: how many of them can be read whole now.
        samples: how many samples those hold.
        stays: how many cannot, by what they have in common.
        fed: how many have become samples.
        became: how many samples those were; fewer rows where some were stored already.
        waiting: how many wait in the spool for the running twin.
        refused: how many the running twin could not read: it has the plant file as it was.
        set_aside: spool files that were found damaged meanwhile; their letters stay dead.
    """

    letters: int = 0
    readable: int = 0
    samples: int = 0
    stays: Counter[Stay] = field(default_factory=Counter)
    fed: int = 0
    became: int = 0
    waiting: int = 0
    refused: int = 0
    set_aside: int = 0


async def refeed(
    path: Path,
    env: Mapping[str, str],
    selection: Selection,
    *,
    dry_run: bool = False,
    patience_s: float = 30.0,
) -> Refed:
    """Put stored dead letters through the decoders of the plant file as it is now.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from.
        selection: which letters.
        dry_run: only say what would be done; nothing is written.
        patience_s: how long to wait for a running twin that does nothing.

    Raises:
        ConfigError: the plant file cannot be used.
        QueryError: there is no data yet.
        StartError: another re-feeding is under way, or the disk would not take the spool.
        LogError: a log or the dictionary cannot be read or written.
    """
    config = load(path, env)
    if dry_run:
        return _sorted_out(config, selection, lambda _: None, set())
    with alone(config.data_dir):
        spool = Spool(config.data_dir)
        aside = spool.set_aside()
        keys = _waiting(spool)  # of a re-feeding that was ended before it was done
        met = set(keys)

        def put(letter: DeadLetter) -> None:
            keys.add(key_of(letter))
            spool.put(letter)

        try:
            report = _sorted_out(config, selection, put, met)
            spool.flush()
        except OSError as error:
            raise StartError(f"{config.data_dir / FOLDER}: {error.strerror or error}") from error
        await feed(config, spool, patience_s)
        done = Ledger(config.data_dir).fed(sorted(keys))
        waiting = _waiting(spool)
        report.fed, report.became = len(done), sum(done.values())
        report.waiting = len(keys & waiting)
        report.refused = len(keys - waiting - done.keys())
        report.set_aside = spool.set_aside() - aside
        return report


def _waiting(spool: Spool) -> set[bytes]:
    """The keys of the letters in the spool; a file that goes meanwhile, or is none, has none."""
    keys: set[bytes] = set()
    for path in spool.waiting():
        with suppress(FileNotFoundError, SpoolDamage):
            keys.update(key_of(letter) for letter in spool.read(path))
    return keys


def _sorted_out(
    config: PlantConfig, selection: Selection, put: Callable[[DeadLetter], None], met: set[bytes]
) -> Refed:
    """Read the letters that were not met yet: `put` takes those that can be read, the others are counted."""
    report = Refed()
    queries = open_queries(config)
    try:
        with borrowed_workplace(config) as place:
            readers = build_readers(place)

            def take(rows: pa.Table) -> None:
                for letters in _fresh(rows, selection, met):
                    report.letters += len(letters)
                    for letter, again in _again(config, readers, letters):
                        if again.samples:
                            report.readable += 1
                            report.samples += again.samples
                            put(letter)
                        else:
                            stay = Stay(letter.source, letter.origin, letter.reason, again.detail)
                            report.stays[stay] += 1

            queries.each_dead(selection.start_ns, selection.end_ns, take)
    finally:
        queries.close()
    return report


def _fresh(rows: pa.Table, selection: Selection, met: set[bytes]) -> Iterator[list[DeadLetter]]:
    """The letters of some rows that fit and were not met before, a part at a time."""
    for first in range(0, len(rows), _PART):
        part = rows.slice(first, _PART)
        names = ("source", "origin", "raw", "reason", "detail")
        columns = (part["time"].cast(pa.int64()), *(part[name] for name in names))
        letters = []
        for time_ns, source, origin, raw, reason, detail in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            letter = DeadLetter(time_ns, source, origin, raw, DeadReason(reason), detail)
            key = key_of(letter)
            if key not in met and selection.has(letter):
                met.add(key)
                letters.append(letter)
        yield letters


def _again(
    config: PlantConfig, readers: Mapping[str, Reader], letters: list[DeadLetter]
) -> Iterator[tuple[DeadLetter, Again]]:
    for source in sorted({letter.source for letter in letters}):
        own = [letter for letter in letters if letter.source == source]
        reader = readers.get(source)
        if reader is None:
            why = Again(0, _why_not(config, source))
            yield from ((letter, why) for letter in own)
        else:
            yield from zip(own, reader.read_again(own)[1], strict=True)


def _why_not(config: PlantConfig, source: str) -> str:
    """Why letters of a source cannot be read again at all."""
    if source == REPLAY:
        return "a row of a file: mend the plant file or the file, and `twinloop replay` the file again"
    if source == SOURCE:
        return "a sample that InfluxDB refused: what it did not like is in `query dead`, and the line too"
    if isinstance(config.sources.get(source), OpcuaSourceConfig):
        return "an OPC UA value that is no number: no plant file makes it one"
    return f"the plant file has no source {source!r} now"
