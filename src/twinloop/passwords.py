"""A password as text that may stand in a file: salted, stretched by scrypt, and never to be read back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["PasswordHash"]

_NAME: Final = "scrypt"
_LOG2_N: Final = 15
_R: Final = 8
_P: Final = 3
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password: scrypt's parameters, a salt and the key; as text `scrypt:15:8:3:SALT:KEY`.

    There is no `$` in the text, so that shells, env files and plant files take it as it stands.
    """

    log2_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @classmethod
    def of(cls, password: str) -> Self:
        """The hash of a password, with a fresh salt; takes a quarter of a second and 32 MiB."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(_LOG2_N, _R, _P, salt, _derived(password, salt, (_LOG2_N, _R, _P), _KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`.

        Raises:
            ValueError: it is no such text, or one that no machine could check; the text is not shown.
        """
        name, *rest = text.strip().split(":")
        if name != _NAME or len(rest) != 5 or not all(each.isascii() and each.isdigit() for each in rest[:3]):
            raise ValueError("expected a hash as `twinloop password` prints it (it is not shown here)")
        log2_n, r, p = (int(each[:3]) for each in rest[:3])
        try:
            salt, key = (_bytes_of(each) for each in rest[3:])
        except (binascii.Error, ValueError):
            raise ValueError("the password's hash is cut off or damaged (it is not shown here)") from None
        sane = 1 <= log2_n <= 24 and 1 <= r <= 64 and 1 <= p <= 64 and _memory((log2_n, r, p)) <= _MOST_BYTES
        if not sane or len(salt) < 8 or not 16 <= len(key) <= 64:
            raise ValueError("the password's hash has parameters that cannot be used")
        return cls(log2_n, r, p, salt, key)

    def fits(self, password: str) -> bool:
        """Whether a password is the one; takes as long for a wrong one."""
        derived = _derived(password, self.salt, (self.log2_n, self.r, self.p), len(self.key))
        return hmac.compare_digest(derived, self.key)

    def __str__(self) -> str:
        salt, key = (base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (self.salt, self.key))
        return f"{_NAME}:{self.log2_n}:{self.r}:{self.p}:{salt}:{key}"

    def __repr__(self) -> str:
        return "PasswordHash(...)"


def _derived(password: str, salt: bytes, cost: tuple[int, int, int], size: int) -> bytes:
    log2_n, r, p = cost
    # One way to write a letter with an accent is as good as another.
    text = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=2 * _MOST_BYTES, dklen=size)


def _memory(cost: tuple[int, int, int]) -> int:
    log2_n, r, p = cost
    return 128 * r * ((1 << log2_n) + p)


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
