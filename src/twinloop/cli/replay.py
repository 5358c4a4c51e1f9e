"""`twinloop replay --from-log`: a progress bar on a terminal, and what came of it."""

from __future__ import annotations

import logging
import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twinloop.loop.refold import Folded, Span
from twinloop.present import time_text
from twinloop.replaying import Recording, ReplayReport, replay_log

__all__ = ["replay_with_progress"]

_log = logging.getLogger("twinloop.replay")


async def replay_with_progress(recording: Recording) -> ReplayReport:
    """Fold the recording, with a bar on stderr where that is a terminal; says at the end what it did.

    Raises:
        ConfigError, QueryError, LogError: as `replay_log`.
    """
    began = time.monotonic()
    progress = Progress(
        TextColumn("folding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records, at {task.fields[at]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        bar = progress.add_task("folding", total=None, at="...")

        def told(folded: Folded, span: Span) -> None:
            done, total = folded.last - span.after, span.last - span.after
            at = time_text(folded.last_ns) if folded.last_ns > 0 else "..."
            progress.update(bar, completed=done, total=total, at=at)

        report = await replay_log(recording, os.environ, told)
    _say(report, time.monotonic() - began)
    return report


def _say(report: ReplayReport, took_s: float) -> None:
    begin = f"the checkpoint at {report.checkpoint}" if report.checkpoint >= 0 else "an empty state"
    _log.info(
        "folded %d records from %s in %.1f s: %d samples, %d outputs, in %s",
        report.records,
        begin,
        took_s,
        report.samples,
        report.outputs,
        report.directory,
    )
    _log.info("state after record %d: sha256 %s", report.last, report.state_digest)
    _log.info("outputs: hash chain of %d: sha256 %s", report.outputs, report.outputs_digest)
    for offset in report.agreed:
        _log.info("the live state after record %d is the same, bit for bit", offset)
    for offset in report.differed:
        _log.warning(
            "the live state after record %d is another: the plant file or twinloop itself has changed since "
            "some of these records were folded",
            offset,
        )
