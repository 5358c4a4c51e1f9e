"""The HTTP API: the rows of `twinloop query` in every format, by pages, and problems that say what helps."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI

from support.looking import StoredLook, asking, recorded_look, served
from support.outputs import OutputLog
from support.recorded import TAGS, recorded_outputs
from twinloop.batch import Batch
from twinloop.cli.query import Question, What, ask
from twinloop.errors import LogError, StoreBusy
from twinloop.estimation.kalman import KalmanBank
from twinloop.present import in_words, render, to_json
from twinloop.records import Event, EventKind, Outputs, Samples
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.importing import ImportSource
from twinloop.status import Reason
from twinloop.stores.queries import LocalQueries
from twinloop.storing import units_of
from twinloop.tags import Refusal, Resolver, TagTable
from twinloop.web.api import api_router
from twinloop.web.api.history import MOST_SAMPLES, MOST_WINDOWS

TAG = "R101.temperature"
ALL: dict[str, Question] = {
    "latest": Question("latest"),
    f"latest?tag=R101.running&tag={TAG}": Question("latest", ("R101.running", TAG)),
    f"range?tag={TAG}": Question("range", (TAG,)),
    f"range?tag={TAG}&start=2027-01-15T08:00:05Z&end=2027-01-15T08:00:20.5Z": Question(
        "range", (TAG,), "2027-01-15T08:00:05Z", "2027-01-15T08:00:20.5Z"
    ),
    f"window?tag={TAG}&every=7s": Question("window", (TAG,), every="7s"),
    f"window?tag={TAG}&every=1m&uncertain_as_good=true": Question(
        "window", (TAG,), every="1m", uncertain_as_good=True
    ),
    f"window?tag={TAG}&every=10s&aggregate=time_average&aggregate=minimum,worst_quality": Question(
        "window", (TAG,), every="10s", aggregates=("time_average", "minimum", "worst_quality")
    ),
    "events": Question("events"),
    "dead": Question("dead"),
    "dead?start=2027-01-15T08:00:05Z": Question("dead", start="2027-01-15T08:00:05Z"),
    "dead/summary": Question("dead", summary=True),
    "snapshots": Question("snapshots"),
    "snapshots?asset=R101&end=2027-01-15T08:00:05Z": Question(
        "snapshots", ("R101",), end="2027-01-15T08:00:05Z"
    ),
}


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> StoredLook:
    return recorded_look(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def app(look: StoredLook) -> FastAPI:
    return served(look)


@pytest.fixture(scope="module")
def open_look(tmp_path_factory: pytest.TempPathFactory) -> StoredLook:
    """One that takes lab samples."""
    return recorded_look(tmp_path_factory.mktemp("open"), writable=True)


@pytest.fixture(scope="module")
def open_app(open_look: StoredLook) -> FastAPI:
    return served(open_look)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(app) as asked:
        yield asked


def expected(look: StoredLook, question: Question) -> pa.Table:
    assert look.twin is not None
    return ask(look.twin.queries, question, 0)


@pytest.mark.parametrize("path", ALL)
async def test_rows_are_those_of_query_in_every_format(
    look: StoredLook, client: httpx.AsyncClient, path: str
) -> None:
    table = expected(look, ALL[path])
    what: What = ALL[path].what
    assert len(table)
    for form, media in (("json", "application/json"), ("csv", "text/csv")):
        answer = await client.get(path, headers={"Accept": media})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].partition(";")[0] == media
        assert answer.content == render(table, what, form)
    answer = await client.get(path, headers={"Accept": "application/vnd.apache.arrow.stream"})
    read, worded = pa.ipc.open_stream(answer.content).read_all(), in_words(table)
    assert read.schema == worded.schema
    assert to_json(read) == to_json(worded)  # NaN and NaN are no equals


async def test_a_key_given_twice_where_one_would_count_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"range?tag={TAG}&tag={TAG}")
    assert answer.status_code == 422
    assert "tag is given twice" in answer.json()["detail"]
    assert (await client.get(f"latest?tag={TAG}&tag={TAG}")).status_code == 200


async def test_numbers_of_csv_and_json_round_trip(look: StoredLook, client: httpx.AsyncClient) -> None:
    table = expected(look, Question("range", (TAG,)))
    as_csv = list(csv.DictReader(io.StringIO((await client.get(f"range?tag={TAG}&format=csv")).text)))
    as_json = (await client.get(f"range?tag={TAG}&format=json")).json()
    for name in ("value", "estimate", "estimate_std"):
        stored = table[name].to_pylist()
        assert [float(row[name]) if row[name] else None for row in as_csv] == stored
        assert [row[name] for row in as_json] == stored


PAGED = [
    *ALL,
    f"fills?tag={TAG}",
    "predictions",
    "predictions?output=conversion&asset=R101",
    "events?asset=R101&kind=STATUS",
    "quality?start=2027-01-15T08:00:00Z&end=2027-01-15T08:02:00Z",
    "tags",
    "assets",
    "trouble",
]


@pytest.mark.parametrize(
    ("path", "limit"), [*((path, 7) for path in PAGED), ("dead", 1), ("events", 1), ("predictions", 4)]
)
async def test_pages_have_every_row_once_and_no_more_than_asked_for(
    client: httpx.AsyncClient, path: str, limit: int
) -> None:
    whole = (await client.get(path)).json()
    assert whole
    following: str | None = f"{path}{'&' if '?' in path else '?'}limit={limit}"
    found: list[dict[str, Any]] = []
    while following:
        answer = await client.get(following)
        rows = answer.json()
        assert 0 < len(rows) <= limit
        found += rows
        following = answer.links.get("next", {}).get("url")
        assert following is None or len(rows) == limit
        following = following and str(answer.url.join(following))
    assert found == whole


LATE: dict[str, dict[str, Any]] = {
    "window": {"time": None, "count": 3},
    "quality": {"tag": TAG, "time": None, "count": 3, "good": 3, "uncertain": 0, "bad": 0},
}


@pytest.mark.parametrize("name", LATE)
async def test_rows_that_come_late_between_two_pages_give_no_other_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    own = recorded_look(tmp_path)
    assert own.twin is not None
    question = {"window": f"window?tag={TAG}&every=2s", "quality": "quality?every=1m"}[name]
    question += "&start=2027-01-15T07:50:00Z&end=2027-01-15T08:02:00Z"
    real = getattr(own.twin.queries, name)

    def late(*given: Any, **more: Any) -> pa.Table:
        """The same, with a window of ten minutes before as the first row."""
        table = real(*given, **more)
        before = pa.scalar(1768463400 * 10**9, table.schema.field("time").type)
        first = pa.Table.from_pylist([{**LATE[name], "time": before}], table.schema)
        return pa.concat_tables([first, table])

    async with asking(own) as client:
        whole = (await client.get(question)).json()
        answer = await client.get(f"{question}&limit=2")
        found = answer.json()
        monkeypatch.setattr(own.twin.queries, name, late)
        while following := answer.links.get("next", {}).get("url"):
            answer = await client.get(str(answer.url.join(following)))
            found += answer.json()
    assert found == whole
    assert len(whole) > 2


async def test_a_link_leads_on_in_the_format_that_was_accepted(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"range?tag={TAG}&limit=20", headers={"Accept": "text/csv"})
    again = await client.get(str(answer.url.join(answer.links["next"]["url"])))
    assert again.headers["content-type"].startswith("text/csv")
    assert len(answer.text.splitlines()) + len(again.text.splitlines()) == 2 + 30


async def test_a_link_keeps_the_moment_that_relative_times_meant(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"range?tag={TAG}&start=-10000d&end=%2B10000d&limit=1")
    keys = httpx.QueryParams(answer.links["next"]["url"].partition("?")[2])
    assert keys["start"].endswith("Z")
    assert keys["end"].endswith("Z")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0.2, text/csv;q=0.9", "text/csv"),
        ("*/*, application/json;q=0", "text/csv"),
        ("application/vnd.apache.arrow.stream, */*;q=0.5", "application/vnd.apache.arrow.stream"),
    ],
)
async def test_accept_is_weighed(client: httpx.AsyncClient, accept: str, media: str) -> None:
    answer = await client.get("tags", headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a problem, which is one by RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == status
    assert said["type"]
    assert said["title"]
    detail: str = said["detail"]
    return detail


@pytest.mark.parametrize("path", ["range?", "fills?", "window?every=1m&", "latest?", "provenance?"])
async def test_an_unknown_tag_is_a_problem_that_names_the_nearest(
    client: httpx.AsyncClient, path: str
) -> None:
    assert "did you mean R101.temperature?" in problem(await client.get(f"{path}tag=R101.temprature"), 404)
    assert problem(await client.get(f"{path}tag="), 404)


@pytest.mark.parametrize("path", ["tags", "events", "snapshots", "predictions", "trouble", "latest"])
async def test_an_unknown_asset_is_a_problem_that_names_the_nearest(
    client: httpx.AsyncClient, path: str
) -> None:
    assert "did you mean R101?" in problem(await client.get(f"{path}?asset=R10"), 404)
    assert "did you mean R101?" in problem(await client.get("assets/R10"), 404)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (f"range?tag={TAG}&start=yesterday", 422, "start: 'yesterday' is not a time"),
        (f"range?tag={TAG}&start=2026-02-31", 422, "is not a time"),
        (f"range?tag={TAG}&start=-1h&end=-2h", 400, "is not before the end"),
        (f"range?tag={TAG}&strat=-1h", 422, "did you mean 'start'?"),
        ("range", 422, "tag: Field required"),
        ("events?kind=NOTHING", 422, "kind"),
        ("tags?limit=0", 422, "limit"),
        ("tags?limit=100001", 422, "limit"),
        ("tags?format=xml", 422, "format"),
        ("tags?cursor=soon", 422, "cursor"),
        ("tags?cursor=99999999999999999999", 422, "cursor"),
        ("tags?cursor=5.1", 422, "another question"),
        (f"range?tag={TAG}&cursor=5", 422, "another question"),
        (f"range?tag={TAG}&cursor=5.9999999", 422, "another question"),
        (f"window?tag={TAG}&every=fortnight", 422, "every"),
        (f"window?tag={TAG}&aggregate=averge", 422, "did you mean average?"),
        ("quality?every=90s", 400, "whole minutes"),
        ("quality?start=%2B1h", 400, "not before now"),
        ("quality?start=1900-01-01&every=1d", 400, "at most"),
        ("nowhere", 404, "nothing at /nowhere"),
    ],
)
async def test_what_cannot_be_answered_is_a_problem_that_says_why(
    client: httpx.AsyncClient, path: str, status: int, text: str
) -> None:
    assert text in problem(await client.get(path), status)


async def test_an_offset_may_be_written_with_a_bare_plus(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get(f"range?tag={TAG}&start=2027-01-15T09:00:20{sign}01:00") for sign in ("+", "%2B")
    ]
    assert answers[0].json() == answers[1].json() != []


async def test_a_format_nobody_has_is_not_acceptable(client: httpx.AsyncClient) -> None:
    assert "text/csv" in problem(await client.get("tags", headers={"Accept": "image/png"}), 406)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
async def test_another_method_is_told_which_there_are(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "tags")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_windows_are_limited_by_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = recorded_look(tmp_path)
    assert own.twin is not None
    real = own.twin.queries.window

    def counted(*given: Any, **more: Any) -> pa.Table:
        """The real windows, of samples that are each many."""
        table = real(*given, **more)
        at = table.schema.get_field_index("count")
        return table.set_column(at, "count", pa.array([MOST_SAMPLES + 1] * len(table)))

    monkeypatch.setattr(own.twin.queries, "window", counted)
    async with asking(own) as client:
        for question in ("every=1s", "every=1m&aggregate=average"):
            answer = await client.get(f"window?tag={TAG}&{question}")
            assert f"{MOST_SAMPLES:,} are read at most" in problem(answer, 400)
        answer = await client.get(f"window?tag={TAG}&every=1m&start=1990-01-01&end=2260-01-01")
        assert f"{MOST_WINDOWS:,} the most" in problem(answer, 400)
        monkeypatch.setattr(own.twin.queries, "window", real)
        answer = await client.get(f"window?tag={TAG}&every=1ms&start=2027-01-15&aggregate=count")
        assert f"{MOST_WINDOWS:,} the most" in problem(answer, 400)
        assert (await client.get(f"window?tag={TAG}&every=1d&start=1990-01-01&end=2260-01-01")).json()


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (StoreBusy("InfluxDB at x is away", retry_after_s=2.5), 503, "3"),
        (LogError("a log cannot be read"), 503, "5"),
        (RuntimeError("s3cret detail of the inside"), 500, None),
    ],
)
async def test_a_failure_is_a_problem_without_a_trace(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    after: str | None,
) -> None:
    own = recorded_look(tmp_path)
    assert own.twin is not None

    def fail(*_: object, **__: object) -> pa.Table:
        raise error

    monkeypatch.setattr(own.twin.queries, "range", fail)
    async with asking(own) as client:
        answer = await client.get(f"range?tag={TAG}")
    detail = problem(answer, status)
    assert answer.headers.get("retry-after") == after
    assert (str(error) == detail) == (status == 503)
    assert ("s3cret" in caplog.text) == (status == 500)
    assert "Traceback" not in answer.text


async def test_a_process_that_starts_says_so(tmp_path: Path) -> None:
    own = recorded_look(tmp_path)
    own.twin = None
    async with asking(own) as client:
        for path in ("tags", "assets", "latest", f"range?tag={TAG}", "quality", "health", "pipeline", "dead"):
            answer = await client.get(path)
            assert "starting" in problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
        for path in ("", "plant", "openapi.json", "docs"):
            assert (await client.get(path)).status_code == 200


async def test_a_store_that_hangs_keeps_nobody_from_the_twin_and_those_who_wait_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anyio

    own = recorded_look(tmp_path)
    assert own.twin is not None
    go_on = threading.Event()
    real = own.twin.queries.range

    def hang(*given: Any, **more: Any) -> pa.Table:
        assert go_on.wait(30)
        return real(*given, **more)

    monkeypatch.setattr(own.twin.queries, "range", hang)
    statuses: list[int] = []
    async with asking(own) as client, anyio.create_task_group() as group:

        async def one() -> None:
            answer = await client.get(f"range?tag={TAG}&limit=1")
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                go_on.set()

        for _ in range(70):
            group.start_soon(one)
        assert (await client.get("tags")).status_code == 200
        assert (await client.get("assets")).status_code == 200
    assert statuses.count(503) == 8
    assert statuses.count(200) == 62


async def test_tags_have_their_rules_and_null_for_none(client: httpx.AsyncClient) -> None:
    rows = (await client.get("tags")).json()
    assert [row["index"] for row in rows] == [0, 1, 2]
    first = rows[0]
    assert (first["range_low"], first["range_high"], first["warn_low"]) == (-50, 400, None)
    assert (first["spike_fraction"], first["stuck_s"], first["stale_s"], first["noise"]) == (0.2, 600, 3, 0.5)
    assert rows[2]["analogue"] is False
    assert [row["tag"] for row in (await client.get("tags?search=PRESS")).json()] == ["R101.pressure"]


async def test_an_asset_is_its_newest_snapshot_and_its_tags(
    look: StoredLook, client: httpx.AsyncClient
) -> None:
    assert look.twin is not None
    shot = look.twin.snapshots()["R101"]
    said = (await client.get("assets/R101")).json()
    assert said["snapshot"]["state"] == shot.state
    assert [each["tag"] for each in said["tags"]] == [tag.name for tag in TAGS]
    [row] = (await client.get("assets")).json()
    assert row["tags"] == row["good"] + row["uncertain"] + row["bad"] == 3
    assert row["worst_tag"] == "R101.running"
    assert row["conversion"] == {each.output: each.now for each in shot.predictions}["conversion"]


async def test_trouble_counts_each_reason_and_puts_the_worst_first(client: httpx.AsyncClient) -> None:
    rows = (await client.get("trouble")).json()
    batch = Batch.concat([each.batch() for each in recorded_outputs()])
    for row in rows:
        own = batch.take(batch.tag == [tag.name for tag in TAGS].index(row["tag"]))
        assert row["good"] + row["uncertain"] + row["bad"] == len(own)
        counted = {each.name: int((own.reasons & np.uint32(each) != 0).sum()) for each in Reason}
        assert row["by_reason"] == {name: number for name, number in counted.items() if number}
    order = ["Bad", "Uncertain", "Good"]
    ranks = [order.index(row["status"]) for row in rows]
    assert ranks == sorted(ranks)


async def test_a_prediction_is_due_its_horizon_later(client: httpx.AsyncClient) -> None:
    table = pa.ipc.open_stream((await client.get("predictions?format=arrow")).content).read_all()
    ahead = (table["due"].cast(pa.int64()).to_numpy() - table["time"].cast(pa.int64()).to_numpy()) / 1e9
    assert (ahead == table["horizon_s"].to_numpy()).all()
    shots = [shot for each in recorded_outputs() for shot in each.snapshots]
    assert len(table) == sum(len(shot.predictions) for shot in shots)


async def test_provenance_tells_the_gain_and_innovation_the_filter_had(client: httpx.AsyncClient) -> None:
    table = TagTable(TAGS)
    bank = KalmanBank(table)
    checked = 0
    for outputs in recorded_outputs():
        batch = outputs.batch()
        for row in range(len(batch)):
            one = batch.take(slice(row, row + 1))
            before = float(bank.at(int(one.time[0]))[0][one.tag[0]])
            bank.step(one.with_columns(reasons=one.reasons & ~np.uint32(Reason.INNOVATION)))
            used = one.status[0] == 0 and not one.reasons[0] & Reason.INNOVATION
            if one.tag[0] != 0 or not used or math.isnan(before):
                continue
            said = (
                await client.get(f"provenance?tag={TAG}&time={np.datetime64(int(one.time[0]), 'ns')}Z")
            ).json()
            innovation = float(one.value[0]) - before
            assert said["filter"]["innovation"] == pytest.approx(innovation, abs=1e-2)
            assert said["filter"]["gain"] * innovation == pytest.approx(
                float(one.estimate[0]) - before, abs=1e-2
            )
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("written_s", "started_s", "known"),
    [(-10, 5, True), (-10, 30, False), (20, 5, False), (0, None, False)],
)
async def test_provenance_tells_a_gain_only_by_rules_that_were_in_force(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written_s: int,
    started_s: int | None,
    known: bool,  # noqa: FBT001
) -> None:
    own = recorded_look(tmp_path)
    assert own.twin is not None
    begun = own.twin.counts()
    monkeypatch.setattr(own.twin, "counts", lambda: replace(begun, since_ns=begun.since_ns + 86400 * 10**9))
    if started_s is not None:
        start = Event(begun.since_ns + started_s * 10**9, "twin", EventKind.STARTED)
        queries = LocalQueries(
            own.config.data_dir / "store", own.twin.table.names, units_of(own.twin.table),
            OutputLog([(10**6, Outputs(10**6, start.time, [], events=[start]))]).after,
        )  # fmt: skip
        monkeypatch.setattr(own.twin, "queries", queries)
    written = begun.since_ns / 1e9 + written_s
    os.utime(own.path, (written, written))
    async with asking(own) as client:
        said = (await client.get(f"provenance?tag={TAG}&time=2027-01-15T08:00:10Z")).json()["filter"]
    assert said["noise"] == 0.5
    assert (said["gain"] is not None, said["note"] is None) == (known, known)


async def test_provenance_names_each_rule_that_fired(client: httpx.AsyncClient) -> None:
    said = (await client.get(f"provenance?tag={TAG}&time=2027-01-15T08:00:12Z")).json()
    assert said["value"] == 120
    assert said["reasons"] == "|".join(each["reason"] for each in said["why"])
    rules = {each["reason"]: each["rule"] for each in said["why"]}
    assert rules["SPIKE"] == "spike: 20%"
    assert rules["RATE"] == "rate_limit: 5"
    assert "39.5 %" in next(each["sentence"] for each in said["why"] if each["reason"] == "SPIKE")
    assert said["status_code"]["name"] == "Uncertain"
    assert len(said["before"]) == 12
    assert said["log"]["offset"] > 0
    assert "no sample at" in problem(await client.get(f"provenance?tag={TAG}&time=1999-01-01"), 404)


def test_every_reason_has_a_sentence() -> None:
    from twinloop.web.api.provenance import _PLAIN

    assert set(_PLAIN) == set(Reason)


LAB = [
    {"tag": TAG, "time": "2026-03-01T10:00:00Z", "value": 358.15, "unit": "K"},
    {"tag": "R101.pressure", "time": "-5m", "value": 2.5, "status": "Uncertain"},
    {"tag": "R101.running", "time": "-1m", "value": True},
]


class Intake:
    """Numbers the series of a spool, as the running twin does."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self._resolver = Resolver(TagTable(TAGS), {REPLAY: str})

    def series(self, address: str, unit: str) -> int | Refusal:
        answer = self._resolver.resolve((REPLAY, address, unit))
        if isinstance(answer, Refusal):
            return answer
        self.keys.append((address, unit))
        return len(self.keys) - 1

    def now_ns(self) -> int:
        return 0


