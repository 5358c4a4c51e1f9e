"""What InfluxDB, or something in its place, answers wrongly or refuses for now costs no row and no answer."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.influx import Influx, influxdb
from support.outputs import NAMES, T0, UNITS, OutputLog, samples, values
from support.outputs import SECOND as SECOND_NS
from twinloop.errors import QueryError, StoreBusy
from twinloop.stores.influx import store as store_module
from twinloop.stores.influx.client import Client
from twinloop.stores.influx.options import InfluxOptions
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.influx.windows import Window, table_of

TAG = NAMES[0]
ROW = tuple[int, int]
QUESTIONS = ["SELECT 1", "SELECT 2"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


def queries(options: InfluxOptions, folder: Path, log: OutputLog | None = None) -> InfluxQueries:
    return InfluxQueries(options, folder / "store", NAMES, UNITS, (log or OutputLog()).after)


@contextmanager
def answering(
    answer: bytes | Callable[[str], bytes], version: str = "1.8.10", status: int = 200
) -> Iterator[tuple[InfluxOptions, list[bytes]]]:
    """A server that answers each question alike, or as it is told; with the bodies written to it."""
    written: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(204, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path.startswith("/query"):
                asked = parse_qs(urlsplit(self.path).query or body.decode())["q"][0]
                self._answer(status, answer if isinstance(answer, bytes) else answer(asked))
            else:
                written.append(body)
                self._answer(204, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("X-Influxdb-Version", version)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield InfluxOptions("demo", f"http://127.0.0.1:{listening.server_port}", "b"), written
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


FIRST = b'{"results":[{"statement_id":0,"series":[{"columns":["time","offset"],"values":[[1,2]]}]}]}\n'
PART = FIRST.replace(b"}]}]}", b'}],"partial":true}]}')
SECOND = FIRST.replace(b":0", b":1")
BROKEN = {
    "nothing": b"",
    "something else": b'{"status":"ok"}\n',
    "a list": b"[]\n",
    "a page": b"<html>come back later</html>",
    "no results": b'{"results":[]}\n',
    "cut between two statements": FIRST,
    "cut before the first": SECOND,
    "cut within a statement": SECOND + PART,
    "a statement nobody asked": FIRST + SECOND + FIRST.replace(b":0", b":9"),
    "cut within a line": FIRST + SECOND[:40],
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_not_whole_is_none(answer: bytes) -> None:
    with answering(answer) as (options, _), pytest.raises(StoreBusy, match="answer"):
        Client(options).ask(QUESTIONS, ROW)


@pytest.mark.parametrize("answer", [FIRST + SECOND, SECOND + PART + FIRST, (FIRST + SECOND)[:-1]])
def test_an_answer_is_whole_with_each_statements_last_result(answer: bytes) -> None:
    with answering(answer) as (options, _):
        found = Client(options).ask(QUESTIONS, ROW)
    assert [{row for series in each for row in series.values} for each in found] == [{(1, 2)}, {(1, 2)}]


def test_values_of_another_kind_are_the_questions_fault() -> None:
    with (
        answering(FIRST.replace(b"1,2", b'1,"two"') + SECOND) as (options, _),
        pytest.raises(QueryError, match="values of another kind"),
    ):
        Client(options).ask(QUESTIONS, ROW)


def test_of_no_rows_influxdb_3_says_nothing_and_that_is_an_answer() -> None:
    with answering(b"", "3.0.1") as (options, _):
        assert Client(options).ask(QUESTIONS[:1], ROW) == [[]]


ALONE = {key: answer for key, answer in BROKEN.items() if answer != FIRST}
ALONE["a statement not answered now"] = b'{"results":[{"statement_id":0,"error":"query interrupted"}]}'


@pytest.mark.parametrize("answer", ALONE.values(), ids=ALONE)
def test_no_place_is_free_and_no_history_empty_because_of_a_broken_answer(
    answer: bytes, tmp_path: Path
) -> None:
    with answering(answer) as (options, written):
        own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
        with pytest.raises(StoreBusy, match="answer"):
            own.write([samples(0, (0, 1, 1.0))])
        assert len(written) == 1, "the look whether it takes points, and no point"
        with pytest.raises(StoreBusy, match="answer"):
            queries(options, tmp_path).range(TAG, None, None)
        with pytest.raises(StoreBusy, match="answer"):
            queries(options, tmp_path).window(TAG, 60 * SECOND_NS, T0, T0 + 10**12)


def test_a_status_that_is_neither_an_answer_nor_a_refusal_is_no_answer(tmp_path: Path) -> None:
    with answering(FIRST, status=302) as (options, written):
        own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
        with pytest.raises(StoreBusy, match=r"does not answer now \(302"):
            own.write([samples(0, (0, 1, 1.0))])
        assert len(written) == 1


def test_a_bucket_without_a_mapping_is_not_taken_for_an_empty_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = b'{"code":"not found","message":"no dbrp mapping found: not found"}'
    with answering(missing, "2.7.1", 404) as (options, written):
        own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
        for at in range(2):
            own.write([samples(at, (0, at, 1.0))])
        assert len(written) == 3, "the look, and the points"
    assert caplog.text.count("last one sent will stand: InfluxDB 2.7.1") == 1
    assert "influx v1 dbrp create" in caplog.text


@pytest.mark.parametrize("limit", ["max-series-per-database", "max-values-per-tag"])
def test_points_over_a_limit_wait_for_it_to_be_raised_and_those_of_other_series_do_not(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ROWS_AT_ONCE", 1)
    refused: list[int] = []
    with influxdb(tmp_path, limits=f"{limit} = 2") as server:
        options = server.options()
        own = InfluxStore(options, tmp_path / "store", NAMES, UNITS, refused=refused.append)
        log = [samples(0, (0, 1, 1.0), (1, 1, 1.0))]
        own.write(log)
        log += [samples(1, (0, 2, 2.0), (2, 2, 2.0), (1, 2, 2.0)), samples(2, (0, 3, 3.0), (2, 3, 3.0))]
        log += [samples(3, (0, 2, -2.0), (2, 2, -2.0))]
        waits = []
        for _ in range(3):
            with pytest.raises(StoreBusy, match=f"no room for more series .*{limit}.* limit raised") as busy:
                own.write(log[1:])
            waits.append(busy.value.retry_after_s)
        assert waits == sorted(set(waits)), "ever longer"
        asked = queries(options, tmp_path)
        found = [values(asked.range(name, None, None)) for name in NAMES[:3]]
        assert found == [[1.0, 2.0, 3.0], [1.0, 2.0], []], "what is of series that exist is taken"
        own.seal()
        assert own.covered == 0
        server.limit("")
        server.kill()
        server.start()
        own.write(log[1:])
        own.close()
        assert own.covered == 3
        assert values(asked.range(NAMES[2], None, None)) == [2.0, 3.0]
        assert (len(asked.dead(None, None)), refused) == (0, [])


def test_the_server_may_be_forgotten_by_another_thread_at_any_moment() -> None:
    """A trace stands for the other thread: it steps in before each line."""
    with answering(FIRST) as (options, _):
        client = Client(options)
        inside = {Client.server.__code__, Client.where.fget.__code__}  # type: ignore[attr-defined]

        def forget(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code not in inside:
                return None
            if event == "line":
                client._server = None
            return forget

        before = sys.gettrace()
        sys.settrace(forget)
        try:
            assert client.server().major == 1
            assert client.where
        finally:
            sys.settrace(before)


def test_a_login_that_may_write_and_not_read_is_no_reason_to_wait(
    server: Influx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = server.options("written only", username="writer", password="w")
    server.ask('CREATE DATABASE "written only"')
    server.ask("CREATE USER writer WITH PASSWORD 'w'")
    server.ask('GRANT WRITE ON "written only" TO writer')
    own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
    with caplog.at_level(logging.WARNING, "twinloop.store"):
        for at in range(3):
            own.write([samples(at, (0, at, float(at)), (0, 0, 7.0 + at))])
    own.seal()
    assert own.covered == 2
    assert caplog.text.count("of samples with one time the last one sent will stand") == 1
    assert "refused user writer" in caplog.text
    reading = queries(server.options("written only"), tmp_path)
    assert values(reading.range(TAG, None, None)) == [9.0, 1.0, 2.0]

    server.ask("SET PASSWORD FOR writer = 'another'")
    with pytest.raises(StoreBusy, match="refused user writer"):
        own.write([samples(3, (0, 3, 3.0))])
    assert caplog.text.count("will stand") == 1


def test_a_windows_figures_are_of_the_same_rows_however_fast_more_come(tmp_path: Path) -> None:
    requests = 0

    def growing(asked: str) -> bytes:
        """One row more with each request: so many rows, of which the mean is ten times that."""
        nonlocal requests
        requests += 1
        results = []
        for at, statement in enumerate(asked.split(";")):
            row = [T0, requests, *([10.0 * requests] * 3 if "mean(" in statement else [])]
            results.append({"statement_id": at, "series": [{"columns": [], "values": [row]}]})
        return json.dumps({"results": results}).encode()

    with answering(growing) as (options, _):
        [found] = queries(options, tmp_path).window(TAG, 60 * SECOND_NS, T0, T0 + 60 * SECOND_NS).to_pylist()
    assert found["mean"] == found["max"] == 10.0 * found["count"]
    assert found["good_fraction"] == 1.0


def test_no_more_rows_are_good_than_there_are() -> None:
    total, good = [Window(0, 2), Window(60, 4)], [Window(0, 3), Window(60, 1)]
    assert table_of(total, [], good)["good_fraction"].to_pylist() == [1.0, 0.25]


def test_a_row_that_comes_late_makes_no_other_window_go_by_rows(server: Influx, tmp_path: Path) -> None:
    options = server.options()
    log = OutputLog([samples(0, *((0, 2 * at, float(at % 7)) for at in range(20_000)))])
    own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
    own.write(log.entries)
    own.seal()
    asked = queries(options, tmp_path, log)
    log.entries += [samples(1, (0, 1, 100.0)), samples(2, (0, 20_001, 200.0)), samples(3, (0, 40_000, 1.0))]

    def answered() -> int:
        [found] = server.ask("SHOW STATS FOR 'httpd'")
        return int(found["values"][0][found["columns"].index("queryRespBytes")])

    before = answered()
    windows = asked.window(TAG, 60 * SECOND_NS, None, None)
    assert answered() - before < 250_000, "some 700 windows, and the rows of two"
    assert sum(windows["count"].to_pylist()) == 20_003
    assert [each for each in windows["max"].to_pylist() if each > 6] == [100.0, 200.0]
