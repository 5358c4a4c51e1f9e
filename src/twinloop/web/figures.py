"""The web part's own metrics, in the run's registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["WebFigures"]


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
