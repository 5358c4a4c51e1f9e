"""The local log beside plain SQLite: appends/s and latency at 1, 16 and 256 concurrent appenders.

python benchmarks/log.py [seconds a figure]
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from twinloop.log.local import LocalLog

APPENDERS = (1, 16, 256)
ENTRY = bytes(200)
SOON_S = 0.005
"""What an append may take at most by default, disk and machine permitting."""


def told(  # noqa: PLR0917 - the columns of a line
    name: str, appenders: int, took: list[float], seconds: float, baseline: float, commits: float
) -> float:
    """Print a line; returns the appends a second."""
    took.sort()
    rate = len(took) / seconds
    p50, p99 = (1e3 * took[int(len(took) * q)] for q in (0.5, 0.99))
    ratio = f"{rate / baseline:6.1f}x" if baseline else "   1.0x"
    soon = sum(each <= SOON_S for each in took) / len(took)
    print(
        f"{name:28} {appenders:9} {rate:10,.0f} {p50:9.2f} {p99:9.2f} {soon:12.1%} {commits:9,.0f}   {ratio}"
    )
    return rate


def plain(directory: Path, seconds: float) -> list[float]:
    """Seconds each of one-row commits took, one after another: what SQLite gives without a group commit."""
    took = []
    with closing(sqlite3.connect(directory / "plain.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE entries (offset INTEGER PRIMARY KEY, time INTEGER, data BLOB)")
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            db.execute("INSERT INTO entries (time, data) VALUES (?, ?)", (1, ENTRY))
            took.append(time.perf_counter() - began)
    return took


async def grouped(
    directory: Path, seconds: float, appenders: int, interval_s: float
) -> tuple[list[float], float]:
    """Seconds each append took until it was durable, with so many appenders at once; commits a second."""
    log = LocalLog(directory, commit_interval_s=interval_s)
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def append() -> None:
        while (began := time.perf_counter()) < end:
            await log.append(ENTRY, 1)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*[append() for _ in range(appenders)])
    await log.close()
    return took, log.stats().commits / seconds


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(
        f"{'':28} {'appenders':>9} {'appends/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'within 5 ms':>12} "
        f"{'commits/s':>9}"
    )
    with tempfile.TemporaryDirectory(dir=".") as folder:
        took = plain(Path(folder), seconds)
        base = told("plain SQLite, a row a commit", 1, took, seconds, 0.0, len(took) / seconds)
        for interval_ms in (0, 5):
            for appenders in APPENDERS:
                directory = Path(folder) / f"{interval_ms}-{appenders}"
                took, commits = asyncio.run(grouped(directory, seconds, appenders, interval_ms / 1e3))
                told(f"log, commit_interval {interval_ms}ms", appenders, took, seconds, base, commits)


if __name__ == "__main__":
    main()
