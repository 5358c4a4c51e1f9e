"""Questions as users write them, put to a store."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from twinloop.aggregates import Configuration
from twinloop.aggregates.asking import ask_aggregates
from twinloop.errors import QueryError
from twinloop.stores.queries import LocalQueries
from twinloop.timetext import parse_duration, parse_time

__all__ = ["Question", "What", "ask"]

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
