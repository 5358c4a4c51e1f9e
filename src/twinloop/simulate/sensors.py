"""What the demo plant's instruments show of its truth: names, units, noise, and one reading a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.simulate.plant import Plant
from twinloop.status import GOOD

__all__ = [
    "FIELD",
    "INSTRUMENTS",
    "TRUTH",
    "Instrument",
    "Reading",
    "Readings",
    "Sensors",
    "asset_names",
    "true_values",
]

FIRST_ASSET: Final = 101


@dataclass(frozen=True, slots=True)
class Instrument:
    """One kind of instrument every reactor has.

    Attributes:
        tag: the tag's name in the demo's plant file.
        quantity: the true quantity it shows (`plant.QUANTITIES`).
        unit: engineering unit.
        noise: standard deviation of its noise, in `unit`; independent at every reading.
        node: the OPC UA node's name after `Reactor.<asset>.`; empty for one that publishes over MQTT.
    """

    tag: str
    quantity: str
    unit: str
    noise: float
    node: str = ""


INSTRUMENTS: Final = (
    Instrument("temperature", "temperature", "degC", 0.5),
    Instrument("pressure", "pressure", "bar", 0.02),
    Instrument("flow_rate", "flow_rate", "L/min", 0.3),
    Instrument("temperature_pv", "temperature", "degC", 0.3, "Temperature.PV"),
    Instrument("temperature_sv", "setpoint", "degC", 0.0, "Temperature.SV"),
    Instrument("jacket_temperature", "jacket", "degC", 0.3, "Jacket.PV"),
    Instrument("pressure_pv", "pressure", "bar", 0.02, "Pressure.PV"),
    Instrument("flow_rate_pv", "flow_rate", "L/min", 0.3, "Flow.PV"),
)
FIELD: Final = tuple(each for each in INSTRUMENTS if not each.node)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one instrument says: a value in its unit and an OPC UA status code."""

    value: float
    status: int = GOOD


Readings = dict[tuple[str, str], Reading]
"""By asset and tag; an instrument that is silent is not in it."""

TRUTH: Final = (*(each.tag for each in INSTRUMENTS), "conversion")
"""What each column of `true_values` is the truth of."""


def asset_names(reactors: int) -> list[str]:
    """R101, R102, ..."""
    return [f"R{FIRST_ASSET + index}" for index in range(reactors)]


class Sensors:
    """Reads every instrument of a plant once a call: truth plus its own noise; seeded.

    Args:
        assets: the reactors' names, in the plant's order.
        seed: of the noise.
    """

    def __init__(self, assets: Sequence[str], seed: int = 0) -> None:
        self._assets = assets
        self._random = np.random.default_rng([seed, 1])

    def read(self, plant: Plant) -> Readings:
        """One reading of everything, as fine as a transmitter resolves it (0.001)."""
        truth = plant.truth()
        readings: Readings = {}
        for instrument in INSTRUMENTS:
            noise = self._random.standard_normal(len(self._assets)) * instrument.noise
            shown = np.round(truth[instrument.quantity] + noise, 3)
            for asset, value in zip(self._assets, shown.tolist(), strict=True):
                readings[asset, instrument.tag] = Reading(value)
        return readings


def true_values(
    truth: Mapping[str, npt.NDArray[np.float64]], assets: Sequence[str]
) -> dict[str, list[float]]:
    """The truth by asset: one value for each of `TRUTH`."""
    columns = [truth[each.quantity] for each in INSTRUMENTS] + [truth["conversion"]]
    rows = np.stack(columns, axis=1).tolist()
    return dict(zip(assets, rows, strict=True))
