"""A page in Chromium, as `web.py` measures it: when it shows its first value, and its frames a second."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from twinloop.loop.metrics import quantile

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FRAMES: Final = """(seconds) => new Promise((done) => {
  const deltas = []; let last = performance.now(); const until = last + 1000 * seconds;
  const frame = (now) => {
    deltas.push(now - last);
    last = now;
    now < until ? requestAnimationFrame(frame) : done(deltas);
  };
  requestAnimationFrame(frame);
})"""
FIRST_VALUE: Final = r"""() => {
  const main = document.getElementById("main");
  return Boolean(main?.checkVisibility()) && /\d[.,]\d+\s*(°C|degC)/.test(main.textContent);
}"""
OPENED: Final = 5
SETTLE_S: Final = 3.0
PATIENCE_MS: Final = 30_000


@dataclass(frozen=True)
class Seen:
    """What the page of a twin was like.

    Attributes:
        first_s: seconds until its first value, each time it was opened.
        least_s: the same of a page that is one line and nothing else.
        frames_ms: between two frames, each.
    """

    first_s: list[float]
    least_s: list[float]
    frames_ms: list[float]

    def __str__(self) -> str:
        rate = 1000 * len(self.frames_ms) / sum(self.frames_ms)
        first, least = statistics.median(self.first_s), statistics.median(self.least_s)
        return (
            f"browser: {rate:.1f} frames/s, p99 {quantile(self.frames_ms, 0.99):.0f} ms between two, "
            f"first value after {first:.2f} s ({min(self.first_s):.2f} to {max(self.first_s):.2f}), "
            f"of a page that is one line and nothing else {least:.2f} s"
        )


def look(port: int, seconds: int, begins: Callable[[], None]) -> Seen | None:
    """Open the page some times, in turns with one that is one line, and watch it the last time.

    Args:
        port: of the twin.
        seconds: how long it is watched.
        begins: called when that begins.

    Returns:
        None where it cannot be measured; why is printed.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import TimeoutError, sync_playwright  # noqa: A004 - its own

        from support.browser import FLAGS
    except ImportError:
        chromium = None
    if chromium is None:
        print("browser: not measured, as playwright or Chromium is not here")
        return None
    with one_line() as plain, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        browser.new_page().goto("about:blank")
        time.sleep(2 * SETTLE_S)  # a browser that has just been started is busy with itself
        taken: dict[int, list[float]] = {plain: [], port: []}
        try:
            for _ in range(OPENED):
                for asked, times in taken.items():
                    page, first_s = opened(browser, asked)
                    times.append(first_s)
                    if asked == plain or len(times) < OPENED:
                        page.context.close()
            time.sleep(SETTLE_S)  # the past it asks for belongs to its being opened
            begins()
            return Seen(taken[port], taken[plain], page.evaluate(FRAMES, seconds))
        except TimeoutError:
            print(f"browser: the page showed no value within {PATIENCE_MS / 1000:.0f} s")
            return None
        finally:
            browser.close()


def opened(browser: Browser, port: int) -> tuple[Page, float]:
    """A page of an empty cache, and how many seconds it took to show a value."""
    page = browser.new_context().new_page()
    time.sleep(SETTLE_S)
    began = time.monotonic()
    page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
    page.wait_for_function(FIRST_VALUE, timeout=PATIENCE_MS)
    return page, time.monotonic() - began


@contextmanager
def one_line() -> Iterator[int]:
    """The port of a server whose page is one line: what opening a page costs whatever is in it."""

    class Line(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write('<!doctype html><title>one</title><main id="main">85.0 °C</main>'.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Line)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
