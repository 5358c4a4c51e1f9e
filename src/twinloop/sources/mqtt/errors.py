"""What the MQTT client library reports, as one sentence a person can act on."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from mqttium import BrokerDisconnectError, ConnectError, ConnectRefusedError, MQTTError, SubscribeError
from mqttium.types import Properties

from twinloop.errors import LinkError
from twinloop.foreign import readable

__all__ = ["Peer", "is_unexplained_close", "link_error"]

_CREDENTIALS: Final = "user name or password refused by the broker"
_SEE: Final = "see `username` and `password`"
_NOBODY: Final = f"not authorised: {_CREDENTIALS}, or none given where one is needed: {_SEE}"
_VERSION: Final = "the broker does not speak this MQTT version: set `protocol` to 5 or 3.1.1"
_FORBIDDEN: Final = "the broker does not allow this user to connect"
_UNAVAILABLE: Final = "the broker says it is not available at the moment"
_BAD_ID: Final = "the broker refuses the client id"

_REFUSED: Final[dict[int, str]] = {
    1: _VERSION,
    2: _BAD_ID,
    3: _UNAVAILABLE,
    4: f"{_CREDENTIALS}: {_SEE}",
    5: _NOBODY,
    0x84: _VERSION,
    0x85: _BAD_ID,
    0x86: f"{_CREDENTIALS}: {_SEE}",
    0x87: _NOBODY,
    0x88: _UNAVAILABLE,
    0x89: "the broker says it is busy",
    0x8A: "the broker has banned this client",
    0x8C: "the broker wants an authentication method that is not supported here",
    0x97: "the broker's quota is used up",
    0x9C: "the broker says to use another server",
    0x9D: "the broker has moved to another server",
    0x9F: "the broker takes no more connections so fast",
}
_ENDED: Final[dict[int, str]] = {
    0x00: "the broker closed the connection",
    0x81: "the broker could not read a packet of ours",
    0x87: _FORBIDDEN,
    0x89: "the broker says it is busy",
    0x8B: "the broker is shutting down",
    0x8D: "the broker heard nothing from us for too long",
    0x8E: "another client took over the session: two programs use the client id {client_id!r}; {way_out}",
    0x93: "the broker says we exceeded its receive maximum",
    0x95: "a packet was too large",
    0x97: "the broker's quota is used up",
    0x98: "an administrator of the broker ended the connection",
    0x9C: "the broker says to use another server",
    0xA0: "the broker allows connections only for a limited time, and it is over",
}
_SUBACK: Final[dict[int, str]] = {
    0x80: "refused, without saying why",
    0x83: "refused by a rule of the broker",
    0x87: "not allowed for this user",
    0x8F: "not a valid topic filter for this broker",
    0x91: "packet identifier in use",
    0x97: "the broker's quota is used up",
    0x9E: "this broker has no shared subscriptions",
    0xA1: "this broker has no subscription identifiers",
    0xA2: "this broker has no wildcard subscriptions",
}
_UNREACHABLE: Final = {
    errno.EHOSTUNREACH: "there is no route to the host",
    errno.ENETUNREACH: "there is no route to the network",
}
_OWN_ID: Final = "give each a `client_id` of its own (in a copied data_dir, remove the file `client-id`)"
_OUR_CERTIFICATE: Final[dict[str, str]] = {
    "CERTIFICATE_REQUIRED": "wants a client certificate: give `tls: {cert: FILE, key: FILE}`",
    "HANDSHAKE_FAILURE": "wants a client certificate, or has no cipher in common with us: see `tls`",
    "CERTIFICATE_EXPIRED": "says that our client certificate has expired: renew the files `tls: {cert, key}`",
    "CERTIFICATE_REVOKED": "says that our client certificate has been revoked: get a new one for `tls: cert`",
}
_STRANGER: Final = "does not trust our client certificate: have `tls: cert` signed by an authority it trusts"
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""Of OpenSSL's X509_V_ERR codes."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom we talk to and as whom, as far as an error's words need it.

    Attributes:
        where: source name and address the sentence starts with.
        client_id: named where two programs share it.
        tls: whether we speak TLS.
        certificate: whether we show a client certificate.
        topics: the filters subscribed to, in order, so that a refused one can be named.
    """

    where: str
    client_id: str
    tls: bool = False
    certificate: bool = False
    topics: tuple[str, ...] = ()


