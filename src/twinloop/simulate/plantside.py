"""The plant's own process: physics, instruments, faults, and the two ways to hear them.

Run as `python -m twinloop.simulate.plantside --mqtt-port N --reactors N --seed N`. It speaks JSON lines:

    up:    {"ready": {"opcua_port": N}}                      once, when both protocols are served
           {"truth": {"time": ns, "assets": {...}}}          every second, before the readings are sent
           {"fault": {FaultWindow}}                          when a fault begins and when it has ended
    down:  {"begin_faults": {"run_s": seconds or null}}      starts the schedule of faults

The twin hears none of this: it is for the screen and for the score.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from twinloop.simulate.faults import FaultWindow, Injector, schedule
from twinloop.simulate.lifeline import Message, end_with_parent, tell_parent
from twinloop.simulate.plant import Plant
from twinloop.simulate.sensors import Sensors, asset_names, true_values
from twinloop.simulate.servers import FieldPublisher, PlantServer, connected_publisher, running_server

__all__ = ["PlantSide"]

PERIOD_S: Final = 1.0
MILLISECOND_NS: Final = 1_000_000


class PlantSide:
    """One second of plant at a time.

    Args:
        reactors: how many.
        seed: of everything random; the same seed gives the same plant, noise and faults.
    """

    def __init__(self, reactors: int, seed: int) -> None:
        self._assets = asset_names(reactors)
        self._plant = Plant(reactors, seed)
        self._sensors = Sensors(self._assets, seed)
        self._injector: Injector | None = None
        self._seconds = 0.0

    @property
    def assets(self) -> Sequence[str]:
        """The reactors' names."""
        return self._assets

    def begin_faults(self, run_s: float | None) -> None:
        """Start the schedule: its second 0 is the next reading."""
        self._injector = Injector(schedule(self._assets, run_s), _tell_fault)
        self._seconds = 0.0

    async def second(self, time_ns: int, publisher: FieldPublisher, server: PlantServer) -> None:
        """Tell the truth of now, show and publish the readings, then let a second of physics pass."""
        truth = true_values(self._plant.truth(), self._assets)
        tell_parent({"truth": {"time": time_ns, "assets": truth}})
        readings = self._sensors.read(self._plant)
        if self._injector is not None:
            readings = self._injector.apply(self._seconds, time_ns, readings)
            self._seconds += PERIOD_S
        await server.show(readings, time_ns)
        await publisher.publish(readings, time_ns)
        self._plant.advance(PERIOD_S)


def _tell_fault(window: FaultWindow) -> None:
    tell_parent({"fault": msgspec.to_builtins(window)})


async def _run(mqtt_port: int, reactors: int, seed: int) -> None:
    side = PlantSide(reactors, seed)
    loop = asyncio.get_running_loop()

    def obey(message: Message) -> None:
        order: dict[str, Any] = message["begin_faults"]
        loop.call_soon_threadsafe(side.begin_faults, order["run_s"])

    end_with_parent(obey)
    async with connected_publisher(mqtt_port) as publisher, running_server(side.assets) as server:
        tell_parent({"ready": {"opcua_port": server.port}})
        due = time.monotonic()
        while True:
            # whole milliseconds survive ISO 8601 and OPC UA's 100 ns alike: source times can be compared
            await side.second(time.time_ns() // MILLISECOND_NS * MILLISECOND_NS, publisher, server)
            due += PERIOD_S
            now = time.monotonic()
            # On a machine too slow the plant's seconds become longer: no reading is left out.
            due = max(due, now)
            await asyncio.sleep(due - now)


def main() -> int:
    """Run the plant until the parent ends."""
    parser = argparse.ArgumentParser(prog="python -m twinloop.simulate.plantside")
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--reactors", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.mqtt_port, arguments.reactors, arguments.seed))
    return 1  # the loop has no end


if __name__ == "__main__":
    sys.exit(main())
