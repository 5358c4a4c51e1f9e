"""`twinloop diff`: what differs between two directories, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from twinloop.compare import Difference
from twinloop.present import time_text, to_table

__all__ = ["render_difference"]


def render_difference(found: Difference, form: str, *, terminal: bool) -> str:
    """A difference as text.

    Args:
        found: what was found.
        form: `table` or `json`.
        terminal: whether a person's terminal shows it.
    """
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(_plain(found)), indent=2).decode() + "\n"
    return "\n".join(_sections(found, terminal=terminal))


def _plain(found: Difference) -> Any:
    """Builtins with times as text, and no key that says `ns`."""
    made = msgspec.to_builtins(found)
    for key, name in (("from_ns", "from"), ("to_ns", "to")):
        at = made.pop(key)
        made[name] = None if at is None else time_text(at)
    for row in (*made["estimates"], *made["models"]):
        row["max_at"] = time_text(row["max_at"])
    for judgement in made["judgements"]:
        for example in judgement["examples"]:
            example["time"] = time_text(example["time"])
    return made


def _sections(found: Difference, *, terminal: bool) -> Sequence[str]:
    low = "the beginning" if found.from_ns is None else time_text(found.from_ns)
    high = "the end" if found.to_ns is None else time_text(found.to_ns)
    head = (
        f"A: {found.a}\nB: {found.b}\n"
        f"{found.compared} samples compared, from {low} to {high}: {found.judged_otherwise} judged "
        f"otherwise, {found.values_otherwise} of another value, {found.only_a} only in A, "
        f"{found.only_b} only in B\n"
        f"{found.events_added} events added, {found.events_gone} gone\n"
    )
    parts = [head]
    if found.is_none:
        parts.append("nothing differs\n")
    turns = [(each.tag, each.before, each.after, str(each.count)) for each in found.severities]
    judged = [
        (each.tag, each.reason or "(status)", str(each.added), str(each.gone), _examples(each.examples))
        for each in found.judgements
    ]
    events = [
        (each.kind, each.subject, str(each.added), str(each.gone), "; ".join(each.examples))
        for each in found.events
    ]
    estimates = [
        (each.tag, str(each.compared), each.max, time_text(each.max_at), each.rms) for each in found.estimates
    ]
    models = [
        (each.asset, each.state, str(each.compared), each.max, time_text(each.max_at), each.rms)
        for each in found.models
    ]
    titled = (
        ("severities", "tag A B samples", turns),
        ("samples judged otherwise", "tag reason added gone examples", judged),
        ("events", "kind subject added gone examples", events),
        ("estimates", "tag compared max max_at rms", estimates),
        ("model states", "asset state compared max max_at rms", models),
    )
    for title, names, rows in titled:
        if rows:
            columns = dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True))
            parts.append(f"{title}\n{to_table(pa.table(columns), terminal=terminal)}")
    return parts


def _examples(examples: Sequence[Any]) -> str:
    told = []
    for each in examples:
        value = "" if each.value is None or math.isnan(each.value) else f" {each.value:.7g}"
        told.append(f"{time_text(each.time)}{value} {each.a} -> {each.b}")
    return "; ".join(told)
