"""The demo's last words: the score as a person reads it."""

from __future__ import annotations

import math
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from twinloop.simulate.score import ErrorPair, Score
from twinloop.status import format_reasons

__all__ = ["print_summary", "summary"]

OFF_TERMINAL_WIDTH: Final = 1000


def print_summary(score: Score, console: Console) -> None:
    """Print the summary; off a terminal unwrapped and uncoloured."""
    if not console.is_terminal:
        console = Console(file=console.file, width=OFF_TERMINAL_WIDTH, color_system=None)
    console.print(summary(score))


def summary(score: Score) -> RenderableType:
    """Errors against truth, faults injected and caught, false alarms, conversion and prediction."""
    return Group(
        Text("\nEstimate against truth (RMSE)", style="bold"),
        _errors(score),
        Text("\nFaults", style="bold"),
        _faults(score),
        Text(),
        *_sentences(score),
    )


def _errors(score: Score) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("tag", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for heading in ("samples", "raw", "estimate", "better by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("in and after faults: raw", "estimate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tag in score.tags:
        table.add_row(
            tag.tag, tag.unit, *_pair(tag.clear), _figure(tag.faulty.given), _figure(tag.faulty.made)
        )
    table.add_row("all with noise", "of noise", *_pair(score.overall), "", "")
    return table


def _pair(pair: ErrorPair) -> tuple[str, str, str, str]:
    given, made = pair.given, pair.made
    better = f"{100 * (1 - made / given):.0f} %" if pair.count and given > 0 else ""
    return str(pair.count), _figure(given), _figure(made), better


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _faults(score: Score) -> RenderableType:
    if not score.faults:
        return Text("none: the run was too short for one")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("tag", "fault", "caught", "after", "by"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "after" else "left")
    for fault in score.faults:
        table.add_row(
            fault.window.name,
            fault.window.what,
            Text("yes", style="green") if fault.caught else Text("no", style="red"),
            f"{fault.delay_s:.0f} s" if fault.caught else "",
            format_reasons(fault.reasons),
        )
    return table


def _sentences(score: Score) -> list[Text]:
    caught = sum(fault.caught for fault in score.faults)
    alarms = sum(score.false_alarms.values())
    lines = [
        f"Caught {caught} of {len(score.faults)} faults.",
        f"False alarms: {alarms} in {score.judged} samples without a fault"
        + (f" ({', '.join(f'{name} {n}' for name, n in score.false_alarms.items())})." if alarms else "."),
        f"Flagged within 10 s after a fault of the same tag: {score.aftermath}.",
    ]
    if score.unmatched:
        lines.append(f"Samples and predictions whose truth is not known: {score.unmatched}.")
    if score.conversion.count:
        lines.append(f"Conversion: RMSE {100 * score.conversion.made:.2f} percentage points against truth.")
    if score.prediction.count:
        lines.append(
            f"Temperature {score.horizon_s:g} s ahead: RMSE {score.prediction.made:.2f} degC, "
            f"persistence {score.prediction.given:.2f} degC ({score.prediction.count} predictions)."
        )
    elif score.horizon_s:
        lines.append(f"The run was too short to see a prediction {score.horizon_s:g} s ahead come true.")
    return [Text(line) for line in lines]
