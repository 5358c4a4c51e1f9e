"""A certificate authority, and certificates it signs: for a server, for a client, or expired."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Certificates", "make_certificates"]

_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority to trust, a certificate and its key."""

    authority: Path
    certificate: Path
    key: Path


class Authority:
    """Signs what a test asks for; its own certificate is `NAME.pem` in `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = f"test authority {name}"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"{name}.pem"
        certificate = self._signed(self._name, self._key.public_key(), (), valid_days=1)
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = _LOCAL,
        valid_days: float = 1.0,
        files: str | None = None,
    ) -> Certificates:
        """A new key and a certificate for it.

        Args:
            name: its common name.
            hosts: names and addresses it is good for.
            valid_days: until when; negative for one that has expired.
            files: stem of the files; the name by default.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, key.public_key(), hosts, valid_days=valid_days)
        stem = files or name
        made = Certificates(self.path, self._directory / f"{stem}.pem", self._directory / f"{stem}.key")
        made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def _signed(
        self, name: str, public_key: ec.EllipticCurvePublicKey, hosts: tuple[str, ...], *, valid_days: float
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        is_authority = name == self._name
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=valid_days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def make_certificates(directory: Path) -> Certificates:
    """Write a new authority and a certificate for 127.0.0.1 and localhost into `directory`."""
    return Authority(directory).sign("localhost", files="server")
