"""Whom the channel is opened with: the endpoint asked for, the certificate trusted, the password kept.

asyncua encrypts and signs. What is decided here is what it leaves open: it takes whichever certificate the
server shows, and sends a password in clear text where the server asks for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from twinloop.errors import LinkError
from twinloop.foreign import readable
from twinloop.sources.opcua.certificates import (
    Pins,
    application_uri,
    decode_certificate,
    fingerprint,
    own_certificate,
    read_certificate,
    subject_of,
    uri_of,
)
from twinloop.sources.opcua.foreign import foreign_bytes
from twinloop.sources.opcua.options import OpcuaOptions, policy_sentence, translate

__all__ = ["GuardedClient", "explain", "own_files", "secure", "server_certificate"]

_log = logging.getLogger(__name__)

_POLICIES: Final[dict[str, type[security_policies.SecurityPolicy]]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128Sha256RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256Sha256RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_URIS: Final = {name: policy.URI for name, policy in _POLICIES.items()} | {
    "None": security_policies.SecurityPolicyNone.URI
}
# How well a password is wrapped, best last; what stands nowhere here is worse than anything.
_WRAPPINGS: Final = [
    _URIS["Aes128Sha256RsaOaep"],
    _URIS["Basic256Sha256"],
    _URIS["Aes256Sha256RsaPss"],
]
_CLEAR: Final = {None, "", _URIS["None"]}


class GuardedClient(Client):
    """asyncua's client; it sends no password in clear text unless it may, and wraps it as well as it can."""

    def __init__(self, options: OpcuaOptions) -> None:
        super().__init__(
            options.endpoint,
            timeout=options.connect_timeout_s,
            watchdog_intervall=options.connect_timeout_s / 2,
        )
        self._options = options
        self.name = self.description = "twinloop"
        self.application_uri = application_uri(options.plant)
        self.session_timeout = int(options.session_timeout_s * 1000)
        if options.username is not None:
            self.set_user(options.username)
            self.set_password(options.password or "")

    def server_policy(self, token_type: ua.UserTokenType) -> ua.UserTokenPolicy:
        """The server's best policy for a kind of user: asyncua takes the first, and it may be the worst."""
        own = self.security_policy.URI
        known = [policy for policy in self._policy_ids if policy.TokenType == token_type]
        if not known:
            return super().server_policy(token_type)
        for policy in known:
            policy.SecurityPolicyUri = policy.SecurityPolicyUri or own
        return max(known, key=lambda policy: _rank(policy.SecurityPolicyUri))

    def _add_user_auth(
        self, params: ua.ActivateSessionParameters, username: str | None, password: str | None
    ) -> None:
        clear = self.server_policy(ua.UserTokenType.UserName).SecurityPolicyUri in _CLEAR
        if clear and password and self.security_policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
            options = self._options
            where = f"{options.name}: {options.endpoint}"
            if not options.insecure:
                raise LinkError(
                    f"{where}: the server takes the password in clear text only, so it was not sent; set "
                    "`security: {policy: Basic256Sha256}`, or `insecure: true` where the network is trusted"
                )
            _log.warning("%s: the password was sent in clear text (insecure: true)", where)
        super()._add_user_auth(params, username, password)


def _rank(uri: str | None) -> int:
    return _WRAPPINGS.index(uri) + 1 if uri in _WRAPPINGS else 0 if uri not in _CLEAR else -1


async def secure(client: GuardedClient, options: OpcuaOptions) -> None:
    """Prepare a client for the channel its options ask for.

    Raises:
        LinkError: own files cannot be used, the server lacks the endpoint, or its certificate is not trusted.
        UaError, OSError: as asyncua raises them.
    """
    if options.user_certificate is not None and options.user_key is not None:
        client.user_certificate, client.user_private_key = _pair(
            options, options.user_certificate, options.user_key
        )
    security = options.security
    if security.policy == "None":
        return
    files = await asyncio.to_thread(own_files, options)
    own, key = _pair(options, *files)
    # Servers compare the application URI of the session with the one in the certificate.
    client.application_uri = uri_of(own) or client.application_uri
    server = await server_certificate(options)
    with foreign_bytes():
        _verify(server, options)
    encoded = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with foreign_bytes():
        await client.set_security(
            _POLICIES[security.policy],
            _der(own),
            uacrypto.CertProperties(encoded, "der"),
            server_certificate=_der(server),
            mode=ua.MessageSecurityMode[security.mode],
        )


def own_files(options: OpcuaOptions) -> tuple[Path, Path]:
    """This client's certificate and key: those of the plant file, or its own, made where there is none yet.

    Raises:
        LinkError: it cannot be made.
    """
    security = options.security
    if security.certificate is not None and security.private_key is not None:
        return security.certificate, security.private_key
    if security.own is None:
        raise LinkError(f"{options.name}: security policy {security.policy} needs `cert` and `key`")
    try:
        return own_certificate(security.own, options.plant)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise LinkError(
            f"{options.name}: no own certificate can be made or read in {security.own}: {why}"
        ) from error


