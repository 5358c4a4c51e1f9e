"""The store in InfluxDB 1.x beside a client that makes lines by hand: 1,000 tags at 1 s, for five minutes.

python benchmarks/influx.py [seconds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from store import NAMES, SECOND_NS, START, TAGS, batches
from support.influx import Influx, influxdb
from twinloop.batch import Batch
from twinloop.records import Outputs
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore

MINUTE_NS = 60 * SECOND_NS
UNITS = ["degC"] * TAGS
LINES_AT_ONCE = 5_000
WINDOW = """
    SELECT mean(value), min(value), max(value), count(value) FROM plain
    WHERE "tag" = '{}' AND time >= {} AND time < {} GROUP BY time(1m) fill(none)
"""


def best_ms(question: Callable[[], object]) -> float:
    """The quickest of five, milliseconds."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        question()
        taken.append(time.perf_counter() - began)
    return min(taken) * 1e3


def ours(server: Influx, directory: Path, made: list[Batch]) -> dict[str, float]:
    """Figures of the store, ten entries at a time."""
    options = server.options("ours")
    store = InfluxStore(options, directory, NAMES, UNITS)
    entries = [(at, Outputs(at, START, batch.buffers())) for at, batch in enumerate(made)]
    took = slowest = 0.0
    for first in range(0, len(entries), 10):
        began = time.perf_counter()
        store.write(entries[first : first + 10])
        spent = time.perf_counter() - began
        took, slowest = took + spent, max(slowest, spent)
    store.close()
    queries = InfluxQueries(options, directory, NAMES, UNITS, lambda _after: [])
    tag, end = NAMES[5], START + len(made) * SECOND_NS
    assert len(queries.range(tag, START, end)) == len(made)
    return {
        "rows written a second": TAGS * len(made) / took,
        "longest write, ms": slowest * 1e3,
        "range of one tag, ms": best_ms(lambda: queries.range(tag, START, end)),
        "the same by minute, ms": best_ms(lambda: queries.window(tag, MINUTE_NS, START, end)),
        "latest of all, ms": best_ms(lambda: queries.latest([])),
    }


def by_hand(server: Influx, made: list[Batch]) -> dict[str, float]:
    """Figures of the usual way: an f-string a sample, value and status only, 5,000 lines a request."""
    server.ask('CREATE DATABASE "plain"')
    took = slowest = 0.0
    lines: list[str] = []
    for batch in made:
        began = time.perf_counter()
        columns = (batch.tag.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist())
        lines += [
            f"plain,tag={NAMES[t]} value={v},status={s}i {at}" for t, at, v, s in zip(*columns, strict=True)
        ]
        if len(lines) >= LINES_AT_ONCE:
            server.write("\n".join(lines), "plain")
            lines = []
        spent = time.perf_counter() - began
        took, slowest = took + spent, max(slowest, spent)
    window = WINDOW.format(NAMES[5], START, START + len(made) * SECOND_NS)
    rows = f"SELECT * FROM plain WHERE \"tag\" = '{NAMES[5]}'"
    newest = 'SELECT last(value) FROM plain GROUP BY "tag"'
    return {
        "rows written a second": TAGS * len(made) / took,
        "longest write, ms": slowest * 1e3,
        "range of one tag, ms": best_ms(lambda: server.ask(rows, "plain")),
        "the same by minute, ms": best_ms(lambda: server.ask(window, "plain")),
        "latest of all, ms": best_ms(lambda: server.ask(newest, "plain")),
    }


def main() -> None:
    """Print both, and how many times the peer's figure ours is."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    made = list(batches(range(seconds)))
    with tempfile.TemporaryDirectory() as folder, influxdb(Path(folder)) as server:
        own = ours(server, Path(folder) / "store", made)
        peer = by_hand(server, made)
    print(f"{TAGS} tags, {seconds} s, {TAGS * seconds:,} rows")
    print(f"{'':26}{'our store':>14}{'by hand':>14}{'ratio':>8}")
    for name, figure in own.items():
        print(f"{name:26}{figure:14,.1f}{peer[name]:14,.1f}{figure / peer[name]:8.2f}")


if __name__ == "__main__":
    main()
