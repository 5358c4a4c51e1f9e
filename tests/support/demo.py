"""`twinloop demo` as a process, with its pages."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.services import free_port
from support.twin import eventually

__all__ = ["is_ready", "running_demo"]

_START_S = 90.0
_STOP_S = 30.0


def is_ready(url: str) -> bool:
    """Whether a twin runs behind an address, and can be asked."""
    try:
        return httpx.get(f"{url}readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def running_demo(folder: Path, *arguments: str) -> Iterator[str]:
    """The address of a demo in `folder`, from when its twin runs on; stopped at the end."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "twinloop", "demo", "--port", str(port), *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        url = f"http://127.0.0.1:{port}/"
        try:
            eventually(lambda: process.poll() is not None or is_ready(url), bool, _START_S)
            assert process.poll() is None, "the demo ended by itself"
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_STOP_S)
