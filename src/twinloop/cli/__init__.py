"""The command `twinloop`."""

from __future__ import annotations

from twinloop.cli.main import main

__all__ = ["main"]
