"""A recorded log folded again into a directory of its own: the flight recorder played back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from twinloop.build import build_fold
from twinloop.config.expand import tags_of
from twinloop.config.plantfile import load
from twinloop.errors import ConfigError, LogError, QueryError
from twinloop.log.archive import first_archived
from twinloop.log.dictionary import Dictionary
from twinloop.log.files import first_offset, log_files, newest_entry
from twinloop.log.local import LocalLog
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.checkpoint_file import Header
from twinloop.loop.fold import Fold
from twinloop.loop.refold import AT_ONCE, Folded, Span, recorded, refold
from twinloop.stores.local import LocalStore
from twinloop.tags import TagTable
from twinloop.workplace import Workplace

__all__ = ["REPORT", "Recording", "ReplayReport", "read_report", "replay_log"]

_log = logging.getLogger("twinloop.replay")

REPORT: Final = "replay.json"
_OUTPUT_BYTES: Final = 256 << 20
_NEVER: Final = 2**63 - 1
_COMPARED: Final = 2


@dataclass(frozen=True, slots=True)
class Recording:
    """What to fold again, how, and where to.

    Attributes:
        plant: the plant file whose data directory holds the log.
        config: another plant file, whose rules and models are tried; None for the plant's own.
        start_ns, end_ns: outputs of [start, end) are kept; None is open.
        into: an empty or new directory; None for a new one under `<data_dir>/replays`.
        speed: recorded seconds a second; 0 for as fast as it goes.
        at_once: records read at a time.
    """

    plant: Path
    config: Path | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    into: Path | None = None
    speed: float = 0.0
    at_once: int = AT_ONCE


class ReplayReport(msgspec.Struct, kw_only=True):
    """What a replay did; kept beside its results as `replay.json`.

    Attributes:
        plant, config, data_dir, directory: paths, as text; `config` is empty for the plant's own.
        complete: whether the replay came to its end.
        checkpoint: the offset of the checkpoint it began from; -1 for an empty state.
        first, last: offsets of the received log: the first whose outputs were kept, the last folded.
        from_ns: what arrived up to here was folded before `first`; None where nothing was.
        to_ns: the newest time folded.
        records, samples, outputs, gaps: how many; gaps are records that are gone.
        state_digest: SHA-256 of the fold's state at the end.
        outputs_digest: the end of the hash chain over all outputs kept.
        agreed, differed: offsets of live checkpoints whose state the replay met, and met otherwise.
    """

    plant: str
    config: str = ""
    data_dir: str
    directory: str
    complete: bool = False
    checkpoint: int = -1
    first: int = -1
    last: int = -1
    from_ns: int | None = None
    to_ns: int | None = None
    records: int = 0
    samples: int = 0
    outputs: int = 0
    gaps: int = 0
    state_digest: str = ""
    outputs_digest: str = ""
    agreed: list[int] = []
    differed: list[int] = []


def read_report(directory: Path) -> ReplayReport | None:
    """The report of a replay's directory; None where it is none.

    Raises:
        QueryError: it cannot be read.
    """
    path = directory / REPORT
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=ReplayReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise QueryError(f"{path}: cannot be read: {error}") from error


def _write_report(report: ReplayReport) -> None:
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    (Path(report.directory) / REPORT).write_bytes(data + b"\n")


async def replay_log(
    recording: Recording, env: Mapping[str, str], told: Callable[[Folded, Span], None] = lambda *_: None
) -> ReplayReport:
    """Fold a plant's recorded log again, also while `run` appends to it; nothing of it is changed.

    Args:
        recording: what to fold and where to.
        env: where `${NAME}` comes from.
        told: called now and then with how far it is.

    Raises:
        ConfigError: a plant file, or the directory to write to, cannot be used.
        QueryError: there is nothing recorded, or nothing of that time.
        LogError: the log cannot be read, or what comes of it not be written.
    """
    live = load(recording.plant, env)
    config = live if recording.config is None else load(recording.config, env)
    log = live.data_dir / "log"
    # The last offset first: every series up to there stands in the dictionary copied after it.
    first, last = _bounds(log)
    into = _target(recording, live.data_dir, config.data_dir)
    report = ReplayReport(
        plant=str(recording.plant),
        config=str(recording.config or ""),
        data_dir=str(live.data_dir),
        directory=str(into),
    )
    with contextlib.closing(_copied(live.data_dir, into)) as dictionary:
        _write_report(report)
        tags = tags_of(config)
        table = TagTable(tags, dictionary.add_tags(tag.name for tag in tags))
        dictionary.set_units({index: tag.unit for index, tag in table.items()})  # all is folded anew
        place = Workplace(config, into, dictionary, table, owned=False)
        checkpoints = Checkpoints(live.data_dir / "checkpoints", table.names)
        fold, report.checkpoint = _begin(place, checkpoints, first, recording.start_ns)
        span = Span(
            after=report.checkpoint if report.checkpoint >= 0 else first - 1,
            last=last,
            start_ns=-_NEVER if recording.start_ns is None else recording.start_ns,
            end_ns=_NEVER if recording.end_ns is None else recording.end_ns,
        )
        exact = recording.config is None and (report.checkpoint >= 0 or first == 0)
        met = _digests(checkpoints, span) if exact else {}
        store = LocalStore(into / "store", table.names, background=True)
        outputs = LocalLog(into / "outputs", max_bytes=_OUTPUT_BYTES, durable=False)
        folded = await refold(
            recorded(log, span, recording.at_once),
            fold,
            (outputs, store),
            span,
            digest_at=frozenset(met),
            pace=_Pace(recording.speed).wait if recording.speed else None,
            told=lambda so_far: told(so_far, span),
        )
        if folded.first < 0:
            raise QueryError(f"{log}: it has no record of that time")
        Checkpoints(into / "checkpoints", table.names).save(folded.last, fold.change())
    _conclude(report, folded, met)
    _write_report(report)
    return report


def _conclude(report: ReplayReport, folded: Folded, met: Mapping[int, str]) -> None:
    report.complete = True
    report.first, report.last = folded.first, folded.last
    report.from_ns = folded.first_ns if folded.first > 0 else None
    report.to_ns = folded.last_ns
    report.records, report.samples, report.outputs = folded.records, folded.samples, folded.chain.length
    report.gaps = folded.gaps
    report.state_digest, report.outputs_digest = folded.state, folded.chain.digest()
    for offset, digest in folded.compared.items():
        if met[offset] == digest:
            report.agreed.append(offset)
        elif not folded.gaps:  # else what is missing explains it
            report.differed.append(offset)


def _bounds(log: Path) -> tuple[int, int]:
    """The first and last offset recorded, the archive included."""
    files = log_files(log)
    for path in reversed(files):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
                made = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entries'").fetchone()
                newest = newest_entry(db) if made else None
        except sqlite3.Error as error:
            raise LogError(f"the log file {path} cannot be read: {error}") from error
        if newest is not None:
            archived = first_archived(log)
            first = first_offset(files[0])
            return first if archived is None else min(archived, first), newest[0]
    raise QueryError(f"there are no records in {log}: only what `run` recorded can be folded again")


def _target(recording: Recording, *data_dirs: Path) -> Path:
    """The directory to write to, made; never one that holds anything.

    Raises:
        ConfigError: it is a plant's data directory, lies in one, is not empty or cannot be made.
    """
    live = data_dirs[0] / "replays"
    into = recording.into
    if into is None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = (stamp, *(f"{stamp}-{n}" for n in range(2, 1000)))
        into = next((path for name in names if not (path := live / name).exists()), live / stamp)
    whole = into.resolve()
    for data_dir in (each.resolve() for each in data_dirs):
        inside = whole == data_dir or data_dir in whole.parents
        if inside and (data_dir / "replays") not in whole.parents:
            raise ConfigError(f"--into {into}: that is in a twin's data_dir; name another directory")
    try:
        into.mkdir(parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise ConfigError(f"--into {into}: the directory is not empty; a replay needs one of its own")
    except OSError as error:
        raise ConfigError(f"--into {into}: cannot be used: {error.strerror or error}") from error
    return into


def _copied(data_dir: Path, into: Path) -> Dictionary:
    """A copy of the plant's dictionary, so that every index means there what it means here."""
    path = data_dir / "dictionary.sqlite"
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as there,
            contextlib.closing(sqlite3.connect(into / path.name)) as here,
        ):
            there.backup(here)
    except sqlite3.Error as error:
        raise LogError(f"the dictionary {path} cannot be copied: {error}") from error
    return Dictionary(into / path.name)


