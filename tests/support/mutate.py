"""Seeded damage: what a worn line, a hostile publisher or a torn disk makes of sound bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

__all__ = ["Mutator"]

_EDGES: Final = (
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xc0",
    b"\xff",
    b'"',
    b"{",
    b"[",
    b"]",
    b"}",
    b",",
    b"-",
    b"e",
    b"9",
)
_WIDE: Final = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
)


class Mutator:
    """Damages texts of a corpus, the same way for the same seed.

    Args:
        seed: of the generator.
        corpus: sound inputs.
        tokens: pieces that mean something to the reader under test.
        in_place: how much of the damage leaves lengths as they were; binary formats are refused at the
            first wrong length, and what lies behind it would never be tried.
    """

    def __init__(
        self, seed: int, corpus: Sequence[bytes], tokens: Sequence[bytes] = (), *, in_place: float = 0.0
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - damage need not be secret
        self._corpus = corpus
        self._in_place = in_place
        self._tokens = (*_EDGES, *_WIDE, *tokens)

    def next(self) -> bytes:
        """A sound input with one to four wounds; one in ten is left whole."""
        return self.damaged(self.random.choice(self._corpus))

    def damaged(self, sound: bytes) -> bytes:
        """The same for an input of the caller's."""
        data = bytearray(sound)
        wounds = min(4, 1 + int(self.random.expovariate(1.2))) if self.random.random() > 0.1 else 0
        for _ in range(wounds):
            self._wound(data)
        return bytes(data)

    def _wound(self, data: bytearray) -> None:
        pick = self.random
        kind = pick.choice((0, 1, 5)) if pick.random() < self._in_place else pick.randrange(8)
        at = pick.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << pick.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = pick.randrange(256)
        elif kind == 2:
            data[at : at + pick.randrange(1, 9)] = b""
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = pick.choice(self._tokens)
        elif kind == 5:
            token = pick.choice(self._tokens)
            data[at : at + len(token)] = token[: len(data) - at]
        elif kind == 6:
            data[at:at] = data[at : at + pick.randrange(1, 33)] * pick.randrange(1, 4)
        else:
            other = pick.choice(self._corpus)
            begin = pick.randrange(len(other) + 1)
            data[at:] = other[begin:]
