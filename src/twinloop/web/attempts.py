"""How often a login may be tried: some at once, then now and then, for each address and for all together."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Attempts", "Pace"]

_ADDRESSES: Final = 10_000
_IPV6_NETWORK: Final = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """`burst` tries at once, and one more each `every_s` seconds."""

    burst: int
    every_s: float


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float

    def fill(self, pace: Pace, now_s: float) -> None:
        self.left = min(pace.burst, self.left + (now_s - self.at_s) / pace.every_s)
        self.at_s = now_s

    def wait_s(self, pace: Pace) -> float:
        return 0.0 if self.left >= 1 else (1 - self.left) * pace.every_s


class Attempts:
    """Counts tries before they are judged, so that many at once are no way around; safe from many threads.

    An IPv6 network of 64 bits counts as one address: who has one address there has them all.

    Args:
        each: the pace of one address.
        together: the pace of all.
        clock: seconds that only go forward.
    """

    def __init__(self, each: Pace, together: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = each
        self._together = together
        self._clock = clock
        self._lock = threading.Lock()
        self._all = _Bucket(together.burst, clock())
        self._buckets: dict[str, _Bucket] = {}

    def take(self, address: str) -> int:
        """Take a try: 0 when there is one, else in how many seconds there is."""
        with self._lock:
            own = self._bucket(address)
            self._all.fill(self._together, self._clock())
            wait_s = max(own.wait_s(self._each), self._all.wait_s(self._together))
            if not wait_s:
                own.left -= 1
                self._all.left -= 1
            return math.ceil(wait_s)

    def give_back(self, address: str) -> None:
        """A try was good: it does not count."""
        with self._lock:
            for bucket, pace in ((self._bucket(address), self._each), (self._all, self._together)):
                bucket.left = min(pace.burst, bucket.left + 1)

    def _bucket(self, address: str) -> _Bucket:
        now_s = self._clock()
        name = _network(address)
        bucket = self._buckets.pop(name, None) or _Bucket(self._each.burst, now_s)
        bucket.fill(self._each, now_s)
        self._buckets[name] = bucket  # the newest last
        while len(self._buckets) > _ADDRESSES:
            self._buckets.pop(next(iter(self._buckets)))
        return bucket


def _network(address: str) -> str:
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, _IPV6_NETWORK), strict=False))
    return str(known)
