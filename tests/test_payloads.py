"""What a payload means, and that no bytes whatever can do more harm than a dead letter."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinloop.batch import NO_TIME
from twinloop.errors import ConfigError, PayloadError
from twinloop.records import DeadReason
from twinloop.sources.mqtt.payloads import Decoded, PayloadDecoder, PayloadOptions, Sample
from twinloop.sources.timestamps import _from_iso, _from_usual, parse_timestamp
from twinloop.status import BAD, GOOD, UNCERTAIN, StatusCode, severity_name

PLAIN = PayloadDecoder(PayloadOptions())
NUMBER = PayloadDecoder(PayloadOptions(format="number"))
NESTED = PayloadDecoder(
    PayloadOptions(fields={"value": "data.value", "timestamp": "data.at", "unit": "meta.0", "quality": "q"})
)
NAMED = PayloadDecoder(PayloadOptions(fields={"tag": "name", "asset": "device"}))
WORDS = PayloadDecoder(PayloadOptions(values={"OPEN": 1, "CLOSED": 0}, quality_encoding="opcda", unit="K"))
DECODERS = (PLAIN, NUMBER, NESTED, NAMED, WORDS)
T0 = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("value", "unit", "timestamp", "quality", "data", "meta", "at", "name", "q")),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def one(decoder: PayloadDecoder, payload: str | bytes) -> Sample:
    """The only sample of a payload."""
    (found,) = decoder.decode(payload.encode() if isinstance(payload, str) else payload)
    assert isinstance(found, Sample), found
    return found


def dead(decoder: PayloadDecoder, payload: str | bytes) -> str:
    """The reason a payload is a dead letter as a whole."""
    (found,) = decoder.decode(payload.encode() if isinstance(payload, str) else payload)
    assert isinstance(found, PayloadError), found
    return found.reason


def stamped(stamp: object) -> int:
    """The time of a sample with this timestamp."""
    return one(PLAIN, json.dumps({"value": 1, "timestamp": stamp})).time


def assert_storable(decoded: Decoded) -> None:
    """Everything a record can hold, and nothing else."""
    assert len(decoded) > 0
    for found in decoded:
        if isinstance(found, PayloadError):
            DeadReason(found.reason)
            found.detail.encode()
            assert len(found.detail) < 500
            continue
        assert isinstance(found.value, float)
        assert -(2**63) <= found.time < 2**63
        assert 0 <= found.status < 2**32
        for text in (found.unit, found.tag, found.asset):
            assert len(text.encode()) <= 4 * 256


def test_an_object_gives_value_unit_time_and_status_as_written() -> None:
    sample = one(
        PLAIN, '{"value": 85.25, "unit": "degC", "timestamp": "2026-01-01T00:00:00Z", "quality": "Uncertain"}'
    )
    assert sample == Sample(85.25, "degC", T0, UNCERTAIN)


def test_what_an_object_does_not_say_is_not_made_up() -> None:
    for payload in ('{"value": 1}', '{"value":1,"unit":null,"timestamp":null,"quality":null}', "1"):
        assert one(PLAIN, payload) == Sample(1.0, "", NO_TIME, GOOD)


@pytest.mark.parametrize(
    ("payload", "value"),
    [("true", 1.0), ("false", 0.0), ('{"value": true}', 1.0), ("-1e3", -1000.0), ('{"value": "23.5"}', 23.5)],
)
def test_booleans_and_texts_that_are_wholly_numbers_are_numbers(payload: str, value: float) -> None:
    assert one(PLAIN, payload).value == value


@pytest.mark.parametrize(
    "text", ["hot", "", " ", "23,5", "1_000", "0x10", "12 bar", "٣", "--1", "1e", "1" * 300, "True"]
)
def test_a_text_that_is_not_wholly_a_number_is_not_numeric(text: str) -> None:
    assert dead(PLAIN, json.dumps({"value": text})) == DeadReason.NOT_NUMERIC
    assert dead(NUMBER, text) == DeadReason.NOT_NUMERIC


@pytest.mark.parametrize("payload", ["{}", '{"value": {}}', '{"value": []}', "[]", '{"Value": 1}'])
def test_a_payload_without_a_number_in_its_place_is_not_numeric(payload: str) -> None:
    assert dead(PLAIN, payload) == DeadReason.NOT_NUMERIC


@pytest.mark.parametrize("value", ["NaN", "null", '"nan"'])
def test_nothing_measured_is_a_sample_without_a_value_not_a_dead_letter(value: str) -> None:
    """Python's json writes NaN, which is no JSON; its quality and time must reach the store all the same."""
    sample = one(PLAIN, f'{{"value": {value}, "quality": "Bad", "timestamp": 1767225600}}')
    assert math.isnan(sample.value)
    assert (sample.status, sample.time) == (BAD, T0)


