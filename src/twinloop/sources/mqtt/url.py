"""Where a broker listens, from its URL."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from twinloop.errors import ConfigError

__all__ = ["Endpoint", "parse_url"]


class Endpoint(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int
    tls: bool


def parse_url(url: str) -> Endpoint:
    """Host, port and TLS of `mqtt://HOST[:PORT]` (port 1883) or `mqtts://HOST[:PORT]` (TLS, port 8883).

    Raises:
        ConfigError: it is no such URL, or has more in it; user name and password have keys of their own
            and are refused here, unseen, because URLs end up in logs.

    >>> parse_url("mqtts://broker.example")
    Endpoint(host='broker.example', port=8883, tls=True)
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("url: the host or port of the MQTT url cannot be read") from None
    if "@" in url:
        raise ConfigError(
            "url: put the user name and password under `username` and `password`, not in the url"
        )
    if parts.scheme not in {"mqtt", "mqtts"}:
        raise ConfigError(f"url: {url!r} does not begin with mqtt:// or mqtts:// (TLS)")
    if not parts.hostname or port == 0 or _has_more(parts):
        raise ConfigError(f"url: {url!r} is not of the form {parts.scheme}://HOST:PORT")
    tls = parts.scheme == "mqtts"
    return Endpoint(parts.hostname, port or (8883 if tls else 1883), tls)


def _has_more(parts: SplitResult) -> bool:
    return parts.path not in {"", "/"} or bool(parts.query or parts.fragment)
