"""`twinloop refeed`: what became of dead letters, for people and for programs."""

from __future__ import annotations

import json
from typing import Final

import pyarrow as pa

from twinloop.present import to_table
from twinloop.refeeding import Refed

__all__ = ["render_refed", "set_aside_in_words"]

_STAYS: Final = ("source", "origin", "reason", "count", "why")
_MOST_SHOWN: Final = 50


def render_refed(report: Refed, form: str, *, dry_run: bool, terminal: bool) -> str:
    """A report as text.

    Args:
        report: what was done.
        form: `table` or `json`.
        dry_run: whether nothing was.
        terminal: whether a person's terminal shows it.
    """
    stays = [
        dict(zip(_STAYS, (stay.source, stay.origin, stay.reason, count, stay.why), strict=True))
        for stay, count in sorted(report.stays.items(), key=lambda each: (-each[1], each[0]))
    ]
    if form == "json":
        numbers = ("letters", "readable", "samples", "fed", "became", "waiting", "refused", "set_aside")
        made = {name: getattr(report, name) for name in numbers}
        return json.dumps({**made, "dry_run": dry_run, "stays": stays}, indent=2, ensure_ascii=False) + "\n"
    text = ""
    if stays:
        text += to_table(pa.Table.from_pylist(stays[:_MOST_SHOWN]), terminal=terminal)
    if len(stays) > _MOST_SHOWN:
        text += f"and {len(stays) - _MOST_SHOWN} more kinds (--format json has all)\n"
    return f"{text}{_in_words(report, dry_run=dry_run)}\n"


def _in_words(report: Refed, *, dry_run: bool) -> str:
    stay = report.stays.total()
    damaged = set_aside_in_words(report.set_aside)
    if not report.letters and not report.fed:
        return f"nothing to do: there is no such dead letter{damaged}"
    if not report.readable and not report.fed:
        return f"nothing to do: {_letters(stay)} cannot be read as the plant file is{damaged}"
    if dry_run:
        return (
            f"{_letters(report.readable)} would become {report.samples} samples, {stay} would stay; "
            "nothing was done"
        )
    said = f"{_letters(report.fed)} became {report.became} samples, {stay} stay"
    if report.waiting:
        said += (
            f"; {report.waiting} wait for the process that has the data directory, or for the next "
            "`twinloop run`"
        )
    if report.refused:
        said += (
            f"; {report.refused} were refused by the running twin, which has the plant file as it was at its "
            "start: start it again, then feed them again"
        )
    return said + damaged


def set_aside_in_words(files: int) -> str:
    """What to add where spool files were found damaged; nothing where none was."""
    if not files:
        return ""
    which = "1 spool file was" if files == 1 else f"{files} spool files were"
    return f"; {which} damaged and set aside as `.damaged`: what was in there is not taken in"


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"
