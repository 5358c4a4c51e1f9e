"""Whatever happens to a file of the store, it opens, and what the output log has is answered whole."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest

from support.outputs import NAMES, T0, UNITS, OutputLog, batch, values
from twinloop.records import DeadLetter, DeadReason, Event, EventKind, Outputs
from twinloop.stores import merging
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

TAG = NAMES[0]
ENTRIES = 30
SEALED = 24


def entry(offset: int) -> tuple[int, Outputs]:
    """A row of two tags, an event and a dead letter."""
    at = T0 + offset
    event = Event(at, "field", EventKind.LINK_UP, after=str(offset))
    letter = DeadLetter(at, "field", "a/b", str(offset).encode(), DeadReason.UNDECODABLE, "")
    rows = batch([(0, offset, float(offset)), (1, offset, -float(offset))])
    return offset, Outputs(offset, at, rows.buffers(), fills=rows.buffers(), events=[event], dead=[letter])


@pytest.fixture(scope="module")
def log() -> OutputLog:
    return OutputLog([entry(offset) for offset in range(ENTRIES)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, log: OutputLog) -> Path:
    """A merged segment, small ones after it, and entries that are in none."""
    directory = tmp_path_factory.mktemp("sound") / "store"
    store = LocalStore(directory, NAMES)
    for at in range(0, SEALED, 2):
        store.write(log.entries[at : at + 2])
        store.seal()
    LocalStore(directory, NAMES)  # leaves only what counts
    assert len(list(directory.glob("samples-*"))) == 5
    return directory


def damage(path: Path, chance: random.Random) -> str:
    """Cut a file short, or change some of its bytes; says which."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        cut = chance.randrange(len(content))
        path.write_bytes(content[:cut])
        return f"cut at {cut} of {len(content)}"
    at = chance.randrange(len(content))
    length = chance.choice([1, 8, 512, 4096])
    for each in range(at, min(at + length, len(content))):
        content[each] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    return f"{length} bytes changed at {at} of {len(content)}"


def assert_whole(queries: LocalQueries, told: str) -> None:
    expected = [float(each) for each in range(ENTRIES)]
    assert values(queries.range(TAG, None, None)) == expected, told
    assert values(queries.fills(TAG, None, None)) == expected, told
    assert queries.events(None, None)["after"].to_pylist() == [str(each) for each in range(ENTRIES)], told
    assert queries.dead(None, None)["raw"].to_pylist() == [str(each).encode() for each in range(ENTRIES)], (
        told
    )
    assert values(queries.latest([])) == [-expected[-1], expected[-1]], told
    windows = queries.window(TAG, 60 * 10**9, None, None)
    assert sum(windows["count"].to_pylist()) == ENTRIES, told
    assert max(windows["max"].to_pylist()) == expected[-1], told


@pytest.mark.parametrize("trials", [40, pytest.param(500, marks=pytest.mark.long)])
def test_damage_costs_nothing_that_the_log_has_and_the_damaged_file_is_named(
    sound: Path, log: OutputLog, tmp_path: Path, caplog: pytest.LogCaptureFixture, trials: int
) -> None:
    chance = random.Random(11)  # noqa: S311 - damage, not secrets
    names = sorted(path.name for path in sound.iterdir())
    aside = 0
    for trial in range(trials):
        directory = tmp_path / f"{trial}"
        shutil.copytree(sound, directory)
        hit = chance.choice(names)
        told = f"{trial}: {hit}: {damage(directory / hit, chance)}"
        caplog.clear()
        store = LocalStore(directory, NAMES)
        if store.damage:
            aside += 1
            assert {each.path.name for each in store.damage} == {f"{hit}.damaged"}, told
            assert all(each.path.exists() and each.recovered for each in store.damage), told
            assert hit in caplog.text, told
        store.write(log.after(store.covered))
        assert_whole(LocalQueries(directory, NAMES, UNITS, log.after), told)
        store.close()
        assert_whole(LocalQueries(directory, NAMES, UNITS, lambda _after: []), told)
        shutil.rmtree(directory)
    print(f"{trials} damages, {aside} of them in segments that were set aside, nothing lost")  # noqa: T201
    assert aside > trials // 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def segment(directory: Path, kind: str, first: int, last: int) -> Path:
    return directory / f"{kind}-{first:016d}-{last:016d}.parquet"


