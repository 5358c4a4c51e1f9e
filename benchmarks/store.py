"""The embedded store beside a DuckDB table, a SQLite table and InfluxDB: 1,000 tags at 1 s.

python benchmarks/store.py [--points 3600000] [--peer-points 3600000]

86,400,000 points are a day. Where the peers get fewer, the embedded store is measured with as many, too.
What is appended is durable in the output log when an append returns, and a rate counts until the store has
sealed all of it; as in `run`, some appends are under way at a time. Making the data does not count. Queries
are the median of 20 after one, in ms, each of another tag unless "again" is said.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import resource
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store_peers import Asked, DuckDb, Peer, peers
from twinloop.batch import Batch
from twinloop.log.local import LocalLog
from twinloop.loop.deliver import StoreReader
from twinloop.memory import few_arenas
from twinloop.records import Outputs, encode_outputs
from twinloop.stores.local import LocalStore
from twinloop.stores.merging import choose
from twinloop.stores.queries import LocalQueries
from twinloop.stores.segments import list_segments
from twinloop.storing import OutputsReader

TAGS = 1_000
SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
START = 1_700_006_400 * SECOND_NS
NAMES = [f"R{tag}.temperature" for tag in range(TAGS)]
LOOKS = 20
UNDER_WAY = 4
AT_ONCE = 40
SETTLE_S = 3.0
ROWS = (
    ("bytes a point", "bytes", 12.0),
    ("and in the output log, kept for 24 h", "log", None),
    ("appended/s, batches of 1,000", "by 1000", None),
    ("appended/s, batches of 10,000", "by 10000", 1_000_000.0),
    ("latest of 1 tag, ms", "latest 1", None),
    ("latest of 1,000 tags, ms", "latest all", 2.0),
    ("{hour} of one tag, ms", "hour", 5.0),
    ("the same tag again, ms", "hour again", None),
    ("{day} by 1 min of one tag, ms", "day", 5.0),
    ("the same tag again, ms", "day again", None),
    ("while so many/s are appended:", "busy rate", None),
    ("latest of 1,000 tags, ms", "busy latest all", None),
    ("{hour} of one tag, ms", "busy hour", None),
    ("{day} by 1 min of one tag, ms", "busy day", None),
)
"""What is printed, by key, and what was aimed at for a day in the embedded store."""


def batches(seconds: range, at_once: int = 1) -> Iterator[Batch]:
    """A sample a tag and second, some seconds a batch: jittered times, two decimals, a settled filter."""
    random = np.random.default_rng(seconds.start)
    std = 0.2 + random.random(TAGS) * 0.001
    for second in seconds[::at_once]:
        n = TAGS * min(at_once, seconds.stop - second)
        at = START + (second + np.arange(n) // TAGS) * SECOND_NS
        when = at + random.integers(0, 50, n) * 1_000_000
        yield Batch.of(
            tag=np.arange(n) % TAGS,
            time=when,
            value=np.round(random.normal(85, 0.5, n), 2),
            status=np.zeros(n),
            reasons=np.zeros(n),
            arrival=when + random.integers(1, 9, n) * 1_000_000,
            estimate=random.normal(85, 0.1, n),
            estimate_std=np.resize(std, n),
            rate=random.normal(0, 0.01, n),
        )


class Ours:
    """The store behind its output log, as `run` puts them together."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = LocalLog(directory / "outputs", durable=True, max_bytes=10 << 30)
        self.store = LocalStore(directory / "store", NAMES, background=True)
        outputs, units = OutputsReader(directory), ["degC"] * TAGS
        self.queries = LocalQueries(directory / "store", NAMES, units, outputs, release=outputs.close)
        self._reader = StoreReader(self.log, self.store)
        self._delivering = asyncio.create_task(self._reader.run())
        self._offset = self.appended = 0

    async def append(self, batches: Sequence[Batch]) -> None:
        """Durable in the log when it returns; `UNDER_WAY` of them at a time."""
        waiting: deque[asyncio.Future[int]] = deque()
        for batch in batches:
            entry = encode_outputs(Outputs(self._offset, START, batch.buffers()))
            waiting.append(asyncio.ensure_future(self.log.append(entry, int(batch.time[0]))))
            self._offset += 1
            if len(waiting) == UNDER_WAY:
                await waiting.popleft()
        await asyncio.gather(*waiting)
        self.appended += sum(map(len, batches))

    async def sealed(self) -> None:
        """Wait until the store has all of it for good."""
        while self.store.covered < self._offset - 1:
            if self._reader.taken >= self._offset - 1:
                await asyncio.to_thread(self.store.seal)
            await asyncio.sleep(0.01)

    async def merged(self) -> None:
        """Wait until there is nothing left to merge."""
        await asyncio.to_thread(self._wait_for_merges)

    def _wait_for_merges(self) -> None:
        while choose(self.directory / "store"):
            time.sleep(0.2)

    def size(self) -> int:
        """Bytes of history: segments, minutes and newest values, without what is on its way out."""
        gone = {segment.path for segment in list_segments(self.directory / "store").superseded}
        return _bytes_in(self.directory / "store", gone)

    def log_size(self) -> int:
        """Bytes of the output log, which can deliver the last day again."""
        return _bytes_in(self.directory / "outputs", set())

    async def close(self) -> None:
        """Stop."""
        self._delivering.cancel()
        await asyncio.gather(self._delivering, return_exceptions=True)
        await self._reader.close()
        await self.log.close()
        self.queries.close()


