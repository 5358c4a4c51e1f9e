"""`twinloop check`: is the plant file right, can everything be reached, and what does each tag say now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

import pyarrow as pa

from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import read
from twinloop.errors import LinkError
from twinloop.linking import check_sources
from twinloop.present import time_text, to_table
from twinloop.sources.source import Reading, Source
from twinloop.storing import look_at_store
from twinloop.workplace import borrowed_workplace

__all__ = ["check"]

_COLUMNS: Final = pa.schema(
    [
        (name, pa.string())
        for name in ("source", "tag", "value", "unit", "status", "time", "address", "problem")
    ]
)


async def check(path: Path, env: Mapping[str, str], out: TextIO, within_s: float) -> int:
    """Connect to every source and to the store, read each tag once, print it all; returns the problems.

    Sessions are its own: a running twin of the same plant is not disturbed.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from.
        out: where the table goes.
        within_s: how long each source may take, seconds.

    Raises:
        ConfigError: the plant file cannot be used.
    """
    loaded = read(path, env)
    with borrowed_workplace(loaded.config) as place:
        sources = check_sources(place)
        looking = asyncio.create_task(_store(loaded.config, within_s))
        answers = await asyncio.gather(*[_ask(source, within_s) for source in sources])
        kept, unkept = await looking
        fed = {reading.tag for _, readings in answers for reading in readings if not reading.problem}
        orphans = [tag.name for _, tag in place.table.items() if tag.name not in fed]
    named = {reading.tag for _, readings in answers for reading in readings}
    units = {tag.name: tag.unit for _, tag in place.table.items()}
    table = _table(sources, [readings for _, readings in answers], units)
    if len(table):
        out.write(to_table(table, terminal=out.isatty()))
    lines = [*loaded.warnings, *(problem for problem, _ in answers if problem)]
    lines += [each for each in (kept, unkept) if each]
    problems = sum(bool(problem) + _count(readings) for problem, readings in answers) + bool(unkept)
    if not any(problem for problem, _ in answers):
        lost = [name for name in orphans if name not in named]
        lines += [f"no source feeds {name}" for name in lost]
        problems += len(lost)
    lines.append("all is well" if not problems else f"problems: {problems}")
    out.writelines(f"{line}\n" for line in lines)
    return problems


def _count(readings: list[Reading]) -> int:
    return sum(bool(reading.problem) for reading in readings)


async def _ask(source: Source, within_s: float) -> tuple[str, list[Reading]]:
    try:
        return "", await source.check(within_s)
    except LinkError as error:
        return str(error), []


async def _store(config: PlantConfig, within_s: float) -> tuple[str, str]:
    """What to say of a store on a server, and what is wrong with it; nothing of the embedded one."""
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.to_thread(look_at_store, config)
    except TimeoutError:
        return "", f"store: no answer within {within_s:g} s"


def _table(sources: list[Source], answers: list[list[Reading]], units: Mapping[str, str]) -> pa.Table:
    rows = [
        {
            "source": source.name,
            "tag": reading.tag,
            "value": reading.value,
            "unit": reading.unit or (units.get(reading.tag, "") if reading.value else ""),
            "status": reading.status,
            "time": time_text(reading.time_ns) if reading.time_ns else "",
            "address": reading.address,
            "problem": reading.problem,
        }
        for source, readings in zip(sources, answers, strict=True)
        for reading in readings
    ]
    return pa.Table.from_pylist(rows, _COLUMNS)
