"""The embedded store beside a DuckDB table, a SQLite table and InfluxDB: 1,000 tags at 1 s.

python benchmarks/store.py [--points 3600000] [--peer-points 3600000]

86,400,000 points are a day. What is appended is durable in the output log when an append returns, and a rate
counts until the store has sealed all of it. Queries are the median of 20, warm, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from store_peers import Peer, peers
from twinloop.batch import Batch
from twinloop.history import outputs_after
from twinloop.log.local import LocalLog
from twinloop.loop.deliver import StoreReader
from twinloop.memory import few_arenas
from twinloop.records import Outputs, encode_outputs
from twinloop.stores.local import LocalStore
from twinloop.stores.merging import choose
from twinloop.stores.queries import LocalQueries
from twinloop.stores.segments import list_segments

TAGS = 1_000
SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
START = 1_700_006_400 * SECOND_NS
NAMES = [f"R{tag}.temperature" for tag in range(TAGS)]
LOOKS = 20
ROWS = (
    ("bytes a point", "bytes"),
    ("appended/s, batches of 1,000", "by 1000"),
    ("appended/s, batches of 10,000", "by 10000"),
    ("latest of 1 tag, ms", "latest 1"),
    ("latest of 1,000 tags, ms", "latest all"),
    ("1 h of one tag, ms", "hour"),
    ("24 h by 1 min of one tag, ms", "day"),
    ("while 10,000/s are appended:", ""),
    ("latest of 1,000 tags, ms", "busy latest all"),
    ("1 h of one tag, ms", "busy hour"),
    ("24 h by 1 min of one tag, ms", "busy day"),
)


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
        self.queries = LocalQueries(
            directory / "store", NAMES, ["degC"] * TAGS, lambda after: outputs_after(directory, after)
        )
        self._reader = StoreReader(self.log, self.store)
        self._delivering = asyncio.create_task(self._reader.run())
        self._offset = 0

    async def append(self, batch: Batch) -> None:
        """Durable in the log when it returns."""
        entry = encode_outputs(Outputs(self._offset, START, batch.buffers()))
        self._offset = 1 + await self.log.append(entry, int(batch.time[0]))

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
        """Bytes of segments, minutes and newest values."""
        listing = list_segments(self.directory / "store")
        kept = [segment.path for segment in listing.live]
        kept += list((self.directory / "store").glob("latest-*.parquet"))
        return sum(path.stat().st_size for path in kept)

    async def close(self) -> None:
        """Stop."""
        self._delivering.cancel()
        await asyncio.gather(self._delivering, return_exceptions=True)
        await self._reader.close()
        await self.log.close()
        self.queries.close()


def median_ms(question: Callable[[], int], expected: int) -> float:
    """The median of some answers of the right length, milliseconds."""
    taken = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        found = question()
        taken.append(time.perf_counter() - began)
        if found < expected:
            raise RuntimeError(f"{found} rows in place of {expected}")
    return statistics.median(taken) * 1e3


def asked(seconds: int, questions: Peer | LocalQueries, prefix: str = "") -> dict[str, float]:
    """The figures of a store that has so many seconds."""
    end = START + seconds * SECOND_NS
    hour, day = max(START, end - 2 * HOUR_NS), max(START, end - DAY_NS)
    until = min(end, hour + HOUR_NS)
    rows, minutes = (until - hour) // SECOND_NS - 1, (end - day) // (60 * SECOND_NS)
    if isinstance(questions, LocalQueries):
        ours = questions
        return {
            f"{prefix}latest 1": median_ms(lambda: len(ours.latest([NAMES[5]])), 1),
            f"{prefix}latest all": median_ms(lambda: len(ours.latest([])), TAGS),
            f"{prefix}hour": median_ms(lambda: len(ours.range(NAMES[5], hour, until)), rows),
            f"{prefix}day": median_ms(lambda: len(ours.window(NAMES[5], 60 * SECOND_NS, day, end)), minutes),
        }
    peer = questions
    return {
        f"{prefix}latest 1": median_ms(lambda: peer.latest([5]), 1),
        f"{prefix}latest all": median_ms(lambda: peer.latest(list(range(TAGS))), TAGS),
        f"{prefix}hour": median_ms(lambda: peer.range(5, hour, until), rows),
        f"{prefix}day": median_ms(lambda: peer.window(5, day, end), minutes),
    }


async def local(directory: Path, seconds: int) -> dict[str, float]:
    """Figures of the embedded store."""
    ours = Ours(directory)
    figures: dict[str, float] = {}
    small = min(seconds // 4, 600)
    for at_once, span in ((1, range(small)), (10, range(small, seconds))):
        spent = 0.0
        for batch in batches(span, at_once):
            began = time.perf_counter()
            await ours.append(batch)
            spent += time.perf_counter() - began  # making the data does not count
        began = time.perf_counter()
        await ours.sealed()
        figures[f"by {at_once * TAGS}"] = len(span) * TAGS / (spent + time.perf_counter() - began)
    began = time.perf_counter()
    await ours.merged()
    print(f"merges went on for {time.perf_counter() - began:.0f} s after the last append")
    figures["bytes"] = ours.size() / (seconds * TAGS)
    figures |= await asyncio.to_thread(asked, seconds, ours.queries)
    feeding = asyncio.create_task(feed(ours, seconds))
    await asyncio.sleep(2)
    figures |= await asyncio.to_thread(asked, seconds, ours.queries, "busy ")
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding
    await ours.close()
    return figures


async def feed(ours: Ours, seconds: int) -> None:
    """10,000 points a second, in tens of a second, from where the data ended."""
    due = time.perf_counter()
    for batch in batches(range(seconds, seconds + 36_000)):
        await ours.append(batch)
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
    stop = threading.Event()

    def go_on() -> None:
        due = time.perf_counter()
        for batch in batches(range(seconds, seconds + 36_000)):
            if stop.is_set():
                return
            peer.append(batch)
            due += 0.1
            time.sleep(max(0.0, due - time.perf_counter()))

    if type(peer).__name__ == "Influx":  # the others give one connection to one thread
        feeder = threading.Thread(target=go_on)
        feeder.start()
        figures |= asked(seconds, peer, "busy ")
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
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        seconds = options.points // TAGS
        found.append(("local store", options.points, asyncio.run(local(Path(scratch) / "ours", seconds))))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        fewer = min(options.points, options.peer_points)
        found += [(name, fewer, peer_figures(peer, fewer // TAGS)) for name, peer in peers(Path(scratch))]
    print(f"{TAGS} tags at 1 s; peak memory with the local store {peak:.0f} MiB")
    print(f"{'':32}" + "".join(f"{name:>20}" for name, _, _ in found))
    print(f"{'points':32}" + "".join(f"{points:20,}" for _, points, _ in found))
    for label, key in ROWS:
        cells = (f"{figures[key]:20,.2f}" if key in figures else f"{'':>20}" for _, _, figures in found)
        print(f"{label:32}" + "".join(cells))


if __name__ == "__main__":
    main()
