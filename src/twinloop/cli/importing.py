"""`twinloop import`: a progress bar on a terminal, and what became of the rows."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Final

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twinloop.cli.refeed import set_aside_in_words
from twinloop.importing import Imported, import_files, rows_in
from twinloop.present import to_table

__all__ = ["import_with_progress", "render_imported"]

_BURIED: Final = ("reason", "count", "first", "detail")


async def import_with_progress(options: argparse.Namespace) -> Imported:
    """Take the files in, with a bar on stderr where that is a terminal.

    Raises:
        ConfigError, StartError, LogError, QueryError: as `import_files`.
    """
    terminal = sys.stderr.isatty()
    progress = Progress(
        TextColumn("taking in"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not terminal,
    )
    with progress:
        bar = progress.add_task("taking in", total=rows_in(options.files) if terminal else None)

        def told(report: Imported) -> None:
            progress.update(bar, completed=report.done)

        return await import_files(
            options.plant, os.environ, options.files, dry_run=options.dry_run, told=told
        )


def render_imported(report: Imported, form: str, *, dry_run: bool, terminal: bool) -> str:
    """A report as text: `table` or `json`."""
    buried = [
        dict(zip(_BURIED, (kind.reason, count, report.first[kind], kind.detail), strict=True))
        for kind, count in report.buried.most_common()
    ]
    if form == "json":
        numbers = ("files", "rows", "taken", "duplicates", "differ", "late", "waiting", "set_aside")
        made = {name: getattr(report, name) for name in numbers}
        made |= {
            "stopped": report.stopped,
            "tags": len(report.tags),
            "buried": report.buried.total(),
            "dry_run": dry_run,
        }
        return json.dumps({**made, "why_buried": buried}, indent=2, ensure_ascii=False) + "\n"
    text = to_table(pa.Table.from_pylist(buried), terminal=terminal) if buried else ""
    return f"{text}{_in_words(report, dry_run=dry_run)}\n"


def _in_words(report: Imported, *, dry_run: bool) -> str:
    verb = "would be taken" if dry_run else "taken"
    tags = "1 tag" if len(report.tags) == 1 else f"{len(report.tags)} tags"
    said = f"{report.taken} of {report.rows} rows {verb}, of {tags}"
    if report.duplicates:
        said += f"; {report.duplicates} were there already"
    if report.differ:
        said += f"; {report.differ} differ from what is stored, or came before, for their time, which stays"
    if report.late:
        said += (
            f"; {report.late} are older than what their tag has: LATE, and so judged by their range alone, "
            "not by spike, rate limit, z-score or stuck (`replay` of a fresh data_dir judges all)"
        )
    if report.buried:
        buried = report.buried.total()
        said += "; 1 became a dead letter" if buried == 1 else f"; {buried} became dead letters"
    if report.waiting:
        said += "; some wait for the process that has the data directory, or for the next `twinloop run`"
    if report.stopped:
        said += (
            "; the import ended there, with rows it has not looked at: once those are taken in, import again"
        )
    return said + set_aside_in_words(report.set_aside)
