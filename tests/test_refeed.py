"""Dead letters are fed again once each: what a mended plant file can read is history, the rest stays dead."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.twin import query
from twinloop.build import build_loop
from twinloop.cli.main import main
from twinloop.config.plantfile import load
from twinloop.errors import QueryError, StartError
from twinloop.history import open_plant
from twinloop.log.reader import read_entries
from twinloop.loop.metrics import Metrics
from twinloop.records import DeadLetter, DeadLetters, DeadReason, Samples, decode_record
from twinloop.refeeding import Refed, Selection, refeed
from twinloop.sources.mqtt.intake import MessageReader
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.sources.refeed import Ledger, RefeedSource, Spool, key_of
from twinloop.sources.source import Intake
from twinloop.testing import check_source
from twinloop.workplace import workplace

T0 = 1_772_359_200_000_000_000  # 2026-03-01T10:00:00Z
SECOND = 1_000_000_000
TOPIC = "reactor/R101/sensor/"

BROKEN = """
plant: test
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:1
    max_payload: 2kB
    topics:
      "reactor/{asset}/sensor/{tag}": {format: json}
tags:
  temperature: {unit: bar}
assets:
  R101: {tags: [temperature]}
web: {port: 0}
"""
MENDED = BROKEN.replace("unit: bar", "unit: degC").replace(
    "tags: [temperature]", "tags: [temperature, pressure]"
)


def letter(second: int, tag: str, payload: object, reason: str = "WRONG_UNIT", **more: str) -> DeadLetter:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    made = DeadLetter(T0 + second * SECOND, "field", TOPIC + tag, raw, DeadReason(reason), "as it was")
    return replace_letter(made, **more)


def replace_letter(made: DeadLetter, **more: str) -> DeadLetter:
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return DeadLetter(**{**fields, **more})


def celsius(second: int, value: object, *, timed: bool = True) -> dict[str, object]:
    stamp = {"timestamp": f"2026-03-01T09:59:{second:02}Z"} if timed else {}
    return {"value": value, "unit": "degC", **stamp}


LETTERS = [
    letter(0, "temperature", celsius(0, 20.0)),
    letter(1, "temperature", celsius(1, 21.0)),
    letter(2, "temperature", celsius(2, 22.0, timed=False)),
    letter(3, "pressure", {"value": 2.5}, "UNKNOWN_TAG"),
    letter(4, "temperature", b"\xff{", "UNDECODABLE"),
    letter(5, "temperature", [celsius(5, 25.0), celsius(6, "hot")], "NOT_NUMERIC"),
    letter(6, "temperature", b"[" + b"1," * 900, "TOO_LARGE"),
]


def plant_file(folder: Path, text: str = BROKEN) -> Path:
    path = folder / "plant.yaml"
    path.write_text(text)
    return path


def bury(plant: Path, letters: Iterable[DeadLetter]) -> None:
    """Have dead letters in the plant's history, as a run leaves them."""

    async def run() -> None:
        with workplace(load(plant, os.environ)) as place:
            loop = build_loop(place, Metrics(), only_refeed=True)
            await loop.append(DeadLetters(list(letters)), T0)
            await loop.run(asyncio.Event())

    asyncio.run(run())


def feed(plant: Path, selection: Selection | None = None, *, dry_run: bool = False) -> Refed:
    return asyncio.run(refeed(plant, os.environ, selection or Selection(), dry_run=dry_run))


