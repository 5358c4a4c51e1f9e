"""Times and durations as people write and read them, to nanoseconds and exactly."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import numpy as np

from twinloop.errors import QueryError

__all__ = ["parse_duration", "parse_time", "time_text"]

UNITS_NS: Final = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
}
_SECOND_NS: Final = UNITS_NS["s"]
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h|d)", re.ASCII)
_ISO: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<clock>\d{2}:\d{2}(?::\d{2})?)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII | re.IGNORECASE,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT: Final = 2**63


def parse_duration(text: str) -> int:
    """Nanoseconds of a positive duration: an integer and ms, s, m, h or d.

    >>> parse_duration("1m")
    60000000000

    Raises:
        QueryError: the text is no such duration, or it is nothing or too long.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise QueryError(
            f"{text!r} is not a duration: write an integer and ms, s, m, h or d, such as 500ms or 1m"
        )
    duration = int(match[1]) * UNITS_NS[match[2]]
    if not 0 < duration < _LIMIT:
        raise QueryError(f"{text!r} is not a duration: it must be more than nothing and less than 292 years")
    return duration


def parse_time(text: str, now_ns: int) -> int:
    """Nanoseconds since the epoch of an ISO 8601 time, of `now`, or of a time before (`-1h`) or after it.

    UTC unless the text gives an offset; a date alone is its midnight; up to nine decimals are exact.

    >>> parse_time("2026-07-01T12:00:00+02:00", now_ns=0)
    1782900000000000000
    >>> parse_time("-1h", now_ns=7_200_000_000_000)
    3600000000000

    Raises:
        QueryError: the text is no such time, or lies beyond the years 1677 to 2262.
    """
    stripped = text.strip()
    if stripped.lower() == "now":
        return now_ns
    if stripped[:1] in {"-", "+"}:
        sign = -1 if stripped[0] == "-" else 1
        return _within(text, now_ns + sign * parse_duration(stripped[1:]))
    match = _ISO.fullmatch(stripped)
    if not match:
        raise QueryError(
            f"{text!r} is not a time: write ISO 8601 such as 2026-07-01T12:00:00Z, now, or -1h (an hour ago)"
        )
    return _within(text, _iso_ns(text, match))


def _iso_ns(text: str, match: re.Match[str]) -> int:
    zone = match["zone"] or "Z"
    clock = match["clock"] or "00:00:00"
    try:
        at = datetime.fromisoformat(f"{match['date']}T{clock}{'+00:00' if zone in 'zZ' else zone}")
    except ValueError as error:
        raise QueryError(f"{text!r} is not a time: {error}") from error
    since = at - _EPOCH
    fraction = int((match["fraction"] or "").ljust(9, "0"))
    return (since.days * 86_400 + since.seconds) * _SECOND_NS + fraction


def _within(text: str, time_ns: int) -> int:
    if not -_LIMIT < time_ns < _LIMIT:
        raise QueryError(f"{text!r} cannot be kept: times lie between the years 1677 and 2262")
    return time_ns


def time_text(time_ns: int) -> str:
    """ISO 8601 in UTC, ending in `Z`, with as many decimals as are needed: none, 3, 6 or 9.

    >>> time_text(1_500_000_000)
    '1970-01-01T00:00:01.500Z'
    """
    seconds, fraction = divmod(time_ns, _SECOND_NS)
    text = str(np.datetime64(seconds, "s"))
    if not fraction:
        return f"{text}Z"
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"
