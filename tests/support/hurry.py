"""The command `twinloop` with sizes and periods so short that a second holds seals, checkpoints and trims."""

from __future__ import annotations

import sys

from support.lives import hurry
from twinloop.cli.main import main

if __name__ == "__main__":
    hurry()
    sys.exit(main(sys.argv[1:]))
