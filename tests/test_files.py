"""Replay from files: the rows of the file, with the ticks that would have fallen between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.twin import command, query
from twinloop.batch import Received
from twinloop.errors import ConfigError
from twinloop.records import DeadLetters, DeadReason, Record, Samples, Tick
from twinloop.sources import file_rows
from twinloop.sources.files import FileOptions, FileSource
from twinloop.tags import Refusal

SECOND = 1_000_000_000
START = 1_772_359_200 * SECOND  # 2026-03-01T10:00:00Z


class Intake:
    def __init__(self) -> None:
        self.names: list[str] = []

    def series(self, address: str, unit: str) -> int | Refusal:
        assert unit == "", "a file says no unit"
        if not address.startswith("R101."):
            return Refusal(DeadReason.UNKNOWN_TAG, f"no tag {address} in the plant file")
        if address not in self.names:
            self.names.append(address)
        return self.names.index(address)

    def now_ns(self) -> int:
        return START


async def deliver(*paths: Path, settle_s: int = 5) -> list[Record]:
    tiers = (SECOND, 5 * SECOND)
    source = FileSource(FileOptions(paths, SECOND, tiers, settle_s * SECOND), Intake())
    async with source.connect() as deliveries:
        return [record async for delivery in deliveries for record in delivery.records]


def received(records: list[Record]) -> Received:
    return Received.concat([record.unpack() for record in records if isinstance(record, Samples)])


def write(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


async def test_rows_come_in_time_order_with_a_tick_for_each_second_between(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "time,tag,value,status\n"
        "2026-03-01T10:00:02.5Z,R101.t,22.5,Uncertain\n"
        "2026-03-01T11:00:00+01:00,R101.t,20,\n"
        "2026-03-01T10:00:00.000000001Z,R101.p,1.5,Good\n",
    )
    records = await deliver(path)
    rows = received(records)
    assert (rows.source_time - START).tolist() == [0, 1, 2_500_000_000]
    assert rows.value.tolist() == [20.0, 1.5, 22.5]
    assert [hex(code) for code in rows.status.tolist()] == ["0x0", "0x0", "0x40000000"]
    ticks = [(record.time - START) // SECOND for record in records if isinstance(record, Tick)]
    assert ticks == [1, 2, 3]


async def test_what_cannot_be_used_is_a_dead_letter_that_names_its_row(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "time,tag,value\n2026-03-01T10:00:00Z,R999.t,1\nyesterday,R101.t,1\n"
        "2026-03-01T10:00:00Z,R101.t,hot\n2026-03-01T10:00:00Z,R101.t,\n",
    )
    records = await deliver(path)
    letters = [letter for r in records if isinstance(r, DeadLetters) for letter in r.letters]
    assert [(letter.reason, letter.origin) for letter in letters] == [
        (DeadReason.UNKNOWN_TAG, "rows.csv: row 1"),
        (DeadReason.BAD_TIMESTAMP, "rows.csv: row 2"),
        (DeadReason.NOT_NUMERIC, "rows.csv: row 3"),
    ]
    assert len(received(records)) == 1, "an empty cell is a missing value, which is a sample"


async def test_a_replay_takes_values_and_statuses_as_the_file_has_them(tmp_path: Path) -> None:
    text = "tag,time,value,unit,status,reasons\nR101.t,2026-03-01T10:00:00Z,1,K,Uncertain,SPIKE\n"
    rows = received(await deliver(write(tmp_path, text)))
    assert (rows.status.tolist(), rows.reasons.tolist()) == ([0x4000_0000], [0])


async def test_a_long_gap_is_one_tick_that_carries_the_number_missed(tmp_path: Path) -> None:
    path = write(tmp_path, "time,tag,value\n2026-03-01T10:00:00Z,R101.t,1\n2026-03-01T22:00:00Z,R101.t,2\n")
    ticks = [record for record in await deliver(path) if isinstance(record, Tick)]
    assert len(ticks) < 10
    assert sum(1 + tick.missed for tick in ticks) == 12 * 3600 + 1


async def test_parquet_and_csv_of_the_same_rows_are_the_same(tmp_path: Path) -> None:
    times = [datetime(2026, 3, 1, 10, tzinfo=UTC) + timedelta(seconds=i) for i in range(20)]
    table = pa.table({"time": times, "tag": ["R101.t"] * 20, "value": [float(i) for i in range(20)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    text = "".join(f"{time.isoformat()},R101.t,{i}\n" for i, time in enumerate(times))
    csv = write(tmp_path, f"time,tag,value\n{text}")
    first, second = await deliver(tmp_path / "rows.parquet"), await deliver(csv)
    assert first == second


async def test_a_number_as_time_means_the_same_in_parquet_and_csv(tmp_path: Path) -> None:
    for name, unit in (("s", 1), ("ms", 1_000), ("ns", SECOND)):
        count = START // SECOND * unit
        table = pa.table({"time": [count], "tag": ["R101.t"], "value": [1.0]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        csv = await deliver(write(tmp_path, f"time,tag,value\n{count},R101.t,1\n"))
        parquet = await deliver(tmp_path / f"{name}.parquet")
        assert parquet == csv
        assert received(parquet).source_time.tolist() == [START]


async def test_a_time_beyond_nanoseconds_is_clamped_as_in_a_payload_and_keeps_its_value(
    tmp_path: Path,
) -> None:
    times = pa.array([datetime(2500, 1, 1), datetime(2026, 3, 1, 10)], pa.timestamp("us"))  # noqa: DTZ001
    pq.write_table(
        pa.table({"time": times, "tag": ["R101.t"] * 2, "value": [1.0, 2.0]}), tmp_path / "rows.parquet"
    )
    rows = file_rows.read_rows(tmp_path / "rows.parquet", Intake())
    assert rows.time.tolist() == [START, 2**63 - 1]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (pa.array(["R101.t"]).dictionary_encode(), pa.array(["1.5"]).dictionary_encode()),
        (pa.array(["R101.t"], pa.large_string()), pa.array(["1.5"], pa.large_string())),
        (pa.array(["R101.t"]), pa.array([Decimal("1.5")])),
        (pa.array(["R101.t"]), pa.array([1.5], pa.float32())),
    ],
    ids=["categories", "large", "decimal", "float32"],
)
async def test_columns_of_any_type_that_holds_numbers_are_read(
    tmp_path: Path, tag: pa.Array, value: pa.Array
) -> None:
    pq.write_table(pa.table({"time": [START], "tag": tag, "value": value}), tmp_path / "rows.parquet")
    assert received(await deliver(tmp_path / "rows.parquet")).value.tolist() == [1.5]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"time": [START], "tag": ["R101.t"], "value": [datetime(2026, 1, 1, tzinfo=UTC)]}, "type"),
        ({"time": [START], "tag": [["R101.t"]], "value": [1.0]}, "type"),
        ({"time": [[START]], "tag": ["R101.t"], "value": [1.0]}, "type"),
    ],
)
async def test_columns_of_other_types_are_refused_in_one_sentence(
    tmp_path: Path, table: dict[str, list[object]], said: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=rf"rows\.parquet: .*{said}"):
        await deliver(tmp_path / "rows.parquet")


async def test_a_column_that_stands_twice_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows\.csv: more than one column time"):
        await deliver(write(tmp_path, "time,tag,value,time\n1,R101.t,2,3\n"))


async def test_a_file_of_nothing_but_dead_letters_is_many_small_records(tmp_path: Path) -> None:
    count = 12_345
    pq.write_table(
        pa.table({"time": [START] * count, "tag": ["R999.t"] * count, "value": [1.0] * count}),
        tmp_path / "rows.parquet",
    )
    letters = [len(r.letters) for r in await deliver(tmp_path / "rows.parquet") if isinstance(r, DeadLetters)]
    assert sum(letters) == count
    assert max(letters) <= 1_000


async def test_a_file_without_the_columns_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows\.csv: no column tag"):
        await deliver(write(tmp_path, "time,value\n1,2\n"))


def test_a_replay_that_buried_a_row_says_so_and_exits_1(tmp_path: Path) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text("plant: test\ntags: {t: {}}\nassets: {R101: {tags: [t]}}\n")
    done = command("replay", plant, write(tmp_path, "time,tag,value\n2026-03-01,R101.x,1\n"))
    assert done.returncode == 1
    assert "rows.csv: row 1 became a dead letter, UNKNOWN_TAG" in done.stderr


def test_a_replayed_file_can_be_queried(tmp_path: Path) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text(
        "plant: test\ntags:\n  t: {unit: degC, range: [0, 100], spike: 20%}\nassets:\n  R101: {tags: [t]}\n"
        "data_dir: ./data\n"
    )
    values = [85.0] * 10 + [120.0] + [85.0] * 10
    rows = "".join(f"2026-03-01T10:00:{i:02d}Z,R101.t,{value}\n" for i, value in enumerate(values))
    done = command("replay", plant, write(tmp_path, f"time,tag,value\n{rows}"))
    assert done.returncode == 0, done.stderr
    assert "21 samples received: 20 Good, 0 Uncertain, 1 Bad" in done.stderr
    stored = query(plant, "range", "R101.t")
    assert [float(row["value"]) for row in stored] == values
    assert stored[10]["status"] == "Bad", "beyond the range"
