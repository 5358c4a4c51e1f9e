"""Checkpoints: what is read is what was kept, whatever breaks; what the log lets go of can be read twice."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.paged import Ring, paged_fold, ring_of
from test_fold import new_fold, samples
from twinloop.errors import LogError
from twinloop.loop.checkpoint import BASE, INCREMENT, Checkpoint, Checkpoints
from twinloop.loop.state import Change
from twinloop.pages import PAGE_BYTES


class Plant:
    """A fold that notes numbers, its checkpoints, and the digest it had at each offset kept."""

    def __init__(self, folder: Path, rows: int = 300) -> None:
        self.folder = folder
        self.rows = rows
        self.offset = -1
        self.released = -1
        self.digests: dict[int, str] = {}
        self.fold = paged_fold(rows)
        self.checkpoints = Checkpoints(folder)

    def work(self, records: int = 3) -> None:
        for _ in range(records):
            self.offset += 1
            ring_of(self.fold).note(self.offset * 7 % self.rows, float(self.offset))

    def save(self) -> None:
        if self.checkpoints.covered == self.offset:
            return
        if self.checkpoints.wants_whole:
            self.fold.soil()
        self.digests[self.offset] = self.fold.digest()
        self.released = max(self.released, self.checkpoints.save(self.offset, self.fold.change()))

    def merge(self, *, pressed: bool = False) -> None:
        if self.checkpoints.is_merge_due(pressed=pressed):
            self.released = max(self.released, self.checkpoints.merge())

    def restart(self) -> None:
        """Another process takes up the newest state, and folds the log after it again."""
        upto = self.offset
        self.checkpoints, self.fold, self.offset = Checkpoints(self.folder), paged_fold(self.rows), -1
        for checkpoint in self.checkpoints.load():
            self.fold.adopt(checkpoint.state)
            self.checkpoints.go_on_from(checkpoint)
            self.offset = checkpoint.offset
            assert self.fold.digest() == checkpoint.digest == self.digests[checkpoint.offset]
            break
        assert self.offset >= self.released, "the log does not have what the state lacks"
        self.work(upto - self.offset)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {BASE, INCREMENT})


def newest(folder: Path) -> Checkpoint | None:
    return next(Checkpoints(folder).load(), None)


def damaged(path: Path, how: str, at: float) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[int(at * len(data)) :]
    elif how == "bit":
        data[min(int(at * len(data)), len(data) - 1)] ^= 0x10
    path.unlink()
    if how != "gone":
        path.write_bytes(data)


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int]]:
    deeds = st.sampled_from(["work", "save", "save", "merge", "press", "restart", "soil"])
    return draw(st.lists(st.tuples(deeds, st.integers(1, 40)), min_size=1, max_size=30))


@settings(max_examples=30, deadline=None)
@given(life=lives())
def test_however_states_are_saved_merged_and_taken_up_the_newest_is_what_the_fold_was(
    life: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plant = Plant(tmp_path_factory.mktemp("plant"))
    for deed, number in life:
        if deed == "work":
            plant.work(number)
        elif deed == "save":
            plant.work(number)
            plant.save()
        elif deed == "soil":
            plant.fold.soil()
        elif deed == "restart":
            plant.restart()
        else:
            plant.merge(pressed=deed == "press")
    plant.restart()
    kept = newest(plant.folder)
    assert (kept.offset if kept else -1) == max(plant.digests, default=-1)


@settings(max_examples=30, deadline=None)
@given(
    saves=st.lists(st.booleans(), min_size=1, max_size=12),
    which=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(["cut", "bit", "gone"]),
    at=st.floats(0, 1),
)
def test_any_one_file_may_break_and_what_the_log_let_go_of_is_still_in_a_state_that_can_be_read(
    saves: list[bool], which: float, how: str, at: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plant = Plant(tmp_path_factory.mktemp("plant"))
    for press in saves:
        plant.work(20)
        plant.save()
        plant.merge(pressed=press)
    paths = files(plant.folder)
    damaged(paths[int(which * len(paths))], how, at)
    plant.restart()
    plant.work()
    for _ in range(3):  # it goes on as if nothing had been
        plant.work()
        plant.save()
        plant.merge()
    plant.restart()


def test_all_files_of_the_newer_chain_may_break(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    for _ in range(12):
        plant.work(20)
        plant.save()
        plant.merge()
    for path in plant.checkpoints._chains[-1].files:
        path.write_bytes(b"")
    plant.restart()
    assert plant.released > 0


def test_an_increment_costs_what_changed_and_chains_stay_short(tmp_path: Path) -> None:
    plant = Plant(tmp_path, rows=4_000)
    plant.work(4_000 * 16)
    plant.save()
    whole = sum(path.stat().st_size for path in files(tmp_path))
    assert whole > 4_000 * 16 * 8
    plant.merge()
    plant.work(10)
    plant.save()
    newest_file = files(tmp_path)[-1]
    assert newest_file.suffix == INCREMENT
    assert newest_file.stat().st_size < 20 * 2 * PAGE_BYTES
    for _ in range(140):
        plant.work(10)
        plant.save()
        plant.merge()
        assert len(files(tmp_path)) <= 2 * 66
    assert sum(path.stat().st_size for path in files(tmp_path)) < 4 * whole


def test_a_state_of_before_a_changed_layout_is_taken_up_and_written_anew(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.work(500)
    plant.save()
    plant.rows, fold = 400, paged_fold(400)
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    fold.adopt(checkpoint.state)
    plant.fold, plant.checkpoints = fold, Checkpoints(tmp_path)
    plant.checkpoints.go_on_from(checkpoint)
    plant.work()
    plant.save()
    plant.restart()
    plant.merge(pressed=True)
    plant.restart()
    before = paged_fold(300)
    before.adopt(checkpoint.state)
    assert ring_of(fold).pages["ring"].array[1].tolist() == ring_of(before).pages["ring"].array[1].tolist()


def test_an_array_that_is_new_lies_over_zeros_and_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.work(50)
    plant.save()
    ring_of(plant.fold)
    other = Ring(50)
    plant.fold._parts = {"other": other}
    other.note(3, 9.0)
    plant.offset += 1
    plant.save()
    plant.checkpoints.merge()
    found = newest(tmp_path)
    assert found is not None
    assert sorted(found.state.arrays) == ["other/head", "other/ring"]
    assert found.digest == plant.fold.digest()


def test_a_change_that_was_not_kept_is_not_missing_in_the_next(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.work(50)
    plant.save()
    with pytest.raises(ValueError, match="does not build on"):
        Checkpoints(tmp_path).save(99, plant.fold.change())
    plant.fold.soil()
    plant.work(1)
    plant.save()
    plant.restart()


def test_a_merge_that_meets_a_broken_file_has_the_whole_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant = Plant(tmp_path)
    for number in range(6):
        plant.work(20)
        plant.save()
        if number < 2:
            plant.merge()
    plant.released = -1
    damaged(plant.checkpoints._chains[-1].files[1], "bit", 0.9)
    plant.checkpoints.merge()
    assert "whole state again" in caplog.text
    plant.merge(pressed=True)
    assert plant.released == -1, "one chain alone"
    plant.work(20)
    plant.save()
    assert plant.released == 39, "the chain before"
    plant.merge(pressed=True)
    assert plant.released == plant.offset
    plant.restart()


def test_a_merge_is_given_up_when_the_run_ends_and_leaves_nothing_behind(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    for _ in range(2):
        plant.work(200)
        plant.save()
    plant.checkpoints.hurry()
    plant.merge()
    assert [path.suffix for path in files(tmp_path)] == [BASE, INCREMENT]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_was_left_half_written_is_no_state_and_goes_at_the_next_start(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.work()
    plant.save()
    half = tmp_path / f"{9:020d}-00000000{BASE}.tmp"
    half.write_bytes(files(tmp_path)[0].read_bytes()[:100])
    plant.restart()
    assert half.exists(), "a reader removes nothing"
    plant.checkpoints.tidy()
    assert not half.exists()


def test_a_copy_of_every_file_under_another_name_does_no_harm(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    for _ in range(30):
        plant.work(1)
        plant.save()
    for path in files(tmp_path):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    plant.restart()


def version_1(path: Path, _: Path) -> None:
    path.with_suffix(".checkpoint").write_bytes(b"\x84\xa7version\x01\xa6offset\x05")


def version_3(path: Path, one: Path) -> None:
    path.write_bytes(one.read_bytes().replace(b"checkpoint 2", b"checkpoint 3", 1))


def directory(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


FOUND: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "empty": (lambda path, _: path.touch(), "it ends within"),
    "garbage": (lambda path, _: path.write_bytes(b"x" * 5000), "it is no checkpoint"),
    "truncated": (lambda path, one: path.write_bytes(one.read_bytes()[:-1]), "bytes, not"),
    "longer": (lambda path, one: path.write_bytes(one.read_bytes() + b"x"), "bytes, not"),
    "header": (lambda path, one: path.write_bytes(one.read_bytes()[:40]), "damaged"),
    "version 1": (version_1, "of version 1"),
    "version 3": (version_3, "of version 3, this is version 2"),
    "directory": (directory, "it is no file"),
    "pipe": (fifo, "it is no file"),
    "dangling link": (lambda path, one: path.symlink_to(one.parent / "nowhere"), "it is no file"),
}


@pytest.mark.parametrize("what", FOUND)
def test_whatever_is_found_the_state_before_it_is_used_and_saving_goes_on(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, words = FOUND[what]
    plant = Plant(tmp_path)
    plant.work()
    plant.save()
    good = files(tmp_path)[0]
    for number in (50, 60):
        make(tmp_path / f"{number:020d}-0000beef{BASE}", good)
    for _ in range(4):
        plant.work()
        plant.restart()
        plant.work()
        plant.save()
        plant.merge()
    assert words in caplog.text
    assert plant.released > 2
    if what != "directory":
        assert not [path for path in tmp_path.iterdir() if "0000beef" in path.name]


def test_a_file_that_cannot_be_opened_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant = Plant(tmp_path)
    plant.work()
    plant.save()
    path = tmp_path / f"{50:020d}-0000beef{BASE}"
    path.symlink_to(path)  # what the superuser cannot open either
    plant.restart()
    assert "0000beef.base cannot be used: it is no file" in caplog.text


def test_a_state_of_other_tags_is_another_plant_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fold = new_fold()
    fold.step(0, samples(1, (0, 20.0)))
    Checkpoints(tmp_path, ["a", "b"]).save(0, fold.change())
    assert next(Checkpoints(tmp_path, ["a", "b", "new"]).load()).digest == fold.digest()
    assert not caplog.text
    for names in (["b", "a"], ["a"], ["a", "x", "b"]):
        assert not list(Checkpoints(tmp_path, names).load())
        assert Checkpoints(tmp_path, names).newest_offset() == -1
    assert "another plant's" in caplog.text


def test_where_nothing_can_be_written_that_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_bytes(b"")
    with pytest.raises(LogError, match="cannot be written"):
        Checkpoints(tmp_path / "checkpoints").save(0, Change(whole=True, time_ns=0, small=b"", arrays=()))


def deeds(plant: Plant) -> Iterator[int]:
    """Work, save and merge for ever; gives the offset of each save completed."""
    for number in count(1):
        plant.work(17)
        plant.save()
        yield plant.offset
        plant.merge(pressed=number % 5 == 0)


KILLS = 40


def test_killed_at_any_moment_it_leaves_a_sound_state_no_older_than_the_second_newest_save(
    tmp_path: Path,
) -> None:
    draw, digests = random.Random(1), {}  # noqa: S311 - a test's plan, no secret
    ideal, reached = paged_fold(), -1
    plant = Plant(tmp_path)
    for _ in range(KILLS):
        plant.restart()
        plant.checkpoints.tidy()
        hear, tell = os.pipe()
        if not (pid := os.fork()):
            try:
                for offset in deeds(plant):
                    os.write(tell, b"%d\n" % offset)
            finally:
                os._exit(70)
        os.close(tell)
        select.select([hear], [], [])  # it has begun
        select.select([], [], [], draw.uniform(0, 0.04))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "it ended by itself"
        with os.fdopen(hear, "rb") as told:
            saved = [int(line) for line in told.read().split(b"\n") if line]
        kept = newest(tmp_path)
        assert kept is not None
        assert kept.offset >= ([-1, *saved])[-2]
        for offset in range(reached + 1, max(kept.offset, *saved) + 1):
            ring_of(ideal).note(offset * 7 % 300, float(offset))
            digests[offset] = ideal.digest() if offset % 17 == 16 else ""
        reached = max(reached, kept.offset, *saved)
        assert kept.digest == digests[kept.offset]
        plant.digests[kept.offset], plant.offset = kept.digest, kept.offset
