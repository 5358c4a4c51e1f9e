"""The store in a real InfluxDB 1.6.7, beyond the contract: what breaks, what others wrote, other servers."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

from support.influx import ADMIN, Influx, influxdb, victoria_metrics
from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, batch, samples, seconds, values
from support.services import free_port
from support.tls import make_certificates
from twinloop.compare import compare
from twinloop.errors import ConfigError, QueryError, StoreBusy
from twinloop.log.dictionary import Dictionary
from twinloop.records import Outputs
from twinloop.status import BAD, GOOD, UNCERTAIN, Reason
from twinloop.stores.influx.client import Client, Refused
from twinloop.stores.influx.options import InfluxOptions
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.latest import Latest
from twinloop.stores.local import LocalStore
from twinloop.stores.segments import list_segments
from twinloop.tls import tls_context

TAG = NAMES[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with influxdb(tmp_path_factory.mktemp("influxdb")) as running:
        yield running


def store(options: InfluxOptions, folder: Path, names: Sequence[str] = NAMES, **more: Any) -> InfluxStore:
    return InfluxStore(options, folder / "store", names, [""] * len(names), **more)


def queries(options: InfluxOptions, folder: Path, log: OutputLog | None = None) -> InfluxQueries:
    return InfluxQueries(options, folder / "store", NAMES, UNITS, (log or OutputLog()).after)


def columns(
    server: Influx, options: InfluxOptions, measurement: str = "twinloop"
) -> dict[str, tuple[Any, ...]]:
    """All there is of a measurement, by column."""
    [found] = server.ask(f'SELECT * FROM "{measurement}"', options.bucket)
    return dict(zip(found["columns"], zip(*found["values"], strict=True), strict=True))


def test_a_points_tags_say_what_never_changes_and_its_fields_the_rest(server: Influx, tmp_path: Path) -> None:
    options = server.options()
    fill = batch([(0, 2, 84.0, UNCERTAIN, Reason.STALE)])
    own = InfluxStore(options, tmp_path / "store", NAMES, UNITS)
    own.write([samples(0, (0, 1, 85.0)), samples(1, (0, 2, 86.0, BAD, Reason.RANGE))])
    own.write([(2, Outputs(2, T0, fills=fill.buffers()))])
    own.close()

    found = columns(server, options)
    series = server.ask("SHOW SERIES", options.bucket)[0]["values"]
    assert series == [
        ["twinloop,asset=R101,plant=demo,tag=R101.temperature,unit=degC"],
        ["twinloop_fills,asset=R101,plant=demo,tag=R101.temperature,unit=degC"],
    ], "a change of quality starts no series"
    assert found["status"] == (GOOD, BAD)
    assert found["reasons"] == (0, Reason.RANGE)
    assert (found["value"], found["estimate"], found["estimate_std"]) == ((85, 86), (85, 86), (0.5, 0.5))
    assert (found["offset"], found["arrival_ms"]) == ((0, 1), tuple(t // 10**6 for t in found["time"]))
    assert columns(server, options, "twinloop_fills")["status"] == (UNCERTAIN,)


def test_what_one_bad_point_is_among_does_not_wait_for_it_and_it_becomes_a_dead_letter(
    server: Influx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = server.options()
    told: list[int] = []
    own = store(options, tmp_path, refused=told.append)
    edge = batch([(1, 5, 5.0)]).with_columns(time=np.array([2**63 - 1]))
    rows = [(0, at, float(at)) for at in range(50)]
    with caplog.at_level(logging.WARNING, "twinloop.store"):
        own.write([samples(0, *rows[:25]), (1, Outputs(1, T0, edge.buffers())), samples(2, *rows[25:])])
    own.close()
    asked = queries(options, tmp_path)

    assert own.covered == 2, "it does not hold anything up"
    assert values(asked.range(TAG, None, None)) == [float(at) for at in range(50)]
    [letter] = asked.dead(None, None).to_pylist()
    assert (letter["source"], letter["origin"], letter["reason"]) == ("(store)", NAMES[1], "REFUSED")
    assert letter["raw"].startswith(b"twinloop,asset=R101,plant=demo,tag=R101.pressure ")
    assert b"\n" not in letter["raw"]
    assert "time outside range" in letter["detail"]
    assert told == [1]
    assert "1 points refused for good, the first of R101.pressure" in caplog.text


def test_points_whose_field_others_have_with_another_type_are_dead_letters_at_once(
    server: Influx, tmp_path: Path
) -> None:
    options = server.options()
    server.ask(f'CREATE DATABASE "{options.bucket}"')
    server.write(f'twinloop status="a text" {T0}', options.bucket)
    own = store(options, tmp_path)
    own.write([samples(0, *((0, at, float(at)) for at in range(3000)))])
    own.close()
    asked = queries(options, tmp_path)

    assert len(asked.dead(None, None)) == 3000
    assert "field type conflict" in asked.dead_summary(None, None).to_pylist()[0]["detail"]


def test_a_login_a_database_or_a_server_that_is_not_right_is_one_sentence_and_waits(
    server: Influx, tmp_path: Path
) -> None:
    options = server.options()
    server.ask("CREATE USER guest WITH PASSWORD 'guest'")
    nobody = {"username": "", "password": ""}
    cases: list[tuple[InfluxOptions, str]] = [
        (server.options(password="wrong"), "refused user admin.*authorization failed.*see `username`"),
        (server.options(**nobody), "lets nobody in without a login: give `token`, or `username`"),
        (server.options(**nobody, token="T"), "takes no token: give `username` and `password`"),
        (
            server.options("no such", username="guest", password="guest"),
            'has no database "no such" and did not make it .*requires admin.*have an administrator',
        ),
        (server.options(url=f"http://127.0.0.1:{free_port()}"), "cannot be reached: Connection refused"),
        (server.options(url="http://no.such.host.invalid"), "cannot be reached: .*(resol|known|failure)"),
    ]
    for at, (wrong, expected) in enumerate(cases):
        own = store(wrong, tmp_path / str(at))
        waits = []
        for _ in range(3):
            with pytest.raises(StoreBusy, match=expected) as busy:
                own.write([samples(0, (0, 1, 1.0))])
            waits.append(busy.value.retry_after_s)
        assert "\n" not in str(busy.value)
        assert ADMIN[1] not in str(busy.value)
        assert waits == sorted(set(waits)), "ever longer"
        assert waits[0] <= 1
        assert own.covered == -1
        own.close()
    own = store(options, tmp_path)
    own.write([samples(0, (0, 1, 1.0))])
    with pytest.raises(StoreBusy, match="refused user admin"):
        queries(server.options(options.bucket, password="wrong"), tmp_path).range(TAG, None, None)


def test_a_silent_server_is_waited_for_no_longer_than_it_may(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        own = store(InfluxOptions("demo", url, "b", timeout_s=0.2), tmp_path)
        with pytest.raises(StoreBusy, match=r"cannot be reached: .*timed out"):
            own.write([samples(0, (0, 1, 1.0))])


def test_a_server_that_answers_anything_else_loses_nothing(tmp_path: Path) -> None:
    with answering(500, b'{"error":"engine is closed"}') as url:
        own = store(InfluxOptions("demo", url, "b"), tmp_path)
        with pytest.raises(StoreBusy, match=r"does not take points now \(500: engine is closed"):
            own.write([samples(0, (0, 1, 1.0))])
    with answering(400, b'{"code":"invalid","message":"org is missing"}') as url:
        own = store(InfluxOptions("demo", url, "b"), tmp_path)
        with pytest.raises(StoreBusy, match="does not take points: org is missing"):
            own.write([samples(0, *((0, at, 1.0) for at in range(100)))])
    with answering(413, b"too much") as url, pytest.raises(Refused, match="too much"):
        Client(InfluxOptions("demo", url, "b")).write(b"m v=1\n")


class answering:  # noqa: N801 - used as a function
    """A server that answers every POST alike, and says that it is InfluxDB 1.8."""

    def __init__(self, status: int, body: bytes) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(204)
                self.send_header("X-Influxdb-Version", "1.8.10")
                self.end_headers()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200 if self.path.startswith("/query") else status)
                answer = b'{"results":[{}]}' if self.path.startswith("/query") else body
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_https_is_verified(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with influxdb(tmp_path, certificates) as server:
        trusting = server.options(tls=lambda: tls_context(certificates.authority))
        own = store(trusting, tmp_path)
        own.write([samples(0, (0, 1, 1.0))])
        own.close()
        assert values(queries(trusting, tmp_path).range(TAG, None, None)) == [1.0]
        with pytest.raises(StoreBusy, match=r"cannot be reached: .*certificate verify failed"):
            Client(server.options(tls=tls_context)).look()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ConfigError, match=r"pip install 'twinloop\[influxdb\]'"):
        store(InfluxOptions("demo", "http://127.0.0.1", "b"), tmp_path)


@pytest.mark.parametrize("more", [{"token": "T", "org": "o"}, {}])
def test_victoriametrics_takes_the_points_by_either_way(tmp_path: Path, more: dict[str, str]) -> None:
    for folder in ("vm", "store"):
        (tmp_path / folder).mkdir()
    with victoria_metrics(tmp_path / "vm") as url:
        options = InfluxOptions("demo", url, "b", **more)  # type: ignore[arg-type]
        own = store(options, tmp_path)
        own.write([samples(0, (0, 1, 85.25), (0, 2, 86.5, BAD, Reason.RANGE), (2, 2, 7.0))])
        own.close()
        assert own.covered == 0
        http = urllib3.PoolManager()
        http.request("GET", f"{url}/internal/force_flush")
        match = {"match[]": '{__name__=~"twinloop_(value|status)",tag="R101.temperature"}'}
        lines = http.request("GET", f"{url}/api/v1/export", fields=match).data.splitlines()
        found = {each["metric"]["__name__"]: each for each in map(json.loads, lines)}
        assert found["twinloop_value"]["values"] == [85.25, 86.5]
        assert found["twinloop_value"]["timestamps"] == [T0 // 10**6 + 1000, T0 // 10**6 + 2000]
        assert found["twinloop_status"]["values"] == [GOOD, BAD]
        assert found["twinloop_value"]["metric"]["asset"] == "R101"
        http.clear()
        with pytest.raises(QueryError, match="answers no InfluxQL"):
            queries(options, tmp_path).range(TAG, None, None)
        assert values(queries(options, tmp_path).latest([TAG])) == [86.5], "the journal has it"


def test_of_late_rows_only_those_whose_place_is_free_are_sent(server: Influx, tmp_path: Path) -> None:
    options = server.options()
    own = store(options, tmp_path)
    own.write([samples(0, *((0, at, 1.0) for at in (0, 10, 20, 5000)))])
    own.close()
    own = store(options, tmp_path)
    late = (GOOD, int(Reason.LATE))
    own.write([samples(1, *((0, at, 2.0, *late) for at in (0, 5, 10, 15, 4999, 5000)))])
    own.write([samples(2, (0, 15, 3.0, *late), (0, 16, 3.0, *late), (0, 6000, 3.0))])
    own.close()

    found = queries(options, tmp_path).range(TAG, None, None)
    assert dict(zip(seconds(found), values(found), strict=True)) == {
        0: 1.0, 5: 2.0, 10: 1.0, 15: 2.0, 16: 3.0, 20: 1.0, 4999: 2.0, 5000: 1.0, 6000: 3.0,
    }  # fmt: skip


def test_late_rows_far_apart_are_looked_up_some_at_a_time(server: Influx, tmp_path: Path) -> None:
    options = server.options()
    late = (GOOD, int(Reason.LATE))
    own = store(options, tmp_path)
    own.write([samples(0, *((tag, 100 * at, 1.0) for at in range(50) for tag in (0, 6)))])
    own.write([samples(1, *((tag, 50 * at, 2.0, *late) for at in range(99) for tag in (0, 6)))])
    own.close()
    for tag in (0, 6):
        assert values(queries(options, tmp_path).range(NAMES[tag], None, None)) == [1.0, 2.0] * 49 + [1.0]


def test_a_server_that_cannot_be_asked_is_written_to_all_the_same(
    server: Influx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = server.options()
    server.ask(f'CREATE DATABASE "{options.bucket}"')
    server.write('twinloop,plant=demo,tag=R101.temperature offset="a text" 1', options.bucket)
    own = store(options, tmp_path)
    for at in range(2):
        own.write([samples(at, (0, at, float(at)))])
    assert server.ask('SELECT count("value") FROM twinloop', options.bucket)[0]["values"][0][1] == 2
    assert caplog.text.count("of samples with one time the last one sent will stand") == 1


def test_what_was_accepted_and_not_sealed_is_not_stored_twice_after_a_crash(
    server: Influx, tmp_path: Path
) -> None:
    options = server.options()
    log = [samples(at, (0, at, float(at)), (1, at, -float(at))) for at in range(40)]
    for upto in (10, 25, 40):
        own = store(options, tmp_path)
        assert own.covered == -1
        own.write(log[:upto])  # and the process is gone
    own.close()

    assert own.covered == 39
    [row] = server.ask('SELECT count("value"), count(distinct("value")) FROM twinloop', options.bucket)
    assert row["values"][0][1:] == [80, 79], "0.0 and -0.0 are one value"


def test_a_newer_state_takes_the_place_of_one_that_it_replaced_and_none_is_made_of_what_is_elsewhere(
    server: Influx, tmp_path: Path
) -> None:
    own = store(server.options(), tmp_path)
    listings = []
    for at in range(3):
        own.write([samples(at, (0, at, float(at)))])
        own.seal()
        listings.append(list_segments(tmp_path / "store"))
    assert values(Latest.at(tmp_path / "store", NAMES, listings[0]).rows()) == [2.0]
    assert values(Latest.at(tmp_path / "store", NAMES, listings[-1]).rows()) == [2.0]


def test_history_from_before_influxdb_stays_where_it_is_and_is_answered(
    server: Influx, tmp_path: Path
) -> None:
    local = LocalStore(tmp_path / "store", NAMES)
    local.write([samples(at, (0, at, float(at))) for at in range(20)])
    local.close()
    options = server.options()
    own = store(options, tmp_path)
    own.write([samples(at, (0, at, float(at))) for at in range(40)])
    own.close()
    asked = queries(options, tmp_path)

    assert len(columns(server, options)["value"]) == 20
    assert values(asked.range(TAG, None, None)) == [float(at) for at in range(40)]
    windows = asked.window(TAG, 15 * SECOND, None, None)
    assert sum(windows["count"].to_pylist()) == 40
    assert values(asked.latest([TAG])) == [39.0]


def test_directories_whose_samples_are_in_influxdb_are_not_compared_as_if_they_had_none(
    server: Influx, tmp_path: Path
) -> None:
    own = store(server.options(), tmp_path)
    own.write([samples(0, (0, 1, 1.0))])
    own.close()
    Dictionary(tmp_path / "dictionary.sqlite").close()
    with pytest.raises(QueryError, match=r"its samples are in InfluxDB.*replay --from-log"):
        compare(tmp_path, tmp_path)