def _pair(options: OpcuaOptions, certificate: Path, key: Path) -> tuple[x509.Certificate, PrivateKeyTypes]:
    """A certificate and its private key from files, PEM or DER."""
    try:
        shown = read_certificate(certificate)
        data = key.read_bytes()
        pem = data.lstrip().startswith(b"-----BEGIN")
        load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
        held = load(data, None)
    except FileNotFoundError as error:
        raise LinkError(f"{options.name}: there is no file {error.filename}") from error
    except OSError as error:
        raise LinkError(f"{options.name}: {error.filename} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        files = f"{certificate}, {key}"
        raise LinkError(f"{options.name}: no usable certificate and key in {files}: {error}") from error
    if shown.public_key() != held.public_key():
        raise LinkError(f"{options.name}: the key in {key} is not that of the certificate in {certificate}")
    return shown, held


async def server_certificate(options: OpcuaOptions) -> x509.Certificate:
    """The certificate the server shows for the endpoint asked for; nothing is said of whether it is trusted.

    Raises:
        LinkError: it lacks the endpoint, or shows no certificate.
        UaError, OSError: as asyncua raises them.
    """
    endpoints = await _endpoints(options)
    security = options.security
    mode = ua.MessageSecurityMode[security.mode]
    for endpoint in endpoints:
        if endpoint.SecurityPolicyUri == _URIS[security.policy] and endpoint.SecurityMode == mode:
            break
    else:
        where = f"{options.name}: {options.endpoint}"
        raise LinkError(f"{where}: {policy_sentence(options)}: {_offered(endpoints)}")
    with foreign_bytes():
        return decode_certificate(endpoint.ServerCertificate or b"")


async def _endpoints(options: OpcuaOptions) -> list[ua.EndpointDescription]:
    """What the server offers; asked over a channel without security, which every server has for that."""
    client = Client(options.endpoint, timeout=options.connect_timeout_s)
    try:
        with foreign_bytes():
            return list(await client.connect_and_get_server_endpoints() or ())
    finally:
        client.disconnect_socket()


async def _offered_by(options: OpcuaOptions) -> str:
    """What the server offers, in words; empty where it does not say."""
    try:
        return _offered(await _endpoints(options))
    except (UaError, OSError):
        return ""


def _offered(endpoints: Sequence[ua.EndpointDescription]) -> str:
    """Policies and modes of some endpoints, in words."""
    names = {uri: name for name, uri in _URIS.items()}
    each = {
        (names.get(e.SecurityPolicyUri or "") or (e.SecurityPolicyUri or "").rpartition("#")[2])
        + ("" if e.SecurityMode == ua.MessageSecurityMode.None_ else f", {e.SecurityMode.name}")
        for e in endpoints
    }
    return readable("; ".join(sorted(each))) or "nothing"


def _verify(shown: x509.Certificate, options: OpcuaOptions) -> None:
    """Refuse a server's certificate unless it is the one given or pinned, and its dates are right."""
    where, print_ = f"{options.name}: {options.endpoint}", fingerprint(shown)
    known, origin = _trusted(options)
    command = f"`twinloop trust PLANT.yaml {options.name}`"
    if known is None:
        raise LinkError(
            f"{where}: the server's certificate is not trusted yet: SHA-256 {print_}, of "
            f"{subject_of(shown)}; compare it with the server's own, then run {command}"
        )
    if known != shown:
        way_out = f"if that is meant, run {command}" if origin is None else f"the plant file trusts {origin}"
        raise LinkError(
            f"{where}: the server shows another certificate than the one trusted: SHA-256 {print_}, not "
            f"{fingerprint(known)}; {way_out}"
        )
    _verify_dates(shown, options, where)


def _verify_dates(shown: x509.Certificate, options: OpcuaOptions, where: str) -> None:
    now = datetime.now(UTC)
    if shown.not_valid_before_utc <= now <= shown.not_valid_after_utc:
        return
    if now > shown.not_valid_after_utc:
        problem = f"the server's certificate expired on {shown.not_valid_after_utc:%Y-%m-%d}"
    else:
        problem = f"the server's certificate is not valid before {shown.not_valid_before_utc:%Y-%m-%d}"
    if not options.insecure:
        raise LinkError(
            f"{where}: {problem}; give the server a new one and run `twinloop trust PLANT.yaml "
            f"{options.name}`, or set `insecure: true` until then"
        )
    _log.warning("%s: %s, and is taken all the same (insecure: true)", where, problem)


def _trusted(options: OpcuaOptions) -> tuple[x509.Certificate | None, Path | None]:
    """The certificate that is trusted, and the file it comes from where the plant file names it."""
    security = options.security
    path = security.server_certificate
    try:
        if path is not None:
            return read_certificate(path), path
        return (Pins(security.pins).load(options.name) if security.pins else None), None
    except FileNotFoundError as error:
        raise LinkError(f"{options.name}: there is no file {error.filename}") from error
    except (OSError, ValueError) as error:
        file = path or Pins(security.pins or Path()).path(options.name)
        why = error.strerror if isinstance(error, OSError) else error
        raise LinkError(f"{options.name}: no usable certificate in {file}: {why}") from error


async def explain(error: BaseException, options: OpcuaOptions) -> LinkError:
    """The error in words; where a policy was refused, with the ones the server offers."""
    told = translate(error, options)
    if isinstance(error, ConnectionError) and not error.errno and options.security.policy != "None":
        # Most servers hang up without a word on a certificate that they do not know.
        return LinkError(
            f"{told} while the secure channel was being opened; has the certificate "
            f"{options.security.shown} been added to the server's trusted certificates?"
        )
    if "does not offer the security policy" in str(told) and not isinstance(error, LinkError):
        found = await _offered_by(options)
        return LinkError(f"{told}: {found}") if found else told
    return told


def _der(certificate: x509.Certificate) -> uacrypto.CertProperties:
    return uacrypto.CertProperties(certificate.public_bytes(serialization.Encoding.DER), "der")
