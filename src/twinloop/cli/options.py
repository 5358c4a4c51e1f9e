"""What `twinloop query ... window`, `export` and `import` take; what they need is loaded when they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from twinloop.errors import QueryError

if TYPE_CHECKING:
    from twinloop.aggregates import Configuration
    from twinloop.config.models import PlantConfig

__all__ = [
    "add_export_options",
    "add_import_options",
    "add_window_options",
    "aggregates_asked_for",
    "rules_asked_for",
]


def add_window_options(query: argparse.ArgumentParser) -> None:
    """Add them to `query`."""
    query.add_argument(
        "--aggregate",
        action="append",
        default=[],
        metavar="NAME,...",
        help="windows by OPC UA Part 13: time_average, minimum, percent_good, ...",
    )
    between = query.add_mutually_exclusive_group()
    between.add_argument("--stepped", action="store_true", default=None, help="a value holds until the next")
    between.add_argument(
        "--sloped", action="store_false", dest="stepped", help="lines join values; default but for booleans"
    )
    query.add_argument("--sloped-extrapolation", action="store_true", help="beyond the last sample, too")
    query.add_argument("--percent-good", type=_percent, default=100.0, metavar="N", help="Good from N %% on")
    query.add_argument("--percent-bad", type=_percent, default=100.0, metavar="N", help="Bad from N %% on")


def add_export_options(command: argparse.ArgumentParser) -> None:
    """Add those of `export`."""
    command.add_argument("plant", type=Path, metavar="PLANT.yaml")
    command.add_argument("path", type=Path, metavar="PATH", help="a .parquet or .csv file, or a directory")
    command.add_argument(
        "tags", nargs="*", metavar="TAG", help="full names; default: all that `latest` shows"
    )
    command.add_argument("--start", metavar="T", help="ISO 8601, or relative to now: -1h; included")
    command.add_argument("--end", metavar="T", help="the same; not included")
    command.add_argument("--format", choices=("parquet", "csv"), help="default: as PATH ends, else parquet")


def add_import_options(command: argparse.ArgumentParser) -> None:
    """Add those of `import`."""
    command.add_argument("plant", type=Path, metavar="PLANT.yaml")
    command.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="time, tag, value[, status]; an export; a directory of them",
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be done")
    command.add_argument("--format", choices=("table", "json"), default="table")


def aggregates_asked_for(options: argparse.Namespace) -> tuple[str, ...]:
    """Names of aggregates, as they were written."""
    return tuple(name for each in options.aggregate for name in each.split(",") if name.strip())


def rules_asked_for(options: argparse.Namespace, config: PlantConfig) -> Configuration | None:
    """How aggregates are worked out; None where none is asked for.

    Raises:
        QueryError: an option goes with `--aggregate` and there is none, or they contradict each other.
    """
    from twinloop.aggregates import Configuration
    from twinloop.history import is_stepped

    if not options.aggregate:
        given = ("stepped", "sloped_extrapolation", "percent_good", "percent_bad")
        if any(getattr(options, name) not in {None, False, 100.0} for name in given):
            raise QueryError("--stepped, --sloped-extrapolation and --percent-... go with --aggregate only")
        return None
    stepped = options.stepped
    if stepped is None:
        stepped = any(is_stepped(config, name) for name in options.names)
    return Configuration(
        treat_uncertain_as_bad=not options.uncertain_as_good,
        percent_data_good=options.percent_good,
        percent_data_bad=options.percent_bad,
        use_sloped_extrapolation=options.sloped_extrapolation,
        stepped=stepped,
    )


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 100, got {text!r}")
    return value