def _bytes_in(directory: Path, without: set[Path]) -> int:
    files = (path for path in directory.rglob("*") if path.is_file() and path not in without)
    return sum(path.stat().st_size for path in files)


def median_ms(question: Callable[[int], int], expected: int, tags: Sequence[int]) -> float:
    """The median of some right answers, milliseconds; the first, which opens files, does not count."""
    taken = []
    for tag in tags:
        began = time.perf_counter()
        found = question(tag)
        taken.append(time.perf_counter() - began)
        if found != expected:
            raise RuntimeError(f"{found} rows in place of {expected}")
    return statistics.median(taken[1:]) * 1e3


@dataclass(frozen=True)
class Spans:
    """What is asked for of so many seconds of data, ns: an hour of them, and the last day."""

    seconds: int

    @property
    def end(self) -> int:
        return START + self.seconds * SECOND_NS

    @property
    def hour(self) -> tuple[int, int]:
        first = max(START, self.end - 2 * HOUR_NS)
        return first, min(self.end, first + HOUR_NS)

    @property
    def day(self) -> tuple[int, int]:
        return max(START, self.end - DAY_NS), self.end

    def labels(self) -> dict[str, str]:
        """How long they are."""
        spans = {"hour": self.hour, "day": self.day}
        return {name: f"{(last - first) / HOUR_NS:.3g} h" for name, (first, last) in spans.items()}


def asked(seconds: int, peer: Asked, prefix: str = "") -> dict[str, float]:
    """The figures of a store that has so many seconds."""
    os.sync()  # what the system still has to write of what was appended would be in the way
    time.sleep(SETTLE_S)
    spans = Spans(seconds)
    rows = (spans.hour[1] - spans.hour[0]) // SECOND_NS
    minutes = (spans.day[1] - spans.day[0]) // (60 * SECOND_NS)
    all_tags = list(range(TAGS))
    others, again = range(100, 101 + LOOKS), [5] * (LOOKS + 1)
    figures = {
        "latest 1": median_ms(lambda tag: peer.latest([tag]), 1, others),
        "latest all": median_ms(lambda _: peer.latest(all_tags), TAGS, again),
        "hour": median_ms(lambda tag: peer.range(tag, *spans.hour), rows, others),
        "hour again": median_ms(lambda tag: peer.range(tag, *spans.hour), rows, again),
        "day": median_ms(lambda tag: peer.window(tag, *spans.day), minutes, others),
        "day again": median_ms(lambda tag: peer.window(tag, *spans.day), minutes, again),
    }
    return {f"{prefix}{name}": value for name, value in figures.items()}


class Ourselves:
    """The embedded store's answers, asked as a peer is."""

    def __init__(self, queries: LocalQueries) -> None:
        self._queries = queries

    def latest(self, tags: list[int]) -> int:
        return len(self._queries.latest([NAMES[tag] for tag in tags]))

    def range(self, tag: int, start: int, end: int) -> int:
        return len(self._queries.range(NAMES[tag], start, end))

    def window(self, tag: int, start: int, end: int) -> int:
        return len(self._queries.window(NAMES[tag], 60 * SECOND_NS, start, end))