@pytest.mark.parametrize("value", ["Infinity", "1e999", '"inf"'])
def test_infinity_however_written_is_infinite(value: str) -> None:
    assert one(PLAIN, f'{{"value": {value}}}').value == math.inf
    assert one(PLAIN, f'{{"value": -{value}}}' if '"' not in value else '"-inf"').value == -math.inf


@pytest.mark.parametrize(
    ("payload", "value"), [(b"23.5", 23.5), (b" 1e3\n", 1000.0), (b"-.5", -0.5), (b"+7.", 7.0)]
)
def test_a_plain_number_may_have_blanks_around_it(payload: bytes, value: float) -> None:
    assert one(NUMBER, payload) == Sample(value)


def test_words_become_the_numbers_the_plant_file_gives_them() -> None:
    assert [one(WORDS, json.dumps({"value": word})).value for word in ("OPEN", " CLOSED ")] == [1.0, 0.0]
    assert dead(WORDS, '{"value": "ajar"}') == DeadReason.NOT_NUMERIC
    assert one(PayloadDecoder(PayloadOptions(format="number", values={"ON": 1})), "ON\n").value == 1.0


def test_a_unit_of_the_topic_stands_in_where_the_payload_has_none() -> None:
    assert one(WORDS, "5").unit == "K"
    assert one(WORDS, '{"value": 5, "unit": "degC"}').unit == "degC"
    assert dead(PLAIN, '{"value": 5, "unit": 7}') == DeadReason.WRONG_UNIT
    assert dead(PLAIN, json.dumps({"value": 5, "unit": "K" * 999})) == DeadReason.WRONG_UNIT


def test_fields_may_have_other_names_and_lie_deeper() -> None:
    sample = one(NESTED, '{"data": {"value": 3, "at": "1767225600.5"}, "meta": ["bar"], "q": "Bad"}')
    assert sample == Sample(3.0, "bar", T0 + 500_000_000, BAD)
    flat = PayloadDecoder(PayloadOptions(fields={"value": "v", "timestamp": "t"}))
    assert one(flat, '{"v": 2, "t": 1767225600}') == Sample(2.0, "", T0)
    assert dead(flat, '{"value": 2}') == DeadReason.NOT_NUMERIC
    assert one(NESTED, '{"data.value": 4, "data": {"value": 5}}').value == 4.0


def test_a_payload_may_name_its_tag_and_asset() -> None:
    sample = one(NAMED, '{"device": "R101", "name": "temperature", "value": 1}')
    assert (sample.asset, sample.tag) == ("R101", "temperature")
    for payload in ('{"value": 1, "name": "temperature"}', '{"device": "R101", "name": 5, "value": 1}', "1"):
        assert dead(NAMED, payload) == DeadReason.UNKNOWN_TAG


def test_an_array_is_as_many_samples_and_each_bad_element_an_error_of_its_own() -> None:
    found = PLAIN.decode(b'[1, {"value": 2, "unit": "K"}, "x", {"value": 3, "quality": "odd"}, "4"]')
    assert [item.value for item in found if isinstance(item, Sample)] == [1.0, 2.0, 4.0]
    errors = [item for item in found if isinstance(item, PayloadError)]
    assert [error.reason for error in errors] == [DeadReason.NOT_NUMERIC, DeadReason.BAD_QUALITY]
    assert errors[0].detail.startswith("element 2:")


@pytest.mark.parametrize(
    ("quality", "status"),
    [
        ("Good", GOOD),
        ("bad", BAD),
        ("BadSensorFailure", StatusCode.BAD_SENSOR_FAILURE),
        ("0x808C0000", StatusCode.BAD_SENSOR_FAILURE),
        (0, GOOD),
        (0x808C_0000, StatusCode.BAD_SENSOR_FAILURE),
    ],
)
def test_a_quality_is_a_word_or_a_ua_code(quality: object, status: int) -> None:
    assert one(PLAIN, json.dumps({"value": 1, "quality": quality})).status == status