def _begin(place: Workplace, checkpoints: Checkpoints, first: int, start_ns: int | None) -> tuple[Fold, int]:
    """The fold to begin with and the offset it covers, -1 for none: as late as `start_ns` lets it be."""

    def is_usable(header: Header) -> bool:
        """Whether no record is missing after it; without a start only one that is as old as the log is."""
        if start_ns is None:
            return header.offset == first - 1 >= 0
        return header.offset >= max(first - 1, 0) and header.time_ns <= start_ns

    for checkpoint in checkpoints.load(is_usable):
        fold = build_fold(place)
        try:
            fold.adopt(checkpoint.state)
        except LogError as error:
            _log.warning("the checkpoint at offset %d is not used: %s", checkpoint.offset, error)
            continue
        fold.soil()  # what it keeps in a directory of its own stands alone
        return fold, checkpoint.offset
    if first > 0:
        _log.warning(
            "the log begins at record %d and no checkpoint is as old: the fold begins with an empty state, "
            "so the first judgements and estimates differ from what they were",
            first,
        )
    return build_fold(place), -1


def _digests(checkpoints: Checkpoints, span: Span) -> dict[int, str]:
    """By offset: the digests of the newest live states that the replay will pass.

    They are read before it begins: the run that writes them may replace their files meanwhile.
    """
    passed = checkpoints.load(lambda header: span.after < header.offset <= span.last)
    return {each.offset: each.digest for each in itertools.islice(passed, _COMPARED)}


class _Pace:
    """Recorded time against this host's, at a speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began: tuple[int, float] | None = None

    async def wait(self, time_ns: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = (time_ns, now)
        first_ns, began = self._began
        due = began + (time_ns - first_ns) / 1e9 / self._speed
        if due > now:
            await asyncio.sleep(due - now)
