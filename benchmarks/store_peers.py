"""What the embedded store is compared with, on the same points: DuckDB and SQLite tables, InfluxDB 1.x.

As the store does, DuckDB and SQLite answer with Arrow tables, which notebooks and pages go on from; InfluxDB
with its text, which nobody takes apart here.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

from twinloop.batch import Batch

MINUTE_NS = 60_000_000_000
_SAMPLES = pa.schema(
    {
        "tag": pa.int32(),
        "time": pa.int64(),
        "value": pa.float64(),
        "status": pa.uint32(),
        "estimate": pa.float64(),
        "estimate_std": pa.float64(),
    }
)
_MINUTES = pa.schema(
    {
        "minute": pa.int64(),
        "mean": pa.float64(),
        "min": pa.float64(),
        "max": pa.float64(),
        "count": pa.int64(),
    }
)


class Asked(Protocol):
    """A store of rows (tag, time, value, status, estimate, estimate_std), to ask."""

    def latest(self, tags: list[int]) -> int:
        """The newest value of each tag; how many there are."""

    def range(self, tag: int, start: int, end: int) -> int:
        """Rows of a tag; how many there are."""

    def window(self, tag: int, start: int, end: int) -> int:
        """Mean, min, max and count by minute; how many minutes there are."""


class Peer(Asked, Protocol):
    """One to write to, too."""

    def append(self, batch: Batch) -> None:
        """Take rows; durable when it returns."""

    def size(self) -> int:
        """Bytes on disk, after what it does to make itself small."""

    def close(self) -> None:
        """Let go of it."""


class DuckDb:
    """A table in the order of arrival, no index; a commit a batch."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "peer.duckdb"
        self._db = duckdb.connect(str(self._path))
        self._db.execute(
            "CREATE TABLE samples (tag INT, time BIGINT, value DOUBLE, status UINTEGER, estimate DOUBLE, "
            "estimate_std FLOAT)"
        )

    def append(self, batch: Batch) -> None:
        names = ("tag", "time", "value", "status", "estimate", "estimate_std")
        rows = {name: np.ascontiguousarray(getattr(batch, name)) for name in names}
        self._db.register("fresh", rows)
        self._db.execute("INSERT INTO samples SELECT * FROM fresh")
        self._db.unregister("fresh")

    def latest(self, tags: list[int]) -> int:
        sql = (
            "SELECT tag, max(time), arg_max(value, time) FROM samples WHERE tag IN (SELECT unnest(?)) "
            "GROUP BY tag"
        )
        return len(self._db.sql(sql, params=[tags]).to_arrow_table())

    def range(self, tag: int, start: int, end: int) -> int:
        sql = "SELECT * FROM samples WHERE tag = ? AND time >= ? AND time < ? ORDER BY time"
        return len(self._db.sql(sql, params=[tag, start, end]).to_arrow_table())

    def window(self, tag: int, start: int, end: int) -> int:
        sql = (
            "SELECT time // 60000000000 AS m, avg(value), min(value), max(value), count(*) FROM samples "
            "WHERE tag = ? AND time >= ? AND time < ? GROUP BY m ORDER BY m"
        )
        return len(self._db.sql(sql, params=[tag, start, end]).to_arrow_table())

    def size(self) -> int:
        self._db.execute("CHECKPOINT")
        return self._path.stat().st_size

    def close(self) -> None:
        self._db.close()


def _arrow(rows: list[tuple[float, ...]], schema: pa.Schema) -> pa.Table:
    """Rows as a table, the quickest way there is from tuples."""
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


