"""What a physical model promises: its names and units, a derivative and a measurement, vectorised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Model", "Parameter"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One number (or choice) of a model that the plant file may set.

    Attributes:
        default: used when the plant file is silent; a text for a choice.
        meaning: one phrase for the documentation.
        positive: the value must be greater than 0.
        negative: the value may be less than 0.
        choices: the texts allowed; empty for a number. The model sees a choice as its position.
    """

    default: float | str
    meaning: str
    positive: bool = False
    negative: bool = False
    choices: tuple[str, ...] = ()


class Model(Protocol):
    """Physics of one kind of asset, evaluated for many assets at once; SI units inside.

    Names of outputs and inputs are what a tag is called that shows them ("equal names by default").

    Attributes:
        name: what the plant file calls it.
        states: state names with unit suffix, in the order of the columns of x.
        scales: a typical magnitude of each state; the absolute tolerance of integration is taken from it.
        inputs: input names, in the order of the columns of u.
        input_units: the unit of each input, as pint reads it.
        input_parameters: the parameter that stands in for each input without a tag.
        outputs: measurable output names, in the order of the columns of y.
        output_units: the unit of each output, as pint reads it.
        shows: the state each output shows as it is (same unit), or "" when it shows a figure worked out.
        details: every parameter by name (name carries the unit suffix).
        parameters: every parameter's default by name.
    """

    name: str
    states: tuple[str, ...]
    scales: tuple[float, ...]
    inputs: tuple[str, ...]
    input_units: tuple[str, ...]
    input_parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    output_units: tuple[str, ...]
    shows: tuple[str, ...]
    details: Mapping[str, Parameter]
    parameters: Mapping[str, float | str]

    def initial(self, u: F64, p: Mapping[str, F64]) -> F64:
        """States to begin with before anything was measured, shape (n_assets, n_x)."""
        ...

    def derivative(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """dx/dt per second, shape (n_assets, n_x); row i depends on row i of the arguments alone.

        Args:
            x: states, shape (n_assets, n_x).
            u: inputs, shape (n_assets, n_u).
            p: parameters by name, each of shape (n_assets,); a choice is its position.
        """
        ...

    def jacobian(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """d(dx_i/dt)/dx_j, shape (n_assets, n_x, n_x); arguments as for `derivative`."""
        ...

    def measure(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """What the sensors would show, shape (n_assets, n_y), in `output_units`."""
        ...
