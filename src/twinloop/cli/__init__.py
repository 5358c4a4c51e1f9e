"""The command `twinloop`."""

from __future__ import annotations

import signal

__all__ = ["entry"]


def entry() -> int:
    """The console script: Ctrl-C while the rest is still being loaded ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from twinloop.cli.main import main

    return main()
