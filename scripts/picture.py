"""Draw the README's picture: the demo's screen after half a minute, as SVG.

python scripts/picture.py docs/demo.svg
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from twinloop.running import RunningTwin, running
from twinloop.screen import render
from twinloop.simulate.demo import run_demo

SECONDS = 24.0
WIDTH, HEIGHT = 112, 30


async def draw(path: Path) -> None:
    """Run the demo out of sight and write its screen, faults and all, to `path`."""

    @asynccontextmanager
    async def start(plant: Path) -> AsyncIterator[RunningTwin]:
        async with running(plant, os.environ) as twin:
            asyncio.get_running_loop().call_later(SECONDS - 1.0, shoot, twin)
            yield twin

    def shoot(twin: RunningTwin) -> None:
        console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
        console.print(render(twin.view(), WIDTH, HEIGHT))
        svg = console.export_svg(title="twinloop demo")
        # No font from anywhere: the reader's own monospace will do.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        path.write_text(re.sub(r"<!--.*?-->\s*", "", svg), encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        silent = Console(file=io.StringIO())
        await run_demo(SECONDS, 2, 0, start, folder=Path(folder), console=silent)


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
