"""`twinloop demo`: a simulated plant behind real protocols, the ordinary twin beside it, and the score.

The broker and the plant are processes of their own. The twin is started by whoever calls `run_demo`, on the
plant file written here, and hears the plant only through the broker and the OPC UA server.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from rich.console import Console

from twinloop.records import Outputs
from twinloop.screen import Note, PlantView, clock, show
from twinloop.simulate.broker import running_broker
from twinloop.simulate.demofile import PLANT_FILE, fresh_data_dir, plant_file, write_plant_file
from twinloop.simulate.faults import FaultWindow
from twinloop.simulate.lifeline import Child, Message
from twinloop.simulate.score import Scorer
from twinloop.simulate.summary import print_summary

__all__ = ["StartTwin", "TwinHandle", "run_demo"]

DATA_DIR: Final = "demo-data"
START_TIMEOUT_S: Final = 60.0
NOTES_KEPT: Final = 20
SEED: Final = 101


class TwinHandle(Protocol):
    """What the demo needs of a running twin."""

    @property
    def tag_names(self) -> Sequence[str]:
        """Full tag names by the index that outputs use."""
        ...

    def view(self) -> PlantView:
        """The twin now; cheap enough for four times a second."""
        ...

    def subscribe(self, callback: Callable[[Outputs], None]) -> None:
        """From now on call `callback` with all outputs in order, in the event loop's thread."""
        ...

    async def wait(self) -> None:
        """Return, or raise its error, when the twin ends by itself."""
        ...


StartTwin = Callable[[Path], AbstractAsyncContextManager[TwinHandle]]
"""Starts the ordinary twin on a plant file; leaving the context stops it, everything received folded."""


async def run_demo(
    seconds: float | None,
    reactors: int,
    port: int,
    start_twin: StartTwin,
    *,
    folder: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo until `seconds` have passed since the twin started, or SIGINT or SIGTERM; then sum up.

    Writes `demo-plant.yaml` and `demo-data` into `folder`; both stay. No process of the demo is left when
    this returns or raises, nor when it is killed.

    Args:
        seconds: None for without end.
        reactors: how many.
        port: of the web interface, for the plant file.
        start_twin: called once, when both protocols are served.
        folder: the current directory by default.
        console: standard output by default.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: files of somebody else's are in the way.
        LogError: another demo is running in this folder.
        LinkError: the broker or the plant could not be started, or ended.
    """
    folder = folder or Path.cwd()
    console = console or Console()
    demo = _Demo(console)
    with fresh_data_dir(folder / DATA_DIR), _signals(demo.stop):
        async with (
            running_broker() as (ports, broker),
            _plant_side(ports.v5, reactors) as (plant, opcua_port),
        ):
            path = folder / PLANT_FILE
            text = plant_file(
                mqtt_port=ports.v5,
                opcua_port=opcua_port,
                reactors=reactors,
                web_port=port,
                data_dir=f"./{DATA_DIR}",
            )
            write_plant_file(path, text)
            demo.say(
                f"Demo plant: {reactors} reactors over MQTT (port {ports.v5}) and OPC UA (port {opcua_port})."
            )
            demo.say(
                f"Plant file {path}: try `{_command()} query {PLANT_FILE} latest` beside it. Ctrl-C ends."
            )
            await demo.run(seconds, broker, plant, start_twin(path))
    print_summary(demo.scorer.score(), console)
    return 0


class _Demo:
    """What a running demo knows: the news, the score, and when to stop."""

    def __init__(self, console: Console) -> None:
        self.stop = asyncio.Event()
        self.scorer = Scorer()
        self._console = console
        self._notes: deque[Note] = deque(maxlen=NOTES_KEPT)

    def say(self, line: str) -> None:
        """One plain line on the console, unwrapped off a terminal."""
        self._console.print(line, highlight=False, soft_wrap=True)

    async def run(
        self,
        seconds: float | None,
        broker: Child,
        plant: Child,
        twin: AbstractAsyncContextManager[TwinHandle],
    ) -> None:
        """The twin beside the plant until it is time to stop; then the twin first, so that it hears all."""
        async with self._watching(self._listen(plant), self._mind(broker)), twin as handle:
            handle.subscribe(lambda outputs: self.scorer.add_outputs(outputs, handle.tag_names))
            plant.send({"begin_faults": {"run_s": seconds}})
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, self.stop.set)
            async with self._watching(handle.wait()):
                await show(lambda: self._view(handle), self._console, self.stop)

    @asynccontextmanager
    async def _watching(self, *watches: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run watches alongside; the first that ends stops the demo, and its error is raised at the end."""
        tasks = [asyncio.create_task(watch) for watch in watches]
        for task in tasks:
            task.add_done_callback(lambda _: self.stop.set())
        try:
            yield
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def _listen(self, plant: Child) -> None:
        async for message in plant.messages():
            self._hear(message)

    async def _mind(self, broker: Child) -> None:
        async for _ in broker.messages():
            pass

    def _hear(self, message: Message) -> None:
        if "truth" in message:
            self.scorer.add_truth(message["truth"]["time"], message["truth"]["assets"])
        elif "fault" in message:
            window = msgspec.convert(message["fault"], FaultWindow)
            self.scorer.add_fault(window)
            self._announce(window)

    def _announce(self, window: FaultWindow) -> None:
        over = window.end != 0
        text = f"fault on {window.name}: {window.what}{' is over' if over else ''}"
        note = Note(window.end or window.begin, text, "dim" if over else "magenta")
        self._notes.append(note)
        if not self._console.is_terminal:
            self.say(f"{clock(note.time_ns)} {text}")

    def _view(self, handle: TwinHandle) -> PlantView:
        view = handle.view()
        notes = sorted([*view.notes, *self._notes], key=lambda note: note.time_ns)
        return replace(view, notes=notes)


@asynccontextmanager
async def _plant_side(mqtt_port: int, reactors: int) -> AsyncIterator[tuple[Child, int]]:
    """The plant's process, serving, and its OPC UA port."""
    arguments = ("--mqtt-port", mqtt_port, "--reactors", reactors, "--seed", SEED)
    child = await Child.start("plant", "twinloop.simulate.plantside", *map(str, arguments))
    try:
        ready = await child.expect("ready", START_TIMEOUT_S)
        yield child, ready["opcua_port"]
    finally:
        await child.stop()


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop` while the context is open."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _command() -> str:
    """How this command was called, so that the hint works as it stands."""
    called = Path(sys.argv[0])
    return "python -m twinloop" if called.suffix == ".py" else str(called)
