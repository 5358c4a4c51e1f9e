"""`python -m twinloop` is the command `twinloop`."""

import sys

from twinloop.cli import entry

if __name__ == "__main__":
    sys.exit(entry())