async def test_lab_samples_arrive_through_the_spool_reader(tmp_path: Path) -> None:
    own = recorded_look(tmp_path, writable=True)
    async with asking(own) as client:
        answer = await client.post("samples", json=LAB)
    assert answer.status_code == 202
    assert answer.json() == {"taken": 3}
    intake = Intake()
    source = ImportSource(own.config.data_dir, intake, watch=False)
    async with source.connect() as deliveries:
        [delivery] = [each async for each in deliveries]
    [samples] = delivery.records
    assert isinstance(samples, Samples)
    received = samples.unpack()
    found = {
        intake.keys[series]: value for series, value in zip(received.series, received.value, strict=True)
    }
    assert found == {(TAG, "K"): 358.15, ("R101.pressure", ""): 2.5, ("R101.running", ""): 1.0}
    assert not samples.live
    assert received.source_time[0] == 1772359200 * 10**9


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"tag": "R101.temprature", "time": "-1m", "value": 1}, "did you mean R101.temperature?"),
        ({"tag": TAG, "time": "-1m", "value": 1, "unit": "bar"}, "bar"),
        ({"tag": TAG, "time": "soon", "value": 1}, "is not a time"),
        ({"tag": TAG, "time": "+1h", "value": 1}, "is to come"),
        ({"tag": TAG, "time": "+5s", "value": 1}, "is to come"),
        ({"tag": TAG, "time": "-1m", "value": "85"}, "value"),
        ({"tag": TAG, "time": "-1m", "value": None}, "value"),
        ({"tag": TAG, "time": "-1m", "value": 1, "status": "superb"}, "is no status"),
        ({"tag": TAG, "time": "-1m", "value": 1, "valeu": 1}, "valeu"),
        ({"tag": TAG, "value": 1}, "time"),
        (7, "object"),
    ],
)
async def test_a_bad_lab_sample_is_named_and_none_is_taken(
    open_look: StoredLook, open_app: FastAPI, row: object, text: str
) -> None:
    async with asking(open_app) as client:
        answer = await client.post("samples", json=[LAB[0], row])
    assert "none was taken" in problem(answer, 422)
    [error] = answer.json()["errors"]
    assert error["where"] == "row 1"
    assert text in error["detail"]
    assert not list((open_look.config.data_dir / "import").glob("*"))


