"""A twin to look at without a plant: outputs are put into the ordinary `Seen` by hand."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from support.outputs import T0
from twinloop.batch import Batch
from twinloop.config.expand import tags_of
from twinloop.config.models import PlantConfig
from twinloop.config.web import WebConfig
from twinloop.records import Event, Outputs, Snapshot
from twinloop.seen import Seen
from twinloop.stores.queries import LocalQueries
from twinloop.tags import TagTable
from twinloop.web.live import LiveLimits
from twinloop.web.look import Counts, TagsNow
from twinloop.web.server import WebServer

__all__ = ["HandMade", "HandMadeTwin", "Held", "plant_of", "serving"]


def plant_of(tags: int = 3, **more: Any) -> PlantConfig:
    """A plant of one asset with so many tags."""
    names = [f"t{i}" for i in range(tags)]
    rules = {name: {"unit": "degC"} for name in names}
    return PlantConfig.model_validate(
        {"plant": "test", "tags": rules, "assets": {"A": {"tags": names}}, **more}
    )


class HandMadeTwin:
    """A `TwinLook` whose outputs a test makes; `told` is what it hears."""

    def __init__(self, config: PlantConfig) -> None:
        self._table = TagTable(tags_of(config))
        self.seen = Seen(self._table.indices, len(self._table))
        self.well = True
        self._covers = 0
        self._queries = LocalQueries(Path("/nonexistent"), self._table.names, [], lambda _after: [])

    @property
    def table(self) -> TagTable:
        return self._table

    @property
    def queries(self) -> LocalQueries:
        return self._queries

    def told(self, batch: Batch | None = None, **more: Any) -> None:
        """Outputs of the fold."""
        samples = batch.buffers() if batch is not None else []
        self.seen.hear(Outputs(self._covers, T0, samples, **more))
        self._covers += 1

    def now(self) -> TagsNow:
        return self.seen.now()

    def counts(self) -> Counts:
        return self.seen.counts()

    def snapshots(self) -> Mapping[str, Snapshot]:
        return self.seen.snapshots()

    def events(self) -> Sequence[Event]:
        return self.seen.events()

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        return self.well, {"status": "ok" if self.well else "the loop does not turn", "plant": "test"}

    def pipeline(self) -> dict[str, Any]:
        return {"sources": [], "totals": {"good": 0}}

    def listen(self, callback: Callable[[Outputs], None]) -> None:
        raise NotImplementedError


@dataclass
class HandMade:
    """A `Look` over such a twin; None while it starts."""

    config: PlantConfig = field(default_factory=plant_of)
    twin: HandMadeTwin | None = None
    path: Path = Path("plant.yaml")
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    run: str = field(default_factory=lambda: secrets.token_hex(6))

    def begin(self) -> HandMadeTwin:
        """The twin runs from now on."""
        self.twin = HandMadeTwin(self.config)
        return self.twin


class Held(Collector):
    """A metric that takes long to say."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        self.asked.set()
        self.go.wait(30)
        return []


@contextmanager
def serving(look: HandMade, live: LiveLimits | None = None, **web: Any) -> Iterator[WebServer]:
    """It served by the ordinary server on a free port."""
    server = WebServer(look, WebConfig.model_validate({"port": 0, **web}), live)
    try:
        yield server
    finally:
        server.close()