class Sqlite:
    """A table with a (tag, time) key in WAL mode, every commit synced."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "peer.sqlite"
        self._db = sqlite3.connect(self._path, check_same_thread=False)  # the one that writes
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE samples (tag INT, time INT, value REAL, status INT, estimate REAL, "
            "estimate_std REAL, PRIMARY KEY (tag, time)) WITHOUT ROWID"
        )
        self._read = sqlite3.connect(self._path)

    def append(self, batch: Batch) -> None:
        names = ("tag", "time", "value", "status", "estimate", "estimate_std")
        columns = (getattr(batch, name).tolist() for name in names)
        self._db.executemany(
            "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?)", zip(*columns, strict=True)
        )
        self._db.commit()

    def latest(self, tags: list[int]) -> int:
        sql = "SELECT * FROM samples WHERE tag = ? ORDER BY time DESC LIMIT 1"
        return len(_arrow([row for tag in tags for row in self._read.execute(sql, (tag,))], _SAMPLES))

    def range(self, tag: int, start: int, end: int) -> int:
        sql = "SELECT * FROM samples WHERE tag = ? AND time >= ? AND time < ?"
        return len(_arrow(self._read.execute(sql, (tag, start, end)).fetchall(), _SAMPLES))

    def window(self, tag: int, start: int, end: int) -> int:
        sql = (
            "SELECT time / 60000000000, avg(value), min(value), max(value), count(*) FROM samples "
            "WHERE tag = ? AND time >= ? AND time < ? GROUP BY 1"
        )
        return len(_arrow(self._read.execute(sql, (tag, start, end)).fetchall(), _MINUTES))

    def size(self) -> int:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._path.stat().st_size

    def close(self) -> None:
        self._read.close()
        self._db.close()


class Influx:
    """InfluxDB 1.x of its own on a free port: line protocol over HTTP, a series a tag."""

    def __init__(self, directory: Path, binary: str) -> None:
        self._directory = directory / "influx"
        self._directory.mkdir()
        http, rpc = (_free_port() for _ in range(2))
        places = {"meta": "meta", "data": "data", "wal": "wal"}
        at = {name: self._directory / place for name, place in places.items()}
        config = self._directory / "influxdb.conf"
        config.write_text(
            f'bind-address = "127.0.0.1:{rpc}"\nreporting-disabled = true\n[meta]\ndir = "{at["meta"]}"\n'
            f'[data]\ndir = "{at["data"]}"\nwal-dir = "{at["wal"]}"\nindex-version = "inmem"\n'
            f'[http]\nbind-address = "127.0.0.1:{http}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n"
        )
        self._url = f"http://127.0.0.1:{http}"
        self._server = subprocess.Popen(
            [binary, "run", "-config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        while True:
            try:
                self._query("CREATE DATABASE bench")
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def append(self, batch: Batch) -> None:
        names = ("tag", "value", "status", "estimate", "estimate_std", "time")
        columns = (getattr(batch, name).tolist() for name in names)
        lines = "\n".join(
            f"s,tag={tag} value={value},status={status}i,estimate={estimate},estimate_std={std} {at}"
            for tag, value, status, estimate, std, at in zip(*columns, strict=True)
        )
        request = urllib.request.Request(f"{self._url}/write?db=bench&precision=n", lines.encode())
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def latest(self, tags: list[int]) -> int:
        where = "" if len(tags) > 1 else f"WHERE \"tag\" = '{tags[0]}'"
        return self._query(f'SELECT last(value) FROM s {where} GROUP BY "tag"').count('"tags"')

    def range(self, tag: int, start: int, end: int) -> int:
        where = f"\"tag\" = '{tag}' AND time >= {start} AND time < {end}"
        columns = "value, status, estimate, estimate_std"
        return self._query(f"SELECT {columns} FROM s WHERE {where}", "csv").count("\n") - 1

    def window(self, tag: int, start: int, end: int) -> int:
        where = f"\"tag\" = '{tag}' AND time >= {start} AND time < {end}"
        columns = "mean(value), min(value), max(value), count(value)"
        sql = f"SELECT {columns} FROM s WHERE {where} GROUP BY time(1m) fill(none)"
        return self._query(sql, "csv").count("\n") - 1

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._directory.rglob("*") if path.is_file())

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()

    def _query(self, sql: str, form: str = "json") -> str:
        body = urllib.parse.urlencode({"db": "bench", "q": sql, "epoch": "ns"}).encode()
        accept = {"Accept": f"application/{form}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self._url}/query", body, accept)) as answer:
            return str(answer.read().decode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peers(directory: Path) -> Iterator[tuple[str, Peer]]:
    """Those that are on this machine, each made when its turn comes."""
    yield "DuckDB table", DuckDb(directory)
    yield "SQLite (tag, time)", Sqlite(directory)
    if (binary := shutil.which("influxd")) is not None:
        yield "InfluxDB 1.x", Influx(directory, binary)
