"""The plant file the demo writes for its twin, and the folder that twin keeps its data in."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twinloop.errors import ConfigError, LogError
from twinloop.simulate.plant import PlantParameters
from twinloop.simulate.sensors import asset_names

__all__ = ["PLANT_FILE", "fresh_data_dir", "plant_file", "write_plant_file"]

PLANT_FILE: Final = "demo-plant.yaml"
FIRST_LINE: Final = "# Written by `twinloop demo`."
MARKER: Final = ".made-by-twinloop-demo"

_TEMPLATE: Final = """\
{first_line} The demo writes this file anew each time it starts:
# copy it before you change it. While the demo runs, `twinloop query {name} latest` shows what it
# stored, and `twinloop check` reads each tag once. Every key is explained in docs/PLANT_FILE.md.

plant: demo
data_dir: {data_dir}

sources:
  field:                              # the transmitters: one JSON message a reading
    type: mqtt
    url: mqtt://127.0.0.1:{mqtt_port}       # the demo's own broker; its port changes from run to run
    qos: 1
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
  dcs:                                # the control system: process values (PV) and setpoints (SV)
    type: opcua
    url: opc.tcp://127.0.0.1:{opcua_port}
    mode: subscribe
    publishing_interval: 500ms
    nodes:
      "ns=2;s=Reactor.{{asset}}.Temperature.PV": temperature_pv
      "ns=2;s=Reactor.{{asset}}.Temperature.SV": temperature_sv
      "ns=2;s=Reactor.{{asset}}.Jacket.PV": jacket_temperature
      # The server also has Pressure.PV and Flow.PV.

tags:                                 # limits are tight so that a fault shows within seconds
  temperature:
    unit: degC
    range: [-50, 400]
    warn_range: [5, 150]
    rate_limit: 5
    spike: "15 degC"
    zscore: 6
    stuck: 5s
    stale: 3s
    noise: 0.5
    rate_noise: 0.1
  pressure:
    unit: bar
    range: [0, 10]
    rate_limit: 0.25
    spike: "0.3 bar"
    zscore: 6
    stuck: 5s
    stale: 3s
    noise: 0.02
    rate_noise: 0.002
  flow_rate:
    unit: L/min
    range: [0, 100]
    rate_limit: 4
    spike: "6 L/min"
    zscore: 6
    stuck: 5s
    stale: 3s
    noise: 0.3
    rate_noise: 0.2
  temperature_pv:
    unit: degC
    range: [-50, 400]
    rate_limit: 5
    spike: "15 degC"
    zscore: 6
    stuck: 5s
    stale: 5s
    noise: 0.3
    rate_noise: 0.1
  temperature_sv:                     # a setpoint jumps and stays: no check on change applies
    unit: degC
    range: [-50, 400]
    zscore: off
    noise: 0.01
    rate_noise: 1
  jacket_temperature:
    unit: degC
    range: [-50, 400]
    zscore: 6
    stale: 5s
    noise: 0.3
    rate_noise: 1

assets:
{assets}
store: {{type: local}}
log: {{type: local, keep: 24h, max_size: 1GB}}
web: {{host: 127.0.0.1, port: {web_port}}}
"""
_ASSET: Final = """\
  {asset}:
    model: stirred_tank
    tags: [temperature, pressure, flow_rate, temperature_pv, temperature_sv, jacket_temperature]
    measures: {{temperature: temperature, coolant_temperature: jacket_temperature, flow_rate: flow_rate}}
    parameters: {parameters}
"""
_FIRST_PARAMETERS: Final = """\
&reactor
      mode: continuous                # feed flows through; the tank starts full of fresh feed
      mass_kg: {p.mass_kg:g}
      density_kg_per_m3: {p.density_kg_per_m3:g}
      heat_capacity_j_per_kg_k: {p.heat_capacity_j_per_kg_k:g}
      heat_transfer_w_per_k: {p.heat_transfer_w_per_k:g}
      pre_exponential_per_s: {p.frequency_factor_per_s:.0f}
      activation_energy_j_per_mol: {p.activation_energy_j_per_mol:g}
      reaction_heat_j_per_mol: {p.reaction_heat_j_per_mol:g}
      feed_temperature_k: {p.feed_temperature_k:g}
      feed_concentration_mol_per_m3: {p.feed_concentration_mol_per_m3:g}
      initial_concentration_mol_per_m3: {p.feed_concentration_mol_per_m3:g}"""


def plant_file(*, mqtt_port: int, opcua_port: int, reactors: int, web_port: int, data_dir: str) -> str:
    """The text of an ordinary plant file for the demo plant, with comments.

    Args:
        mqtt_port: where the broker speaks MQTT 5 on the loopback.
        opcua_port: the OPC UA server's port on the loopback.
        reactors: how many assets.
        web_port: for /healthz, /metrics and the dashboard.
        data_dir: relative to the file, or absolute.
    """
    first = _FIRST_PARAMETERS.format(p=PlantParameters())
    blocks = [
        _ASSET.format(asset=asset, parameters=first if index == 0 else "*reactor")
        for index, asset in enumerate(asset_names(reactors))
    ]
    return _TEMPLATE.format(
        first_line=FIRST_LINE,
        name=PLANT_FILE,
        data_dir=data_dir,
        mqtt_port=mqtt_port,
        opcua_port=opcua_port,
        web_port=web_port,
        assets="".join(blocks),
    )


def write_plant_file(path: Path, text: str) -> None:
    """Write the plant file; only one the demo itself wrote is ever replaced.

    Raises:
        ConfigError: a file of somebody else's is in the way, or the folder cannot be written.
    """
    try:
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE):
            raise ConfigError(f"{path}: not written by the demo: rename it, or start the demo elsewhere")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the demo cannot write its plant file: {error.strerror}") from error


@contextmanager
def fresh_data_dir(path: Path) -> Iterator[None]:
    """An empty folder that is the demo's own; it keeps its data when the context is left.

    What an earlier demo left there is removed. A folder without the demo's mark is never touched.

    Raises:
        ConfigError: `path` is somebody else's, or cannot be made.
        LogError: another demo is running on it.
    """
    marker = path / MARKER
    try:
        if path.is_symlink() or (path.exists() and not marker.is_file() and _has_entries(path)):
            raise ConfigError(f"{path}: not made by the demo: rename it, or start the demo elsewhere")
        path.mkdir(exist_ok=True)
        lock = marker.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the demo cannot make its data folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LogError(
                f"{path}: another demo is running here: stop it, or start this elsewhere"
            ) from error
        _empty(path, keep=marker)
        yield


def _has_entries(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _empty(path: Path, keep: Path) -> None:
    for entry in path.iterdir():
        if entry == keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
