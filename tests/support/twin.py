"""The command `twinloop` as its user runs it: a process of its own, its messages and its exit code."""

from __future__ import annotations

import csv
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from twinloop.cli.query import Question, What, ask
from twinloop.config.plantfile import load
from twinloop.history import open_queries
from twinloop.present import render

__all__ = ["PATIENCE_S", "Run", "command", "eventually", "query", "running"]

PATIENCE_S = 30.0
T = TypeVar("T")


def command(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `twinloop ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "twinloop", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **(env or {})},
    )


def query(
    plant: Path, what: What, *names: str, end: str | None = None, every: str | None = None
) -> list[dict[str, str]]:
    """The rows `twinloop query PLANT WHAT NAMES --format csv` prints, asked from this process."""
    queries = open_queries(load(plant, os.environ))
    try:
        table = ask(queries, Question(what, names, end=end, every=every), time.time_ns())
    finally:
        queries.close()
    return list(csv.DictReader(io.StringIO(render(table, what, "csv").decode())))


def eventually(ask: Callable[[], T], holds: Callable[[T], bool], within_s: float = PATIENCE_S) -> T:
    """Ask again until the answer holds; fails with the last answer."""
    deadline = time.monotonic() + within_s
    while not holds(answer := ask()):
        assert time.monotonic() < deadline, f"it never came true; the last answer was {answer!r}"
        time.sleep(0.1)  # between two questions; the condition ends the wait
    return answer


class Run:
    """A `twinloop run` under way.

    Attributes:
        lines: its messages so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def heard(self, text: str) -> bool:
        """Whether a message so far has the text in it."""
        return any(text in line for line in self.lines)

    def drain(self) -> None:
        """Return when all it said has been read; after its end."""
        self._reader.join(PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            self._fresh.put(line)
        self._fresh.put(None)

    def says(self, text: str, within_s: float = PATIENCE_S) -> str:
        """The next message with the text in it; fails when none comes or the process ends."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._fresh.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"never said {text!r}; said:\n" + "\n".join(self.lines)
            if text in line:
                return line.rstrip("\n")

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 12.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)


@contextmanager
def running(
    plant: Path, *arguments: str, env: Mapping[str, str] | None = None, program: str = "twinloop"
) -> Iterator[Run]:
    """`twinloop run PLANT`, killed at the end if it still runs; `program` names another module than that."""
    with subprocess.Popen(
        [sys.executable, "-m", program, "run", str(plant), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
        run = Run(process)
        try:
            yield run
        finally:
            if process.poll() is None:
                process.kill()
