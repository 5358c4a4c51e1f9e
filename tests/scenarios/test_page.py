"""The page in a real browser, on a running demo and on a `run` that is stopped and started again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from support.axe import serious_findings
from support.browser import browser
from support.demo import is_ready, running_demo
from support.services import free_port
from support.twin import Run, command, eventually, running

pytestmark = pytest.mark.timeout(240)

WITHIN_MS = 20_000
UNCERTAIN_SPIKE = re.compile("Uncertain.*SPIKE")  # one that is out of range as well is Bad
SPIKE_WITHIN_MS = 80_000  # a round of the demo's faults takes a minute
PAGES = {"overview": "#/", "asset": "#/asset/R101", "quality": "#/quality", "pipeline": "#/pipeline"}
FULL = {  # what stands on each page once its data have come
    "overview": ".tile canvas",
    "asset": ".panel .u-over",
    "quality": "section:has(#trouble-title) :is(tbody tr, .empty:not([role=status]))",
    "pipeline": ".histogram li",
}
PHONE_PX = 390
LEVEL = re.compile(r"^3\.5\d+\sm$")
VERDICTS = re.compile("plant|twin", re.IGNORECASE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running demo."""
    with running_demo(tmp_path_factory.mktemp("demo")) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running_browser:
        yield running_browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new page; at its end nothing may have gone wrong in it unseen."""
    context = chromium.new_context(viewport={"width": 1366, "height": 900})
    shown = context.new_page()
    wrong: list[str] = []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield shown
    context.close()
    assert wrong == []


def test_the_overview_says_first_whether_plant_and_twin_agree(demo: str, page: Page) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.goto(demo)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=WITHIN_MS)
    assert len(sockets) == 1, "the one opened early is taken over"
    assert page.evaluate("globalThis.early") is None
    expect(page.locator("#verdict-text")).to_have_text(VERDICTS, timeout=WITHIN_MS)
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator(".tile").first).to_contain_text("°C")
    expect(page.locator(".tile").first).to_contain_text("Conversion")


def test_values_move_by_themselves(demo: str, page: Page) -> None:
    page.goto(demo)
    value = page.locator(".tile .value").first
    expect(value).to_contain_text("°C", timeout=WITHIN_MS)
    before = value.text_content()
    expect(value).not_to_have_text(before or "", timeout=WITHIN_MS)


def test_a_spike_shows_as_uncertain_with_its_reason_and_where_it_comes_from(demo: str, page: Page) -> None:
    page.goto(demo)
    alarm = page.locator(".alarms li", has_text=UNCERTAIN_SPIKE).first
    expect(alarm).to_contain_text("one reading far from the last good one", timeout=SPIKE_WITHIN_MS)
    link = page.locator(".events li", has_text=UNCERTAIN_SPIKE).first.locator("a")
    tag = (link.text_content(timeout=SPIKE_WITHIN_MS) or "").partition(".")[2]
    link.click()
    panel = page.locator(f"#trend-{tag}")
    frame = panel.locator(".chart-frame")
    expect(frame).to_be_focused(timeout=WITHIN_MS)
    panel.locator("summary").click()
    expect(panel.locator("tbody tr", has_text=UNCERTAIN_SPIKE).first).to_be_visible(timeout=WITHIN_MS)
    frame.focus()
    for _ in range(100):
        page.keyboard.press("Shift+ArrowLeft")
        if "SPIKE" in (page.locator("#announce").text_content() or ""):
            break
    page.keyboard.press("Enter")
    told = page.locator(".provenance")
    expect(told).to_contain_text("Checks that fired", timeout=WITHIN_MS)
    expect(told.locator(".checks")).to_contain_text("spike: ")
    page.keyboard.press("Escape")
    expect(told).to_be_hidden()
    expect(frame).to_be_focused()


def test_history_is_zoomed_into_and_left_again(demo: str, page: Page) -> None:
    page.goto(f"{demo}#/asset/R101")
    follow = page.get_by_role("button", name="Following live")
    expect(follow).to_have_attribute("aria-pressed", "true", timeout=WITHIN_MS)
    over = page.locator(".panel .u-over").first
    over.wait_for()
    box = over.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], middle, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Follow live")).to_be_visible()
    zoomed = page.url
    assert "from=" in zoomed
    assert "to=" in zoomed
    page.locator(".chart-frame").first.focus()
    page.keyboard.press("ArrowLeft")
    assert page.url != zoomed, "an arrow key pans"
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Following live")).to_be_visible()
    assert "range=5m" in page.url


def test_the_quality_map_is_walked_by_keys_and_leads_to_the_trend(demo: str, page: Page) -> None:
    page.goto(f"{demo}#/quality")
    expect(page.locator(".heat canvas")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator(".bars li").first).to_contain_text("samples", timeout=SPIKE_WITHIN_MS)
    page.locator(".heat").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(page.locator(".cell-said")).to_contain_text("R10")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("R10")
    assert "from=" in page.url


def test_the_pipeline_says_how_sources_logs_and_store_are(demo: str, page: Page) -> None:
    page.goto(f"{demo}#/pipeline")
    for word in ("field", "dcs", "connected", "received", "outputs", "99 % done in", "Dead letters"):
        expect(page.locator("main")).to_contain_text(word, timeout=WITHIN_MS)


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_keeps_anybody_out(
    demo: str, page: Page, name: str, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{demo}{PAGES[name]}")
    page.locator(FULL[name]).first.wait_for(timeout=WITHIN_MS)
    assert serious_findings(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_each_page_without_scrolling_sideways(demo: str, page: Page, name: str) -> None:
    page.set_viewport_size({"width": PHONE_PX, "height": 844})
    page.goto(f"{demo}{PAGES[name]}")
    page.locator(FULL[name]).first.wait_for(timeout=WITHIN_MS)
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= PHONE_PX


def test_light_and_dark_and_the_clock_are_chosen_and_kept(demo: str, page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(demo)
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    page.locator("#theme").click()  # from as the system to light
    expect(root).to_have_attribute("data-theme", "light")
    page.locator("#zone").click()
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")
    expect(page.locator("#zone")).to_contain_text("UTC")
    expect(page.locator("#connection")).to_contain_text(datetime.now(UTC).strftime("%H:"), timeout=WITHIN_MS)


PLANT = """\
plant: mended
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{broker}
    topics: {{"reactor/{{asset}}/sensor/{{tag}}": {{format: json}}}}
