"""Log entries: what was written is read, and any other bytes are refused in one way."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mutate import Mutator
from support.recorded import new_fold, recorded_outputs, recorded_records
from twinloop.batch import NO_TIME, Received
from twinloop.errors import LogError
from twinloop.records import (
    DeadReason,
    Samples,
    decode_outputs,
    decode_record,
    encode_outputs,
    encode_record,
)

RECORDS = [encode_record(record) for record in recorded_records()]
OUTPUTS = [encode_outputs(outputs) for outputs in recorded_outputs()]


def test_records_and_outputs_come_back_as_they_went_in() -> None:
    assert [decode_record(data) for data in RECORDS] == recorded_records()
    assert [encode_outputs(decode_outputs(data)) for data in OUTPUTS] == OUTPUTS


@given(st.binary(max_size=80))
def test_foreign_bytes_are_refused_as_no_entry(data: bytes) -> None:
    for decode in (decode_record, decode_outputs):
        with pytest.raises(LogError):
            decode(data)


@given(st.integers(0, 2**32))
def test_a_damaged_entry_is_refused_or_can_be_folded(seed: int) -> None:
    damaged = Mutator(seed, RECORDS, in_place=0.9).next()
    try:
        record = decode_record(damaged)
    except LogError:
        return
    outputs = new_fold().step(0, record)
    assert len(decode_outputs(encode_outputs(outputs)).batch()) == len(outputs.batch())


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "samples", "columns": [b""] * 6},
        {"type": "samples", "columns": [b"1234", *[b"12345678"] * 4, b"1234", b"12"]},
        {"type": "samples", "columns": [b"123", *[b""] * 6]},
        {"type": "tick", "time": 2**63, "tiers": []},
        {"type": "alive", "time": 0, "series": [2**31]},
        {"type": "dead", "letters": [{"time": 0}]},
    ],
)
def test_columns_and_numbers_that_do_not_fit_are_refused_on_reading(entry: dict[str, object]) -> None:
    with pytest.raises(LogError, match="not a record"):
        decode_record(msgspec.msgpack.encode(entry))


def test_a_text_that_is_not_utf_8_is_refused_like_anything_else() -> None:
    with pytest.raises(LogError, match="not a record"):
        decode_record(RECORDS[0].replace(b"field", b"fi\xff\xffd"))


@pytest.mark.parametrize("series", [-1, 4, 63, 64, 2**31 - 1, -(2**31)])
def test_a_series_nobody_numbered_is_a_dead_letter_and_needs_no_memory(series: int) -> None:
    received = Received.of(
        series=[0, series],
        source_time=[NO_TIME] * 2,
        server_time=[NO_TIME] * 2,
        arrival_time=[1] * 2,
        value=[85.0, 1.5],
        status=[0, 0],
        reasons=[0, 0],
    )
    outputs = new_fold().step(0, Samples.pack(received))
    assert outputs.batch().value.tolist() == [85.0]
    (letter,) = outputs.dead
    assert (letter.raw, letter.origin, letter.reason) == (b"1.5", f"series {series}", DeadReason.UNKNOWN_TAG)
    assert np.isfinite(letter.time)