@pytest.mark.parametrize(
    ("quality", "word"), [(192, "Good"), (0, "Bad"), ("64", "Uncertain"), ("Good", "Good")]
)
def test_zero_is_good_in_ua_and_bad_in_opcda(quality: object, word: str) -> None:
    assert severity_name(one(WORDS, json.dumps({"value": 1, "quality": quality})).status) == word


@pytest.mark.parametrize("quality", ["excellent", -1, 2**32, 1.5, True, [], {}, "x" * 9999])
def test_a_quality_that_is_not_known_is_never_guessed(quality: object) -> None:
    assert dead(PLAIN, json.dumps({"value": 1, "quality": quality})) == DeadReason.BAD_QUALITY
    assert dead(WORDS, '{"value": 1, "quality": 256}') == DeadReason.BAD_QUALITY


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00.000",
        "2026-01-01T01:00:00+01:00",
        "2025-12-31T18:30:00-0530",
        "2026-01-01t00:00:00z",
        "20260101T000000Z",
        "2026-01-01",
        " 2026-01-01T00:00:00Z ",
        1_767_225_600,
        "1767225600",
        1_767_225_600_000,
        1_767_225_600_000_000,
        1_767_225_600_000_000_000,
        "1767225600000.0",
        1_767_225_600.0,
    ],
)
def test_one_moment_may_be_written_in_many_ways(stamp: object) -> None:
    assert stamped(stamp) == T0


@pytest.mark.parametrize(
    ("stamp", "after_ns"),
    [
        ("2026-01-01T00:00:00.000000001Z", 1),
        ("2026-01-01T00:00:00,123456789+00:00", 123_456_789),
        ("2026-01-01T00:00:00.1234567899999Z", 123_456_789),
        ("1767225600.123456789", 123_456_789),
        (1767225600.25, 250_000_000),
        (1767225600.1, 100_000_000),
    ],
)
def test_fractions_are_exact_to_the_nanosecond(stamp: object, after_ns: int) -> None:
    assert stamped(stamp) == T0 + after_ns


@pytest.mark.parametrize("stamp", [None, ""])
def test_a_missing_timestamp_is_no_time(stamp: object) -> None:
    assert stamped(stamp) == NO_TIME


@pytest.mark.parametrize(
    "stamp",
    [
        "noon",
        "2026-13-01T00:00:00Z",
        "2026-01",
        True,
        [],
        {},
        10**30,
        1e300,
        "1e400",
        "9" * 5000,
        "٢٠٢٦",
    ],
)
def test_an_unreadable_timestamp_is_a_dead_letter(stamp: object) -> None:
    assert dead(PLAIN, json.dumps({"value": 1, "timestamp": stamp})) == DeadReason.BAD_TIMESTAMP
    assert dead(PLAIN, '{"value": 1, "timestamp": NaN}') == DeadReason.BAD_TIMESTAMP


def test_a_clock_that_was_never_set_does_not_cost_the_value() -> None:
    """.NET's first moment is before int64 nanoseconds begin: the fold will call it not sane."""
    assert stamped("0001-01-01T00:00:00Z") == NO_TIME + 1
    assert stamped("9999-12-31T23:59:59Z") == 2**63 - 1


def test_a_named_format_is_taken_at_its_word() -> None:
    assert parse_timestamp(5, "ns") == 5
    assert parse_timestamp("5", "us") == 5_000
    assert parse_timestamp(0.5, "ms") == 500_000
    assert parse_timestamp(10**12, "s") == 2**63 - 1
    for stamp in (5, "5", 5.0):
        with pytest.raises(PayloadError, match="BAD_TIMESTAMP"):
            parse_timestamp(stamp, "iso")
    with pytest.raises(PayloadError, match="BAD_TIMESTAMP"):
        parse_timestamp("2026-01-01T00:00:00Z", "s")


