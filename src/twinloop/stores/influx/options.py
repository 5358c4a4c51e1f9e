"""What the plant file says about an InfluxDB."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Existing", "InfluxOptions"]

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Existing:
    """A series that somebody else writes or wrote, read as the history of a tag before its own.

    Attributes:
        measurement, tags, field: which series; further tags than those given may have any value.
        bucket: where it is; empty for where the samples go.
    """

    measurement: str
    tags: Mapping[str, str] = field(default_factory=dict)
    field: str = "value"
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class InfluxOptions:
    """Where samples go.

    Attributes:
        plant: the plant's name, a tag of every series.
        url: `http://HOST:PORT` or `https://`; a path before the API's own is kept.
        bucket: the bucket, or the database of InfluxDB 1.x.
        token, org: of InfluxDB 2.x and 3.x; empty for none.
        username, password: of InfluxDB 1.x; empty for none.
        measurement: where samples go; fills go to that name and `_fills`.
        tls: makes the context for https; None for http.
        timeout_s: the longest wait for a connection, and for an answer to what is written.
        existing: series of others by full tag name.
    """

    plant: str
    url: str
    bucket: str
    token: str = field(default="", repr=False)
    org: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    measurement: str = "twinloop"
    tls: Callable[[], ssl.SSLContext] | None = None
    timeout_s: float = TIMEOUT_S
    existing: Mapping[str, Existing] = field(default_factory=dict)

    def measurement_of(self, kind: str) -> str:
        """Where the samples or the fills are."""
        return self.measurement if kind == "samples" else f"{self.measurement}_{kind}"
