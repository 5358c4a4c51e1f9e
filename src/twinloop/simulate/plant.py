"""The demo plant's physics: continuous stirred tanks that start cold and are heated to their setpoint.

Each tank is filled with fresh feed when it starts. A jacket, held by a PI controller, brings it to the
setpoint, where A -> B runs by an Arrhenius law and gives off heat; feed comes in and product leaves at a
flow that wanders. The setpoint changes every few minutes, so that there is always something to follow.

This is on purpose not the twin's model: other code, other integrator, other pressure law, and a jacket the
twin only sees through a sensor. A twin that agrees with this plant does not agree with itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["QUANTITIES", "Plant", "PlantParameters"]

F64 = npt.NDArray[np.float64]

ZERO_CELSIUS_K: Final = 273.15
GAS_CONSTANT: Final = 8.314  # J/(mol K)
STEP_S: Final = 0.1
QUANTITIES: Final = ("temperature", "setpoint", "jacket", "pressure", "flow_rate", "conversion")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantParameters:
    """One pilot reactor; the first group is what the twin is told too, the second it has to live with."""

    volume_m3: float = 0.05
    density_kg_per_m3: float = 1000.0
    heat_capacity_j_per_kg_k: float = 4200.0
    heat_transfer_w_per_k: float = 2500.0
    frequency_factor_per_s: float = 1e10
    activation_energy_j_per_mol: float = 80_000.0
    reaction_heat_j_per_mol: float = -50_000.0
    feed_temperature_k: float = 298.15
    feed_concentration_mol_per_m3: float = 1000.0
    flow_m3_per_s: float = 30e-3 / 60

    jacket_low_k: float = 288.15
    jacket_high_k: float = 443.15
    jacket_lag_s: float = 6.0
    gain_k_per_k: float = 8.0
    reset_s: float = 60.0
    setpoints_k: tuple[float, ...] = (358.15, 351.15, 361.15)
    setpoint_period_s: float = 180.0
    start_temperatures_k: tuple[float, ...] = (343.15, 297.15, 321.15)
    flow_wander: float = 0.05
    flow_wander_s: float = 30.0
    pad_pressure_bar: float = 1.2
    pad_wander_bar: float = 0.01
    pad_wander_s: float = 20.0

    @property
    def mass_kg(self) -> float:
        """The tank's content."""
        return self.volume_m3 * self.density_kg_per_m3


