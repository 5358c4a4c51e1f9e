"""`twinloop export`: a progress bar on a terminal, and what was written."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twinloop.config.plantfile import load
from twinloop.errors import QueryError
from twinloop.exporting import Exported, export, form_of
from twinloop.history import open_queries
from twinloop.timetext import parse_time

__all__ = ["export_with_progress"]

_log = logging.getLogger("twinloop.export")


def export_with_progress(options: argparse.Namespace) -> Exported:
    """Write what was asked for, with a bar on stderr where that is a terminal.

    Raises:
        ConfigError: the plant file cannot be used.
        QueryError: a tag is not known, a time cannot be read, or a file cannot be written.
    """
    path: Path = options.path
    form, now = form_of(path, options.format), time.time_ns()
    start = parse_time(options.start, now) if options.start else None
    end = parse_time(options.end, now) if options.end else None
    if start is not None and end is not None and start >= end:
        raise QueryError(f"the start ({options.start}) is not before the end ({options.end})")
    queries = open_queries(load(options.plant, os.environ))
    progress = Progress(
        TextColumn("writing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tags, {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    try:
        with progress:
            bar = progress.add_task("writing", total=None, rows=0)

            def told(done: Exported) -> None:
                progress.update(bar, completed=done.tags, total=done.of_tags, rows=done.rows)

            done = export(queries, path, form, options.tags, (start, end), told=told)
    finally:
        queries.close()
    tags = "1 tag" if done.tags == 1 else f"{done.tags} tags"
    _log.info("wrote %d rows of %s to %s", done.rows, tags, path)
    return done
