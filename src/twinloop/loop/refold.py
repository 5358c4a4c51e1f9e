"""Folding recorded records once more, into an output log and a store of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Final

from twinloop.log.archive import read_archive
from twinloop.log.log import Log
from twinloop.log.reader import read_entries
from twinloop.loop.deliver import StoreReader
from twinloop.loop.digest import OutputChain
from twinloop.loop.fold import Fold
from twinloop.records import Record, Samples, Tick, decode_record, encode_outputs
from twinloop.stores.store import Store

__all__ = ["Folded", "Span", "recorded", "refold"]

_log = logging.getLogger("twinloop.replay")

AT_ONCE: Final = 256
_LOOK_S: Final = 0.02
_NEVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Span:
    """Which records are folded, and of which the outputs are kept.

    Attributes:
        after: the first record folded is the one after this offset.
        last: the last offset that may be folded.
        start_ns: outputs are kept from the first record on that brings the fold to this time.
        end_ns: the first record of this time or later, and all after it, are not folded.
    """

    after: int
    last: int
    start_ns: int = -_NEVER
    end_ns: int = _NEVER


@dataclass(slots=True)
class Folded:
    """What came of folding so far.

    Attributes:
        first, last: the first offset whose outputs were kept, the last offset folded; -1 for none.
        first_ns: the newest tick or arrival folded before `first`.
        last_ns: the newest tick or arrival folded.
        records, samples, gaps: records folded, samples judged in what was kept, records missing.
        chain: over the outputs kept.
        state: the fold's digest at the end.
        compared: by offset, the fold's digest after that record, for the offsets asked about.
    """

    first: int = -1
    last: int = -1
    first_ns: int = -_NEVER
    last_ns: int = -_NEVER
    records: int = 0
    samples: int = 0
    gaps: int = 0
    chain: OutputChain = field(default_factory=OutputChain)
    state: str = ""
    compared: dict[int, str] = field(default_factory=dict)


def recorded(directory: Path, span: Span, at_once: int = AT_ONCE) -> Iterator[list[tuple[int, bytes]]]:
    """The entries of a local log and its archive in portions, also while its owner appends and trims.

    Nothing is locked or written. Each portion from the log is a short question of its own: a reader that
    stayed would keep the owner's files growing. What neither has is left out.

    Raises:
        LogError: a file cannot be read.
    """
    after, looked = span.after, None
    while after < span.last:
        if looked is None:
            for portion in _portions(read_archive(directory, after), span.last, at_once):
                yield portion
                after = portion[-1][0]
            looked = after
        portion = list(read_entries(directory, after, min(at_once, span.last - after)))
        portion = _unbroken([entry for entry in portion if entry[0] <= span.last])
        if not portion:
            return
        if (first := portion[0][0]) > after + 1:
            if looked != after:  # what leaves the log meanwhile stands in the archive before it does
                looked = None
                continue
            _log.warning("the records %d to %d are gone: folding on after them", after + 1, first - 1)
        yield portion
        after = portion[-1][0]


def _unbroken(portion: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The portion up to its first hole: the next one begins with the hole, and is asked where it went."""
    count = next((at for at, (offset, _) in enumerate(portion) if offset != portion[0][0] + at), len(portion))
    return portion[:count]


def _portions(
    entries: Iterator[tuple[int, bytes]], last: int, at_once: int
) -> Iterator[list[tuple[int, bytes]]]:
    wanted = takewhile(lambda entry: entry[0] <= last, entries)
    while portion := list(islice(wanted, at_once)):
        yield portion


async def refold(
    portions: Iterator[list[tuple[int, bytes]]],
    fold: Fold,
    into: tuple[Log, Store],
    span: Span,
    *,
    digest_at: frozenset[int] = frozenset(),
    pace: Callable[[int], Awaitable[None]] | None = None,
    told: Callable[[Folded], None] = lambda _: None,
) -> Folded:
    """Fold all portions; when it returns, every output kept is in the store for good and both are closed.

    Args:
        portions: entries of the received log, ascending.
        fold: in the state after `span.after`.
        into: the output log and the store that take what comes of it.
        span: see `Span`.
        digest_at: offsets after which the fold's digest is wanted.
        pace: waits until a record of that time is due; None for full speed.
        told: called after each portion with what has come of it so far.

    Raises:
        LogError: a log cannot be read or written.
        StoreBusy: never; the store is asked again until it takes what there is.
    """
    outputs, store = into
    reader = StoreReader(outputs, store)
    delivering = asyncio.create_task(reader.run(), name="store")
    folded = Folded(last=span.after, last_ns=fold.time or -_NEVER)
    try:
        for portion in portions:
            ended, written = await _portion(portion, fold, outputs, span, folded, digest_at, pace)
            if written is not None:  # a full output log holds the fold back, as long as somebody empties it
                either: set[asyncio.Future[int] | asyncio.Task[None]] = {written, delivering}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            told(folded)
            if delivering.done():
                delivering.result()
            if written is not None:
                written.result()
            if ended:
                break
        while reader.taken < outputs.stats().last_offset:
            if delivering.done():
                delivering.result()
            await asyncio.sleep(_LOOK_S)
        folded.state = fold.digest()
    finally:
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        try:
            await reader.close()
        finally:
            await outputs.close()
    if folded.gaps:
        _log.warning("%d records are gone: trimmed, dropped to make room, or damaged", folded.gaps)
    return folded


async def _portion(  # noqa: PLR0917 - the inside of `refold`
    portion: list[tuple[int, bytes]],
    fold: Fold,
    outputs: Log,
    span: Span,
    folded: Folded,
    digest_at: frozenset[int],
    pace: Callable[[int], Awaitable[None]] | None,
) -> tuple[bool, asyncio.Future[int] | None]:
    """Fold one portion; whether the span's end was reached, and what is done once its outputs are written."""
    written: asyncio.Future[int] | None = None
    ended = False
    for offset, data in portion:
        record = decode_record(data)
        time_ns = _time_of(record, folded.last_ns)
        if time_ns >= span.end_ns:
            ended = True
            break
        if pace is not None:
            await pace(time_ns)
        made = fold.step(offset, record)
        before_ns, folded.last_ns = folded.last_ns, max(folded.last_ns, time_ns)
        folded.gaps += offset - folded.last - 1
        folded.last = offset
        folded.records += 1
        if folded.last_ns >= span.start_ns:
            if folded.first < 0:
                folded.first, folded.first_ns = offset, before_ns
            if folded.first > 0 and folded.first_ns == -_NEVER:  # begun with an empty state, within the log
                folded.first_ns = folded.last_ns
            folded.samples += len(made.samples[0]) // 4 if made.samples else 0
            if not made.is_empty:
                entry = encode_outputs(made)
                folded.chain.add(entry)
                written = asyncio.ensure_future(outputs.append(entry, made.time))
        if offset in digest_at:
            folded.compared[offset] = fold.digest()
    return ended, written


def _time_of(record: Record, otherwise: int) -> int:
    """A tick's time or the newest arrival: what else there is has no time of its own.

    When files are replayed, links and dead letters are of the day of the replay, not of the files'.
    """
    if isinstance(record, Samples):
        newest = record.newest(-_NEVER)
        return newest if newest > -_NEVER else otherwise
    return record.time if isinstance(record, Tick) else otherwise
