"""What a test does when a service it needs is not on the machine."""

from __future__ import annotations

import os
import socket
from typing import NoReturn

import pytest

__all__ = ["free_port", "missing"]


def missing(service: str, hint: str) -> NoReturn:
    """Skip the test with the reason; in CI (`CI=true`) fail instead, so that nothing is skipped unseen."""
    reason = f"{service} is not on this machine: {hint}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (a skip counts as a failure in CI)", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
