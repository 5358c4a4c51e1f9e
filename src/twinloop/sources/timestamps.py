"""Source timestamps as people and devices write them, to nanoseconds since the epoch, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal

import ciso8601

from twinloop.batch import NO_TIME
from twinloop.errors import PayloadError
from twinloop.records import DeadReason

__all__ = ["TimestampFormat", "parse_timestamp"]

TimestampFormat = Literal["auto", "iso", "s", "ms", "us", "ns"]
"""`iso` is ISO 8601, the others count from the Unix epoch, `auto` tells them apart."""

_NS_PER: Final[dict[str, int]] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
# Up to each magnitude a number without a unit is read in this unit: seconds until the year 5138,
# milliseconds, microseconds and nanoseconds from March 1973 on.
_AUTO: Final = ((10**11 - 1, 10**9), (10**14 - 1, 10**6), (10**17 - 1, 10**3), (2**63, 1))
_LATEST: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_FRACTION: Final = re.compile(r"[.,]([0-9]+)", re.ASCII)
_USUAL: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}):([0-5][0-9])"
    r"(?:[.,]([0-9]{1,9})[0-9]*)?(?:Z|\+00:00)?",
    re.ASCII,
)
_FAR_NS: Final = 9 * 10**18
"""Where seconds more or less are no matter of clamping."""
_SHORTEST_DATE: Final = len("20260101")
_LONGEST: Final = 64
_MICROSECONDS: Final = len("20260101T000000.000000")


def parse_timestamp(stamp: str | float, form: TimestampFormat = "auto") -> int:
    """Nanoseconds since the epoch, exactly as written where it was written as text or an integer.

    ISO 8601 may have any offset (none means UTC), `T` or a blank, a point or comma and any number of
    fraction digits; those after the ninth are cut off. A date of its own is its midnight. A float is as
    exact as its shortest decimal form. A readable date before 1678 or after 2262 (a clock never set)
    becomes the first or last time there is, so that the fold calls it not sane instead of losing the value.

    Args:
        stamp: a text, an integer or a float.
        form: how it is written; `auto` reads a text of digits like a number, and a number below 1e11 as
            seconds, below 1e14 as milliseconds, below 1e17 as microseconds, else as nanoseconds.

    Raises:
        PayloadError: BAD_TIMESTAMP, it cannot be read.

    >>> parse_timestamp("1970-01-01T01:00:00.000000001+01:00")
    1
    >>> parse_timestamp(1_700_000_000), parse_timestamp("1700000000.25")
    (1700000000000000000, 1700000000250000000)
    """
    if isinstance(stamp, str):
        if stamp[4:5] == "-" and len(stamp) <= _LONGEST and form in {"auto", "iso"}:
            return _from_usual(stamp)
        text = stamp.strip() if len(stamp) <= _LONGEST else ""
        if form == "iso" or (form == "auto" and not _NUMBER.fullmatch(text)):
            return _from_iso(text, stamp)
        if not _NUMBER.fullmatch(text):
            raise _unreadable(stamp, form)
        return _from_number(Decimal(text), form)
    number = Decimal(repr(stamp))
    if form == "iso" or not number.is_finite():
        raise _unreadable(stamp, form)
    return _from_number(number, form)


def _from_number(number: Decimal, form: TimestampFormat) -> int:
    size = abs(number)
    if size > _LATEST:
        raise PayloadError(DeadReason.BAD_TIMESTAMP, "the timestamp is too large a number to be a time")
    scale = _NS_PER.get(form) or next(scale for below, scale in _AUTO if size <= below)
    return _clamped(int(number * scale))


def _from_usual(stamp: str) -> int:
    """Most stamps are of the minute of the one before: it is looked up, and the seconds are added."""
    usual = _USUAL.fullmatch(stamp)
    if usual is None:
        return _from_iso(stamp, stamp)
    minute, second, fraction = usual.groups()
    begins = _minute(minute)
    if begins is None or abs(begins) > _FAR_NS:
        return _from_iso(stamp, stamp)
    return begins + int(second) * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=256)
def _minute(text: str) -> int | None:
    """When a minute begins; None for no date."""
    try:
        return _from_iso(text, text)
    except PayloadError:
        return None


def _from_iso(text: str, stamp: str) -> int:
    if len(text) < _SHORTEST_DATE:
        raise _unreadable(stamp, "iso")
    try:
        moment = ciso8601.parse_datetime(text.strip().upper())
    except ValueError:
        raise _unreadable(stamp, "iso") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    whole_s = since.days * 86_400 + since.seconds
    fraction_ns = since.microseconds * 1_000
    if len(text) > _MICROSECONDS and (fraction_ns or "." in text or "," in text):
        # ciso8601 cuts off at microseconds; clocks of PLCs and Go programs write nanoseconds.
        fraction = _FRACTION.search(text)
        if fraction is not None:
            fraction_ns = int(fraction[1][:9].ljust(9, "0"))
    return _clamped(whole_s * 10**9 + fraction_ns)


def _clamped(time_ns: int) -> int:
    return min(max(time_ns, NO_TIME + 1), _LATEST)


def _unreadable(stamp: object, form: str) -> PayloadError:
    shown = ascii(stamp) if len(str(stamp)) <= _LONGEST else "a long text"
    wanted = "ISO 8601 or a number since the epoch" if form == "auto" else form
    return PayloadError(DeadReason.BAD_TIMESTAMP, f"timestamp {shown} is not readable as {wanted}")
