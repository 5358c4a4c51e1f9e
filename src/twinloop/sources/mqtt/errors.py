"""What the MQTT client library reports, as one sentence a person can act on."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

from mqttium import BrokerDisconnectError, ConnectRefusedError, MQTTError, SubscribeError
from mqttium.types import Properties

from twinloop.errors import LinkError

__all__ = ["link_error"]

_CREDENTIALS: Final = "user name or password refused by the broker"
_VERSION: Final = "the broker does not speak this MQTT version: set `protocol` to 5 or 3.1.1"
_FORBIDDEN: Final = "the broker does not allow this user to connect"
_UNAVAILABLE: Final = "the broker says it is not available at the moment"
_BAD_ID: Final = "the broker refuses the client id"

_REFUSED: Final[dict[int, str]] = {
    1: _VERSION,
    2: _BAD_ID,
    3: _UNAVAILABLE,
    4: _CREDENTIALS,
    5: f"not authorised: {_CREDENTIALS}, or none given where one is needed",
    0x84: _VERSION,
    0x85: _BAD_ID,
    0x86: _CREDENTIALS,
    0x87: f"not authorised: {_CREDENTIALS}, or none given where one is needed",
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
    0x8E: "another client took over the session: two programs use the client id {client_id!r}",
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
    errno.ECONNRESET: "connection reset: does the port speak MQTT, and TLS or not as in the url?",
}


def link_error(
    where: str, error: BaseException, *, client_id: str, topics: tuple[str, ...] = ()
) -> LinkError:
    """The `LinkError` for whatever ended or prevented a connection.

    Args:
        where: source name and address the sentence starts with.
        error: what the client library raised or reported.
        client_id: named where two programs share it.
        topics: the filters subscribed to, in order, so that a refused one can be named.
    """
    if isinstance(error, SubscribeError):
        why = _refused_topics(error, topics)
    elif isinstance(error, ConnectRefusedError):
        why = _REFUSED.get(error.reason_code, f"the broker refused us with code 0x{error.reason_code:02X}")
        why += _broker_says(error.properties)
    elif isinstance(error, BrokerDisconnectError):
        why = _ENDED.get(
            error.reason_code, f"the broker ended the connection with code 0x{error.reason_code:02X}"
        )
        why = why.format(client_id=client_id) + _broker_says(error.properties)
    elif isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        why = _tls(error if isinstance(error, ssl.SSLError) else error.__cause__)
    elif isinstance(error, TimeoutError):
        why = f"no answer in time ({error})"
    elif isinstance(error, OSError):
        why = _network(error.__cause__ if isinstance(error.__cause__, OSError) else error)
    elif isinstance(error, MQTTError) and str(error) == "Connection closed":
        why = f"the broker closed the connection (is client id {client_id!r} in use by another program?)"
    elif str(error) == "Receive Maximum exceeded":
        why = (
            "the broker sent more unacknowledged messages than `receive_maximum` allows,"
            " as mosquitto 2.0 does: leave it at its default"
        )
    else:
        why = str(error) or type(error).__name__
    return LinkError(f"{where}: {why}")


def _broker_says(properties: Properties | None) -> str:
    said = properties.get("reason_string") if properties else None
    return f" (it says: {said})" if isinstance(said, str) and said else ""


def _refused_topics(error: SubscribeError, topics: tuple[str, ...]) -> str:
    refused = [
        f"{topic!r} ({_SUBACK.get(code, f'code 0x{code:02X}')})"
        for topic, code in zip(topics, error.result.reason_codes, strict=False)
        if code >= 0x80
    ]
    return f"the broker refused the subscription to {', '.join(refused[:5])}"


def _tls(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    reason = getattr(error, "reason", None) or str(error)
    return f"TLS failed ({reason}): does the port speak TLS, and does the broker accept our certificate?"


def _network(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    # Where a name has several addresses, asyncio puts all their failures into one text without a number.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "connection refused: is the broker running?"
    if error.errno in _UNREACHABLE:
        return _UNREACHABLE[error.errno]
    return os.strerror(error.errno) if error.errno else str(error)
