"""`twinloop query`: questions as users write them, put to a store, and the answer written out."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from twinloop.aggregates import Configuration
from twinloop.aggregates.asking import ask_aggregates
from twinloop.cli.options import aggregates_asked_for, rules_asked_for
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import QueryError
from twinloop.history import open_queries
from twinloop.present import write
from twinloop.stores.queries import LocalQueries
from twinloop.timetext import parse_duration, parse_time, time_text
from twinloop.workplace import holder_of

__all__ = ["Question", "What", "answer", "ask"]

_log = logging.getLogger("twinloop.query")

What = Literal["latest", "range", "window", "events", "dead", "snapshots"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question; times and durations as text.

    Attributes:
        what: which.
        names: tags (or one asset, for `snapshots`).
        start, end: `2026-01-01T00:00:00Z`, `-1h`, `now`; None is open.
        every: width of a window.
        uncertain_as_good: windows count Uncertain values too.
        summary: dead letters are counted by source, origin and reason.
        settled: dead letters that were fed again are shown, too.
        aggregates: windows have these, by OPC UA Part 13, in place of mean, min and max.
        rules: how they are worked out.
    """

    what: What
    names: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    every: str | None = None
    uncertain_as_good: bool = False
    summary: bool = False
    settled: bool = False
    aggregates: tuple[str, ...] = ()
    rules: Configuration | None = None


def answer(options: argparse.Namespace) -> None:
    """Put the question of a command line and write the answer to stdout or a file.

    Raises:
        ConfigError: the plant file cannot be used.
        QueryError: a name is unknown, the question is not complete, or a file cannot be written.
    """
    config = load(options.plant, os.environ)
    question = Question(
        what=options.what,
        names=tuple(options.names),
        start=options.start,
        end=options.end,
        every=options.every,
        uncertain_as_good=options.uncertain_as_good,
        summary=options.summary,
        settled=options.all,
        aggregates=aggregates_asked_for(options),
        rules=rules_asked_for(options, config),
    )
    table = ask(open_queries(config), question, time.time_ns())
    terminal = options.output is None and sys.stdout.isatty()
    write(table, options.what, options.format, options.output or sys.stdout, terminal=terminal)
    if options.what == "latest":
        _tell_where_nothing_runs(config, table)


def _tell_where_nothing_runs(config: PlantConfig, table: pa.Table) -> None:
    """Nobody finds a tag silent where no twin runs: its last sample stands there, Good for ever."""
    newest = pc.max(table["time"]).cast(pa.int64()).as_py()
    try:
        if newest is None or not config.data_dir.is_dir() or holder_of(config.data_dir):
            return
    except OSError:  # a lock that cannot be looked at: nobody knows
        return
    last = time_text(newest)
    _log.warning("no twin runs on %s: these are its last values, none newer than %s", config.data_dir, last)


def ask(queries: LocalQueries, question: Question, now_ns: int) -> pa.Table:
    """The answer, with columns as in `twinloop.stores.store`.

    Raises:
        QueryError: a name is unknown, or the question is not complete.
    """
    start = parse_time(question.start, now_ns) if question.start else None
    end = parse_time(question.end, now_ns) if question.end else None
    names = question.names
    if start is not None and end is not None and start >= end:
        raise QueryError(f"the start ({question.start}) is not before the end ({question.end})")
    if question.what != "dead" and (question.summary or question.settled):
        raise QueryError(f"--{'summary' if question.summary else 'all'} goes with `dead` only")
    if question.what != "window" and question.aggregates:
        raise QueryError("--aggregate goes with `window` only")
    if question.what == "latest":
        return queries.latest(names)
    if question.what in {"events", "dead"}:
        return _told(queries, question, start, end)
    if question.what == "snapshots":
        return _snapshots(queries, names, start, end)
    if len(names) != 1:
        raise QueryError(f"`{question.what}` takes exactly one tag, ASSET.tag")
    if question.what == "range":
        return queries.range(names[0], start, end)
    return _windows(queries, question, start, end)


def _windows(queries: LocalQueries, question: Question, start: int | None, end: int | None) -> pa.Table:
    if question.every is None:
        raise QueryError("`window` needs --every, such as --every 1m")
    tag, every_ns = question.names[0], parse_duration(question.every)
    if question.aggregates:
        rules, chosen = question.rules or Configuration(), question.aggregates
        return ask_aggregates(queries, tag, every_ns, start, end, names=chosen, configuration=rules)
    return queries.window(tag, every_ns, start, end, uncertain_as_good=question.uncertain_as_good)


def _told(queries: LocalQueries, question: Question, start: int | None, end: int | None) -> pa.Table:
    if question.names:
        raise QueryError(f"`{question.what}` takes no names")
    if question.what == "events":
        return queries.events(start, end)
    told = queries.dead_summary if question.summary else queries.dead
    return told(start, end, settled=question.settled)


def _snapshots(queries: LocalQueries, names: tuple[str, ...], start: int | None, end: int | None) -> pa.Table:
    if len(names) > 1:
        raise QueryError("`snapshots` takes one asset, or none for all")
    if names and names[0] not in queries.assets:
        near = difflib.get_close_matches(names[0], queries.assets, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(queries.assets)}"
        raise QueryError(f"no asset {names[0]!r}{hint}")
    return queries.snapshots(names[0] if names else None, start, end)
