"""The scalar types of the plant file: durations, sizes, ranges, names; each error says what was expected.

Every reader here takes what YAML gave (or the text of an environment variable) and returns the typed value,
or raises ValueError with a text that follows "file:line: key: ". A value that came from the environment
or stands for a secret is never shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_args
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from twinloop.config.text import (
    FromEnvironment,
    alternatives,
    nearest,
    parse_duration,
    parse_size,
    show,
    wrong,
)
from twinloop.errors import ConfigError
from twinloop.units import check_unit

__all__ = [
    "ONE_OF",
    "Duration",
    "FilePath",
    "Flag",
    "HttpUrl",
    "MqttUrl",
    "Name",
    "Number",
    "OpcuaUrl",
    "OptionalDuration",
    "OptionalNumber",
    "OptionalRange",
    "OptionalSpike",
    "Positive",
    "Secret",
    "Size",
    "Spike",
    "Text",
    "Unit",
    "mapping",
    "read_choice",
    "whole",
]

_ENV_PATTERN: Final = r"\$\{[A-Za-z_]\w*(:-.*)?\}"


def _is_off(value: object) -> bool:
    return value is None or value is False or (isinstance(value, str) and value.lower() == "off")


def _number(value: object) -> float:
    """A finite or infinite number; texts of numbers count, because the environment gives texts."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong("a number", value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise wrong("a number", value) from None
    if math.isnan(number):
        raise wrong("a number", value)
    return number


def _positive(value: object) -> float:
    number = _number(value)
    if not 0 < number < math.inf:
        raise wrong("a number above 0", value)
    return number


