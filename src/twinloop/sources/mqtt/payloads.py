"""Message payloads to samples: JSON objects, numbers and arrays, or a plain number.

The usual small JSON object goes through msgspec straight into a struct. Whatever does not fit it (nested
fields, NaN as Python writes it, mistakes) takes a slower path that can say what was wrong. Whatever the
bytes, decoding gives samples and `PayloadError`s, and raises nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

from twinloop.batch import NO_TIME
from twinloop.errors import ConfigError, PayloadError
from twinloop.records import DeadReason
from twinloop.sources.timestamps import TimestampFormat, parse_timestamp
from twinloop.status import GOOD, status_from_opcda, status_from_text

__all__ = ["Decoded", "Format", "PayloadDecoder", "PayloadOptions", "Sample"]

Format = Literal["json", "number"]
QualityEncoding = Literal["ua", "opcda"]

DEFAULT_FIELDS: Final[Mapping[str, str]] = {
    "value": "value",
    "unit": "unit",
    "timestamp": "timestamp",
    "quality": "quality",
}
_ROLES: Final = (*DEFAULT_FIELDS, "tag", "asset")
_MAX_TEXT: Final = 256
_OWN_ERRORS: Final = 16
"""Elements of one array that have an error each; the others share the last, or they would fill memory."""
_SHOWN: Final = 40
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE
)


class Sample(NamedTuple):
    """One value out of a payload, as its source wrote it.

    Attributes:
        value: in the source's unit; NaN or infinite where the source says so, NaN for null.
        unit: as written; empty when not said.
        time: ns since epoch UTC by the device's clock, or `NO_TIME`.
        status: OPC UA status code; Good when not said.
        tag: tag name the payload carries; empty unless the option `fields: {tag: ...}` is set.
        asset: asset name the payload carries, likewise.
    """

    value: float
    unit: str = ""
    time: int = NO_TIME
    status: int = GOOD
    tag: str = ""
    asset: str = ""


Decoded = Sequence[Sample | PayloadError]


@dataclass(frozen=True, slots=True)
class PayloadOptions:
    """How the payloads of one topic pattern are written.

    Attributes:
        format: `json`, or `number` for a plain number as text.
        fields: JSON key by role (`value`, `unit`, `timestamp`, `quality`, and `tag`, `asset` where the
            payload names them). A dot leads into nested objects unless a key itself has the dot; a
            number behind a dot picks from an array. Roles left out keep their own name as key.
        timestamp_format: see `twinloop.sources.timestamps`.
        quality_encoding: what a number as quality means: `ua`, an OPC UA StatusCode (0 is Good), or
            `opcda`, an OPC DA quality of 0 to 255 (192 is Good). Words mean the same in both.
        values: the number that stands for a word, `{OPEN: 1, CLOSED: 0}`.
        unit: unit of payloads that do not say theirs; empty: the tag's own.

    Raises:
        ConfigError: a role, format or encoding is unknown, or a field is empty.
    """

    format: Format = "json"
    fields: Mapping[str, str] = field(default_factory=dict)
    timestamp_format: TimestampFormat = "auto"
    quality_encoding: QualityEncoding = "ua"
    values: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""

    def __post_init__(self) -> None:
        for name, given, valid in (
            ("format", self.format, ("json", "number")),
            ("timestamp_format", self.timestamp_format, ("auto", "iso", "s", "ms", "us", "ns")),
            ("quality_encoding", self.quality_encoding, ("ua", "opcda")),
        ):
            if given not in valid:
                raise ConfigError(f"{name}: {given!r} is unknown; valid are {', '.join(valid)}")
        for role, path in self.fields.items():
            if role not in _ROLES:
                raise ConfigError(f"fields: {role!r} is unknown; valid are {', '.join(_ROLES)}")
            if not path:
                raise ConfigError(f"fields: {role} is empty")

    @property
    def carries_tag(self) -> bool:
        """Whether the payload itself names the tag."""
        return "tag" in self.fields

    @property
    def carries_asset(self) -> bool:
        """Whether the payload itself names the asset."""
        return "asset" in self.fields


class PayloadDecoder:
    """Samples from the payloads of one topic pattern; never raises, whatever the bytes.

    Args:
        options: how the payloads are written.
    """

    def __init__(self, options: PayloadOptions) -> None:
        self._options = options
        self._fields = {**DEFAULT_FIELDS, **options.fields}
        self._unit = options.unit
        self._shape, self._plain = _plain_decoder(options, self._fields)

    def decode(self, payload: bytes) -> Decoded:
        """The samples of a payload, in order, and a `PayloadError` for each that could not be read.

        From the 17th unreadable element of an array on, they share the 16th's error.

        >>> PayloadDecoder(PayloadOptions()).decode(b'{"value": 85.5, "unit": "degC"}')[0][:2]
        (85.5, 'degC')
        >>> PayloadDecoder(PayloadOptions(format="number")).decode(b" 1e3")[0].value
        1000.0
        """
        try:
            if self._options.format == "number":
                return (self._from_text(payload),)
            if self._plain is not None:
                return self._from_found(self._plain.decode(payload))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass  # not the plain case: look closer
        except PayloadError as error:
            return (error,)
        try:
            return self._from_found(_load(payload))
        except PayloadError as error:
            return (error,)

    def _from_found(self, found: Any) -> Decoded:
        if type(found) is self._shape:
            return (self._from_plain(found),)
        if not isinstance(found, list):
            return (self._sample(found),)
        if not found:
            raise PayloadError(DeadReason.NOT_NUMERIC, "an array without samples")
        return self._elements(found)

    def _from_plain(self, found: Any) -> Sample:
        value, unit, stamp, quality = found.value, found.unit, found.timestamp, found.quality
        return Sample(
            value if type(value) is float else self._value(value),
            _text(unit, DeadReason.WRONG_UNIT, "unit") if unit else self._unit,
            NO_TIME if stamp is None else self._time(stamp),
            GOOD if quality is None or quality == "Good" else self._status(quality),
        )

    def _from_text(self, payload: bytes) -> Sample:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise PayloadError(DeadReason.UNDECODABLE, "not a text in UTF-8") from None
        return Sample(self._number(text), self._unit)

    def _elements(self, items: list[Any]) -> Decoded:
        made: list[Sample | PayloadError] = []
        errors: list[PayloadError] = []
        for index, item in enumerate(items):
            try:
                made.append(self._from_plain(item) if type(item) is self._shape else self._sample(item))
            except PayloadError as error:
                if len(errors) < _OWN_ERRORS:
                    own = PayloadError(error.reason, f"element {index}: {error.detail}")
                    own.__suppress_context__, own.__context__ = True, None
                    errors.append(own)
                made.append(errors[-1])
        return made

    def _sample(self, item: object) -> Sample:
        if not isinstance(item, dict):
            if self._options.carries_tag or self._options.carries_asset:
                raise PayloadError(DeadReason.UNKNOWN_TAG, "a bare value carries no tag name")
            return Sample(self._value(item), self._unit)
        picked = {role: _pick(item, path) for role, path in self._fields.items()}
        value = picked["value"]
        if value is _ABSENT:
            raise PayloadError(DeadReason.NOT_NUMERIC, f"there is no {self._fields['value']!r}")
        return Sample(
            self._value(value),
            _text(picked["unit"], DeadReason.WRONG_UNIT, "unit") or self._unit,
            self._time(picked["timestamp"]),
            self._status(picked["quality"]),
            _name(picked["tag"], self._fields["tag"]) if self._options.carries_tag else "",
            _name(picked["asset"], self._fields["asset"]) if self._options.carries_asset else "",
        )

    def _value(self, value: object) -> float:
        if value is None:
            return math.nan
        if isinstance(value, bool | int | float):
            try:
                return float(value)
            except OverflowError:
                raise PayloadError(DeadReason.NOT_NUMERIC, "the number is too large") from None
        if isinstance(value, str):
            return self._number(value)
        raise PayloadError(DeadReason.NOT_NUMERIC, f"the value is an {_kind(value)}")

    def _number(self, text: str) -> float:
        """A text that is a word of `values` or wholly a number."""
        word = text.strip() if len(text) <= _MAX_TEXT else text
        if word in self._options.values:
            return float(self._options.values[word])
        if len(word) <= _MAX_TEXT and _NUMBER.fullmatch(word):
            return float(word)
        shown = _excerpt(word) if word else "an empty text"
        raise PayloadError(DeadReason.NOT_NUMERIC, f"the value {shown} is not a number")

    def _time(self, stamp: object) -> int:
        if stamp is None or stamp is _ABSENT or stamp == "":
            return NO_TIME
        if isinstance(stamp, bool) or not isinstance(stamp, str | int | float):
            raise PayloadError(DeadReason.BAD_TIMESTAMP, f"the timestamp is an {_kind(stamp)}")
        return parse_timestamp(stamp, self._options.timestamp_format)

    def _status(self, quality: object) -> int:
        if quality is None or quality is _ABSENT or quality == "":
            return GOOD
        status: int | None = None
        if isinstance(quality, str) and len(quality) <= _MAX_TEXT:
            status = self._status_of_word(quality)
        elif isinstance(quality, int) and not isinstance(quality, bool):
            status = self._status_of_number(quality)
        if status is None:
            shown = _excerpt(quality) if isinstance(quality, str | int | float) else f"an {_kind(quality)}"
            raise PayloadError(
                DeadReason.BAD_QUALITY,
                f"quality {shown} is no word or code of {self._options.quality_encoding}",
            )
        return status

    def _status_of_word(self, quality: str) -> int | None:
        word = quality.strip()
        if self._options.quality_encoding == "opcda" and word.isascii() and word.isdigit():
            return self._status_of_number(int(word))
        return status_from_text(word)

    def _status_of_number(self, quality: int) -> int | None:
        if self._options.quality_encoding == "opcda":
            return status_from_opcda(quality)
        return quality if 0 <= quality <= 0xFFFF_FFFF else None


_ABSENT: Final = object()


def _plain_decoder(
    options: PayloadOptions, names: Mapping[str, str]
) -> tuple[type | None, msgspec.json.Decoder[Any] | None]:
    """A decoder for bare numbers, flat objects and arrays of them; it refuses all else."""
    keys = [names[role] for role in DEFAULT_FIELDS]
    if (
        options.format != "json"
        or options.carries_tag
        or options.carries_asset
        or any("." in key for key in keys)
        or len(set(keys)) < len(keys)
    ):
        return None, None
    shape = msgspec.defstruct(
        "Plain",
        [
            ("value", bool | float | str | None),
            ("timestamp", int | float | str | None, None),
            ("unit", str | None, None),
            ("quality", int | str | None, None),
        ],
        rename={role: names[role] for role in DEFAULT_FIELDS},
        gc=False,
    )
    element: Any = shape | bool | float
    return shape, msgspec.json.Decoder(element | list[element])


def _load(payload: bytes) -> object:
    """Any JSON value; also NaN and Infinity, as Python's own json writes them.

    Raises:
        PayloadError: UNDECODABLE, it is not JSON, or nested or long beyond reason.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(payload)
    except RecursionError:
        raise PayloadError(DeadReason.UNDECODABLE, "nested too deeply") from None
    except ValueError as error:
        why = (
            error.msg
            if isinstance(error, json.JSONDecodeError)
            else "not a text in UTF-8, or too long a number"
        )
        raise PayloadError(
            DeadReason.UNDECODABLE, f"not JSON: {why}" if payload else "an empty payload"
        ) from None


