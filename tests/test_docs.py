"""Documentation as an assertion: what a user can meet is documented, and what is documented exists."""

from __future__ import annotations

import argparse
import re
from enum import Enum
from pathlib import Path

import pytest

from twinloop.cli.main import parser
from twinloop.loop.metrics import Metrics
from twinloop.records import DeadReason, EventKind, Health
from twinloop.status import Reason
from twinloop.web.figures import WebFigures

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text() for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]}


@pytest.mark.parametrize("kind", [Reason, EventKind, DeadReason, Health])
def test_every_reason_event_and_health_is_documented(kind: type[Enum]) -> None:
    reference = DOCS["REFERENCE.md"]
    missing = [str(each.name) for each in kind if f"`{each.name}`" not in reference]
    assert not missing


def test_every_metric_is_documented_and_no_other() -> None:
    registry = Metrics().registry
    WebFigures(registry)
    made = {metric.name for metric in registry.collect()}
    named = set(re.findall(r"`(twinloop_\w+)`", DOCS["REFERENCE.md"]))
    bare = {name.removesuffix("_total") for name in named}
    assert bare == made


def subcommands() -> dict[str, argparse.ArgumentParser]:
    actions = parser()._actions
    found = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_every_command_and_option_is_documented(name: str) -> None:
    reference = DOCS["REFERENCE.md"]
    assert f"twinloop {name}" in reference
    section = reference.split(f"### `twinloop {name}")[1].split("\n##")[0]
    for action in subcommands()[name]._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                common = option in {"--log-format", "--debug"}
                assert f"`{option}" in (reference if common else section), f"{name} {option}"


def test_links_between_pages_lead_somewhere() -> None:
    for name, text in DOCS.items():
        folder = ROOT if (ROOT / name).exists() else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (folder / target).exists(), f"{name}: {target}"


def test_the_architecture_page_stays_readable_in_one_sitting() -> None:
    assert len(DOCS["ARCHITECTURE.md"].splitlines()) < 200


def test_the_architecture_page_names_every_room() -> None:
    rooms = [path.name for path in (ROOT / "src" / "twinloop").iterdir() if path.is_dir()]
    missing = [
        f"{room}/" for room in rooms if room != "__pycache__" and f"`{room}/`" not in DOCS["ARCHITECTURE.md"]
    ]
    assert not missing
