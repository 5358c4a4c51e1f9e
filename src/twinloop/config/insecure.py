"""What leaves this host: a link that is not protected needs the user's word for it there."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether a host is this one by its name alone: localhost, 127.0.0.0/8 or ::1; no name is looked up.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("broker.example")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
