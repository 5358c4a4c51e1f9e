"""Engineering units: factor and offset from one to another, worked out once by pint and cached."""

from __future__ import annotations

from twinloop.errors import ConfigError

__all__ = ["conversion"]


def conversion(source: str, target: str) -> tuple[float, float]:
    """Factor and offset: `value_in_target = value_in_source * factor + offset`.

    Raises:
        ConfigError: a unit is unknown, or they do not measure the same thing.
    """
    if source == target:
        return 1.0, 0.0
    raise ConfigError("replaced by the units work")
