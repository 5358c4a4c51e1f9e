"""`stirred_tank`: a well-mixed jacketed reactor with one reaction A -> products, batch or continuous.

    r        = k0 exp(-E / (R T)) (P / P_ref)^s c_ref (c / c_ref)^n          mol / (m3 s)
    dT/dt    = UA (T_c - T) / (m cp) - dH r / (rho cp) [+ q / V (T_f - T)]   K / s
    dc/dt    = -r [+ q / V (c_f - c)]                                        mol / (m3 s)
    V        = m / rho;  the bracketed terms in continuous mode only
    X        = 1 - c / c_0 in batch mode, 1 - c / c_f in continuous mode

Source: Seborg, Edgar, Mellichamp, Process Dynamics and Control, example 2.5, extended by order and pressure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.twin.model import Parameter

__all__ = ["StirredTank"]

F64 = npt.NDArray[np.float64]

T, C = 0, 1
"""Columns of x."""
COOLANT, FEED_T, FEED_C, FLOW, PRESSURE = range(5)
"""Columns of u."""
_COLDEST_K: Final = 1.0
"""Arrhenius' law is taken at no less than this, so that a trial step below 0 K stays a number."""
_VANISHING: Final = 1e-5
"""The share of the reference concentration below which an order other than 1 fades into order 1."""

_DETAILS: Final = {
    "mode": Parameter(
        default="batch",
        choices=("batch", "continuous"),
        meaning="whether feed flows through; a batch ignores the feed inputs",
    ),
    "mass_kg": Parameter(default=1000.0, positive=True, meaning="mass of the contents"),
    "heat_capacity_j_per_kg_k": Parameter(
        default=4200.0, positive=True, meaning="specific heat capacity of the contents"
    ),
    "density_kg_per_m3": Parameter(default=1000.0, positive=True, meaning="density of the contents"),
    "heat_transfer_w_per_k": Parameter(
        default=0.0, meaning="UA, heat transfer coefficient times area, to the coolant"
    ),
    "coolant_temperature_k": Parameter(
        default=298.15, positive=True, meaning="jacket temperature when no tag shows it"
    ),
    "pre_exponential_per_s": Parameter(default=1e10, meaning="k0 of Arrhenius' law"),
    "activation_energy_j_per_mol": Parameter(default=80_000.0, meaning="E of Arrhenius' law"),
    "gas_constant_j_per_mol_k": Parameter(
        default=8.314, positive=True, meaning="R as rounded where E was fitted (exactly: 8.314462618)"
    ),
    "reaction_order": Parameter(default=1.0, positive=True, meaning="n, order in the concentration"),
    "reference_concentration_mol_per_m3": Parameter(
        default=1000.0, positive=True, meaning="c_ref, at which k0 holds for orders other than 1"
    ),
    "reaction_heat_j_per_mol": Parameter(
        default=-50_000.0, negative=True, meaning="dH; negative gives off heat"
    ),
    "pressure_exponent": Parameter(
        default=0.0, negative=True, meaning="s of the pressure factor; 0 switches it off"
    ),
    "reference_pressure_pa": Parameter(
        default=101_325.0, positive=True, meaning="P_ref, absolute, at which k0 holds"
    ),
    "pressure_pa": Parameter(default=101_325.0, meaning="absolute pressure when no tag shows it"),
    "initial_concentration_mol_per_m3": Parameter(
        default=1000.0, positive=True, meaning="c_0, taken at the twin's first contact with the asset"
    ),
    "initial_temperature_k": Parameter(
        default=298.15, positive=True, meaning="temperature to begin with when no tag shows it"
    ),
    "feed_concentration_mol_per_m3": Parameter(
        default=1000.0, positive=True, meaning="c_f when no tag shows it"
    ),
    "feed_temperature_k": Parameter(default=298.15, positive=True, meaning="T_f when no tag shows it"),
    "flow_m3_per_s": Parameter(default=0.001, meaning="q, feed and outlet flow, when no tag shows it"),
}


