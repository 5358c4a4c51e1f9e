"""Picture the pages of a running demo, faults under way, for README and docs.

PYTHONPATH=tests python scripts/screenshots.py docs/screens
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from playwright.sync_api import Browser

from support.browser import browser
from support.demo import running_demo

REACTORS: Final = 6
LATE_S: Final = 240.0
"""By then each kind of fault has happened to some reactor, and predictions have come due."""
STALE: Final = ".tile[data-health=STALE]"
DOUBTFUL: Final = ".alarms li:is([data-severity='1'], [data-severity='2'])"
LARGEST: Final = 200_000


@dataclass(frozen=True)
class Shot:
    """One picture: of which page, how wide, light or dark."""

    name: str
    address: str
    scheme: Literal["light", "dark"] = "light"
    width: int = 1440
    height: int = 900


SHOTS: Final = (
    Shot("overview", "#/"),
    Shot("overview-dark", "#/", "dark"),
    Shot("asset", "#/asset/R101"),
    Shot("asset-dark", "#/asset/R101", "dark"),
    Shot("quality", "#/quality"),
    Shot("pipeline", "#/pipeline"),
    Shot("phone", "#/", width=390, height=844),
    Shot("phone-asset", "#/asset/R101", "dark", width=390, height=844),
)


def shoot(running: Browser, url: str, shot: Shot, folder: Path) -> None:
    """One picture, when the page has what it shows."""
    context = running.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        device_scale_factor=2 if shot.width < 600 else 1,
        timezone_id="UTC",
    )
    page = context.new_page()
    page.goto(f"{url}{shot.address}")
    page.locator("#connection", has_text="Live").wait_for()
    page.wait_for_timeout(4000)
    if shot.address == "#/":
        # Faults come and go: a reactor is to be without data at that moment.
        page.locator(f".overview:has({STALE}):has({DOUBTFUL})").wait_for(timeout=90_000)
    path = folder / f"{shot.name}.png"
    path.write_bytes(smaller(page.screenshot()))
    size = path.stat().st_size
    sys.stdout.write(f"{path}: {size / 1000:.0f} kB\n")
    if size > LARGEST:
        raise SystemExit(f"{path} is larger than {LARGEST / 1000:.0f} kB")
    context.close()


def smaller(png: bytes) -> bytes:
    """The picture with 256 colours: a third of the bytes. Rare colours stay: they are what matters."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
        out = io.BytesIO()
        few.save(out, "PNG", optimize=True)
    return out.getvalue()


def main(folder: Path) -> None:
    """All pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        running_demo(Path(place), "--reactors", str(REACTORS)) as url,
        browser() as running,
    ):
        time.sleep(LATE_S)
        for shot in SHOTS:
            shoot(running, url, shot, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
