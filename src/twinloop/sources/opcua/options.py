"""What an OPC UA source is told, and its failures in words a person can act on."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from asyncua.ua import status_codes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from twinloop.errors import LinkError
from twinloop.foreign import readable
from twinloop.sources.opcua.certificates import OWN_CERTIFICATE

__all__ = [
    "ENDED",
    "NO_HISTORY",
    "TOO_MUCH",
    "OpcuaNode",
    "OpcuaOptions",
    "OpcuaSecurity",
    "policy_sentence",
    "status_name",
    "translate",
]

DEFAULT_PORT: Final = 4840


class OpcuaNode(NamedTuple):
    """A node to take in.

    Attributes:
        address: NodeId as configured, `{asset}` expanded.
        tag: full name of the tag it leads to.
        every_s: how often it is read in poll mode, seconds.
    """

    address: str
    tag: str
    every_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcuaSecurity:
    """How the channel is protected.

    Attributes:
        policy: `None`, `Basic256Sha256`, `Aes128Sha256RsaOaep` or `Aes256Sha256RsaPss`.
        mode: `Sign` or `SignAndEncrypt`; without meaning for policy `None`.
        certificate, private_key: this client's, PEM or DER files; without them its own is made in `own`.
        own: folder of the own certificate and key.
        server_certificate: the only server certificate that is trusted; without it, the one pinned.
        pins: folder of pinned server certificates.
    """

    policy: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "None"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = None
    private_key: Path | None = None
    own: Path | None = None
    server_certificate: Path | None = None
    pins: Path | None = None

    @property
    def shown(self) -> Path:
        """The file of the certificate that servers are shown."""
        return self.certificate or (self.own or Path()) / OWN_CERTIFICATE


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcuaOptions:
    """Everything an OPC UA source needs; its text form shows no secret.

    Attributes:
        name: the source's name in the plant file.
        url: `opc.tcp://host:port/path`; port 4840 where none is given.
        nodes: what to take in.
        mode: `subscribe`, or `poll` at each node's `every_s`.
        publishing_interval_s: how often the server sends what has changed.
        sampling_interval_s: how often the server looks; 0 is "as fast as it changes".
        queue_size: values the server keeps for a node between two publishings.
        username, password: none means anonymous.
        user_certificate, user_key: files of a user known by a certificate.
        security: protection of the channel.
        insecure: a password may be sent in clear text, and a trusted certificate may be out of date.
        plant: the plant's name; part of the application URI.
        history: whether the gap of an outage is filled from the server's history.
        history_max_s: how far back at most.
        kept: file of what is known of the server from one run to the next; None for none.
        reading: only read what is kept (`twinloop check`).
        connect_timeout_s: longest wait for a connection, and for any answer.
        retry_s: how often quarantined nodes are tried again.
        session_timeout_s: how long the server keeps a session it hears nothing from.
        keepalive_s: a subscription without changes says so this often; three times as long without a
            word and the link counts as lost.
        reread_after_s: by address, how long a subscribed node may be silent before it is read once;
            0 or absent is "never".
    """

    name: str
    url: str = field(repr=False)
    nodes: tuple[OpcuaNode, ...]
    mode: Literal["subscribe", "poll"] = "subscribe"
    publishing_interval_s: float = 0.5
    sampling_interval_s: float = 0.0
    queue_size: int = 100
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    user_certificate: Path | None = None
    user_key: Path | None = None
    security: OpcuaSecurity = OpcuaSecurity()
    insecure: bool = False
    plant: str = "plant"
    history: bool = True
    history_max_s: float = 86_400.0
    kept: Path | None = None
    reading: bool = False
    connect_timeout_s: float = 10.0
    retry_s: float = 30.0
    session_timeout_s: float = 60.0
    keepalive_s: float = 5.0
    reread_after_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """The URL with a port and without user name and password.

        Raises:
            LinkError: it is no `opc.tcp` URL with a host.
        """
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            host, port = None, 0
        if host is None or parts.scheme != "opc.tcp":
            raise LinkError(f"{self.name}: the url must look like opc.tcp://host:4840/path")
        shown = f"[{host}]" if ":" in host else host
        return urlunsplit((parts.scheme, f"{shown}:{port}", parts.path, parts.query, ""))


def status_name(code: int) -> str:
    """The standard's name of a status code, else its number; flags in the lower bits are left out."""
    name, _ = status_codes.get_name_and_doc(code & 0xFFFF_0000)
    return name if name and name.startswith(("Good", "Uncertain", "Bad")) else f"{code:#010x}"


