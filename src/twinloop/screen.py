"""A running twin on a terminal: one table of tags, one of assets, the cycle's figures and the latest news.

`render` is a pure function of a `PlantView`; `show` paints it four times a second on a terminal and prints a
plain line every few seconds elsewhere. The view is plain data: whoever runs a twin fills it in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twinloop.status import Severity, format_reasons, severity_name

__all__ = ["AssetRow", "CycleFigures", "Note", "PlantView", "TagRow", "plain_line", "render", "show"]

NAN: Final = math.nan
PAINT_S: Final = 0.25
PLAIN_S: Final = 5.0
WIDE: Final = 100
NOTES_SHOWN: Final = 5
LEAST_ROWS: Final = 3
BAD_HEALTH: Final = ("DIVERGED", "STALE", "LAGGING", "STARTING")

_SEVERITY_STYLE: Final = {"Good": "green", "Uncertain": "yellow", "Bad": "red"}
_HEALTH_STYLE: Final = {
    "IN_SYNC": "green",
    "STARTING": "cyan",
    "LAGGING": "yellow",
    "STALE": "yellow",
    "DIVERGED": "red",
}


@dataclass(frozen=True, slots=True)
class TagRow:
    """One tag now; numbers in `unit`, NaN for what is not known yet.

    Attributes:
        raw: newest value received.
        estimate, std, rate: the filter's value, its standard deviation, and its change per second.
        status, reasons: as in a `Batch`.
        age_s: since the newest arrival, seconds.
    """

    asset: str
    tag: str
    unit: str
    raw: float = NAN
    estimate: float = NAN
    std: float = NAN
    rate: float = NAN
    status: int = 0
    reasons: int = 0
    age_s: float = NAN

    @property
    def severity(self) -> int:
        """0 Good, 1 Uncertain, 2 Bad."""
        return min(self.status >> 30, Severity.BAD)


@dataclass(frozen=True, slots=True)
class AssetRow:
    """One asset's twin now.

    Attributes:
        health, why: sync health and what it rests on.
        conversion, conversion_ahead: now and `horizon_s` ahead, 0 to 1; NaN without a model.
        now, predicted, persistence: temperature now, by the model and by doing nothing, in `unit`.
        nis: mean normalised innovation squared; 1 is expected.
    """

    asset: str
    health: str = "STARTING"
    why: str = ""
    conversion: float = NAN
    conversion_ahead: float = NAN
    now: float = NAN
    predicted: float = NAN
    persistence: float = NAN
    unit: str = "degC"
    horizon_s: float = 60.0
    nis: float = NAN


@dataclass(frozen=True, slots=True)
class CycleFigures:
    """How the loop is doing; times in seconds."""

    period_s: float = 1.0
    p50_s: float = NAN
    p99_s: float = NAN
    jitter_s: float = NAN
    lag_s: float = NAN
    samples_per_s: float = NAN
    missed: int = 0
    cycles: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """One line of news: an event of the twin's or an announcement."""

    time_ns: int
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class PlantView:
    """Everything the screen shows, as of `time_ns`; `notes` oldest first."""

    plant: str
    time_ns: int = 0
    tags: Sequence[TagRow] = ()
    assets: Sequence[AssetRow] = ()
    cycle: CycleFigures = field(default_factory=CycleFigures)
    notes: Sequence[Note] = ()


def clock(time_ns: int) -> str:
    """Time of day, UTC, to the second, ending in Z.

    >>> clock(1_700_000_000_000_000_000)
    '22:13:20Z'
    """
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%H:%M:%SZ}"


