"""`twinloop password`: make of a password the hash that a plant file takes."""

from __future__ import annotations

import getpass
from typing import Final, TextIO

from twinloop.errors import ConfigError
from twinloop.passwords import PasswordHash

__all__ = ["make_hash"]

LEAST: Final = 8


def make_hash(source: TextIO) -> str:
    """The hash of a password typed twice on a terminal, or of the first line that comes.

    Raises:
        ConfigError: it is too short, or was typed differently the second time.
    """
    if source.isatty():
        password = _typed("password: ")
        if _typed("once more: ") != password:
            raise ConfigError("the two passwords differ")
    else:
        password = source.readline().rstrip("\r\n")
    if len(password) < LEAST:
        raise ConfigError(f"too short: a password has {LEAST} characters at least")
    return str(PasswordHash.of(password))


def _typed(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise ConfigError("no password was given") from None
