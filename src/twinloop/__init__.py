"""twinloop keeps a live digital twin of a process plant in step with its sensors.

import twinloop
with twinloop.open("plant.yaml") as plant:
hour = plant.range("R101.temperature", start="-1h").to_pandas()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twinloop.errors import (
    ConfigError,
    EstimationError,
    LinkError,
    LogError,
    PayloadError,
    QueryError,
    StartError,
    StoreBusy,
    TwinloopError,
)

if TYPE_CHECKING:
    from twinloop.answers import Answer
    from twinloop.history import Plant
    from twinloop.history import open_plant as open  # noqa: A004 - reads well as twinloop.open

__all__ = [
    "Answer",
    "ConfigError",
    "EstimationError",
    "LinkError",
    "LogError",
    "PayloadError",
    "Plant",
    "QueryError",
    "StartError",
    "StoreBusy",
    "TwinloopError",
    "open",
]


def __getattr__(name: str) -> Any:
    """Load what reads history only when it is asked for: the command line starts faster without."""
    if name in {"open", "Plant"}:
        from twinloop import history

        return history.open_plant if name == "open" else history.Plant
    if name == "Answer":
        from twinloop.answers import Answer

        return Answer
    raise AttributeError(f"module 'twinloop' has no attribute {name!r}")