async def local(directory: Path, seconds: int) -> dict[str, float]:
    """Figures of the embedded store."""
    ours = Ours(directory)
    figures: dict[str, float] = {}
    small = min(seconds // 4, 600)
    for at_once, span in ((1, range(small)), (10, range(small, seconds))):
        spent = 0.0
        made = batches(span, at_once)
        while some := list(itertools.islice(made, AT_ONCE)):
            began = time.perf_counter()
            await ours.append(some)
            spent += time.perf_counter() - began
        began = time.perf_counter()
        await ours.sealed()
        figures[f"by {at_once * TAGS}"] = len(span) * TAGS / (spent + time.perf_counter() - began)
    began = time.perf_counter()
    await ours.merged()
    print(f"merges went on for {time.perf_counter() - began:.0f} s after the last append")
    figures["bytes"] = ours.size() / (seconds * TAGS)
    figures["log"] = ours.log_size() / (seconds * TAGS)
    figures |= await asyncio.to_thread(asked, seconds, Ourselves(ours.queries))
    feeding = asyncio.create_task(feed(ours, seconds))
    await asyncio.sleep(2)
    began, before = time.perf_counter(), ours.appended
    figures |= await asyncio.to_thread(asked, seconds, Ourselves(ours.queries), "busy ")
    figures["busy rate"] = (ours.appended - before) / (time.perf_counter() - began)
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding
    await ours.close()
    return figures


async def feed(ours: Ours, seconds: int) -> None:
    """10,000 points a second, in tens of a second, from where the data ended."""
    due = time.perf_counter()
    for batch in batches(range(seconds, seconds + 36_000)):
        await ours.append([batch])
        due += 0.1
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


def peer_figures(peer: Peer, seconds: int) -> dict[str, float]:
    """The same of a peer, in as many points as are asked of it."""
    figures: dict[str, float] = {}
    small = min(seconds // 4, 600)
    for at_once, span in ((1, range(small)), (10, range(small, seconds))):
        spent = 0.0
        for batch in batches(span, at_once):
            began = time.perf_counter()
            peer.append(batch)
            spent += time.perf_counter() - began
        figures[f"by {at_once * TAGS}"] = len(span) * TAGS / spent
    figures["bytes"] = peer.size() / (seconds * TAGS)
    figures |= asked(seconds, peer)
    stop, appended = threading.Event(), [0]

    def go_on() -> None:
        due = time.perf_counter()
        for batch in batches(range(seconds, seconds + 36_000)):
            if stop.is_set():
                return
            peer.append(batch)
            appended[0] += len(batch)
            due += 0.1
            time.sleep(max(0.0, due - time.perf_counter()))

    if not isinstance(peer, DuckDb):  # gives one connection to one thread, and none to another process
        feeder = threading.Thread(target=go_on)
        feeder.start()
        began = time.perf_counter()
        figures |= asked(seconds, peer, "busy ")
        figures["busy rate"] = appended[0] / (time.perf_counter() - began)
        stop.set()
        feeder.join()
    peer.close()
    return figures


def main() -> None:
    """Print all side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=3_600_000)
    parser.add_argument("--peer-points", type=int, default=3_600_000)
    options = parser.parse_args()
    few_arenas()
    found: list[tuple[str, int, dict[str, float]]] = []
    fewer = min(options.points, options.peer_points)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        for points in sorted({options.points, fewer}, reverse=True):
            seconds = points // TAGS
            found.append(("local store", points, asyncio.run(local(Path(scratch) / f"{points}", seconds))))
            if points == options.points:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found += [(name, fewer, peer_figures(peer, fewer // TAGS)) for name, peer in peers(Path(scratch))]
    print(f"{TAGS} tags at 1 s; peak memory with the local store {peak:.0f} MiB")
    tell(found)


def tell(found: list[tuple[str, int, dict[str, float]]]) -> None:
    """A table with a column a store, and what was aimed at for a day in the embedded store."""
    most, fewest = (Spans(found[at][1] // TAGS).labels() for at in (0, -1))
    spans = {name: (most[name], fewest[name]) for name in most}
    print(f"{'':44}{'aim':>12}" + "".join(f"{name:>20}" for name, _, _ in found))
    print(f"{'points':56}" + "".join(f"{points:20,}" for _, points, _ in found))
    for text, key, aim in ROWS:
        label = text.format(**{name: " / ".join(dict.fromkeys(each)) for name, each in spans.items()})
        cells = (f"{figures[key]:20,.2f}" if key in figures else f"{'':>20}" for _, _, figures in found)
        print(f"{label:44}{'' if aim is None else f'{aim:,.0f}':>12}" + "".join(cells))


if __name__ == "__main__":
    main()
