"""What a physical model promises: a vectorised derivative and a vectorised measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Model"]

F64 = npt.NDArray[np.float64]


class Model(Protocol):
    """Physics of one kind of asset, evaluated for many assets at once; SI units inside.

    Attributes:
        name: what the plant file calls it.
        states: state names with unit suffix, in the order of the columns of x.
        inputs: input names with unit suffix, in the order of the columns of u.
        outputs: measurable output names, in the order of the columns of y.
        output_units: the unit of each output, as pint reads it.
        parameters: every parameter's default value by name (name carries the unit suffix).
    """

    name: str
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_units: tuple[str, ...]
    parameters: Mapping[str, float]

    def derivative(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """dx/dt per second.

        Args:
            x: states, shape (n_assets, n_x).
            u: inputs, shape (n_assets, n_u).
            p: parameters by name, each of shape (n_assets,).
        """
        ...

    def measure(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """What the sensors would show, shape (n_assets, n_y), in `output_units`."""
        ...