@dataclass(frozen=True, slots=True)
class _Reader:
    """What stands in `Annotated` beside a type: how a value becomes one, and its JSON Schema."""

    read: Callable[[object], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.schema


def whole(low: int, high: int) -> _Reader:
    """For an int: from `low` to `high`."""

    def read(value: object) -> int:
        expected = f"a whole number from {low} to {high}"
        try:
            number = _number(value)
        except ValueError:
            raise wrong(expected, value) from None
        if not number.is_integer() or not low <= number <= high:
            raise wrong(expected, value)
        return int(number)

    return _Reader(read, {"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, _env_text()]})


def read_choice(value: object, options: tuple[str, ...]) -> str:
    """One word out of some.

    Raises:
        ValueError: it is another; the nearest is named.
    """
    word = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if word not in options:
        hint = nearest(word, options) if word and not isinstance(value, FromEnvironment) else ""
        raise ValueError(f"expected {alternatives(options)}, got {show(value)}{hint}")
    return word


class _OneOf:
    """Stands beside a Literal in `Annotated`: one of its words."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        options = get_args(source)
        return core_schema.no_info_before_validator_function(
            lambda value: read_choice(value, options), handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        words = list(handler(schema)["enum"])
        known = [*words, *(int(word) for word in words if word.isdigit())]
        return {"anyOf": [{"enum": known}, _env_text()]}


ONE_OF: Final = _OneOf()


def _text(value: object) -> str:
    if isinstance(value, bool | int | float):
        raise ValueError(f"expected text, got {show(value)}; put it in quotes")  # noqa: TRY004 - pydantic's way
    if not isinstance(value, str) or not value:
        raise wrong("text", value)
    return str(value)


def _secret(value: object) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("expected text; put it in quotes if it is a number (it is not shown here)")
    return SecretStr(str(value))


def _name(value: object) -> str:
    name = _text(value)
    if not re.fullmatch(r"\w[\w-]{0,99}", name):
        raise wrong("a name of letters, digits, _ and -", value)
    return name


def _unit(value: object) -> str:
    unit = "1" if value == 1 and not isinstance(value, bool) else value
    if not isinstance(unit, str):
        raise wrong("a unit such as degC, bar or m3/h", value)
    try:
        check_unit(unit)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return str(unit)


def _flag(value: object) -> bool:
    if isinstance(value, str) and value.lower() in {"true", "yes", "on", "false", "no", "off"}:
        return value.lower() in {"true", "yes", "on"}
    if not isinstance(value, bool):
        raise wrong("true or false", value)
    return value


def _range(value: object) -> tuple[float, float]:
    """[low, high]; null (or .inf) leaves a side open."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise wrong("two numbers [low, high]", value)
    low = -math.inf if value[0] is None else _number(value[0])
    high = math.inf if value[1] is None else _number(value[1])
    if not low < high:
        raise ValueError(f"the low end {show(value[0])} is not below the high end {show(value[1])}")
    return low, high


@dataclass(frozen=True, slots=True)
class Spike:
    """The largest plausible step: a fraction of the last good value, or an amount in `unit`.

    Attributes:
        size: the fraction or the amount, above 0.
        relative: whether it is a fraction.
        unit: the amount's unit; empty for the tag's own.
    """

    size: float
    relative: bool = False
    unit: str = ""


def _spike(value: object) -> Spike:
    """`20%`, `"10 degC"`, or a bare number in the tag's unit."""
    if isinstance(value, Spike):
        return value
    expected = "a share such as 20%, or a step such as 10 or '10 degC'"
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    parts = re.fullmatch(r"\s*([\d.]+(?:[eE][+-]?\d+)?)\s*(.*?)\s*", text)
    if parts is None:
        raise wrong(expected, value)
    try:
        size = _positive(parts[1])
    except ValueError:
        raise wrong(expected, value) from None
    if parts[2] == "%":
        return Spike(size / 100, relative=True)
    return Spike(size, unit=_unit(parts[2]) if parts[2] else "")


def _path(value: object, info: ValidationInfo) -> Path:
    """A path, relative to the plant file's folder (the validation context's `folder`)."""
    folder = (info.context or {}).get("folder", Path())
    return Path(folder) / Path(value if isinstance(value, Path) else _text(value)).expanduser()


def _url(*schemes: str) -> _Reader:
    """For a str: a URL with one of some schemes and a host; no user name in it, so that none is shown."""
    example = f"{schemes[0]}://HOST:PORT"

    def read(value: object) -> str:
        if isinstance(value, str) and "@" in value:  # anywhere: with a slip in it a URL has no user name
            raise ValueError("a user name does not belong in the URL; use the keys username and password")
        try:
            parts = urlsplit(_text(value))
            port_is_sane = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError(f"expected a URL such as {example}") from None
        if parts.scheme not in schemes or not parts.hostname or not port_is_sane:
            expected = alternatives(tuple(f"{scheme}://HOST:PORT" for scheme in schemes))
            raise wrong(expected, value)
        return str(value)

    pattern = rf"^({'|'.join(map(re.escape, schemes))})://|{_ENV_PATTERN}"
    return _Reader(read, {"type": "string", "pattern": pattern})


def mapping(value: object) -> object:
    """Nothing where a mapping may stand means an empty one (`R101:` alone)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("a mapping (key: value)", value)
    return value


def _off_or(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if _is_off(value) else read(value)


def _env_text() -> dict[str, Any]:
    """What a typed field also accepts: a reference to the environment."""
    return {"type": "string", "pattern": _ENV_PATTERN}


def _or_off(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"enum": ["off", False, None]}]}


_DURATION_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string", "pattern": rf"^\d+ ?(ms|s|m|h|d)$|{_ENV_PATTERN}"}, {"const": 0}]
}
_NUMBER_SCHEMA: Final[dict[str, Any]] = {"anyOf": [{"type": "number"}, _env_text()]}
_END: Final[dict[str, Any]] = {"type": ["number", "null", "string"]}
_RANGE_SCHEMA: Final[dict[str, Any]] = {"type": "array", "items": _END, "minItems": 2, "maxItems": 2}
_SPIKE_SCHEMA: Final[dict[str, Any]] = {"type": ["number", "string"]}

Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]
MqttUrl = Annotated[str, _url("mqtt", "mqtts")]
OpcuaUrl = Annotated[str, _url("opc.tcp")]
HttpUrl = Annotated[str, _url("http", "https")]
Unit = Annotated[str, BeforeValidator(_unit), WithJsonSchema({"type": ["string", "integer"]})]
Secret = Annotated[
    SecretStr, BeforeValidator(_secret), WithJsonSchema({"type": "string", "format": "password"})
]
Flag = Annotated[
    bool,
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["on", "off", "yes", "no"]}, _env_text()]}),
]
Number = Annotated[float, BeforeValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
Positive = Annotated[float, BeforeValidator(_positive), WithJsonSchema(_NUMBER_SCHEMA)]
Duration = Annotated[int, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": "string", "pattern": rf"^\d+ ?([kKMGT]?i?B)$|{_ENV_PATTERN}"}),
]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string"})]
OptionalNumber = Annotated[
    float | None, BeforeValidator(_off_or(_positive)), WithJsonSchema(_or_off(_NUMBER_SCHEMA))
]
OptionalDuration = Annotated[
    int | None, BeforeValidator(_off_or(parse_duration)), WithJsonSchema(_or_off(_DURATION_SCHEMA))
]
OptionalRange = Annotated[
    tuple[float, float] | None, BeforeValidator(_off_or(_range)), WithJsonSchema(_or_off(_RANGE_SCHEMA))
]
OptionalSpike = Annotated[
    Spike | None, BeforeValidator(_off_or(_spike)), WithJsonSchema(_or_off(_SPIKE_SCHEMA))
]