_USER: Final = {
    "BadUserAccessDenied",
    "BadIdentityTokenRejected",
    "BadIdentityTokenInvalid",
    "BadUserSignatureInvalid",
}
_POLICY: Final = {"BadSecurityPolicyRejected", "BadSecurityModeRejected", "BadSecurityModeInsufficient"}
TOO_MUCH: Final = {
    "BadTooManyOperations",
    "BadEncodingLimitsExceeded",
    "BadRequestTooLarge",
    "BadResponseTooLarge",
    "BadTcpMessageTooLarge",
    "BadTooManyMonitoredItems",
}
"""What servers say to a request that would be right if it were smaller."""
_BUSY: Final = "the server has no room for another session; close one, or wait"
_CLOSED: Final = "the server ended the session"
_UNSUBSCRIBED: Final = "the server has dropped the subscription"
ENDED: Final = {
    "BadSessionClosed": _CLOSED,
    "BadSessionIdInvalid": _CLOSED,
    "BadSessionNotActivated": _CLOSED,
    "BadSecureChannelClosed": _CLOSED,
    "BadSecureChannelIdInvalid": _CLOSED,
    "BadShutdown": _CLOSED,
    "BadServerHalted": _CLOSED,
    "BadConnectionClosed": _CLOSED,
    "BadSubscriptionIdInvalid": _UNSUBSCRIBED,
    "BadNoSubscription": _UNSUBSCRIBED,
}
"""What servers say when there is nothing left to ask: only a new session helps."""
NO_HISTORY: Final = {
    "BadServiceUnsupported",
    "BadHistoryOperationUnsupported",
    "BadHistoryOperationInvalid",
    "BadNotSupported",
    "BadNotImplemented",
    "BadRequestTypeInvalid",
    "BadStructureMissing",
    "BadInvalidArgument",
    "BadInvalidTimestampArgument",
    "BadTimestampsToReturnInvalid",
    "BadDataEncodingInvalid",
    "BadDataEncodingUnsupported",
    "BadUserAccessDenied",
    "BadSecurityModeInsufficient",
    "BadNotReadable",
    "BadNodeIdInvalid",
    "BadNodeIdUnknown",
    "BadNodeClassInvalid",
    "BadAttributeIdInvalid",
    "BadNotFound",
    "BadNoData",
}
"""What servers say of a history that is not there, or not for us: asking again later is of no use."""
_SENTENCES: Final = {
    "BadTcpEndpointUrlInvalid": "the server does not serve this path; check the url",
    "BadTooManySessions": _BUSY,
    "BadTcpNotEnoughResources": _BUSY,
    "BadTcpServerTooBusy": _BUSY,
    "BadOutOfMemory": _BUSY,
    "BadResourceUnavailable": _BUSY,
    **ENDED,
}


def translate(error: BaseException, options: OpcuaOptions) -> LinkError:
    """The `LinkError` for anything asyncua or the network raised: one sentence a person can act on."""
    if isinstance(error, LinkError):
        return error
    return LinkError(f"{options.name}: {options.endpoint}: {_sentence(error, options)}")


def _sentence(error: BaseException, options: OpcuaOptions) -> str:
    if isinstance(error, UaStatusCodeError):
        return _status_sentence(status_name(error.code), options)
    if isinstance(error, UaError):
        if "No matching endpoints" in str(error):
            return policy_sentence(options)
        return f"the server's answer cannot be used ({readable(str(error))})"
    if isinstance(error, OSError):  # TimeoutError is one, too
        return _network_sentence(error, options)
    return "the connection was lost"


def _network_sentence(error: OSError, options: OpcuaOptions) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {options.connect_timeout_s:g} s; is it an OPC UA server, and is it well?"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved; check the url"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the server running, and are host and port right?"
    if error.strerror:
        return f"cannot be reached ({error.strerror}); check host, port and network"
    return "the connection was lost"


def _status_sentence(name: str, options: OpcuaOptions) -> str:
    if name in _USER and options.username is None:
        sentence = "the server takes no anonymous users; set username and password"
    elif name in _USER:
        sentence = f"user {options.username!r} was refused; check username and password"
    elif name in _POLICY:
        sentence = policy_sentence(options)
    elif name.startswith("BadCertificate") or name == "BadSecurityChecksFailed":
        sentence = (
            f"the certificate {options.security.shown} was refused; add it to the server's "
            "trusted certificates, and check its dates and its application URI"
        )
    else:
        sentence = _SENTENCES.get(name, "the server refused")
    return f"{sentence} ({name})"


def policy_sentence(options: OpcuaOptions) -> str:
    """What to say where the server has no endpoint of the policy and mode asked for."""
    security = options.security
    asked = security.policy if security.policy == "None" else f"{security.policy}, {security.mode}"
    return f"the server does not offer the security policy asked for ({asked}); set one it offers"