tags:
  level: {{unit: m, range: [0, 10]}}
  pressure: {{unit: bar}}
assets:
  T1: {{tags: [{tags}]}}
web: {{host: 127.0.0.1, port: {port}}}
"""


def history(path: Path) -> None:
    """A minute of one tag, up to now."""
    now = datetime.now(UTC)
    lines = [f"{(now - timedelta(seconds=60 - k)).isoformat()},T1.level,{3 + k / 100:.2f}" for k in range(60)]
    path.write_text("\n".join(["time,tag,value", *lines]) + "\n")


@pytest.mark.long
def test_a_page_comes_back_by_itself_when_the_server_was_restarted(tmp_path: Path, page: Page) -> None:
    port, plant = free_port(), tmp_path / "plant.yaml"
    url = f"http://127.0.0.1:{port}/"
    broker = free_port()  # nobody is there, and nobody is needed
    plant.write_text(PLANT.format(broker=broker, port=port, tags="level"))
    history(tmp_path / "rows.csv")
    assert command("import", plant, tmp_path / "rows.csv").returncode == 0
    with running(plant) as run:
        eventually(lambda: is_ready(url), bool, within_s=60)
        page.goto(f"{url}#/asset/T1?range=1h")
        expect(page.locator("#connection")).to_contain_text("Live", timeout=WITHIN_MS)
        expect(page.locator(".panel .value").first).to_have_text(LEVEL, timeout=WITHIN_MS)
        stop(run)
    expect(page.locator("#connection")).to_contain_text("Reconnecting", timeout=WITHIN_MS)
    expect(page.locator("body")).to_have_attribute("data-stale", "true")
    plant.write_text(PLANT.format(broker=broker, port=port, tags="level, pressure"))
    with running(plant) as run:
        expect(page.locator("#connection")).to_contain_text("Live", timeout=60_000)
        expect(page.locator(".panel", has_text="pressure")).to_be_visible(timeout=WITHIN_MS)
        expect(page.locator(".panel .value").first).to_have_text(LEVEL, timeout=WITHIN_MS)
        stop(run)


def stop(run: Run) -> None:
    assert run.stop() == 0


@pytest.mark.long
def test_a_page_opened_while_the_twin_starts_goes_on_by_itself(tmp_path: Path, page: Page) -> None:
    port, plant = free_port(), tmp_path / "plant.yaml"
    plant.write_text(PLANT.format(broker=free_port(), port=port, tags="level"))
    with running(plant) as run:
        run.says(f"http://127.0.0.1:{port}")
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#connection")).to_contain_text("Live", timeout=60_000)
        expect(page.locator(".tile")).to_have_count(1, timeout=WITHIN_MS)
        stop(run)