class Plant:
    """A row of reactors with their true state, stepped ten times a second; the same seed, the same plant.

    Args:
        reactors: how many; they differ in start temperature and in when their setpoint changes.
        seed: of the wandering flow and pad pressure.
        parameters: physics, the same for all.
    """

    def __init__(self, reactors: int, seed: int = 0, parameters: PlantParameters | None = None) -> None:
        if reactors < 1:
            raise ValueError(f"a plant has at least one reactor, not {reactors}")
        self.parameters = p = parameters or PlantParameters()
        self.elapsed_s = 0.0
        self._steps = 0
        self._random = np.random.default_rng(seed)
        which = np.arange(reactors)
        self._temperature: F64 = np.take(np.array(p.start_temperatures_k), which, mode="wrap")
        self._concentration: F64 = np.full(reactors, p.feed_concentration_mol_per_m3)
        self._jacket: F64 = self._temperature.copy()
        self._integral: F64 = np.zeros(reactors)
        self._phase_s: F64 = np.arange(reactors) / 3.0 % 1.0 * p.setpoint_period_s
        self._flow_wander: F64 = np.zeros(reactors)
        self._pad_wander: F64 = np.zeros(reactors)

    def advance(self, seconds: float) -> None:
        """Let `seconds` of plant time pass (rounded to whole steps of 0.1 s)."""
        for _ in range(round(seconds / STEP_S)):
            self._step()

    def truth(self) -> Mapping[str, F64]:
        """The true values now, each (reactors,).

        temperature, setpoint and jacket in degC, pressure in bar, flow_rate in L/min, conversion 0 to 1.
        """
        feed = self.parameters.feed_concentration_mol_per_m3
        return {
            "temperature": self._temperature - ZERO_CELSIUS_K,
            "setpoint": self._setpoint() - ZERO_CELSIUS_K,
            "jacket": self._jacket - ZERO_CELSIUS_K,
            "pressure": self._pressure(),
            "flow_rate": self._flow() * 60_000.0,
            "conversion": 1.0 - self._concentration / feed,
        }

    def _step(self) -> None:
        p = self.parameters
        self._wander(self._flow_wander, p.flow_wander, p.flow_wander_s)
        self._wander(self._pad_wander, p.pad_wander_bar, p.pad_wander_s)
        self._control()
        self._react()
        self._steps += 1
        self.elapsed_s = self._steps * STEP_S

    def _control(self) -> None:
        # PI with conditional integration: a saturated jacket does not wind the integral up.
        p = self.parameters
        error = self._setpoint() - self._temperature
        # what holds the feed at the setpoint without a reaction, so that the integral has little to do
        hold = self._flow() * p.density_kg_per_m3 * p.heat_capacity_j_per_kg_k / p.heat_transfer_w_per_k
        base = self._setpoint() + hold * (self._setpoint() - p.feed_temperature_k)
        wanted = base + p.gain_k_per_k * (error + self._integral / p.reset_s)
        free = (wanted > p.jacket_low_k) & (wanted < p.jacket_high_k)
        self._integral += np.where(free, error * STEP_S, 0.0)
        demand = np.clip(wanted, p.jacket_low_k, p.jacket_high_k)
        self._jacket += (demand - self._jacket) * (1.0 - np.exp(-STEP_S / p.jacket_lag_s))

    def _react(self) -> None:
        # Classic Runge-Kutta; flow and jacket are held over the step.
        now = np.stack([self._temperature, self._concentration])
        k1 = self._slope(now)
        k2 = self._slope(now + 0.5 * STEP_S * k1)
        k3 = self._slope(now + 0.5 * STEP_S * k2)
        k4 = self._slope(now + STEP_S * k3)
        self._temperature, self._concentration = now + STEP_S / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)

    def _slope(self, state: F64) -> F64:
        p = self.parameters
        temperature, concentration = state
        dilution = self._flow() / p.volume_m3
        rate = p.frequency_factor_per_s * concentration
        rate = rate * np.exp(-p.activation_energy_j_per_mol / (GAS_CONSTANT * temperature))
        heat_w = p.heat_transfer_w_per_k * (self._jacket - temperature)
        heat_w = heat_w - p.reaction_heat_j_per_mol * rate * p.volume_m3
        warming = heat_w / (p.mass_kg * p.heat_capacity_j_per_kg_k)
        return np.stack(
            [
                warming + dilution * (p.feed_temperature_k - temperature),
                dilution * (p.feed_concentration_mol_per_m3 - concentration) - rate,
            ]
        )

    def _setpoint(self) -> F64:
        p = self.parameters
        turn = ((self.elapsed_s + self._phase_s) // p.setpoint_period_s).astype(int)
        return np.take(np.array(p.setpoints_k), turn, mode="wrap")

    def _flow(self) -> F64:
        return np.maximum(self.parameters.flow_m3_per_s * (1.0 + self._flow_wander), 0.0)

    def _pressure(self) -> F64:
        # Nitrogen pad warming at constant volume, plus water vapour by Antoine's equation (mmHg, degC).
        celsius = self._temperature - ZERO_CELSIUS_K
        vapour_bar = 10.0 ** (8.07131 - 1730.63 / (233.426 + celsius)) * 1.333224e-3
        pad = self.parameters.pad_pressure_bar * self._temperature / 293.15
        return pad + self._pad_wander + vapour_bar

    def _wander(self, value: F64, deviation: float, correlation_s: float) -> None:
        # Exact step of an Ornstein-Uhlenbeck process with that stationary deviation, in place.
        keep = np.exp(-STEP_S / correlation_s)
        value *= keep
        value += deviation * np.sqrt(1.0 - keep**2) * self._random.standard_normal(len(value))
