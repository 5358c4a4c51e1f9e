"""The web part's own metrics, in the run's registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder

__all__ = ["WebFigures", "encoder_of"]


def encoder_of(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """What makes text of a registry, and its media type, as `Accept` likes it where that can be read."""
    try:
        encode, kind = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, kind = choose_encoder("")
    # A version is said as it was given: that must be fit for a header.
    return (encode, kind) if kind.isascii() and kind.isprintable() else choose_encoder("")


class WebFigures:
    """What the web part counts; one for each registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sockets = Gauge("twinloop_web_sockets", "Live sockets open", registry=registry)
        self.frames = Counter(
            "twinloop_web_frames", "Portions of news given to live sockets", registry=registry
        )
        self.skipped = Counter(
            "twinloop_web_frames_skipped",
            "Portions left out as a socket had not taken the one before",
            registry=registry,
        )
        self.refused = Counter("twinloop_web_refused", "Requests refused, by why", ["why"], registry=registry)
