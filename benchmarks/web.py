"""Pages of 1,000 tags at 10 Hz, through a real broker: what they cost server, loop and browser.

python benchmarks/web.py [--tags N] [--hz N] [--seconds N] [--slow N]

Prints the share of a core that the web's thread takes with one page open; the cycle's p50 and p99 with
nobody, and with many pages that never read, in turns; and, where playwright and Chromium are there, the
page's frames per second and the time to its first value.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.mosquitto import mosquitto
from support.services import free_port
from twinloop.loop.metrics import quantile
from twinloop.present import time_text
from twinloop.running import running
from twinloop.web.frames import decode
from web_browser import look

ASSETS: Final = 100
SETTLE_S: Final = 3.0
PLANT: Final = """\
plant: bench
data_dir: ./data
cycle: 100ms
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    qos: 0
    topics:
      "bench/{{asset}}/{{tag}}": {{format: json}}
tags:
{tags}
assets:
{assets}
web: {{port: {web}}}
"""


@dataclass(frozen=True)
class Load:
    """What is sent: each of `tags` `hz` times a second; each measurement takes `seconds`."""

    tags: int
    hz: int
    seconds: int


@dataclass
class Told:
    """What the twin says of itself: cycles' durations, and CPU seconds by thread at the end."""

    cycles: list[float] = field(default_factory=list)
    samples: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


# The twin's process


async def tell(plant: Path) -> None:
    """Run the twin; once a second say what the cycles took and which thread has used how much CPU."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(plant, os.environ) as twin:
        figures = twin.metrics.figures
        known = 0
        while not stop.is_set():
            await asyncio.sleep(1.0)
            fresh = list(figures.recent)[len(figures.recent) - (figures.cycles - known) :]
            known = figures.cycles
            cpu = {
                thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                for thread in threading.enumerate()
                if thread.ident is not None
            }
            said = {"cycles": [each.duration_s for each in fresh], "samples": figures.samples, "cpu_s": cpu}
            print(json.dumps(said), flush=True)


class Twin:
    """That process, seen from here."""

    def __init__(self, plant: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--twin", str(plant)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def during(self, seconds: float) -> Told:
        """What it says over some seconds from now on."""
        while not self._lines.empty():
            self._lines.get()
        before = self._lines.get(timeout=60)
        began, told, last = time.monotonic(), Told(), before
        while time.monotonic() < began + seconds:
            last = self._lines.get(timeout=60)
            told.cycles += last["cycles"]
        told.seconds = time.monotonic() - began
        told.samples = last["samples"] - before["samples"]
        told.cpu_s = {name: used - before["cpu_s"].get(name, 0.0) for name, used in last["cpu_s"].items()}
        return told

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


# The plant


def tag_names(load: Load) -> list[str]:
    """The tags of an asset."""
    return ["temperature", *(f"t{i}" for i in range(1, load.tags // ASSETS))]


def plant_file(folder: Path, port: int, web: int, load: Load) -> Path:
    """A plant of 100 assets with the load's tags."""
    names = tag_names(load)
    every = f"{1000 // load.hz}ms"
    rules = "\n".join(
        f"  {name}: {{unit: degC, range: [-50, 400], spike: 20%, noise: 0.5, every: {every}, stale: 5s}}"
        for name in names
    )
    assets = "\n".join(f"  A{i}: {{tags: [{', '.join(names)}]}}" for i in range(ASSETS))
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(port=port, web=web, tags=rules, assets=assets))
    return path