def link_error(
    peer: Peer, error: BaseException, *, accepted: bool = False, contested: bool = False
) -> LinkError:
    """The `LinkError` for whatever ended or prevented a connection.

    Args:
        peer: whom we talk to.
        error: what the client library raised or reported.
        accepted: whether the broker had accepted our connection.
        contested: whether this has happened again and again, each time soon after that.
    """
    tls = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(error, SubscribeError):
        why = _refused_topics(error, peer.topics)
    elif isinstance(error, ConnectRefusedError):
        why = _REFUSED.get(error.reason_code, f"the broker refused us with code 0x{error.reason_code:02X}")
        why += _broker_says(error.properties)
    elif isinstance(error, BrokerDisconnectError):
        why = _ENDED.get(
            error.reason_code, f"the broker ended the connection with code 0x{error.reason_code:02X}"
        )
        why = why.format(client_id=peer.client_id, way_out=_OWN_ID) + _broker_says(error.properties)
    elif isinstance(tls, ssl.SSLError):
        why = _tls(tls)
    elif is_unexplained_close(error):
        why = _closed(peer, contested=contested) if accepted else _never_accepted(peer, error)
    elif isinstance(error, TimeoutError):
        why = f"no answer in time ({error})" if str(error) else "no answer in time"
    elif isinstance(error, OSError):
        why = _network(error.__cause__ if isinstance(error.__cause__, OSError) else error)
    elif str(error) == "Receive Maximum exceeded":
        why = (
            "the broker sent more unacknowledged messages than `receive_maximum` allows,"
            " as mosquitto 2.0 does: leave it at its default"
        )
    else:
        why = readable(str(error)) or type(error).__name__
    return LinkError(f"{peer.where}: {why}")


def is_unexplained_close(error: BaseException) -> bool:
    """Whether the connection was closed by the other side without a word."""
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return False
    hung_up = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
    if isinstance(error, hung_up) or isinstance(error.__cause__, hung_up):
        return True
    return isinstance(error, MQTTError) and str(error) == "Connection closed"


def _closed(peer: Peer, *, contested: bool) -> str:
    if contested:
        return (
            "the broker keeps closing the connection soon after it has accepted it: probably another program "
            f"uses the client id {peer.client_id!r} there, and each ends the other's connection; {_OWN_ID}"
        )
    return f"the broker closed the connection (is client id {peer.client_id!r} in use by another program?)"


def _never_accepted(peer: Peer, error: BaseException) -> str:
    """The sentence for a port that hangs up on us before any answer."""
    if not peer.tls:
        return "the port hung up without an answer: where it expects TLS, write mqtts:// in `url`"
    if isinstance(error, ConnectError):
        return "the port does not speak TLS: name the broker's TLS port in `url`, or write mqtt:// there"
    return f"the broker {_STRANGER if peer.certificate else _OUR_CERTIFICATE['CERTIFICATE_REQUIRED']}"


def _broker_says(properties: Properties | None) -> str:
    said = properties.get("reason_string") if properties else None
    return f" (it says: {readable(said)})" if isinstance(said, str) and said else ""


def _refused_topics(error: SubscribeError, topics: tuple[str, ...]) -> str:
    refused = [
        f"{topic!r} ({_SUBACK.get(code, f'code 0x{code:02X}')})"
        for topic, code in zip(topics, error.result.reason_codes, strict=False)
        if code >= 0x80
    ]
    return f"the broker refused the subscription to {', '.join(refused[:5])}"


def _tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_trusted(error)
    reason = error.reason or str(error)
    for alert, words in _OUR_CERTIFICATE.items():
        if alert in reason:
            return f"the broker {words}"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"the broker {_STRANGER}"
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "the port does not speak TLS: name the broker's TLS port in `url`, or write mqtt:// there"
    return f"TLS failed ({reason}): does the port speak TLS, and does the broker accept our certificate?"


def _not_trusted(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired: renew it at the broker, or put this host's clock right"
    if error.verify_code == _NOT_YET:
        return "the broker's certificate is not valid yet: put this host's clock right, or the broker's"
    if error.verify_code in {_OTHER_NAME, _OTHER_ADDRESS}:
        return (
            f"the broker's certificate is for another host ({said}): "
            "write in `url` a name that the certificate has, or have it issued for this one"
        )
    return (
        f"the broker's certificate is not trusted ({said}): "
        "name the authority that signed it, `tls: {ca: FILE}`"
    )


def _network(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    # Where a name has several addresses, asyncio puts all their failures into one text without a number.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "connection refused: is the broker running?"
    if error.errno in _UNREACHABLE:
        return _UNREACHABLE[error.errno]
    return os.strerror(error.errno) if error.errno else str(error)
