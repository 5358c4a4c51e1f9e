"""While the store lags the newest values are those that reading everything would give, without reading it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.outputs import NAMES, SECOND, T0, UNITS, OutputLog, samples
from twinloop.errors import StoreBusy
from twinloop.log.local import LocalLog
from twinloop.log.reader import read_entries
from twinloop.loop import deliver
from twinloop.loop.deliver import StoreReader
from twinloop.records import Event, EventKind, Outputs, decode_outputs, encode_outputs
from twinloop.stores.ahead import Ahead, newest_ahead
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries

STEP = st.tuples(st.integers(0, 2), st.integers(-50, 50), st.floats(-1e6, 1e6), st.booleans())


def entries_of(steps: Sequence[tuple[int, int, float, bool]]) -> list[tuple[int, Outputs]]:
    """One entry a step: a sample, or the news that its tag is silent."""
    made: list[tuple[int, Outputs]] = []
    for offset, (tag, at, value, silent) in enumerate(steps):
        event = Event(T0 + at * SECOND, NAMES[tag], EventKind.STATUS, "Good", "Uncertain", "STALE")
        made.append(
            (offset, Outputs(offset, T0, events=[event])) if silent else samples(offset, (tag, at, value))
        )
    return made


@settings(max_examples=15, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=30, unique_by=lambda step: step[:2]), st.data())
def test_latest_is_the_same_wherever_the_store_and_its_follower_stand(
    steps: list[tuple[int, int, float, bool]], data: st.DataObject
) -> None:
    log = OutputLog(entries_of(steps))
    sealed = data.draw(st.integers(0, len(steps)))
    followed = data.draw(st.integers(sealed, len(steps)))
    with tempfile.TemporaryDirectory() as folder:
        store, beside = Path(folder) / "store", Path(folder) / "outputs"
        beside.mkdir()
        writing = LocalStore(store, NAMES)
        writing.write(log.entries[:sealed])
        writing.seal()
        ahead = Ahead(beside, store, NAMES)
        begun = ahead.begin(sealed - 1)
        assert begun == sealed - 1
        ahead.add(log.entries[sealed:followed])
        ahead.save(followed - 1)
        asked: list[int] = []

        def unsealed(after: int) -> Iterable[tuple[int, Outputs]]:
            asked.append(after)
            return log.after(after)

        plain = LocalQueries(store, NAMES, UNITS, log.after)
        quick = LocalQueries(store, NAMES, UNITS, unsealed, ahead=beside)
        assert quick.latest([]).equals(plain.latest([]))
        assert asked == [followed - 1 if followed > sealed else sealed - 1], "no more was read than that"
        again = Ahead(beside, store, NAMES)
        assert again.begin(sealed - 1) == max(followed, sealed) - 1, "the next start goes on from there"


def test_without_what_the_store_has_nothing_is_followed(tmp_path: Path) -> None:
    assert Ahead(tmp_path, tmp_path / "gone", NAMES).begin(5) is None


def test_a_damaged_file_of_newest_values_is_removed_and_made_anew(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store", NAMES)
    damaged = tmp_path / f"latest-{7:016d}.parquet"
    damaged.write_bytes(b"PAR1 no more")
    queries = LocalQueries(tmp_path / "store", NAMES, UNITS, lambda _after: [], ahead=tmp_path)
    assert len(queries.latest([])) == 0
    ahead = Ahead(tmp_path, tmp_path / "store", NAMES)
    assert ahead.begin(-1) is None
    assert ahead.begin(-1) == -1
    assert not damaged.exists()


async def test_a_store_that_refuses_is_followed_and_a_store_that_takes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_BEHIND_S", 0.05)

    class Away(LocalStore):
        away = True

        def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
            if self.away:
                raise StoreBusy("away", retry_after_s=0.01)
            super().write(entries)

    log = LocalLog(tmp_path / "outputs", durable=False)
    store = Away(tmp_path / "store", NAMES)
    reader = StoreReader(log, store, follower=Ahead(tmp_path / "outputs", tmp_path / "store", NAMES))
    delivering = asyncio.create_task(reader.run())

    def unsealed(after: int) -> Iterable[tuple[int, Outputs]]:
        return [(offset, decode_outputs(data)) for offset, data in read_entries(log.directory, after)]

    async def saved(offset: int) -> None:
        async with asyncio.timeout(20):
            while newest_ahead(tmp_path / "outputs", offset - 1) is None:  # noqa: ASYNC110 - a file sets no event
                await asyncio.sleep(0.01)  # between two looks; the condition ends the wait

    for offset in range(50):
        await log.append(encode_outputs(samples(offset, (0, offset, float(offset)))[1]), T0)
    await saved(49)
    queries = LocalQueries(tmp_path / "store", NAMES, UNITS, unsealed, ahead=log.directory)
    assert queries.latest([])["value"].to_pylist() == [49.0]
    assert store.covered == -1
    store.away = False
    async with asyncio.timeout(20):
        while reader.taken < 49:  # noqa: ASYNC110 - the reader sets no event for it
            await asyncio.sleep(0.01)  # between two looks; the condition ends the wait
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    await reader.close()
    await log.close()
    assert queries.latest([])["value"].to_pylist() == [49.0]
    assert queries.range(NAMES[0], None, None)["value"].to_pylist() == [float(i) for i in range(50)]


def test_a_state_that_is_being_written_is_none_yet_and_what_a_kill_left_of_one_goes(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path, tmp_path / "store", NAMES)
    ahead.add([samples(0, (0, 1, 85.0))])
    ahead.save(7)
    found = newest_ahead(tmp_path, 3)
    half_written = tmp_path / "latest-0000000000000009.parquet.tmp"
    half_written.touch()
    assert newest_ahead(tmp_path, 3) == found
    assert found is not None
    assert found[0] == 7
    Ahead(tmp_path, tmp_path / "store", NAMES)
    assert not half_written.exists()
    assert newest_ahead(tmp_path, 3) == found
