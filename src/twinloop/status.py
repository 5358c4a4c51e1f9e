"""OPC UA status codes and the reasons for them.

A status is the 32-bit code of OPC 10000-4, 7.39, carried unchanged from the source to the store; its
severity is in the top two bits. A check may only *lower* a status. Reasons are twinloop's own: one bit
for each check that fired.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, unique
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "BAD",
    "CALCULATED",
    "GOOD",
    "INTERPOLATED",
    "MULTIPLE_VALUES",
    "PARTIAL",
    "UNCERTAIN",
    "Reason",
    "Severity",
    "StatusCode",
    "aggregate_words",
    "format_reasons",
    "lower",
    "reasons_from_text",
    "severity",
    "severity_name",
    "status_from_opcda",
    "status_from_text",
    "status_text",
]

GOOD: Final = 0x0000_0000
UNCERTAIN: Final = 0x4000_0000
BAD: Final = 0x8000_0000
SEVERITY_SHIFT: Final = 30
# Bits 0-15 carry flags about the value; bit 10 says the info bits 0-9 are DataValue flags.
INFO_DATA_VALUE: Final = 0x0000_0400
OVERFLOW_BIT: Final = 0x0000_0080
# What a historian says of a value it made (OPC 10000-4, 7.39.1; OPC 10000-13, 5.3.3); raw is none of these.
CALCULATED: Final = INFO_DATA_VALUE | 0x1
INTERPOLATED: Final = INFO_DATA_VALUE | 0x2
PARTIAL: Final = INFO_DATA_VALUE | 0x4
MULTIPLE_VALUES: Final = INFO_DATA_VALUE | 0x10

U32 = npt.NDArray[np.uint32]


@unique
class Severity(IntEnum):
    """How far a value can be trusted: the top two bits of a status code."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


@unique
class StatusCode(IntEnum):
    """The codes twinloop itself assigns or names (OPC 10000-4 and 10000-8)."""

    GOOD = 0x0000_0000
    UNCERTAIN = 0x4000_0000
    UNCERTAIN_LAST_USABLE_VALUE = 0x4090_0000
    UNCERTAIN_SUBSTITUTE_VALUE = 0x4091_0000
    UNCERTAIN_INITIAL_VALUE = 0x4092_0000
    UNCERTAIN_SENSOR_NOT_ACCURATE = 0x4093_0000
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED = 0x4094_0000
    UNCERTAIN_DATA_SUB_NORMAL = 0x40A4_0000
    BAD = 0x8000_0000
    BAD_NO_COMMUNICATION = 0x8031_0000
    BAD_WAITING_FOR_INITIAL_DATA = 0x8032_0000
    BAD_OUT_OF_RANGE = 0x803C_0000
    BAD_NOT_CONNECTED = 0x808A_0000
    BAD_DEVICE_FAILURE = 0x808B_0000
    BAD_SENSOR_FAILURE = 0x808C_0000
    BAD_OUT_OF_SERVICE = 0x808D_0000
    BAD_NO_DATA = 0x809B_0000


@unique
class Reason(IntFlag):
    """Why a status is what it is; one bit a check. The numbers are stored: never reuse one."""

    NON_FINITE = 1 << 0
    """The value was NaN or infinite; it is stored as empty and Bad."""
    RANGE = 1 << 1
    """Outside the instrument's `range`: Bad."""
    WARN_RANGE = 1 << 2
    """Outside `warn_range`: Uncertain."""
    RATE = 1 << 3
    """Changed faster than `rate_limit` since the last good value: Uncertain."""
    SPIKE = 1 << 4
    """Further than `spike` from the last good value: Uncertain."""
    ZSCORE = 1 << 5
    """Further than `zscore` deviations from the last `window` good values: Uncertain."""
    STUCK = 1 << 6
    """No change for `stuck`: Uncertain."""
    STALE = 1 << 7
    """No sample for `stale`: Uncertain, then Bad."""
    LATE = 1 << 8
    """Older than the tag's newest sample; does not lower the status."""
    SAME_TIME = 1 << 9
    """A second, different value for one time; moved to the next free nanosecond."""
    SOURCE_STATUS = 1 << 10
    """The source itself did not call the value Good."""
    CLOCK = 1 << 11
    """The source time was not sane; the arrival time stands in its place: Uncertain."""
    RETAINED = 1 << 12
    """A retained MQTT message without its own time, of unknown age: Uncertain."""
    OVERFLOW = 1 << 13
    """The OPC UA server's queue overflowed: samples before this one were lost there."""
    INNOVATION = 1 << 14
    """The filter gated the sample out of the estimate; does not lower the status."""
    CLOCK_BACK = 1 << 15
    """The source's clock was set back: from this sample on the tag goes by the new one."""


