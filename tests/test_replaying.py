"""The flight recorder: the same records give the same bits however read; a diff says what changed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.entries import dense
from support.twin import command
from test_fold import START, new_fold, samples, tick
from twinloop import replaying
from twinloop.build import build_fold
from twinloop.cli.diff import render_difference
from twinloop.compare import Turn, compare
from twinloop.config.plantfile import load
from twinloop.errors import ConfigError, LogGap, QueryError
from twinloop.log.archive import archive_files, archive_rows
from twinloop.log.dictionary import Dictionary
from twinloop.log.files import NOTHING_LEFT, log_files, offset_path, rows_of, write_plain_file
from twinloop.log.local import LocalLog
from twinloop.log.log import Overflow
from twinloop.log.reader import read_entries
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.digest import OutputChain, state_digest
from twinloop.loop.refold import Span, recorded
from twinloop.present import time_text
from twinloop.records import (
    DeadLetter,
    DeadLetters,
    DeadReason,
    EventKind,
    Link,
    LinkState,
    Loss,
    Record,
    decode_record,
    encode_outputs,
    encode_record,
)
from twinloop.replaying import Recording, ReplayReport, read_report, replay_log
from twinloop.running import running
from twinloop.stores.local import LocalStore
from twinloop.workplace import workplace

SECOND = 1_000_000_000
PLANT = """
plant: test
data_dir: ./data
tags:
  temperature: {unit: degC, range: [-50, 400], spike: 20%, noise: 0.5, stale: 3s}
  pressure: {unit: bar}
assets:
  R101: {model: stirred_tank, tags: [temperature, pressure]}
web: off
"""
SPIKES = {40: 115.0, 70: 90.0}
"""Second and value: the first is a spike by the plant file, the second only by a stricter one."""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant whose data directory holds the log, the checkpoint and the history of a run to its end."""
    folder = tmp_path_factory.mktemp("plant")
    path = folder / "plant.yaml"
    path.write_text(PLANT)
    rows = [
        f"{time_text(START + second * SECOND)},R101.{tag},{value}"
        for second in range(120)
        for tag, value in (
            ("temperature", SPIKES.get(second, 85.0 + second % 3 * 0.1)),
            ("pressure", 2.0 + second % 5 * 0.01),
        )
        if not 90 < second < 100
    ]
    (folder / "rows.csv").write_text("time,tag,value\n" + "\n".join(rows) + "\n")
    done = command("replay", path, "--speed", "max", folder / "rows.csv")
    assert done.returncode == 0, done.stderr
    return path


def other(plant: Path, old: str, new: str) -> Path:
    """Another plant file beside it, with one rule changed."""
    text = PLANT.replace(old, new)
    assert text != PLANT
    path = plant.with_name(f"other-{abs(hash(new))}.yaml")
    path.write_text(text)
    return path


async def replay(plant: Path, into: Path, **settings: object) -> ReplayReport:
    return await replay_log(Recording(plant, into=into, **settings), {})  # type: ignore[arg-type]


def chain_of(directory: Path) -> OutputChain:
    return OutputChain.over(data for _, data in read_entries(directory / "outputs", -1))


@pytest.mark.parametrize("at_once", [1, 7, 5000])
async def test_however_many_records_are_read_at_a_time_state_and_outputs_are_those_of_the_live_run(
    plant: Path, tmp_path: Path, at_once: int
) -> None:
    report = await replay(plant, tmp_path / "again", at_once=at_once)
    live = next(Checkpoints(plant.parent / "data" / "checkpoints").load())
    assert report.last == live.offset
    assert report.state_digest == live.digest
    assert report.agreed == [live.offset]
    assert not report.differed
    chain = chain_of(plant.parent / "data")
    assert (report.outputs, report.outputs_digest) == (chain.length, chain.digest())
    assert chain_of(tmp_path / "again").digest() == chain.digest()
    assert compare(plant.parent / "data", tmp_path / "again").is_none


