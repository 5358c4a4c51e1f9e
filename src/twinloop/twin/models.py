"""The models the plant file may name, and the way from its parameters to numbers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Final

from twinloop.errors import ConfigError
from twinloop.twin.model import Model, Parameter
from twinloop.twin.reactor import StirredTank

__all__ = ["MODELS", "nearest", "parameter_problem", "parameter_values"]

MODELS: Final[Mapping[str, Model]] = {model.name: model for model in (StirredTank(),)}
"""Every model by the name the plant file uses."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint with the closest known name, or the whole list when none is close.

    >>> nearest("mass", ["mass_kg", "mode"])
    "did you mean 'mass_kg'?"
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(sorted(names)) or 'none'}"


def parameter_problem(model: Model, name: str, value: object) -> str:
    """What is wrong with a parameter of the plant file, in words; empty when nothing is.

    >>> parameter_problem(MODELS["stirred_tank"], "mass_kg", -1)
    'must be greater than 0, got -1'
    """
    details = model.details.get(name)
    if details is None:
        return f"model {model.name} has no parameter '{name}'; {nearest(name, model.details)}"
    if details.choices:
        if isinstance(value, str) and value in details.choices:
            return ""
        return f"must be one of {', '.join(details.choices)}, got {value!r}"
    return _number_problem(details, value)


def _number_problem(details: Parameter, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"must be a finite number, got {value!r}"
    if details.positive and value <= 0:
        return f"must be greater than 0, got {value!r}"
    if not details.negative and value < 0:
        return f"must not be negative, got {value!r}"
    return ""


def parameter_values(model: Model, given: Mapping[str, float | str], *, asset: str = "") -> dict[str, float]:
    """Every parameter of a model as a number, defaults filled in; a choice is its position.

    Raises:
        ConfigError: a name is unknown or a value is not allowed; all of them are named.
    """
    problems = {name: parameter_problem(model, name, value) for name, value in given.items()}
    bad = [f"{asset or model.name}: parameters.{name}: {text}" for name, text in problems.items() if text]
    if bad:
        raise ConfigError("\n".join(bad))
    values: dict[str, float] = {}
    for name, details in model.details.items():
        value = given.get(name, details.default)
        values[name] = float(details.choices.index(value)) if isinstance(value, str) else float(value)
    return values
