"""What waits in a spool is taken in once, or waits on: only what can never be read is set aside."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

import twinloop
from support.imported import import_into, plant_without_sources
from support.outputs import SECOND, T0
from twinloop import importing
from twinloop.batch import NO_TIME, Received
from twinloop.cli.importing import render_imported
from twinloop.cli.main import main
from twinloop.config.plantfile import load
from twinloop.errors import LinkError, LogError, SpoolDamage
from twinloop.importing import Imported, import_files
from twinloop.linking import Intake
from twinloop.records import DeadLetter, DeadReason
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.importing import ImportSource, ImportSpool, Part
from twinloop.sources.refeed import Ledger, RefeedSource, Spool
from twinloop.tags import Resolver
from twinloop.workplace import workplace

TAG = "R101.temperature"


def rows_of(*seconds: int, value: float = 20.0) -> str:
    rows = [f"{T0 // SECOND + second},{TAG},{value + second % 7}" for second in seconds]
    return "\n".join(["time,tag,value", *rows]) + "\n"


def file(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def part(*seconds: int, unit: str = "") -> Part:
    at = [T0 + second * SECOND for second in seconds]
    count = len(at)
    received = Received.of(
        series=[0] * count,
        source_time=at,
        server_time=[NO_TIME] * count,
        arrival_time=at,
        value=[20.0] * count,
        status=[0] * count,
        reasons=[0] * count,
    )
    return Part([(TAG, unit)], received.buffers())


def stored(plant: Path) -> list[float]:
    with twinloop.open(plant) as opened:
        return [float(value) for value in opened.range(TAG)["value"].to_pylist()]


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    made = plant_without_sources(tmp_path / "plant")
    import_into(made, file(tmp_path, rows_of(0)))
    return made


def test_a_file_that_cannot_be_read_now_waits_and_the_import_says_so(tmp_path: Path, plant: Path) -> None:
    spool = ImportSpool(plant.parent / "data")
    spool.put(part(1, 2))
    [path] = spool.waiting()
    whole = path.rename(path.with_suffix(".kept"))
    path.symlink_to(path.name)  # as a bad block would, it gives an OSError
    rows = file(tmp_path, rows_of(3))
    with pytest.raises(LogError, match=r"\.rows waits.*symbolic links"):
        import_into(plant, rows)
    assert spool.waiting() == [path]
    whole.replace(path)
    letters = plant.parent / "data" / "refeed" / "1.letters"
    letters.symlink_to(letters.name)
    with pytest.raises(LogError, match=r"\.letters waits.*symbolic links"):
        import_into(plant, rows)
    letters.unlink()
    assert list(plant.parent.glob("data/*/*.damaged")) == []
    report = import_into(plant, rows)
    assert (report.taken + report.duplicates, report.set_aside, spool.waiting()) == (1, 0, [])
    assert len(stored(plant)) == 4


def test_a_number_that_the_dictionary_cannot_take_now_is_asked_for_again(plant: Path) -> None:
    data = plant.parent / "data"
    spool = ImportSpool(data)
    spool.put(part(1, unit="degF"))

    async def take(source: ImportSource) -> int:
        async with source.connect() as deliveries:
            return (await anext(deliveries)).samples

    with workplace(load(plant, {})) as place:
        intake = Intake(REPLAY, Resolver(place.table, {REPLAY: str}), place.dictionary)
        source = ImportSource(data, intake, watch=True)
        place.dictionary._db.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(data / "dictionary.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LinkError, match="cannot be written"):
            asyncio.run(take(source))
        assert len(spool.waiting()) == 1
        other.execute("ROLLBACK")
        other.close()
        assert asyncio.run(take(source)) == 1


def test_letters_wait_for_a_ledger_that_cannot_be_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(DeadLetter(T0, "field", "a/b", b"1", DeadReason.UNKNOWN_TAG, ""))
    spool.flush()
    ledger = tmp_path / "refeed" / "fed.sqlite"
    ledger.write_bytes(b"no database" * 100)

    async def take() -> int:
        source = RefeedSource(tmp_path, {}, watch=False)
        async with source.connect() as deliveries:
            return len([delivery async for delivery in deliveries])

    with pytest.raises(LogError, match="ledger"):
        asyncio.run(take())
    assert (len(spool.waiting()), spool.set_aside()) == (1, 0)
    ledger.unlink()
    Ledger(tmp_path).add([])
    assert asyncio.run(take()) == 1


@pytest.mark.parametrize("content", [b"\x93nothing", b"", "another's", "nobody's"])
def test_only_bytes_that_are_no_spool_file_are_damage(tmp_path: Path, content: bytes | str) -> None:
    spool = ImportSpool(tmp_path)
    made = part(1)
    series = (1 if content == "another's" else -1).to_bytes(4, "little", signed=True)
    made.columns[0] = made.columns[0] if isinstance(content, bytes) else series
    spool.put(made)
    [path] = spool.waiting()
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SpoolDamage, match="no rows of history"):
        spool.read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        spool.read(path)


def test_what_is_set_aside_is_counted_and_is_no_success(
    tmp_path: Path, plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, ending in (("import", "rows"), ("refeed", "letters")):
        (plant.parent / "data" / folder / f"1.{ending}").write_bytes(b"\x93nothing")
    rows = str(file(tmp_path, rows_of(1)))
    assert main(["import", str(plant), rows, "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["taken"], told["set_aside"], told["stopped"]) == (1, 1, False)
    assert main(["import", str(plant), rows]) == 0, "of an earlier import"
    (plant.parent / "data" / "refeed" / "2.letters").write_bytes(b"\x93nothing")
    capsys.readouterr()
    assert main(["refeed", str(plant)]) == 1
    assert "1 spool file was damaged and set aside" in capsys.readouterr().out


def import_beside(plant: Path, *files: Path) -> Imported:
    """`twinloop import` beside a process that has the data directory and does nothing."""
    with workplace(load(plant, {})):
        return asyncio.run(import_files(plant, {}, files, patience_s=0.15))


def test_who_takes_nothing_in_is_waited_for_once_and_nothing_counts_twice(
    tmp_path: Path, plant: Path
) -> None:
    files = [file(tmp_path, rows_of(*range(1, 10)), f"{number}.csv") for number in range(3)]
    report = import_beside(plant, *files)
    assert (report.taken, report.waiting, report.stopped, report.files) == (9, 1, True, 1)
    assert "the import ended there" in render_imported(report, "table", dry_run=False, terminal=False)
    again = import_beside(plant, *files)
    assert (again.taken, again.waiting, again.stopped) == (0, 1, True), "those of the first still wait"
    other = import_beside(plant, file(tmp_path, rows_of(20, 21), "other.csv"))
    assert (other.taken, other.waiting, other.stopped) == (2, 2, False), "of times that none of them has"
    last = import_into(plant, *files)
    assert (last.taken, last.duplicates, last.waiting) == (0, 27, 0)
    assert len(stored(plant)) == 12


def test_a_spool_that_nobody_empties_does_not_grow(
    tmp_path: Path, plant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_ROWS_IN_A_FILE", 2)
    monkeypatch.setattr(importing, "_FILES_IN_A_SPOOL", 3)
    rows = file(tmp_path, rows_of(*range(1, 30)) + "never,R101.temperature,1\n")
    report = import_beside(plant, rows)
    assert (report.taken, report.waiting, report.stopped, report.late) == (6, 3, True, 0)
    assert report.buried.total() == 0, "not looked at"
    whole = import_into(plant, rows)
    assert (whole.taken, whole.duplicates, whole.buried.total(), whole.stopped) == (23, 6, 1, False)
    assert len(stored(plant)) == 30


def test_of_different_values_of_one_time_the_first_is_taken_and_the_others_are_told(
    tmp_path: Path, plant: Path
) -> None:
    at = T0 // SECOND + 5
    text = "time,tag,value,unit\n" + "".join(
        f"{at},{TAG},{value},{unit}\n"
        for value, unit in ((30, "degC"), (31, "degC"), (30, "degC"), (303.15, "K"), (310, "K"))
    )
    report = import_into(plant, file(tmp_path, text))
    assert (report.rows, report.taken, report.duplicates, report.differ) == (5, 1, 2, 2)
    assert stored(plant) == [20.0, 30.0]
    assert main(["import", str(plant), str(file(tmp_path, text))]) == 1
