"""The embedded store beside a plain SQLite table: 1,000 tags at 1 s, for ten minutes by default.

python benchmarks/store.py [seconds]
"""

from __future__ import annotations

import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from twinloop.batch import Batch
from twinloop.records import Outputs
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

TAGS = 1_000
SECOND_NS = 1_000_000_000
START = 1_700_000_000 * SECOND_NS
MINUTE_NS = 60 * SECOND_NS
NAMES = [f"R{tag}.temperature" for tag in range(TAGS)]
INSERT = "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
TABLE = """
    CREATE TABLE samples (tag INT, time INT, value REAL, status INT, reasons INT, arrival INT,
                          estimate REAL, estimate_std REAL, rate REAL, PRIMARY KEY (tag, time)) WITHOUT ROWID
"""
WINDOW = """
    SELECT time / 60000000000, avg(value), min(value), max(value), count(*) FROM samples
    WHERE tag = 5 AND time >= ? AND time < ? GROUP BY 1
"""
LATEST = """
    SELECT tag, max(time), value FROM samples GROUP BY tag
"""


def batches(seconds: int) -> Iterator[Batch]:
    """A sample a tag and second: jittered times, two decimals, a settled filter."""
    random = np.random.default_rng(1)
    std = 0.2 + random.random(TAGS) * 0.001
    for second in range(seconds):
        when = START + second * SECOND_NS + random.integers(0, 50, TAGS) * 1_000_000
        yield Batch.of(
            tag=np.arange(TAGS),
            time=when,
            value=np.round(random.normal(85, 0.5, TAGS), 2),
            status=np.zeros(TAGS),
            reasons=np.zeros(TAGS),
            arrival=when + random.integers(1, 9, TAGS) * 1_000_000,
            estimate=random.normal(85, 0.1, TAGS),
            estimate_std=std,
            rate=random.normal(0, 0.01, TAGS),
        )


def best_ms(question: Callable[[], object]) -> float:
    """The quickest of five, milliseconds."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        question()
        taken.append(time.perf_counter() - began)
    return min(taken) * 1e3


def local(directory: Path, seconds: int) -> dict[str, float]:
    """Figures of the embedded store, sealing a minute at a time."""
    clock = [0.0]
    store = LocalStore(directory, NAMES, clock=lambda: clock[0])
    took = slowest = 0.0
    for second, batch in enumerate(batches(seconds)):
        outputs = Outputs(second, START, batch.buffers())
        clock[0] = float(second)
        began = time.perf_counter()
        store.write([(second, outputs)])
        spent = time.perf_counter() - began
        took, slowest = took + spent, max(slowest, spent)
    store.close()
    LocalStore(directory, NAMES)  # removes what merging left
    size = sum(path.stat().st_size for path in directory.glob("samples-*.parquet"))
    queries = LocalQueries(directory, NAMES, ["degC"] * TAGS, lambda _after: [])
    tag, end = NAMES[5], START + seconds * SECOND_NS
    assert len(queries.range(tag, START, end)) == seconds
    return {
        "rows written a second": TAGS * seconds / took,
        "longest write, ms": slowest * 1e3,
        "bytes a row": size / (TAGS * seconds),
        "range of one tag, ms": best_ms(lambda: queries.range(tag, START, end)),
        "the same by minute, ms": best_ms(lambda: queries.window(tag, MINUTE_NS, START, end)),
        "latest of all, ms": best_ms(lambda: queries.latest([])),
    }


def sqlite(path: Path, seconds: int) -> dict[str, float]:
    """The same figures of one SQLite table in WAL mode, a commit a second."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(TABLE)
    took = slowest = 0.0
    for batch in batches(seconds):
        began = time.perf_counter()
        columns = (getattr(batch, name).tolist() for name in Batch.DTYPES)
        database.executemany(INSERT, zip(*columns, strict=True))
        database.commit()
        spent = time.perf_counter() - began
        took, slowest = took + spent, max(slowest, spent)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    bounds = (START, START + seconds * SECOND_NS)
    rows = "SELECT * FROM samples WHERE tag = 5 AND time >= ? AND time < ?"
    figures = {
        "rows written a second": TAGS * seconds / took,
        "longest write, ms": slowest * 1e3,
        "bytes a row": path.stat().st_size / (TAGS * seconds),
        "range of one tag, ms": best_ms(lambda: database.execute(rows, bounds).fetchall()),
        "the same by minute, ms": best_ms(lambda: database.execute(WINDOW, bounds).fetchall()),
        "latest of all, ms": best_ms(lambda: database.execute(LATEST).fetchall()),
    }
    database.close()
    return figures


def main() -> None:
    """Print both, and how many times the peer's figure ours is."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as directory:
        ours = local(Path(directory) / "store", seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        peer = sqlite(Path(directory) / "peer.db", seconds)
    print(f"{TAGS} tags, {seconds} s, {TAGS * seconds:,} rows; peak memory with the store {peak:.0f} MiB")
    print(f"{'':26}{'local store':>14}{'SQLite':>14}{'ratio':>8}")
    for name, figure in ours.items():
        print(f"{name:26}{figure:14,.1f}{peer[name]:14,.1f}{figure / peer[name]:8.2f}")


if __name__ == "__main__":
    main()
