"""Which hosts need no protection on the way: those that are this one."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether a host is this one by its very name: `localhost`, 127.0.0.0/8 or ::1. Nobody is asked.

    >>> is_loopback("localhost"), is_loopback("127.8.8.8"), is_loopback("::1"), is_loopback("plant.example")
    (True, True, True, False)
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
