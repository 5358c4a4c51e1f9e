"""What servers send may be anything: their bytes end a link at most."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from asyncua.ua.uaerrors import UaError

from twinloop.errors import LinkError

__all__ = ["foreign_bytes"]

_log = logging.getLogger(__name__)


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
