"""What servers send may be anything: their bytes end a link at most, their texts are made fit to be shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from asyncua.ua.uaerrors import UaError

from twinloop.errors import LinkError

__all__ = ["foreign_bytes", "readable"]

_log = logging.getLogger(__name__)

_LONGEST_TEXT: Final = 300


@contextmanager
def foreign_bytes() -> Iterator[None]:
    """Whatever a server's bytes make asyncua raise is an `UaError`: the link's end, not the program's."""
    try:
        yield
    except (UaError, OSError, LinkError):  # TimeoutError is an OSError
        raise
    except Exception as error:
        _log.debug("an answer that cannot be used", exc_info=True)
        raise UaError(f"{type(error).__name__}: {error}") from error


def readable(text: str) -> str:
    """A server's text, fit for a log line and a record: printable, of whole characters, not long."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])
    return kept if len(text) <= _LONGEST_TEXT else f"{kept}..."
