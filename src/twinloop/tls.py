"""The TLS context of a connection: which servers are trusted, and what is shown to them."""

from __future__ import annotations

import ssl
from pathlib import Path

from twinloop.errors import ConfigError

__all__ = ["tls_context"]


def tls_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A context that verifies the server, by `ca` or the system's authorities, and may show a certificate.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"tls: ca {ca} cannot be read: {error.strerror or error}") from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except _EncryptedKeyError:
            raise ConfigError(f"tls: key {key} is encrypted; give a key without a passphrase") from None
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"tls: cert {certificate} and key {key} cannot be used: {why}") from None
    return context


class _EncryptedKeyError(Exception):
    """A private key cannot be read without a passphrase."""


def _no_passphrase() -> str:
    """In place of OpenSSL's own question on the terminal, which nobody may be there to answer."""
    raise _EncryptedKeyError
