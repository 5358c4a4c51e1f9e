"""Digests: whether two folds hold the same state and gave the same outputs, in 64 characters each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Self

from twinloop.loop.state import State

__all__ = ["OutputChain", "state_digest"]


def state_digest(state: State) -> str:
    """SHA-256 of a fold's state, hexadecimal: the small part, then each array by name, with their lengths."""
    digest = hashlib.sha256(b"%d " % len(state.small) + state.small)
    for name in sorted(state.arrays):
        data = state.arrays[name]
        digest.update(f"{name} {memoryview(data).nbytes} ".encode())
        digest.update(data)
    return digest.hexdigest()


class OutputChain:
    """A hash chain: each link is the SHA-256 of the link before and the SHA-256 of one more entry.

    Two chains over as many entries agree only if every entry before did too, byte for byte. The first
    link is 32 zero bytes.
    """

    def __init__(self) -> None:
        self._link = bytes(32)
        self.length = 0

    @classmethod
    def over(cls, entries: Iterable[bytes]) -> Self:
        """The chain over all entries, in order."""
        chain = cls()
        for entry in entries:
            chain.add(entry)
        return chain

    def add(self, entry: bytes) -> None:
        """Add the bytes of one entry, as `encode_outputs` made them."""
        self._link = hashlib.sha256(self._link + hashlib.sha256(entry).digest()).digest()
        self.length += 1

    def digest(self) -> str:
        """The newest link, hexadecimal."""
        return self._link.hex()