def severity(status: U32) -> npt.NDArray[np.uint8]:
    """Severities of status codes: 0 Good, 1 Uncertain, 2 or 3 Bad; same shape."""
    return (status >> np.uint32(SEVERITY_SHIFT)).astype(np.uint8)


def lower(status: U32, to: int, where: npt.NDArray[np.bool_]) -> U32:
    """Statuses lowered to `to` where asked; one that is already as bad or worse is kept."""
    apply = where & ((status >> np.uint32(SEVERITY_SHIFT)) < (to >> SEVERITY_SHIFT))
    return np.where(apply, np.uint32(to), status)


def severity_name(status: int) -> str:
    """Good, Uncertain or Bad.

    >>> severity_name(StatusCode.UNCERTAIN_LAST_USABLE_VALUE)
    'Uncertain'
    """
    return ("Good", "Uncertain", "Bad", "Bad")[(int(status) >> SEVERITY_SHIFT) & 3]


_HISTORIAN: Final = {
    CALCULATED: "Calculated",
    INTERPOLATED: "Interpolated",
    PARTIAL: "Partial",
    MULTIPLE_VALUES: "MultipleValues",
}


def aggregate_words(status: int) -> str:
    """The severity of a historian's value, and what it says about it.

    >>> aggregate_words(CALCULATED | PARTIAL)
    'Good|Calculated|Partial'
    """
    said = [word for bits, word in _HISTORIAN.items() if status & bits == bits]
    return "|".join([severity_name(status), *said])


def format_reasons(reasons: int) -> str:
    """Reason names joined by `|`, lowest bit first; empty for none.

    >>> format_reasons(Reason.SPIKE | Reason.RATE)
    'RATE|SPIKE'
    """
    return "|".join(reason.name or "" for reason in Reason if reasons & reason)


def reasons_from_text(text: str) -> int:
    """The inverse of `format_reasons`; words that are no reason count for nothing.

    >>> Reason(reasons_from_text("RATE|SPIKE")) == Reason.SPIKE | Reason.RATE
    True
    """
    return sum(int(reason) for reason in Reason if reason.name in text.split("|"))


_NAMES: Final = {int(code): code.name.title().replace("_", "") for code in StatusCode}
_BY_NAME: Final[dict[str, int]] = {code.name.replace("_", "").lower(): int(code) for code in StatusCode}


def status_from_text(text: str) -> int | None:
    """A status code from a word: Good, Uncertain, Bad, a UA code's name, or its number as text.

    Returns None where the word is not known: a caller never guesses.

    >>> hex(status_from_text("BadSensorFailure"))
    '0x808c0000'
    >>> status_from_text("excellent") is None
    True
    """
    known = _BY_NAME.get(text.strip().replace("_", "").lower())
    if known is not None:
        return known
    try:
        number = int(text.strip(), 0)
    except ValueError:
        return None
    return number if 0 <= number <= 0xFFFF_FFFF else None


def status_text(status: int) -> str:
    """A status code as `status_from_text` reads it: by its name where it has one, else as a number.

    >>> status_text(StatusCode.UNCERTAIN_LAST_USABLE_VALUE), status_text(CALCULATED)
    ('UncertainLastUsableValue', '0x00000401')
    """
    return _NAMES.get(status) or f"0x{status:08X}"


def status_from_opcda(quality: int) -> int | None:
    """A UA status from an OPC DA quality byte (0 to 255); None outside that range.

    DA keeps its major quality in bits 6-7: 192 and up is Good, 64 to 127 Uncertain, the rest Bad.

    >>> severity_name(status_from_opcda(192)), severity_name(status_from_opcda(0))
    ('Good', 'Bad')
    """
    if not 0 <= quality <= 255:
        return None
    major = quality >> 6
    if major == 3:
        return GOOD
    if major == 1:
        return _DA_UNCERTAIN.get(quality & 0xFC, UNCERTAIN)
    return _DA_BAD.get(quality & 0xFC, BAD)


_DA_UNCERTAIN: Final[dict[int, int]] = {
    0x44: StatusCode.UNCERTAIN_LAST_USABLE_VALUE,
    0x50: StatusCode.UNCERTAIN_SENSOR_NOT_ACCURATE,
    0x54: StatusCode.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED,
    0x58: StatusCode.UNCERTAIN_DATA_SUB_NORMAL,
}
_DA_BAD: Final[dict[int, int]] = {
    0x08: StatusCode.BAD_NOT_CONNECTED,
    0x0C: StatusCode.BAD_DEVICE_FAILURE,
    0x10: StatusCode.BAD_SENSOR_FAILURE,
    0x18: StatusCode.BAD_NO_COMMUNICATION,
    0x1C: StatusCode.BAD_OUT_OF_SERVICE,
    0x20: StatusCode.BAD_WAITING_FOR_INITIAL_DATA,
}
