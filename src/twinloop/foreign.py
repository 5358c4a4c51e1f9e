"""Texts that come from elsewhere, from brokers, servers and payloads, made fit to be shown."""

from __future__ import annotations

from typing import Final

__all__ = ["readable"]

_LONGEST_TEXT: Final = 300


def readable(text: str) -> str:
    """A foreign text, fit for a log line and a record: printable, of whole characters, not long."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])
    return kept if len(text) <= _LONGEST_TEXT else f"{kept}..."
