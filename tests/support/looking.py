"""A process to look into, as the web sees one: a fold over recorded records, and its real store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from support.outputs import OutputLog
from support.recorded import TAGS, recorded_outputs
from twinloop.batch import NO_TIME
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.records import Event, Outputs, Snapshot
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.storing import units_of
from twinloop.tags import TagTable
from twinloop.web.api import api_router
from twinloop.web.look import Counts, TagsNow

__all__ = ["PLANT", "StoredLook", "asking", "recorded_look", "served"]

PLANT = """
plant: demo
data_dir: ./data
tags:
  temperature:
    {unit: degC, range: [-50, 400], spike: 20%, rate_limit: 5, stuck: 10m, stale: 3s, noise: 0.5}
  pressure: {unit: bar, fill: linear}
  running: {type: boolean, fill: none}
assets:
  R101: {model: stirred_tank, tags: [temperature, pressure, running]}
web: {port: 0WRITABLE}
"""


class StoredTwin:
    """A `TwinLook` at outputs that were folded before.

    Args:
        table: the tags.
        queries: where the outputs are kept.
        outputs: the outputs.
    """

    def __init__(self, table: TagTable, queries: LocalQueries, outputs: Sequence[Outputs]) -> None:
        self.table = table
        self.queries = queries
        self._outputs = list(outputs)
        self._listeners: list[Callable[[Outputs], None]] = []

    def now(self) -> TagsNow:
        n = len(self.table)
        now = TagsNow(
            time=np.full(n, NO_TIME, np.int64),
            arrival=np.full(n, NO_TIME, np.int64),
            value=np.full(n, np.nan),
            estimate=np.full(n, np.nan),
            std=np.full(n, np.nan),
            status=np.zeros(n, np.uint32),
            reasons=np.zeros(n, np.uint32),
        )
        for outputs in self._outputs:
            batch = outputs.batch()
            for name in TagsNow.__slots__:
                column = batch.estimate_std if name == "std" else getattr(batch, name)
                getattr(now, name)[batch.tag] = column
        return now

    def counts(self) -> Counts:
        n = len(self.table)
        severities, reasons = np.zeros((n, 3), np.int64), np.zeros((n, 32), np.int64)
        for outputs in self._outputs:
            batch = outputs.batch()
            for tag, status, bits in zip(
                *(each.tolist() for each in (batch.tag, batch.status, batch.reasons)), strict=True
            ):
                severities[tag, min(status >> 30, 2)] += 1
                reasons[tag] += [bits >> bit & 1 for bit in range(32)]
        return Counts(self._outputs[0].time, severities, reasons)

    def snapshots(self) -> Mapping[str, Snapshot]:
        return {each.asset: each for outputs in self._outputs for each in outputs.snapshots}

    def events(self) -> Sequence[Event]:
        return [each for outputs in self._outputs for each in outputs.events]

    def healthz(self) -> tuple[bool, dict[str, Any]]:
        assets = {name: shot.health.value for name, shot in self.snapshots().items()}
        return True, {"status": "ok", "plant": "demo", "sources": {}, "assets": assets}

    def pipeline(self) -> dict[str, Any]:
        return {
            "sources": [], "logs": [], "cycles": {"period_s": 1.0, "histogram": [{"le_s": None, "count": 0}]},
            "store": {"type": "local", "lag_entries": 0, "refused": 0}, "totals": {"good": 1},
        }  # fmt: skip

    def listen(self, callback: Callable[[Outputs], None]) -> None:
        self._listeners.append(callback)


@dataclass
class StoredLook:
    """A `Look` at a plant file and a twin that need not be there yet."""

    path: Path
    config: PlantConfig
    twin: StoredTwin | None
    run: str = "test"
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


def recorded_look(folder: Path, *, writable: bool = False) -> StoredLook:
    """A plant of which half is sealed in its store and half is not."""
    path = folder / "plant.yaml"
    path.write_text(PLANT.replace("WRITABLE", ", writable: true" if writable else ""))
    config = load(path, os.environ)
    table = TagTable(TAGS)
    outputs = _outputs()
    log = OutputLog(list(enumerate(outputs)))
    store = LocalStore(config.data_dir / "store", table.names)
    store.write(log.entries[: len(log.entries) // 2])
    store.seal()
    queries = LocalQueries(config.data_dir / "store", table.names, units_of(table), log.after)
    return StoredLook(path, config, StoredTwin(table, queries, outputs))


@cache
def _outputs() -> list[Outputs]:
    return recorded_outputs()


def served(look: StoredLook) -> FastAPI:
    """An application with the API of a process and nothing else."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(api_router(look), prefix="/api/v1")
    return app


def asking(of: StoredLook | FastAPI) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Somebody who asks the API of a process, in this process."""
    transport = httpx.ASGITransport(app=of if isinstance(of, FastAPI) else served(of))
    return httpx.AsyncClient(transport=transport, base_url="http://twin/api/v1")