async def test_a_changed_rule_shows_as_the_samples_and_events_it_alters(plant: Path, tmp_path: Path) -> None:
    stricter = other(plant, "spike: 20%", "spike: 4%")
    report = await replay(plant, tmp_path / "tried", config=stricter)
    assert not report.agreed
    assert not report.differed, "another rule's state is not compared with the live one"
    found = compare(plant.parent / "data", tmp_path / "tried")
    spike = next(each for each in found.judgements if each.reason == "SPIKE")
    assert (spike.tag, spike.added, spike.gone) == ("R101.temperature", 1, 0)
    assert spike.examples[0].time == START + 70 * SECOND
    assert spike.examples[0].value == 90.0
    assert "SPIKE" not in spike.examples[0].a
    assert "SPIKE" in spike.examples[0].b
    assert found.severities == []
    assert found.compared == 222
    assert (found.only_a, found.only_b, found.values_otherwise) == (0, 0, 0)
    back = compare(tmp_path / "tried", plant.parent / "data")
    assert [(each.added, each.gone) for each in back.judgements if each.reason == "SPIKE"] == [(0, 1)]
    assert (back.events_added, back.events_gone) == (found.events_gone, found.events_added)


async def test_what_a_narrower_range_makes_bad_is_counted_by_severity(plant: Path, tmp_path: Path) -> None:
    await replay(plant, tmp_path / "tried", config=other(plant, "range: [-50, 400]", "range: [-50, 89]"))
    found = compare(plant.parent / "data", tmp_path / "tried")
    assert found.severities == [Turn("R101.temperature", "Uncertain", "Bad", 2)]


async def test_a_changed_noise_shows_as_the_distance_of_estimates_and_model_states(
    plant: Path, tmp_path: Path
) -> None:
    await replay(plant, tmp_path / "tried", config=other(plant, "noise: 0.5", "noise: 5"))
    found = compare(plant.parent / "data", tmp_path / "tried")
    (estimates,) = found.estimates
    assert estimates.tag == "R101.temperature"
    assert 0 < estimates.rms <= estimates.max
    assert {each.state for each in found.models} >= {"temperature_k"}
    told = json.loads(render_difference(found, "json", terminal=False))
    assert told["estimates"][0]["max"] == estimates.max
    assert "R101.temperature" in render_difference(found, "table", terminal=False)


async def test_a_part_of_the_log_gives_that_part_of_the_history(plant: Path, tmp_path: Path) -> None:
    start, end = START + 30 * SECOND, START + 60 * SECOND
    report = await replay(plant, tmp_path / "part", start_ns=start, end_ns=end)
    assert report.samples == 60
    found = compare(plant.parent / "data", tmp_path / "part")
    assert found.is_none
    assert found.compared == 60
    with pytest.raises(QueryError, match="no record of that time"):
        await replay(plant, tmp_path / "none", start_ns=START + 10**6 * SECOND)