def publish(port: int, load: Load) -> None:
    """Send every tag at the load's rate, spread over the time, until stdin ends."""
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    broker = socket.create_connection(("127.0.0.1", port))
    broker.sendall(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(b"bench")))  # keeps alive for ever
    broker.recv(4)
    names = tag_names(load)
    topics = [text(f"bench/A{i % ASSETS}/{names[i // ASSETS]}".encode()) for i in range(load.tags)]
    begin, sent, rate = time.monotonic(), 0, load.tags * load.hz
    while not ended.wait(0.01):
        stamp = time_text(time.time_ns())
        due = int((time.monotonic() - begin) * rate)
        packets = []
        for number in range(sent, due):
            payload = f'{{"value": {reading(number, load):.3f}, "timestamp": "{stamp}"}}'.encode()
            packets.append(packet(0x30, topics[number % load.tags] + payload))
        broker.sendall(b"".join(packets))
        sent = due
    broker.close()


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT 3.1.1 packet of less than 16 kB; a client library would take half a core for so many."""
    size = len(body)
    return bytes([kind, size] if size < 128 else [kind, size % 128 | 128, size // 128]) + body


def text(letters: bytes) -> bytes:
    """A text as MQTT has it."""
    return len(letters).to_bytes(2, "big") + letters


def reading(number: int, load: Load) -> float:
    """A temperature that goes up and down within ten minutes, with noise, each tag at another time."""
    at = number // load.tags / load.hz
    noise = (number * 2654435761) % 1000 / 1000 - 0.5
    return 80 + 5 * math.sin(at / 95 + number % load.tags) + noise


@contextmanager
def sending(port: int, load: Load) -> Iterator[None]:
    """A process that publishes."""
    arguments = ["--publish", str(port), "--tags", str(load.tags), "--hz", str(load.hz)]
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


# Who looks


class Reader:
    """A page as far as the server can tell: it takes every frame and decodes it, on a thread of its own."""

    def __init__(self, port: int) -> None:
        self.frames = self.rows = self.bytes = 0
        self.first_s = float("nan")
        self._stop = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began = time.monotonic()
        with connect(f"ws://127.0.0.1:{self._port}/live", compression=None, max_size=None) as live:
            while not self._stop.is_set():
                message = live.recv(10)
                if isinstance(message, bytes):
                    if not self.frames:
                        self.first_s = time.monotonic() - began
                    self.frames += 1
                    self.bytes += len(message)
                    self.rows += len(decode(message)[1]["index"])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(15)


@contextmanager
def asleep(port: int, count: int) -> Iterator[None]:
    """Pages that open the live socket and never read it."""
    sockets = []
    for _ in range(count):
        made = socket.create_connection(("127.0.0.1", port))
        made.sendall(
            f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        sockets.append(made)
    try:
        yield
    finally:
        for made in sockets:
            made.close()


def wait_until_ready(port: int) -> None:
    """Return when the twin runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the twin did not start")


# What is measured


def one_page(twin: Twin, port: int, load: Load) -> None:
    """The web thread's CPU with nobody and with one page."""
    nobody = twin.during(load.seconds)
    with Reader(port) as reader:
        time.sleep(SETTLE_S)
        frames, rows, size = reader.frames, reader.rows, reader.bytes
        told = twin.during(load.seconds)
        frames, rows, size = reader.frames - frames, reader.rows - rows, reader.bytes - size
    shares = [100 * each.cpu_s["web"] / each.seconds for each in (nobody, told)]
    loop = 100 * told.cpu_s["MainThread"] / told.seconds
    print(
        f"{told.samples / told.seconds:,.0f} samples/s folded; the loop's thread takes {loop:.0f} % of a core"
    )
    sent = f"{frames / told.seconds:.1f} frames/s of {rows / max(frames, 1):.0f} rows"
    print(
        f"web thread: {shares[0]:.2f} % of a core with nobody, {shares[1]:.2f} % with one page "
        f"({sent}, {size / max(frames, 1) / 1000:.0f} kB each; "
        f"first frame after {1000 * reader.first_s:.0f} ms)"
    )


def slow_pages(twin: Twin, port: int, load: Load, count: int) -> None:
    """The cycle with nobody and with many pages that never read, in turns: the machine's mood hits both."""
    cycles: dict[int, list[float]] = {0: [], count: []}
    turns = 4
    for _ in range(turns):
        for pages in cycles:
            with asleep(port, pages):
                time.sleep(SETTLE_S)
                cycles[pages] += twin.during(load.seconds / turns).cycles
    for pages, durations in cycles.items():
        p50, p99 = (1000 * quantile(durations, q) for q in (0.5, 0.99))
        print(f"cycle with {pages:>2} slow pages: p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(durations)}")
    change = quantile(cycles[count], 0.99) / quantile(cycles[0], 0.99) - 1
    print(f"p99 with {count} slow pages: {100 * change:+.0f} %")


def browser(twin: Twin, port: int, load: Load) -> None:
    """Frames per second and time to the first value of the page in Chromium."""
    results: list[Told] = []
    watching = threading.Thread(target=lambda: results.append(twin.during(load.seconds)))
    seen = look(port, load.seconds, watching.start)
    if seen is None:
        return
    watching.join()
    share = 100 * results[0].cpu_s["web"] / results[0].seconds
    print(f"{seen}; web thread {share:.2f} % of a core")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or be one of the processes it takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--hz", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--slow", type=int, default=50)
    parser.add_argument("--twin", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    load = Load(options.tags, options.hz, options.seconds)
    if options.twin:
        asyncio.run(tell(options.twin))
    elif options.publish:
        publish(options.publish, load)
    else:
        measure(load, options.slow)


def measure(load: Load, slow: int) -> None:
    """All of it."""
    print(f"{load.tags} tags at {load.hz} Hz over MQTT, QoS 0, through mosquitto")
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as broker:
        web = free_port()
        twin = Twin(plant_file(Path(name), broker.port, web, load))
        try:
            wait_until_ready(web)
            with sending(broker.port, load):
                time.sleep(2 * SETTLE_S)
                one_page(twin, web, load)
                slow_pages(twin, web, load, slow)
                browser(twin, web, load)
        finally:
            twin.stop()


if __name__ == "__main__":
    main()