def fill(directory: Path, log: OutputLog, seals: int) -> None:
    """A seal an entry; merged, with the parts of the last merge still there."""
    store = LocalStore(directory, NAMES)
    for each in log.entries[:seals]:
        store.write([each])
        store.seal()


def redelivered(directory: Path, log: OutputLog, log_has: int) -> LocalQueries:
    store = LocalStore(directory, NAMES, redeliverable_from=log_has)
    assert [each.recovered for each in store.damage] == [True]
    store.write(log.after(store.covered))
    store.close()
    return LocalQueries(directory, NAMES, UNITS, lambda _after: [])


def test_parts_of_a_merge_do_not_stand_in_the_way_of_what_is_delivered_again(
    tmp_path: Path, log: OutputLog
) -> None:
    fill(tmp_path, log, 16)
    truncate(segment(tmp_path, "samples", 0, 7))
    assert_whole(redelivered(tmp_path, log, 0), "parts of 8 to 15 were still there")


def test_what_other_kinds_have_from_before_is_kept_when_the_rest_is_delivered_again(
    tmp_path: Path, log: OutputLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that was given up leaves events of 0 to 7 beside samples of each."""

    def refuse(*_: object) -> None:
        raise merging.Abandoned

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_merge_samples", refuse)
        fill(tmp_path, log, 8)
    assert segment(tmp_path, "events", 0, 7).exists()
    truncate(segment(tmp_path, "samples", 5, 5))
    assert_whole(redelivered(tmp_path, log, 4), "the log has 4 and on")


@pytest.mark.parametrize("unlinks", range(1, 14))
def test_killed_while_it_makes_room_for_what_comes_again_it_begins_anew(
    tmp_path: Path, log: OutputLog, monkeypatch: pytest.MonkeyPatch, unlinks: int
) -> None:
    class Killed(BaseException):
        pass

    fill(tmp_path, log, 6)
    truncate(segment(tmp_path, "samples", 2, 2))
    left, unlink = [unlinks], Path.unlink

    def counted(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as `Path.unlink`
        if not left[0]:
            raise Killed
        left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", counted)
        with contextlib.suppress(Killed):
            LocalStore(tmp_path, NAMES)
    store = LocalStore(tmp_path, NAMES)
    store.write(log.after(store.covered))
    store.close()
    assert_whole(LocalQueries(tmp_path, NAMES, UNITS, lambda _after: []), f"killed after {unlinks}")


def test_a_reader_takes_a_file_again_once_it_is_another(tmp_path: Path, log: OutputLog) -> None:
    fill(tmp_path, log, 5)
    path = segment(tmp_path, "samples", 4, 4)
    sound_bytes = path.read_bytes()
    rotten = bytearray(sound_bytes)
    rotten[4:400] = bytes(396)
    path.write_bytes(rotten)
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    assert len(queries.range(TAG, None, None)) == 4
    assert len(queries.latest([])) == 2
    path.unlink()
    path.write_bytes(sound_bytes)
    assert len(queries.range(TAG, None, None)) == 5


def test_two_files_that_are_damaged_at_once_stop_no_start(
    tmp_path: Path, log: OutputLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that reach over a damaged segment of samples are to be cut there, and cannot be read."""

    def refuse(*_: object) -> None:
        raise merging.Abandoned

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_merge_samples", refuse)
        fill(tmp_path, log, 8)
    LocalStore(tmp_path, NAMES)  # the parts of the events go
    events = segment(tmp_path, "events", 0, 7)
    content = bytearray(events.read_bytes())
    content[4:400] = bytes(396)  # the pages, not the footer
    events.write_bytes(content)
    truncate(segment(tmp_path, "samples", 5, 5))
    store = LocalStore(tmp_path, NAMES, redeliverable_from=4)
    store.write(log.after(store.covered))
    store.close()
    queries = LocalQueries(tmp_path, NAMES, UNITS, lambda _after: [])
    assert values(queries.range(TAG, None, None)) == [float(each) for each in range(ENTRIES) if each != 5]