def _pick(item: object, path: str) -> object:
    """What a dotted path leads to; a key that has the dots itself comes first."""
    if isinstance(item, dict) and path in item:
        return item[path]
    for step in path.split("."):
        if isinstance(item, dict) and step in item:
            item = item[step]
        elif isinstance(item, list) and step.isascii() and step.isdigit() and len(step) < 6:
            item = item[int(step)] if int(step) < len(item) else _ABSENT
        else:
            return _ABSENT
    return item


def _text(found: object, reason: DeadReason, what: str) -> str:
    """A short text that can be stored as UTF-8; empty where there is none."""
    if found is None or found is _ABSENT:
        return ""
    if not isinstance(found, str):
        raise PayloadError(reason, f"the {what} is no text")
    if len(found) > _MAX_TEXT:
        raise PayloadError(reason, f"the {what} is longer than {_MAX_TEXT} characters")
    if not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            raise PayloadError(reason, f"the {what} is no valid Unicode") from None
    return found.strip()


def _name(found: object, key: str) -> str:
    name = _text(found, DeadReason.UNKNOWN_TAG, key)
    if not name:
        raise PayloadError(DeadReason.UNKNOWN_TAG, f"there is no name in {key!r}")
    return name


def _kind(found: object) -> str:
    return "array" if isinstance(found, list) else "object" if isinstance(found, dict) else "unreadable value"


def _excerpt(found: object) -> str:
    shown = ascii(found[: _SHOWN + 1] if isinstance(found, str) else found)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