class StirredTank:
    """Energy and mass balance of a jacketed stirred tank; see the module's equations."""

    name: str = "stirred_tank"
    states: tuple[str, ...] = ("temperature_k", "concentration_mol_per_m3")
    scales: tuple[float, ...] = (300.0, 1000.0)
    inputs: tuple[str, ...] = (
        "coolant_temperature",
        "feed_temperature",
        "feed_concentration",
        "flow_rate",
        "pressure",
    )
    input_units: tuple[str, ...] = ("K", "K", "mol/m^3", "m^3/s", "Pa")
    input_parameters: tuple[str, ...] = (
        "coolant_temperature_k",
        "feed_temperature_k",
        "feed_concentration_mol_per_m3",
        "flow_m3_per_s",
        "pressure_pa",
    )
    outputs: tuple[str, ...] = ("temperature", "concentration", "conversion")
    output_units: tuple[str, ...] = ("K", "mol/m^3", "1")
    shows: tuple[str, ...] = ("temperature_k", "concentration_mol_per_m3", "")
    details: Mapping[str, Parameter] = _DETAILS
    parameters: Mapping[str, float | str] = {name: one.default for name, one in _DETAILS.items()}

    def initial(self, u: F64, p: Mapping[str, F64]) -> F64:
        """The charge of a batch, or a vessel filled at the initial concentration, (n, 2)."""
        del u
        return np.stack((p["initial_temperature_k"], p["initial_concentration_mol_per_m3"]), axis=1)

    def derivative(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """dx/dt of temperature (K/s) and concentration (mol/(m3 s)), (n, 2)."""
        rate = self.rate_constant(x[:, T], u[:, PRESSURE], p) * _amount(x[:, C], p)[0]
        exchange, heating, turnover = _coefficients(u, p)
        out = np.empty_like(x)
        out[:, T] = (
            exchange * (u[:, COOLANT] - x[:, T]) + heating * rate + turnover * (u[:, FEED_T] - x[:, T])
        )
        out[:, C] = turnover * (u[:, FEED_C] - x[:, C]) - rate
        return out

    def jacobian(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """The derivative's derivatives, (n, 2, 2)."""
        k = self.rate_constant(x[:, T], u[:, PRESSURE], p)
        amount, slope = _amount(x[:, C], p)
        exchange, heating, turnover = _coefficients(u, p)
        warm = np.maximum(x[:, T], _COLDEST_K)
        activation = p["activation_energy_j_per_mol"] / (p["gas_constant_j_per_mol_k"] * warm * warm)
        by_t = np.where(x[:, T] > _COLDEST_K, k * amount * activation, 0.0)
        by_c = k * slope
        out = np.empty((*x.shape, 2))
        out[:, T, T] = heating * by_t - exchange - turnover
        out[:, T, C] = heating * by_c
        out[:, C, T] = -by_t
        out[:, C, C] = -by_c - turnover
        return out

    def measure(self, x: F64, u: F64, p: Mapping[str, F64]) -> F64:
        """Temperature (K), concentration (mol/m3) and conversion (0 to 1), (n, 3).

        Conversion is negative where the vessel is richer than its feed, and NaN where the feed has none.
        """
        full = np.where(p["mode"] == 0.0, p["initial_concentration_mol_per_m3"], u[:, FEED_C])
        left = np.maximum(x[:, C], 0.0)
        conversion = 1.0 - left / np.where(full > 0.0, full, np.nan)
        return np.stack((x[:, T], x[:, C], conversion), axis=1)

    @staticmethod
    def rate_constant(temperature_k: F64, pressure_pa: F64, p: Mapping[str, F64]) -> F64:
        """k0 exp(-E / (R T)) (P / P_ref)^s in 1/s, shape (n,)."""
        warm = np.maximum(temperature_k, _COLDEST_K)
        exponent = -p["activation_energy_j_per_mol"] / (p["gas_constant_j_per_mol_k"] * warm)
        k = p["pre_exponential_per_s"] * np.exp(exponent)
        power = p["pressure_exponent"]
        if power.any():
            relative = np.maximum(pressure_pa, 0.0) / p["reference_pressure_pa"]
            # An asset without a pressure factor does not ask what its pressure is, not even for NaN.
            k = k * np.where(power == 0.0, 1.0, np.power(relative, power))
        return k


def _coefficients(u: F64, p: Mapping[str, F64]) -> tuple[F64, F64, F64]:
    """UA / (m cp) in 1/s, -dH / (rho cp) in K m3/mol, and q / V in 1/s (0 in a batch)."""
    exchange = p["heat_transfer_w_per_k"] / (p["mass_kg"] * p["heat_capacity_j_per_kg_k"])
    heating = -p["reaction_heat_j_per_mol"] / (p["density_kg_per_m3"] * p["heat_capacity_j_per_kg_k"])
    through = np.maximum(u[:, FLOW], 0.0) * p["density_kg_per_m3"] / p["mass_kg"]
    return exchange, heating, np.where(p["mode"] == 0.0, 0.0, through)


def _amount(c: F64, p: Mapping[str, F64]) -> tuple[F64, F64]:
    """c_ref (c / c_ref)^n in mol/m3 and its derivative by c; simply c and 1 for order 1.

    The power is taken of (z^2 + e^2)^(1/2) instead of z = c / c_ref, times the sign and size of z: the same
    above a few e, and smooth through 0, where the bare power has no slope (n < 1) or no value (c < 0).
    """
    order = p["reaction_order"]
    first = order == 1.0
    if first.all():
        return c, np.ones_like(c)
    z = c / p["reference_concentration_mol_per_m3"]
    square = z * z + _VANISHING * _VANISHING
    power = np.power(square, 0.5 * (order - 1.0))
    slope = power * (1.0 + (order - 1.0) * z * z / square)
    return np.where(first, c, c * power), np.where(first, 1.0, slope)