def render(view: PlantView, width: int, height: int) -> RenderableType:
    """The whole screen in at most `width` columns and `height` lines.

    Rows that do not fit are left out best first, and counted.
    """
    notes = view.notes[-NOTES_SHOWN:]
    head = [_title(view), _cycle(view.cycle, width)]
    spare = height - len(head) - (len(notes) + 1 if notes else 0) - 4  # two headings, two lines between
    assets_room = max(LEAST_ROWS, min(len(view.assets), spare // 3))
    tags_room = max(LEAST_ROWS, spare - min(len(view.assets), assets_room) - (len(view.assets) > assets_room))
    parts: list[RenderableType] = [*head, Text(), _tags(view.tags, width, tags_room)]
    parts += [Text(), _assets(view.assets, width, assets_room)]
    if notes:
        parts += [Text(), *(_note(note, width) for note in notes)]
    return Group(*parts)


def plain_line(view: PlantView) -> str:
    """The state in one line, for logs and pipes: every asset, then what is not Good."""
    assets = "; ".join(_plain_asset(row) for row in view.assets)
    wrong = [
        f"{row.asset}.{row.tag} {severity_name(row.status)} {format_reasons(row.reasons)}".rstrip()
        for row in _worst_first(view.tags)
        if row.severity
    ]
    good = sum(not row.severity for row in view.tags)
    cycle = view.cycle
    return (
        f"{clock(view.time_ns)} {assets} | {good} of {len(view.tags)} tags Good"
        f"{''.join(f', {each}' for each in wrong)} | {_number(cycle.samples_per_s)} samples/s, "
        f"cycle p99 {_duration(cycle.p99_s)}, missed {cycle.missed}"
    )


async def show(view: Callable[[], PlantView], console: Console, stop: asyncio.Event) -> None:
    """Show the view until `stop` is set: a live screen on a terminal, a line every 5 s elsewhere.

    The last state is shown once more at the end, and stays on the terminal.
    """
    if not console.is_terminal:
        while not await _set_within(stop, PLAIN_S):
            print(plain_line(view()), file=console.file, flush=True)
        print(plain_line(view()), file=console.file, flush=True)
        return

    def screen() -> RenderableType:
        return render(view(), console.width, console.height - 1)

    with Live(screen(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not await _set_within(stop, PAINT_S):
            live.update(screen(), refresh=True)
        live.update(screen(), refresh=True)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _title(view: PlantView) -> Text:
    counts = [sum(row.severity == each for row in view.tags) for each in range(3)]
    title = Text(f"{view.plant} ", style="bold", no_wrap=True)
    title.append(f" {clock(view.time_ns)}  {len(view.assets)} assets, {len(view.tags)} tags: ", "not bold")
    for name, count in zip(_SEVERITY_STYLE, counts, strict=True):
        title.append(f"{count} {name}  ", f"not bold {_SEVERITY_STYLE[name] if count else 'dim'}")
    return title


def _cycle(cycle: CycleFigures, width: int) -> Text:
    durations = f"p50 {_duration(cycle.p50_s)} p99 {_duration(cycle.p99_s)} of {_duration(cycle.period_s)}"
    parts = [
        f"cycle {cycle.cycles}: {durations}",
        f"{_number(cycle.samples_per_s)} samples/s",
        f"missed {cycle.missed}",
    ]
    if width >= WIDE:
        parts += [f"jitter {_duration(cycle.jitter_s)}", f"lag {_duration(cycle.lag_s)}"]
    return Text(" · ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _worst_first(rows: Iterable[TagRow]) -> list[TagRow]:
    return sorted(rows, key=lambda row: -row.severity)  # stable: plant file order among equals


def _table(width: int, *columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", width=width, collapse_padding=True)
    for heading, justify in columns:
        right = justify == "right"
        last = heading in {"reasons", "why"}
        table.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if last else None,
        )
    return table


def _tags(rows: Sequence[TagRow], width: int, room: int) -> RenderableType:
    wide = width >= WIDE
    columns = [
        ("tag", "left"),
        ("raw", "right"),
        ("estimate", "right"),
        ("± 2 sd", "right"),
        ("unit", "left"),
    ]
    columns += [("rate/s", "right"), ("age", "right")] if wide else []
    table = _table(width, *columns, ("status", "left"), ("reasons", "left"))
    fits = len(rows) <= room
    shown = rows if fits else _worst_first(rows)[: room - 1]
    for row in shown:
        name = severity_name(row.status)
        cells = [f"{row.asset}.{row.tag}", _number(row.raw), _number(row.estimate), _number(2 * row.std)]
        cells += [row.unit, *((_signed(row.rate), _duration(row.age_s)) if wide else ())]
        table.add_row(
            *cells,
            Text(name, _SEVERITY_STYLE[name]),
            Text(format_reasons(row.reasons), _SEVERITY_STYLE[name]),
        )
    if fits:
        return table
    left = len(rows) - len(shown)
    worst = max((row.severity for row in _worst_first(rows)[len(shown) :]), default=0)
    return Group(table, Text(f"... and {left} more, at worst {list(_SEVERITY_STYLE)[worst]}", style="dim"))


def _assets(rows: Sequence[AssetRow], width: int, room: int) -> RenderableType:
    ahead = f"in {rows[0].horizon_s:g} s" if rows else "ahead"
    wide = width >= WIDE
    columns = [("asset", "left"), ("health", "left"), ("conversion", "right"), (ahead, "right")]
    columns += [("temperature", "right"), (ahead, "right")]
    columns += [("if unchanged", "right")] if wide else []
    table = _table(width, *columns, ("unit", "left"), ("NIS", "right"), ("why", "left"))
    ordered = rows if len(rows) <= room else sorted(rows, key=lambda row: _health_rank(row.health))
    for row in ordered[:room]:
        cells = [
            _percent(row.conversion),
            _percent(row.conversion_ahead),
            _tenth(row.now),
            _tenth(row.predicted),
        ]
        cells += [_tenth(row.persistence)] if wide else []
        health = Text(row.health, _HEALTH_STYLE.get(row.health, ""))
        table.add_row(row.asset, health, *cells, row.unit, _nis(row.nis), Text(row.why, "dim"))
    if len(rows) <= room:
        return table
    return Group(table, Text(f"... and {len(rows) - room} more assets", style="dim"))


def _health_rank(health: str) -> int:
    return BAD_HEALTH.index(health) if health in BAD_HEALTH else len(BAD_HEALTH)


def _note(note: Note, width: int) -> Text:
    text = Text(f"{clock(note.time_ns)} ", style="dim", no_wrap=True, overflow="ellipsis")
    text.append(note.text, f"not dim {note.style}".rstrip())
    text.truncate(width, overflow="ellipsis")
    return text


def _plain_asset(row: AssetRow) -> str:
    parts = [f"{row.asset} {row.health}"]
    if not math.isnan(row.now):
        parts.append(f"{_tenth(row.now)} {row.unit}")
    if not math.isnan(row.conversion):
        parts.append(f"conversion {_percent(row.conversion)}")
    if not math.isnan(row.predicted):
        parts.append(f"in {row.horizon_s:g} s {_tenth(row.predicted)} {row.unit}")
    return " ".join(parts)


def _number(value: float) -> str:
    """Four significant figures or so, at most three decimals: a column of them stays quiet."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:.6g}"


def _nis(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"


def _tenth(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