def fed_records(plant: Path) -> list[Samples]:
    """The records of samples in the log."""
    entries = read_entries(load(plant, os.environ).data_dir / "log", -1)
    records = [decode_record(data) for _, data in entries]
    return [record for record in records if isinstance(record, Samples)]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plant and its dead letters."""
    folder = tmp_path_factory.mktemp("broken")
    bury(plant_file(folder), LETTERS)
    return folder


@pytest.fixture
def buried(broken: Path, tmp_path: Path) -> Path:
    """A plant with dead letters whose file was mended since."""
    shutil.copytree(broken, tmp_path / "plant")
    return plant_file(tmp_path / "plant", MENDED)


def test_what_can_be_read_now_becomes_history_with_its_own_time_or_that_of_its_arrival(buried: Path) -> None:
    report = feed(buried)
    assert (report.letters, report.fed, report.became, report.stays.total()) == (7, 4, 4, 3)
    rows = query(buried, "range", "R101.temperature")
    assert [(row["time"], row["value"]) for row in rows] == [
        ("2026-03-01T09:59:00Z", "20.0"),
        ("2026-03-01T09:59:01Z", "21.0"),
        ("2026-03-01T10:00:02Z", "22.0"),
    ]
    assert [row["value"] for row in query(buried, "range", "R101.pressure")] == ["2.5"]
    assert [record.live for record in fed_records(buried)] == [False]


def test_what_still_fails_stays_with_its_reason_and_what_was_fed_is_no_dead_letter_any_more(
    buried: Path,
) -> None:
    assert len(query(buried, "dead")) == 7
    report = feed(buried)
    assert [(stay.reason, bool(stay.why)) for stay in sorted(report.stays)] == [
        ("NOT_NUMERIC", True),
        ("TOO_LARGE", True),
        ("UNDECODABLE", True),
    ]
    dead = query(buried, "dead")
    assert [row["reason"] for row in dead] == ["UNDECODABLE", "NOT_NUMERIC", "TOO_LARGE"]
    assert dead[0]["raw"] == "base64:/3s="
    with open_plant(buried) as plant:
        assert len(plant.dead()) == 3
        assert len(plant.dead(settled=True)) == 7


def test_each_letter_is_fed_once(buried: Path) -> None:
    feed(buried)
    again = feed(buried)
    assert (again.readable, again.fed, again.stays.total()) == (0, 0, 3)
    assert len(fed_records(buried)) == 1
    assert len(query(buried, "range", "R101.temperature")) == 3


def test_a_letter_of_which_a_part_still_fails_waits_until_all_of_it_can_be_read(buried: Path) -> None:
    feed(buried)
    buried.write_text(MENDED.replace("{format: json}", "{format: json, values: {hot: 99}}"))
    assert feed(buried).became == 2
    rows = query(buried, "range", "R101.temperature")
    assert [row["value"] for row in rows] == ["20.0", "21.0", "25.0", "99.0", "22.0"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(buried: Path) -> None:
    def files() -> list[str]:
        found = (path.name for path in buried.parent.rglob("*"))
        return sorted(name for name in found if not name.endswith(("-shm", "-wal")))

    before = files()
    report = feed(buried, dry_run=True)
    assert (report.readable, report.samples, report.fed) == (4, 4, 0)
    assert files() == before
    assert len(query(buried, "dead")) == 7


@pytest.mark.parametrize(
    ("selection", "fed"),
    [
        (Selection(reasons=("UNKNOWN_TAG",)), 1),
        (Selection(origins=("*/temperature",)), 3),
        (Selection(origins=("reactor/R101/sensor/pressure", "nothing")), 1),
        (Selection(sources=("other",)), 0),
        (Selection(start_ns=T0 + SECOND, end_ns=T0 + 3 * SECOND), 2),
        (Selection(reasons=("UNKNOWN_TAG", "WRONG_UNIT"), start_ns=T0 + 2 * SECOND), 2),
    ],
)
def test_a_selection_takes_what_fits_all_of_it(buried: Path, selection: Selection, fed: int) -> None:
    report = feed(buried, selection, dry_run=True)
    assert report.readable == fed


def test_killed_after_the_append_the_letters_come_again_and_make_no_second_row(buried: Path) -> None:
    """The ledger and the file are as they were before: the samples are in the log already."""
    feed(buried)
    rows = query(buried, "range", "R101.temperature")
    data = buried.parent / "data"
    spool = Spool(data)
    for each in LETTERS[:4]:
        spool.put(each)
    spool.flush()
    for file in (data / "refeed").glob("fed.sqlite*"):
        file.unlink()
    report = feed(buried)
    assert (report.fed, report.became) == (4, 4)
    assert len(fed_records(buried)) == 2, "the log has them twice"
    assert query(buried, "range", "R101.temperature") == rows, "history has them once"
    assert spool.waiting() == []


def test_killed_before_the_file_went_nothing_is_appended_again(buried: Path) -> None:
    feed(buried)
    spool = Spool(buried.parent / "data")
    for each in LETTERS[:4]:
        spool.put(each)
    spool.flush()
    report = feed(buried)
    assert report.fed == 4
    assert len(fed_records(buried)) == 1
    assert spool.waiting() == []


def test_killed_before_anything_was_appended_the_next_refeed_takes_what_is_left(buried: Path) -> None:
    spool = Spool(buried.parent / "data")
    for each in LETTERS[:2]:
        spool.put(each)
    spool.flush()
    assert feed(buried).fed == 4
    assert len(query(buried, "range", "R101.temperature")) == 3


def test_a_file_that_is_none_is_set_aside_and_the_others_are_fed(
    buried: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = buried.parent / "data" / "refeed"
    folder.mkdir()
    (folder / "0.letters").write_bytes(b"torn")
    spool = Spool(buried.parent / "data")
    spool.put(LETTERS[0])
    spool.flush()

    async def take() -> int:
        source = RefeedSource(buried.parent / "data", {}, watch=False)
        async with source.connect() as deliveries:
            return len([delivery async for delivery in deliveries])

    assert asyncio.run(take()) == 1
    assert (folder / "0.damaged").exists()
    assert "set aside" in caplog.text


def test_letters_that_no_plant_file_can_mend_say_so(tmp_path: Path) -> None:
    plant = plant_file(tmp_path)
    bury(
        plant,
        [
            letter(0, "t", b"x", source="replay", origin="rows.csv: row 7"),
            letter(1, "t", b"x", source="gone"),
            letter(2, "t", b"x", source="dcs"),
        ],
    )
    plant.write_text(
        MENDED.replace(
            "sources:",
            'sources:\n  dcs: {type: opcua, url: "opc.tcp://127.0.0.1", nodes: {"ns=1;s={asset}": pressure}}',
        )
    )
    whys = {stay.source: stay.why for stay in feed(plant).stays}
    assert "twinloop replay" in whys["replay"]
    assert "no source 'gone'" in whys["gone"]
    assert "OPC UA" in whys["dcs"]


def test_a_retained_message_is_still_marked_when_it_is_fed_again(tmp_path: Path) -> None:
    plant = plant_file(tmp_path)
    bury(plant, [letter(0, "temperature", celsius(0, 20.0, timed=False), detail="retained: as it was")])
    plant.write_text(MENDED)
    feed(plant)
    (row,) = query(plant, "range", "R101.temperature")
    assert (row["status"], row["reasons"]) == ("Uncertain", "RETAINED")


def test_the_summary_counts_by_source_origin_and_reason(tmp_path: Path) -> None:
    plant = plant_file(tmp_path)
    more = [letter(9 + n, "temperature", celsius(9 + n, 20.0), detail=f"the {n}th") for n in range(3)]
    bury(plant, [*LETTERS, *more])
    rows = open_plant(plant)._queries.dead_summary(None, None).to_pylist()
    assert [(row["origin"], row["reason"], row["count"]) for row in rows] == [
        (TOPIC + "temperature", "WRONG_UNIT", 6),
        (TOPIC + "pressure", "UNKNOWN_TAG", 1),
        (TOPIC + "temperature", "NOT_NUMERIC", 1),
        (TOPIC + "temperature", "TOO_LARGE", 1),
        (TOPIC + "temperature", "UNDECODABLE", 1),
    ]
    assert rows[0]["detail"] == "the 2th"
    assert (rows[0]["first"].value, rows[0]["last"].value) == (T0, T0 + 11 * SECOND)


def test_before_there_is_data_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="twinloop run"):
        feed(plant_file(tmp_path))


def test_two_at_once_are_refused(buried: Path) -> None:
    async def both() -> None:
        await asyncio.gather(*(refeed(buried, os.environ, Selection()) for _ in range(2)))

    with pytest.raises(StartError, match="another `twinloop refeed`"):
        asyncio.run(both())


def test_a_key_tells_letters_apart_by_time_source_origin_and_bytes() -> None:
    one = LETTERS[0]
    others = [
        replace_letter(one, time=one.time + 1),  # type: ignore[arg-type]
        replace_letter(one, source="fiel", origin=f"d{one.origin}"),
        replace_letter(one, raw=one.raw + b" "),  # type: ignore[arg-type]
    ]
    assert len({key_of(each) for each in [one, *others]}) == 4
    assert key_of(one) == key_of(replace_letter(one, detail="another"))


def test_the_spool_is_a_source_that_keeps_the_laws_of_one(tmp_path: Path) -> None:
    numbers = itertools.count()

    async def say(count: int) -> None:
        spool = Spool(tmp_path)
        for number in itertools.islice(numbers, count):
            spool.put(letter(number, "temperature", {"value": number}))
        spool.flush()

    def make(intake: Intake) -> RefeedSource:
        topics = TopicMap([TopicRule(TopicPattern("reactor/{asset}/sensor/{tag}"))])
        return RefeedSource(tmp_path, {"field": MessageReader("field", topics, intake, 2**20)}, watch=False)

    check_source(make, say, finite=True)


def test_the_ledger_answers_for_more_letters_than_one_question_takes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.fed([b"x"]) == {}
    (tmp_path / "refeed").mkdir()
    keys = [n.to_bytes(16) for n in range(1200)]
    ledger.add((key, n) for n, key in enumerate(keys[:1100]))
    assert ledger.fed(keys) == {key: n for n, key in enumerate(keys[:1100])}


def test_the_command_prints_what_it_did_as_text_and_json(
    buried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["refeed", str(buried), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "4 dead letters would become 4 samples, 3 would stay" in out
    assert "only its head was kept" in out
    assert main(["refeed", str(buried), "--reason", "UNKNOWN_TAG", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["letters"], told["fed"], told["became"], told["stays"]) == (1, 1, 1, [])
    assert main(["refeed", str(buried)]) == 0
    assert "3 dead letters became 3 samples, 3 stay" in capsys.readouterr().out
    assert main(["refeed", str(buried)]) == 0
    assert "nothing to do: 3 dead letters cannot be read" in capsys.readouterr().out
    assert main(["query", str(buried), "dead", "--summary", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "source,origin,reason,count,first,last,detail"
    assert len(lines) == 4
    assert main(["query", str(buried), "dead", "--all", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert main(["query", str(buried), "latest", "--summary"]) == 2
