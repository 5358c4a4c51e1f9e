"""Certificates on disk: twinloop's own, made once and kept, and those of servers, pinned when told to.

    DATA_DIR/own-certificate.der, own-key.der     what every OPC UA source of the plant shows
    DATA_DIR/trusted/SOURCE.der                   what `twinloop trust` has pinned

Any process may make the own certificate: it is written aside and linked into place, so the first one
stands and all that come later, or at the same moment, use it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twinloop.durable import sync_directory
from twinloop.foreign import readable

__all__ = [
    "OWN_CERTIFICATE",
    "Pins",
    "application_uri",
    "decode_certificate",
    "describe",
    "fingerprint",
    "own_certificate",
    "read_certificate",
    "subject_of",
    "uri_of",
]

OWN_CERTIFICATE: Final = "own-certificate.der"
_ASCII: Final = "".join(map(chr, range(128)))
_KEY_BITS: Final = 2048
_VALID: Final = timedelta(days=20 * 365)
_FROM: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""Certificates begin here, so that a server whose clock is somewhat behind takes them."""


def application_uri(plant: str) -> str:
    """The ASCII URI by which servers know the twinloop of a plant on this host."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter in "-.")
    return f"urn:{host if host.isascii() and host else 'localhost'}:twinloop:{quote(plant, safe=_ASCII)}"


def own_certificate(directory: Path, plant: str) -> tuple[Path, Path]:
    """The files of the plant's own certificate and key; made at the first call, then always the same.

    The key's file is readable by its owner only.

    Raises:
        OSError: the directory cannot be read or written.
        ValueError: a file is there and holds no key or certificate.
    """
    certificate, key = directory / OWN_CERTIFICATE, directory / "own-key.der"
    if certificate.exists() and key.exists():
        return certificate, key
    directory.mkdir(parents=True, exist_ok=True)
    if not key.exists():
        made = rsa.generate_private_key(public_exponent=65_537, key_size=_KEY_BITS)
        encoded = made.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _place(key, encoded, mode=0o600, replace=False)
    held = serialization.load_der_private_key(key.read_bytes(), password=None)
    if not isinstance(held, rsa.RSAPrivateKey):
        raise ValueError(f"{key} holds no RSA key")  # noqa: TRY004 - what the other failures raise, too
    encoded = _self_signed(held, plant).public_bytes(serialization.Encoding.DER)
    _place(certificate, encoded, mode=0o644, replace=False)
    return certificate, key


def _self_signed(key: rsa.RSAPrivateKey, plant: str) -> x509.Certificate:
    """An application instance certificate by OPC 10000-6, 6.2.2."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"twinloop {plant}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "twinloop"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # it signs itself, and some servers check that it may
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    host = socket.gethostname()
    uri = x509.UniformResourceIdentifier(application_uri(plant))
    names: list[x509.GeneralName] = [uri, x509.DNSName(host if host.isascii() and host else "localhost")]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    # Key and extended uses must fit both sides: there are servers that ask for both of a client.
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(max(datetime.now(UTC), _FROM) + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(uses, critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(authority, critical=False)
        .sign(key, hashes.SHA256())
    )


class Pins:
    """The server certificates that `twinloop trust` has pinned, one a source.

    Args:
        directory: the data directory's `trusted`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, source: str) -> Path:
        """Where a source's pin is, or would be."""
        return self._directory / f"{source}.der"

    def load(self, source: str) -> x509.Certificate | None:
        """The certificate pinned for a source; None where there is none.

        Raises:
            OSError: it cannot be read.
            ValueError: the file is no certificate.
        """
        try:
            return read_certificate(self.path(source))
        except FileNotFoundError:
            return None

    def pin(self, source: str, certificate: x509.Certificate) -> None:
        """Trust this certificate, and no other, for a source; durable when it returns.

        Raises:
            OSError: it cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        encoded = certificate.public_bytes(serialization.Encoding.DER)
        _place(self.path(source), encoded, mode=0o644, replace=True)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file, PEM or DER by its content, whatever its name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no certificate.
    """
    return decode_certificate(path.read_bytes())


def decode_certificate(data: bytes) -> x509.Certificate:
    """The (first) certificate in PEM or DER; servers may send their issuers' behind their own.

    Raises:
        ValueError: there is none.
    """
    if data.lstrip().startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data[: _der_length(data)])


def _der_length(data: bytes) -> int:
    """Bytes of the DER structure at the beginning: what follows is another one's."""
    if len(data) < 2 or data[1] < 0x80:
        return len(data)
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as people compare it: pairs of digits between colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def uri_of(certificate: x509.Certificate) -> str:
    """The application URI in a certificate; empty where it has none that can be read. Never raises."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def subject_of(certificate: x509.Certificate) -> str:
    """Whose certificate it says it is, fit to be shown. Never raises: names are decoded late."""
    return _name(lambda: certificate.subject)


def _name(found: Callable[[], x509.Name]) -> str:
    try:
        return readable(found().rfc4514_string())
    except Exception:  # noqa: BLE001 - foreign bytes: not UTF-8, no string at all
        return "unreadable"


def describe(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """What a person compares before trusting a certificate, as labels and texts."""
    valid = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
    return [
        ("subject", subject_of(certificate)),
        ("issuer", _name(lambda: certificate.issuer)),
        ("application URI", readable(uri_of(certificate)) or "none"),
        ("valid", valid),
        ("SHA-256", fingerprint(certificate)),
    ]


def _place(path: Path, content: bytes, *, mode: int, replace: bool) -> None:
    """Put a whole file in its place, durably; without `replace`, one that is there already stays."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            aside.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(aside)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)
