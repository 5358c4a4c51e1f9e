"""The laws of a `Log`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from twinloop.errors import LogError
from twinloop.log.log import Log
from twinloop.testing.laws import AsyncLaw, expect, hold_async

__all__ = ["check_log"]

MakeLog = Callable[[Path], Log]
_HOSTILE: Final = (b"", b"\0", b"\xff" * 100, bytes(range(256)), b"x" * (1 << 20))


def check_log(make_log: MakeLog, *, durable: bool = True) -> None:
    """Hold a log to what `twinloop.log.log.Log` promises.

    Args:
        make_log: a log kept in the given directory, which exists and is empty at first; made again with the
            same directory, the same log is opened again. Called on an event loop. A log that is kept
            elsewhere can take the directory's name for its own.
        durable: whether what was appended outlives `close`.

    Raises:
        BrokenLawError: a law is broken; the message names it.
    """
    laws = _Laws(make_log)
    kept: list[tuple[str, AsyncLaw]] = [
        ("offsets ascend by one from 0, in the order of the calls", laws.offsets),
        ("read gives what was appended, after the offset, ascending, at most `limit`", laws.reading),
        ("an entry can be read once its append has returned", laws.readable),
        ("any bytes come back as they were", laws.any_bytes),
        ("wait returns when an entry after the offset can be read, and not before", laws.waiting),
        ("what no reader has released is never dropped, and a drop is an error, never a gap", laws.releasing),
        ("sync can be called at any time", laws.syncing),
        ("stats say what the log holds", laws.stats),
        ("a closed log refuses entries with LogError", laws.closed),
    ]
    if durable:
        kept += [
            ("a log opened again goes on where it stopped, and gives no offset twice", laws.opened_again),
            ("close makes durable what was taken", laws.closing),
        ]
    hold_async("log", kept)


class _Laws:
    def __init__(self, make_log: MakeLog) -> None:
        self._make = make_log

    @asynccontextmanager
    async def _log(self, directory: Path) -> AsyncIterator[Log]:
        log = self._make(directory)
        try:
            yield log
        finally:
            await log.close()

    async def offsets(self, directory: Path) -> None:
        async with self._log(directory) as log:
            given = await asyncio.gather(*[log.append(b"%d" % i, i) for i in range(300)])
            expect(given == list(range(300)), f"300 appends at once were given {given[:5]}...")
            found = log.read(-1, 300)
            expect(found == [(i, b"%d" % i) for i in range(300)], "they are read in another order")

    async def reading(self, directory: Path) -> None:
        async with self._log(directory) as log:
            expect(log.read(-1) == [], "an empty log is not read as empty")
            for i in range(10):
                await log.append(b"%d" % i, i)
            for after, limit in ((-1, 100), (-1, 3), (4, 2), (8, 5), (9, 5), (50, 5)):
                wanted = [(i, b"%d" % i) for i in range(after + 1, min(after + 1 + limit, 10))]
                found = log.read(after, limit)
                expect(found == wanted, f"read({after}, {limit}) gave {found}")

    async def readable(self, directory: Path) -> None:
        async with self._log(directory) as log:
            for i in range(20):
                offset = await log.append(b"entry %d" % i, i)
                found = log.read(offset - 1, 1)
                expect(found == [(offset, b"entry %d" % i)], f"read({offset - 1}, 1) gave {found}")

    async def any_bytes(self, directory: Path) -> None:
        async with self._log(directory) as log:
            for data in _HOSTILE:
                await log.append(data, 0)
            found = [data for _, data in log.read(-1)]
            expect(found == list(_HOSTILE), "empty, long or binary entries were changed")

    async def waiting(self, directory: Path) -> None:
        async with self._log(directory) as log:
            waiting = asyncio.ensure_future(log.wait(-1))
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            expect(not done, "wait returned although there is no entry")
            offset = await log.append(b"x", 1)
            await waiting
            expect(bool(log.read(-1)), "wait returned, and there is nothing to read")
            await log.wait(offset - 1)

    async def releasing(self, directory: Path) -> None:
        async with self._log(directory) as log:
            for i in range(100):
                await log.append(bytes(10_000), i)
                if i == 59:
                    log.release(49)
            found = [offset for offset, _ in log.read(49, 100)]
            expect(found == list(range(50, 100)), "entries after the released ones are gone")
            first = log.stats().first_offset
            expect(0 <= first <= 50, f"released up to 49, and the log begins at {first}")
            with suppress(LogError):
                found = [offset for offset, _ in log.read(-1, 1)]
                expect(found == [0], f"read(-1) began at {found} without an error")

    async def syncing(self, directory: Path) -> None:
        async with self._log(directory) as log:
            await log.sync()
            await log.append(b"x", 1)
            await log.sync()
            await log.sync()
            expect(log.read(-1) == [(0, b"x")], "sync changed what is read")

    async def stats(self, directory: Path) -> None:
        async with self._log(directory) as log:
            empty = log.stats()
            expect(empty.last_offset < empty.first_offset, "an empty log says it has entries")
            for i in range(5):
                await log.append(bytes(1000), i)
            told = log.stats()
            offsets = (told.first_offset, told.last_offset)
            expect(offsets == (0, 4), f"5 entries are said to be offsets {offsets}")
            expect(told.appended == 5, f"5 entries are counted as {told.appended}")
            expect(told.size_bytes >= 5000, f"5,000 bytes are counted as {told.size_bytes}")

    async def closed(self, directory: Path) -> None:
        log = self._make(directory)
        await log.append(b"x", 1)
        await log.close()
        try:
            await log.append(b"y", 2)
        except LogError:
            return
        raise AssertionError("an append after close was taken")

    async def opened_again(self, directory: Path) -> None:
        for start in (0, 7, 14):
            async with self._log(directory) as log:
                given = [await log.append(b"%d" % i, i) for i in range(start, start + 7)]
                expect(given == list(range(start, start + 7)), f"opened again, it gave {given}")
                found = log.read(-1)
                expect(found == [(i, b"%d" % i) for i in range(start + 7)], "entries are missing or changed")

    async def closing(self, directory: Path) -> None:
        log = self._make(directory)
        taken = [asyncio.ensure_future(log.append(b"%d" % i, i)) for i in range(50)]
        await asyncio.sleep(0)
        await log.close()
        given = await asyncio.gather(*taken)
        expect(given == list(range(50)), "an entry taken before close was given no offset")
        async with self._log(directory) as again:
            expect(len(again.read(-1)) == 50, f"{len(again.read(-1))} of 50 entries taken are there")