async def recorded_by_hand(folder: Path) -> Path:
    """A plant whose log has two files of 60 records, and no history, checkpoint or link."""
    path = folder / "plant.yaml"
    path.write_text(PLANT)
    dictionary = Dictionary(folder / "data" / "dictionary.sqlite")
    for tag in ("temperature", "pressure"):
        dictionary.index(("replay", f"R101.{tag}", ""))
    dictionary.close()
    for first, where in ((0, folder / "data" / "log"), (60, folder / "second")):
        log = LocalLog(where, first=first)
        for second in range(first // 2, first // 2 + 30):
            for record in (samples(second, (0, 85.0 + second % 7 * 0.1), (1, 2.0)), tick(second)):
                await log.append(encode_record(record), START + second * SECOND)
        await log.close()
    for path_of_file in log_files(folder / "second"):
        path_of_file.rename(folder / "data" / "log" / path_of_file.name)
    return path


async def test_a_replay_from_a_checkpoint_goes_on_as_the_whole_one_did(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = await recorded_by_hand(tmp_path)
    whole = await replay(path, tmp_path / "whole")
    assert (whole.checkpoint, whole.records) == (-1, 120)
    half = await replay(path, tmp_path / "half", end_ns=START + 30 * SECOND)
    shutil.copytree(tmp_path / "half" / "checkpoints", tmp_path / "data" / "checkpoints")
    late = await replay(path, tmp_path / "late", start_ns=START + 40 * SECOND)
    assert (late.checkpoint, late.first, late.records) == (half.last, 80, 60)
    assert late.state_digest == whole.state_digest
    assert compare(tmp_path / "whole", tmp_path / "late").is_none
    tail = [data for _, data in read_entries(tmp_path / "whole" / "outputs", -1)][-late.outputs :]
    assert OutputChain.over(tail).digest() == late.outputs_digest

    log_files(tmp_path / "data" / "log")[0].unlink()
    kept = await replay(path, tmp_path / "kept")
    assert (kept.checkpoint, kept.first) == (half.last, half.last + 1)
    assert kept.state_digest == whole.state_digest
    assert compare(tmp_path / "whole", tmp_path / "kept").is_none


async def test_a_replay_meets_the_newest_live_states_whether_kept_as_base_or_increment(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    path = await recorded_by_hand(tmp_path)
    with workplace(load(path, {})) as place:
        fold, checkpoints = (
            build_fold(place),
            Checkpoints(tmp_path / "data" / "checkpoints", place.table.names),
        )
        for offset, data in read_entries(tmp_path / "data" / "log", -1):
            fold.step(offset, decode_record(data))
            if offset % 30 == 20:
                checkpoints.save(offset, fold.change())
            if offset == 80:
                checkpoints.merge()
    report = await replay(path, tmp_path / "again")
    assert report.agreed == [80, 110]
    assert not report.differed
    later = await replay(path, tmp_path / "later", start_ns=START + 50 * SECOND)
    assert later.checkpoint == 80
    assert later.agreed == [110]
    assert later.state_digest == report.state_digest


async def test_a_log_older_than_every_checkpoint_is_folded_from_an_empty_state_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    path = await recorded_by_hand(tmp_path)
    log_files(tmp_path / "data" / "log")[0].unlink()
    assert (await replay(path, tmp_path / "rest")).checkpoint == -1
    assert "empty state" in caplog.text


async def archived(folder: Path) -> Path:
    """The same plant with its log's first file in the archive."""
    (folder / "data").mkdir()
    path = await recorded_by_hand(folder)
    log = folder / "data" / "log"
    first = log_files(log)[0]
    archive_rows(log, 0, START, rows_of(first, -1))
    first.unlink()
    return path


@pytest.mark.parametrize("at_once", [1, 7, 5000])
async def test_a_replay_reads_on_from_the_archive_into_the_log_as_if_nothing_had_been_trimmed(
    tmp_path: Path, at_once: int, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept" / "data").mkdir(parents=True)
    whole = await replay(await recorded_by_hand(tmp_path / "kept"), tmp_path / "whole")
    (tmp_path / "trimmed").mkdir()
    path = await archived(tmp_path / "trimmed")
    again = await replay(path, tmp_path / "again", at_once=at_once)
    assert (again.first, again.records, again.gaps) == (0, 120, 0)
    assert (again.state_digest, again.outputs_digest) == (whole.state_digest, whole.outputs_digest)
    assert not caplog.text


async def test_what_leaves_the_log_during_a_replay_is_read_from_the_archive(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    await recorded_by_hand(tmp_path)
    log = tmp_path / "data" / "log"
    portions = recorded(log, Span(after=-1, last=119), 10)
    read = next(portions)
    first = log_files(log)[0]
    archive_rows(log, 0, START, rows_of(first, -1))
    first.unlink()
    read += [entry for portion in portions for entry in portion]
    assert [offset for offset, _ in read] == list(range(120))


def test_around_thinned_files_every_record_is_read_however_many_at_a_time(tmp_path: Path) -> None:
    entries = [(offset, offset, encode_record(tick(offset))) for offset in range(500)]
    gone = {*range(110, 190), *range(300, 399), *range(400, 499)}
    for first, last, times in ((0, 99, 0), (100, 199, 1), (200, 299, 0), (300, 399, 3), (400, 499, 2)):
        rows = [row for row in entries[first : last + 1] if row[0] not in gone]
        write_plain_file(offset_path(tmp_path, first), rows, times)
    for at_once in (1, 7, 60, 150, 256, 5000):
        read = [entry for portion in recorded(tmp_path, Span(-1, 499), at_once) for entry in portion]
        assert [offset for offset, _ in read] == list(range(500)), at_once
        assert {offset for offset, data in read if data == NOTHING_LEFT} == gone, at_once


def test_a_hole_within_a_portion_is_looked_for_in_the_archive_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(offset, offset, encode_record(tick(offset))) for offset in range(100)]
    for first in (0, 20, 40, 60, 80):
        write_plain_file(offset_path(tmp_path, first), rows[first : first + 20], 0)
    portions = recorded(tmp_path, Span(-1, 99), 50)
    read = next(portions)
    offset_path(tmp_path, 60).unlink()
    read += [entry for portion in portions for entry in portion]
    assert [offset for offset, _ in read] == [*range(60), *range(80, 100)]
    assert "records 60 to 79 are gone" in caplog.text


async def test_what_was_dropped_before_the_live_fold_read_it_is_the_same_gap_to_a_replay_of_log_and_archive(
    tmp_path: Path,
) -> None:
    (tmp_path / "plant.yaml").write_text(PLANT)
    data = tmp_path / "data"
    log = LocalLog(data / "log", max_bytes=1 << 18, overflow=Overflow.DROP_OLDEST, archive_ns=10**18)
    letter = DeadLetter(START, "source", "origin", dense(1 << 13), DeadReason.UNDECODABLE, "")
    with workplace(load(tmp_path / "plant.yaml", {})) as place:
        fold = build_fold(place)
        checkpoints = Checkpoints(data / "checkpoints", place.table.names)
        folded, gaps, lost, outputs = -1, 0, 0, []

        async def fold_on(limit: int) -> None:
            nonlocal folded, gaps, lost
            while folded < log.stats().last_offset and limit > 0:
                try:
                    entries = log.read(folded, limit)
                except LogGap as gap:
                    await log.append(encode_record(Loss(START, "received", gap.first, gap.last)), START)
                    gaps, folded = gaps + gap.last - gap.first + 1, gap.last
                    continue
                for offset, entry in entries:
                    made = fold.step(offset, decode_record(entry))
                    outputs.extend([] if made.is_empty else [encode_outputs(made)])
                    lost += sum(each.kind is EventKind.LOST for each in made.events)
                folded, limit = entries[-1][0], limit - len(entries)

        for burst in range(3):
            for second in range(burst * 60, burst * 60 + 60):
                for record in (
                    samples(second, (0, 85.0 + second % 7 * 0.1), (1, 2.0)),
                    tick(second),
                    DeadLetters([letter]),
                ):
                    await log.append(encode_record(record), START + second * SECOND)
                if second % 60 == 10:
                    await fold_on(20)  # and so a file is dropped of which a part was read
        await fold_on(10**6)
        checkpoints.save(folded, fold.change())
        last, dropped = folded, log.stats().dropped
        digest = fold.digest()
    await log.close()
    assert dropped > 0
    assert lost > 0
    report = await replay(tmp_path / "plant.yaml", tmp_path / "again")
    assert (report.last, report.gaps) == (last, gaps)
    assert report.state_digest == digest
    assert report.agreed == [last]
    assert report.outputs_digest == OutputChain.over(iter(outputs)).digest()


async def test_a_damaged_archive_is_named_and_counted_as_a_gap_and_folded_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await archived(tmp_path)
    [file] = archive_files(tmp_path / "data" / "log")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = await replay(path, tmp_path / "again")
    assert 0 < found.gaps <= 60
    assert found.records + found.gaps == 120
    assert found.last == 119
    assert caplog.text.count(file.name) == 1
    assert f"records {60 - found.gaps} to 59 are gone" in caplog.text
    assert read_report(tmp_path / "again").gaps == found.gaps  # type: ignore[union-attr]


async def test_a_replay_that_begins_within_the_log_is_compared_from_there_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = await recorded_by_hand(tmp_path)
    await replay(path, tmp_path / "whole")
    log_files(tmp_path / "data" / "log")[0].unlink()
    rest = await replay(path, tmp_path / "rest")
    assert rest.from_ns == START + 30 * SECOND
    found = compare(tmp_path / "whole", tmp_path / "rest")
    assert (found.only_a, found.only_b, found.events_gone) == (0, 0, 0)
    assert found.compared == 58


async def test_a_replay_whose_store_dies_ends_with_that_error(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise RuntimeError("the store has a bug")

    monkeypatch.setattr(replaying, "_OUTPUT_BYTES", 1 << 10)
    monkeypatch.setattr(LocalStore, "write", dies)
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(replay(plant, tmp_path / "again", at_once=5000), 30)


async def test_a_replay_never_writes_where_there_is_something(plant: Path, tmp_path: Path) -> None:
    data = plant.parent / "data"
    before = {path: path.read_bytes() for path in (data / "checkpoints").iterdir()}
    for into in (data, data / "log", data / "store" / "x", data / "replays", plant.parent):
        with pytest.raises(ConfigError, match="--into"):
            await replay(plant, into)
    await replay(plant, tmp_path / "own")
    with pytest.raises(ConfigError, match="not empty"):
        await replay(plant, tmp_path / "own")
    default = await replay_log(Recording(plant), {})
    assert Path(default.directory).parent == data / "replays"
    assert {path: path.read_bytes() for path in (data / "checkpoints").iterdir()} == before
    link = tmp_path / "link"
    link.symlink_to(data)
    with pytest.raises(ConfigError, match="data_dir"):
        await replay(plant, link / "y")


async def test_a_replay_goes_on_beside_the_run_that_writes_the_log(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text(PLANT)
    async with running(path, {}) as twin:
        ticked = asyncio.Event()
        twin.subscribe(lambda outputs: ticked.set() if outputs.snapshots else None)
        await asyncio.wait_for(ticked.wait(), 30)
        report = await replay(path, tmp_path / "beside")
    assert report.complete
    assert report.records >= 1
    whole = await replay(path, tmp_path / "whole")
    assert whole.records >= report.records
    assert whole.agreed, "what was recorded live folds to the live state"
    parts = [data for _, data in read_entries(tmp_path / "whole" / "outputs", -1)]
    assert OutputChain.over(parts[: report.outputs]).digest() == report.outputs_digest


def test_the_command_says_what_it_did_and_diff_exits_0_also_where_something_differs(
    plant: Path, tmp_path: Path
) -> None:
    stricter = other(plant, "spike: 20%", "spike: 3%")
    into = tmp_path / "tried"
    done = command("replay", "--from-log", plant, "--config", stricter, "--into", into)
    assert done.returncode == 0, done.stderr
    assert "sha256" in done.stderr
    told = command("diff", plant.parent / "data", into)
    assert told.returncode == 0, told.stderr
    assert "SPIKE" in told.stdout
    asked = command("diff", plant.parent / "data", into, "--format", "json")
    assert json.loads(asked.stdout)["judged_otherwise"] > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["replay", "{plant}"], "required: FILE"),
        (["replay", "{plant}", "{plant}", "--start", "-1h"], "--from-log only"),
        (["replay", "--from-log", "{plant}", "rows.csv"], "takes no files"),
        (["replay", "{plant}", "--from-log", "--start", "2200-01-01"], "no record of that time"),
        (["diff", "{plant}", "{plant}"], "no data or replay directory"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(
    plant: Path, tmp_path: Path, arguments: Sequence[str], text: str
) -> None:
    into = ["--into", str(tmp_path / "x")] if "--from-log" in arguments else []
    done = command(*(each.format(plant=plant) for each in arguments), *into)
    assert done.returncode == 2
    assert text in done.stderr


def test_an_unfinished_replay_is_not_compared(plant: Path, tmp_path: Path) -> None:
    report = ReplayReport(plant="p", data_dir="d", directory=str(tmp_path))
    (tmp_path / "replay.json").write_text(json.dumps({"plant": "p", "data_dir": "d", "directory": "x"}))
    assert read_report(tmp_path) is not None
    assert not report.complete
    with pytest.raises(QueryError, match="under way"):
        compare(plant.parent / "data", tmp_path)


def test_one_bit_of_the_state_or_of_an_output_changes_the_digest() -> None:
    records: list[Record] = [samples(1, (0, 20.0), (1, 2.0)), tick(1), Link(START, "dcs", LinkState.UP)]
    one, two, third = new_fold(), new_fold(), new_fold()
    for offset, record in enumerate(records):
        one.step(offset, record)
        two.step(offset, record)
        third.step(offset, record if offset else samples(1, (0, 20.000000000000004), (1, 2.0)))
    assert one.digest() == two.digest() == state_digest(one.state())
    assert third.digest() != one.digest()
    assert OutputChain.over([b"a", b"b"]).digest() == OutputChain.over(iter([b"a", b"b"])).digest()
    assert len({OutputChain.over(each).digest() for each in ([], [b"ab"], [b"a", b"b"], [b"b", b"a"])}) == 4