async def test_samples_are_let_in_only_where_the_plant_file_says_so(client: httpx.AsyncClient) -> None:
    assert "writable: true" in problem(await client.post("samples", json=LAB), 403)


async def test_a_body_that_is_no_list_of_samples_is_refused(open_app: FastAPI) -> None:
    async with asking(open_app) as client:
        json_kind = {"Content-Type": "application/json; charset=utf-8"}
        assert problem(await client.post("samples", content=json.dumps(LAB)), 415)
        assert problem(await client.post("samples", content=b'{"tag":', headers=json_kind), 422)
        assert problem(await client.post("samples", content=b"\xff", headers=json_kind), 422)
        assert problem(await client.post("samples", content=b"[" * 100_000, headers=json_kind), 422)
        assert problem(await client.post("samples", json=LAB * 4_000), 413)
        assert problem(await client.post("samples", content=b" " * (3 << 20), headers=json_kind), 413)
        assert (await client.post("samples", json=[])).json() == {"taken": 0}


async def test_the_page_of_the_api_needs_nothing_from_elsewhere_and_nothing_inline(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "style=" not in page.text
    assert "<style" not in page.text
    for tag in page.text.split("<script")[1:]:
        assert tag.partition(">")[0].strip().endswith('src="docs.js"')
        assert tag.partition(">")[2].startswith("</script>")
    for name, kind in (("docs.js", "text/javascript"), ("docs.css", "text/css")):
        answer = await client.get(name)
        assert answer.headers["content-type"].startswith(kind)
        assert "http" not in answer.text
        assert "innerHTML" not in answer.text


async def test_every_route_is_described_and_linked(client: httpx.AsyncClient) -> None:
    described = (await client.get("openapi.json")).json()
    paths = {path.removeprefix("/") for path in described["paths"]}
    links = set((await client.get("")).json()["links"])
    plain = {path for path in paths if "{" not in path and path != "samples"}
    assert links | {""} == plain | {"openapi.json", "docs"}
    for methods in described["paths"].values():
        for operation in methods.values():
            assert operation["description"]
            assert {"422", "503"} <= set(operation["responses"])
    assert described["servers"] == [{"url": "/api/v1"}]


def test_a_router_may_be_made_for_each_process(look: StoredLook) -> None:
    assert api_router(look) is not api_router(look)
