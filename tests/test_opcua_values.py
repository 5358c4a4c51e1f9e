"""The decoder of values and notifications, against asyncua's encoder and the standard's own layout."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary, variant_to_binary
from hypothesis import given
from hypothesis import strategies as st

from twinloop.batch import NO_TIME
from twinloop.errors import PayloadError
from twinloop.sources.opcua.publish import decode_notification
from twinloop.sources.opcua.skip import skip_variant
from twinloop.sources.opcua.values import EPOCH_TICKS, decode_values

INTEGERS = {"SByte": 8, "Int16": 16, "Int32": 32, "Int64": 64}
UNSIGNED = {"Byte": 8, "UInt16": 16, "UInt32": 32, "UInt64": 64}
NUMBERS = st.one_of(
    st.floats().map(lambda v: (v, "Double")),
    st.floats(width=32).map(lambda v: (v, "Float")),
    st.booleans().map(lambda v: (v, "Boolean")),
    *(st.tuples(st.integers(-(1 << b - 1), (1 << b - 1) - 1), st.just(k)) for k, b in INTEGERS.items()),
    *(st.tuples(st.integers(0, (1 << b) - 1), st.just(k)) for k, b in UNSIGNED.items()),
    st.just((None, "Null")),
)
TEXTS = st.one_of(st.text(max_size=5).map(lambda v: (v, "String")), st.just(([1.0, 2.0], "Double")))
TIMES = st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(  # noqa: DTZ001 - below
    lambda time: time.replace(tzinfo=UTC)
)
STATUS = st.integers(0, 0xFFFF_FFFF)


def data_value(value: Any, kind: str, status: int, source: Any, server: Any) -> ua.DataValue:
    return ua.DataValue(
        ua.Variant(value, ua.VariantType[kind]),
        ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=source,
        ServerTimestamp=server,
    )


def nanoseconds(time: datetime | None) -> int:
    if time is None:
        return NO_TIME
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def encode(values: Sequence[ua.DataValue], *, handles: bool) -> bytes:
    parts = [
        (struct.pack("<I", place * 3) if handles else b"") + struct_to_binary(value)
        for place, value in enumerate(values)
    ]
    return b"".join(parts)


@given(st.lists(st.tuples(NUMBERS, STATUS, TIMES, TIMES), max_size=12), st.booleans())
def test_numbers_arrive_as_another_implementation_encoded_them(
    drawn: list[tuple[Any, int, Any, Any]],
    handles: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    body = encode([data_value(*number, *rest) for number, *rest in drawn], handles=handles)
    rows, end = decode_values(body, len(drawn), handles=handles)
    assert end == len(body)
    expected = [np.nan if value is None else float(value) for (value, _), *_ in drawn]
    np.testing.assert_array_equal(rows.value, expected)
    assert rows.status.tolist() == [status for _, status, _, _ in drawn]
    assert rows.source.tolist() == [nanoseconds(time) for *_, time, _ in drawn]
    assert rows.server.tolist() == [nanoseconds(time) for *_, time in drawn]
    step = 3 if handles else 1
    assert rows.handle.tolist() == [place * step for place in range(len(drawn))]


@given(st.lists(st.tuples(st.one_of(NUMBERS, TEXTS), STATUS, TIMES, TIMES), max_size=8))
def test_what_is_no_number_is_set_aside_and_its_neighbours_are_kept(
    drawn: list[tuple[Any, int, Any, Any]],
) -> None:
    body = encode([data_value(*number, *rest) for number, *rest in drawn], handles=True)
    rows, _ = decode_values(body, len(drawn), handles=True)
    odd = [kind == "String" or isinstance(value, list) for (value, kind), *_ in drawn]
    assert [other.handle for other in rows.others] == [
        3 * place for place, is_odd in enumerate(odd) if is_odd
    ]
    assert rows.handle.tolist() == [3 * place for place, is_odd in enumerate(odd) if not is_odd]


def test_times_keep_100_ns_and_picoseconds_stand_where_the_standard_puts_them() -> None:
    ticks = EPOCH_TICKS + 15_000_000_001
    value = struct.pack("<BBdqHqH", 0x3D, 11, 21.5, ticks, 4_200, ticks + 7, 9_999)
    rows, _ = decode_values(value, 1, handles=False)
    assert rows.value.tolist() == [21.5]
    assert rows.source.tolist() == [1_500_000_000_100 + 42]
    assert rows.server.tolist() == [1_500_000_000_800 + 99]


@pytest.mark.parametrize("ticks", [-(2**63), 1, 2**63 - 1])
def test_an_insane_time_stays_insane_without_wrapping_round(ticks: int) -> None:
    rows, _ = decode_values(struct.pack("<BBdq", 0x05, 11, 1.0, ticks), 1, handles=False)
    assert abs(rows.source[0]) == 9_000_000_000_000_000_000
    assert (rows.source[0] > 0) == (ticks > EPOCH_TICKS)


@given(st.binary(max_size=60), st.integers(-1, 5), st.booleans())
def test_foreign_bytes_are_refused_and_never_raise_anything_else(
    body: bytes,
    count: int,
    handles: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    try:
        rows, end = decode_values(body, count, handles=handles)
    except PayloadError:
        return
    assert len(rows) + len(rows.others) == max(count, 0)
    assert end <= len(body)


def test_an_array_of_nothing_does_not_count_to_its_hostile_length() -> None:
    with pytest.raises(PayloadError, match="array of nothing"):
        decode_values(struct.pack("<BBi", 1, 0x80, 2**31 - 1), 1, handles=False)


@pytest.mark.parametrize(
    "variant",
    [
        struct.pack("<BiBi", 0x98, 1, 0x80, 2**31 - 1),  # an array of one value: an array of nothing
        struct.pack("<BBBi", 23, 1, 0x80, 2**31 - 1),
        struct.pack("<BBi", 24, 0xC0, 2**31 - 1),
        struct.pack("<Bi", 0x8C, 2**31 - 1),
        b"\x18" * 5_000,
        b"\x19" + b"\x40" * 5_000,
    ],
)
@pytest.mark.timeout(10)
def test_a_value_made_to_hurt_is_refused_at_once(variant: bytes) -> None:
    with pytest.raises(PayloadError):
        decode_values(b"\1" + variant, 1, handles=False)


def test_dimensions_without_elements_cost_no_memory() -> None:
    dimensions = [1_000_000, *[1] * 500]
    variant = struct.pack("<Bi", 0xC6, 0) + struct.pack(f"<i{len(dimensions)}i", len(dimensions), *dimensions)
    tracemalloc.start()
    rows, end = decode_values(b"\1" + variant, 1, handles=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(rows.others), end) == (1, 1 + len(variant))
    assert peak < 1 << 20


NODE_IDS = st.integers(0, 2**31 - 1).map(ua.Int32) | st.text(max_size=5).map(ua.String)
ANYTHING = st.recursive(
    st.one_of(
        st.floats().map(lambda v: ua.Variant(v, ua.VariantType.Double)),
        st.text(max_size=5).map(lambda v: ua.Variant(v, ua.VariantType.String)),
        st.text(max_size=5).map(
            lambda v: ua.Variant(ua.LocalizedText(v, "de"), ua.VariantType.LocalizedText)
        ),
        st.text(max_size=5).map(lambda v: ua.Variant(ua.QualifiedName(v, 1), ua.VariantType.QualifiedName)),
        NODE_IDS.map(lambda v: ua.Variant(ua.NodeId(v, ua.Int16(3)), ua.VariantType.NodeId)),
        st.uuids().map(lambda v: ua.Variant(v, ua.VariantType.Guid)),
        st.binary(max_size=5).map(lambda v: ua.Variant(v, ua.VariantType.ByteString)),
        st.lists(st.text(max_size=3), max_size=3).map(lambda v: ua.Variant(v, ua.VariantType.String)),
        st.just(ua.Variant(ua.Range(0.0, 1.0), ua.VariantType.ExtensionObject)),
        st.just(ua.Variant([[1, 2], [3, 4]], ua.VariantType.Int32, [ua.Int32(2), ua.Int32(2)])),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda v: ua.Variant(v, ua.VariantType.Variant)),
        inner.map(lambda v: ua.Variant(ua.DataValue(v), ua.VariantType.DataValue)),
    ),
    max_leaves=6,
)


@given(ANYTHING)
def test_any_value_is_as_long_as_another_implementation_made_it(variant: ua.Variant) -> None:
    encoded = variant_to_binary(variant)
    assert skip_variant(encoded, 0) == len(encoded)


def publish_response(*parts: tuple[int, bytes], sequence: int = 9) -> bytes:
    """Parameters of a Publish response with extension objects of the given type ids."""
    objects = b"".join(struct.pack("<BBHBi", 1, 0, kind, 1, len(body)) + body for kind, body in parts)
    head = struct.pack("<Ii", 77, 2) + struct.pack("<II", 8, 9) + b"\0"
    return head + struct.pack("<Iqi", sequence, EPOCH_TICKS, len(parts)) + objects


def test_a_notification_carries_values_status_changes_and_its_number() -> None:
    values = struct.pack("<iIBBd", 1, 5, 1, 11, 2.5) + struct.pack("<i", -1)
    made = decode_notification(publish_response((811, values), (820, struct.pack("<I", 0x800A0000))))
    assert (made.subscription, made.sequence, made.status) == (77, 9, 0x800A0000)
    assert made.rows[0].value.tolist() == [2.5]
    assert made.rows[0].handle.tolist() == [5]


def test_a_keep_alive_has_no_number_to_acknowledge() -> None:
    assert decode_notification(publish_response()).sequence == 0


def test_a_bad_part_is_kept_and_the_good_ones_beside_it_are_used() -> None:
    values = struct.pack("<iIBBd", 1, 5, 1, 11, 2.5)
    made = decode_notification(publish_response((811, b"\x09\0\0\0junk"), (811, values), (4711, b"\1\2\3\4")))
    assert [raw for raw, _ in made.undecodable] == [b"\x09\0\0\0junk", b"\1\2\3\4"]
    assert made.rows[0].value.tolist() == [2.5]


@given(st.binary(max_size=80))
def test_a_frame_that_cannot_be_read_is_kept_whole(data: bytes) -> None:
    made = decode_notification(data)
    assert made.rows or made.undecodable or made.status is not None or made.sequence == 0


@given(st.integers(0, 60), st.integers(0, 255))
def test_one_damaged_byte_never_raises(at: int, byte: int) -> None:
    frame = bytearray(publish_response((811, struct.pack("<iIBBdI", 1, 5, 3, 11, 2.5, 0))))
    frame[min(at, len(frame) - 1)] = byte
    decode_notification(bytes(frame))