@given(
    moment=st.datetimes(datetime(1975, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - the offset is added below
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_any_moment_with_any_offset_survives(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    expected = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
    assert stamped(aware.isoformat()) == expected
    assert parse_timestamp(expected, "ns") == parse_timestamp(str(expected), "ns") == expected


@given(
    st.from_regex(
        r"(0001|1677|19[0-9]{2}|20[0-9]{2}|2262|9999)-[01][0-9]-[0-3][0-9]"
        r"[T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9]([.,][0-9]{1,12})?(Z|[+]00:00|[+]02:00|)",
        fullmatch=True,
        alphabet=st.characters(codec="ascii"),
    )
)
@example("2026-11-30T23:59:60Z")
@example("1677-09-21T00:12:43.999999999Z")
@example("2262-04-11T23:47:16.9Z")
def test_the_quick_way_for_usual_stamps_reads_them_as_the_thorough_one_does(text: str) -> None:
    answers: list[int | str] = []
    for way in (_from_usual, lambda each: _from_iso(each, each)):
        try:
            answers.append(way(text))
        except PayloadError as error:
            answers.append(error.detail)
    assert answers[0] == answers[1]


@given(time_ns=st.integers(10**17, 2**63 - 1))
def test_a_number_of_today_is_told_by_its_size(time_ns: int) -> None:
    assert parse_timestamp(time_ns) == time_ns
    assert parse_timestamp(time_ns // 10**3) == time_ns // 10**3 * 10**3
    assert parse_timestamp(time_ns // 10**6) == time_ns // 10**6 * 10**6
    assert parse_timestamp(time_ns // 10**9) == time_ns // 10**9 * 10**9


@given(value=st.floats(allow_nan=False), unit=st.text(max_size=20).map(str.strip))
def test_any_value_and_unit_survive(value: float, unit: str) -> None:
    sample = one(PLAIN, json.dumps({"value": value, "unit": unit}))
    assert (sample.value, sample.unit) == (value, unit)
    assert one(NUMBER, repr(value)).value == value


@given(payload=st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe1\x00")
@example(b"\xef\xbb\xbf{}")
@example(b'{"value": 1, "unit": "\\ud800"}')
@example(b'{"value": 1, "quality": "\\ud800"}')
@example(b'{"value": "\\ud800", "timestamp": "\\ud800"}')
@example(b'{"name": "\\ud800", "device": "\\u0000", "value": 1}')
def test_any_bytes_are_samples_or_dead_letters(payload: bytes) -> None:
    for decoder in DECODERS:
        assert_storable(decoder.decode(payload))


@given(document=json_values)
def test_any_json_is_samples_or_dead_letters(document: object) -> None:
    for decoder in DECODERS:
        assert_storable(decoder.decode(json.dumps(document).encode()))


@given(document=json_values)
def test_the_fast_path_and_the_slow_path_agree(document: object) -> None:
    slow = PayloadDecoder(PayloadOptions())
    slow._plain = None
    payload = json.dumps(document).encode()
    assert repr(list(PLAIN.decode(payload))) == repr(list(slow.decode(payload)))


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 500_000,
        b'{"value":' * 200_000,
        b'{"value":' + b"9" * 1_000_000 + b"}",
        b'{"value":1,"timestamp":' + b"9" * 1_000_000 + b"}",
        b'{"value":1,"timestamp":' + b"9" * 400 + b"}",
        b'{"value":"' + b"9" * 1_000_000 + b'"}',
        b'{"value":1,"timestamp":"' + b"1" * 1_000_000 + b'"}',
        b'{"value":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"9" * 1_000_000,
    ],
    ids=["nest", "nest-objects", "int", "stamp", "stamp-400", "text", "stamp-text", "nest-aside", "bare"],
)
@pytest.mark.timeout(20)
def test_a_payload_made_to_hurt_is_a_dead_letter_and_takes_no_time(bomb: bytes) -> None:
    for decoder in DECODERS:
        assert_storable(decoder.decode(bomb))
        assert any(isinstance(found, PayloadError) for found in decoder.decode(bomb))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "xml"}, "json, number"),
        ({"timestamp_format": "epoch"}, "iso"),
        ({"quality_encoding": "da"}, "opcda"),
        ({"fields": {"valeu": "v"}}, "value"),
        ({"fields": {"value": ""}}, "value"),
    ],
)
def test_an_unknown_option_is_refused_with_the_valid_ones(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PayloadOptions(**changes)
