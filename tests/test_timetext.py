from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import QueryError
from twinloop.present import time_text
from twinloop.timetext import parse_duration, parse_time

NOW = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", 500_000_000),
        ("1s", 10**9),
        ("1m", 60 * 10**9),
        ("2h", 7_200 * 10**9),
        (" 1d ", 86_400 * 10**9),
    ],
)
def test_a_duration_is_an_integer_and_a_unit(text: str, duration: int) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "1", "m", "1.5s", "-1s", "1 s", "0s", "1w", "1M", "٣s", "999999999d", "1s1m"]
)
def test_what_is_no_duration_is_refused_with_the_text_itself(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-07-01", "2026-07-01T00:00:00+00:00"),
        ("2026-07-01T12:30", "2026-07-01T12:30:00+00:00"),
        ("2026-07-01 12:30:15", "2026-07-01T12:30:15+00:00"),
        ("2026-07-01T12:30:15Z", "2026-07-01T12:30:15+00:00"),
        ("2026-07-01t12:30:15z", "2026-07-01T12:30:15+00:00"),
        ("2026-07-01T12:30:15+02:00", "2026-07-01T10:30:15+00:00"),
        ("2026-07-01T12:30:15-0930", "2026-07-01T22:00:15+00:00"),
        ("2026-07-01T12:30:15+02", "2026-07-01T10:30:15+00:00"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59+00:00"),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, same: str) -> None:
    assert parse_time(text, NOW) == int(datetime.fromisoformat(same).timestamp()) * 10**9


def test_a_relative_time_is_counted_from_now() -> None:
    assert parse_time("now", NOW) == NOW
    assert parse_time("-1h", NOW) == NOW - 3_600 * 10**9
    assert parse_time("+500ms", NOW) == NOW + 500_000_000


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026-13-01", "2026-02-30", "2026-07-01T25:00", "12:00", "-1", "1h", "1700000000"),
        *("2026-07-01T12:00:00.0123456789", "9999-01-01", "-300000d", "2026-07-01T12:00:00+99:00"),
    ],
)
def test_what_is_no_time_is_refused_with_the_text_itself(text: str) -> None:
    with pytest.raises(QueryError, match=r"duration|time|kept") as caught:
        parse_time(text, NOW)
    assert repr(text).strip("'+-") in str(caught.value)


@given(st.integers(-(2**63) + 10**10, 2**63 - 10**10))
def test_every_printed_time_is_read_back_to_the_nanosecond(time_ns: int) -> None:
    text = time_text(time_ns)
    assert text.endswith("Z")
    assert parse_time(text, NOW) == time_ns
