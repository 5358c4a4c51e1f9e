"""The screen: what matters is on it at any width, and nothing is hidden without being counted."""

from __future__ import annotations

import asyncio
import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from twinloop.screen import AssetRow, CycleFigures, Note, PlantView, TagRow, plain_line, render, show
from twinloop.status import BAD, UNCERTAIN, Reason

NOON_NS = 1_700_049_600_000_000_000


def tag(asset: str, name: str, status: int = 0, reasons: int = 0) -> TagRow:
    return TagRow(asset, name, "degC", 85.123, 85.2, 0.15, -0.02, status, reasons, 0.4)


def view(tags: list[TagRow] | None = None, notes: list[Note] | None = None) -> PlantView:
    return PlantView(
        plant="demo",
        time_ns=NOON_NS,
        tags=[tag("R101", "temperature", UNCERTAIN, Reason.SPIKE | Reason.RATE)] if tags is None else tags,
        assets=[AssetRow("R101", "IN_SYNC", "", 0.345, 0.512, 85.1, 86.3, 85.2, "degC", 60.0, 1.02)],
        cycle=CycleFigures(1.0, 0.0012, 0.0034, 0.0002, 0.001, 18.0, 0, 42),
        notes=notes or [],
    )


def text(shown: PlantView, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(shown, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_value_estimate_band_status_and_reason_are_on_the_screen(width: int) -> None:
    lines = text(view(), width).splitlines()

    [row] = [line for line in lines if line.startswith("R101.temperature")]
    assert row.split()[1:5] == ["85.12", "85.20", "0.300", "degC"]
    assert "Uncertain" in row
    assert "RATE|SPIKE" in row


@pytest.mark.parametrize("width", [80, 120])
def test_conversion_prediction_health_and_cycle_are_on_the_screen(width: int) -> None:
    shown = text(view(), width)

    for part in ("34.5 %", "51.2 %", "in 60 s", "86.3", "IN_SYNC", "1.02", "p99 3.4 ms", "18.00 samples/s"):
        assert part in shown


def test_what_does_not_fit_is_left_out_best_first_and_counted() -> None:
    tags = [tag(f"R{101 + index}", "temperature") for index in range(60)]
    tags[50] = tag("R151", "temperature", BAD, Reason.RANGE)

    lines = text(view(tags), 80, 24).splitlines()

    shown = [line.split()[0] for line in lines if ".temperature" in line]
    assert shown[0] == "R151.temperature"
    assert any(line == f"... and {60 - len(shown)} more, at worst Good" for line in map(str.strip, lines))


@given(
    count=st.integers(0, 80),
    notes=st.integers(0, 12),
    width=st.integers(80, 200),
    height=st.integers(22, 60),
)
@settings(max_examples=30, deadline=None)
def test_the_screen_never_exceeds_the_terminal(count: int, notes: int, width: int, height: int) -> None:
    tags = [tag(f"R{101 + index}", "a_tag_with_a_long_name", BAD, 0x7FFF) for index in range(count)]
    news = [Note(NOON_NS, f"news {index} " * 40) for index in range(notes)]

    lines = text(view(tags, news), width, height).splitlines()

    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_the_plain_line_is_one_line_and_names_what_is_not_good() -> None:
    line = plain_line(view([tag("R101", "pressure", BAD, Reason.RANGE), tag("R101", "temperature")]))

    assert "\n" not in line
    assert "1 of 2 tags Good, R101.pressure Bad RANGE" in line
    assert "conversion 34.5 %" in line


def test_what_is_not_known_yet_is_a_dash_and_not_nan() -> None:
    empty = PlantView("demo", tags=[TagRow("R101", "temperature", "degC")], assets=[AssetRow("R101")])

    assert math.isnan(empty.tags[0].raw)
    assert "nan" not in text(empty) + plain_line(empty)


async def test_off_a_terminal_lines_are_neither_wrapped_nor_coloured() -> None:
    out = io.StringIO()
    stop = asyncio.Event()
    stop.set()

    await show(
        lambda: view([tag(f"R{n}", "t", BAD, Reason.RANGE) for n in range(50)]), Console(file=out), stop
    )

    [line] = out.getvalue().splitlines()
    assert len(line) > 500
    assert "\x1b" not in line


async def test_on_a_terminal_the_last_state_stays_on_the_screen() -> None:
    out = io.StringIO()
    stop = asyncio.Event()
    stop.set()
    console = Console(file=out, force_terminal=True, width=80, height=24)

    await show(lambda: view(notes=[Note(NOON_NS, "the last word")]), console, stop)

    assert "the last word" in out.getvalue()
