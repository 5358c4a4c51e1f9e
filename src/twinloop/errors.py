"""One class per reaction: what a caller does next, not where the error came from.

    TwinloopError
    ├── ConfigError       refuse to start; the message names file, line and key
    ├── StartError        refuse to start for now: a port or a data directory is taken
    ├── LinkError         back off and connect again
    ├── PayloadError      put the bytes in the dead letters and go on
    ├── StoreBusy         wait, then deliver the same outputs again
    ├── LogError          the log cannot take or give a record: stop taking data, say why
    │   ├── LogGap        entries are gone for good: say so and read on after them
    │   └── SpoolDamage   a spool file holds nothing that can be read: set it aside, count it, go on
    ├── EstimationError   reset that belief, report DIVERGED
    └── QueryError        tell the asking user; nothing else is affected

Anything that is not a `TwinloopError` is a bug and stops the program.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "EstimationError",
    "LinkError",
    "LogError",
    "LogGap",
    "PayloadError",
    "QueryError",
    "SpoolDamage",
    "StartError",
    "StoreBusy",
    "TwinloopError",
]


class TwinloopError(Exception):
    """Every error a user can do something about; its text is one paragraph without a traceback."""


class ConfigError(TwinloopError):
    """The plant file, or what it names, cannot be used: nothing is started (exit code 2)."""


class StartError(TwinloopError):
    """Something this run needs for itself is taken or missing: nothing is started (exit code 1)."""


class LinkError(TwinloopError):
    """A source cannot be reached or went away: the supervisor backs off and connects again."""


class PayloadError(TwinloopError):
    """One message cannot be used.

    Args:
        reason: a `twinloop.records.DeadReason` value, stored with the dead letter.
        detail: what was wrong, in words, without the payload itself.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StoreBusy(TwinloopError):  # noqa: N818 - a request to wait, not a failure
    """The store asks for time; deliver the same outputs again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogError(TwinloopError):
    """A log cannot append or read: disk full, no permission, in use by another process."""


class LogGap(LogError):  # noqa: N818 - a place to read on from, not a failure
    """The entries a reader asks for are gone for good: trimmed, dropped to make room, or damaged.

    Args:
        log: which log.
        first, last: the offsets that are gone; what is left begins after `last`.
    """

    def __init__(self, log: str, first: int, last: int) -> None:
        super().__init__(f"offsets {first} to {last} of the log {log} are gone (trimmed, dropped or damaged)")
        self.first = first
        self.last = last


class SpoolDamage(LogError):  # noqa: N818 - what a file is, not what failed
    """The bytes of a spool file are none that a spool writes: reading it again would not help."""


class EstimationError(TwinloopError):
    """The numbers of one belief or model stopped making sense: it is reset and reported."""


class QueryError(TwinloopError):
    """A query names something that is not there, or asks for what cannot be had."""
