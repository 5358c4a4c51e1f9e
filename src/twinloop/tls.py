"""The TLS context of a connection: which servers are trusted, and what is shown to them."""

from __future__ import annotations

import ssl
from pathlib import Path

from twinloop.errors import ConfigError

__all__ = ["renew", "server_context", "tls_context"]


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
        _show(context, certificate, key)
    return context


def _show(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _EncryptedKeyError:
        raise ConfigError(f"tls: key {key} is encrypted; give a key without a passphrase") from None
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"tls: cert {certificate} and key {key} cannot be used: {why}") from None


class _EncryptedKeyError(Exception):
    """A private key cannot be read without a passphrase."""


def _no_passphrase() -> str:
    """In place of OpenSSL's own question on the terminal, which nobody may be there to answer."""
    raise _EncryptedKeyError


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for who is connected to: what it shows, TLS 1.2 at least.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _show(context, certificate, key)
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let a context show a newer certificate from its next connection on.

    Raises:
        ConfigError: as for `server_context`; it shows the old one then.
    """
    server_context(certificate, key)
    _show(context, certificate, key)
