"""What is known now: tags, assets, the newest samples, who is in trouble, how the process is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from twinloop.batch import NO_TIME
from twinloop.records import Snapshot
from twinloop.status import Reason, format_reasons, severity, severity_name
from twinloop.tags import Tag
from twinloop.timetext import time_text
from twinloop.web.api.answering import Paged, Standing, as_object
from twinloop.web.api.desk import AssetFilter, Desk
from twinloop.web.look import Counts, TagsNow

__all__ = ["LINKS", "Current", "snapshot_object"]

LINKS: Final = (
    "tags", "assets", "latest", "range", "fills", "window", "events", "snapshots", "predictions", "quality",
    "trouble", "dead", "dead/summary", "provenance", "health", "pipeline", "plant", "openapi.json", "docs",
)  # fmt: skip
_TIME: Final = pa.timestamp("ns", tz="UTC")
_RULES: Final = ("range_low", "range_high", "warn_low", "warn_high", "rate_limit", "spike", "zscore")
_TAGS: Final = pa.schema(
    [
        ("index", pa.int64()), ("tag", pa.string()), ("asset", pa.string()), ("name", pa.string()),
        ("unit", pa.string()), *((name, pa.float64()) for name in _RULES), ("spike_fraction", pa.float64()),
        ("stuck_s", pa.float64()), ("stale_s", pa.float64()), ("every_s", pa.float64()),
        ("noise", pa.float64()), ("analogue", pa.bool_()),
    ]
)  # fmt: skip
_PREDICTION: Final = pa.struct(
    [("output", pa.string()), ("unit", pa.string()),
     *((name, pa.float64()) for name in ("now", "value", "persistence"))]
)  # fmt: skip
_ASSETS: Final = pa.schema(
    [
        ("asset", pa.string()), ("health", pa.string()), ("why", pa.string()), ("model", pa.string()),
        ("horizon_s", pa.float64()), ("time", _TIME), ("tags", pa.int64()), ("good", pa.int64()),
        ("uncertain", pa.int64()), ("bad", pa.int64()), ("worst_tag", pa.string()),
        ("conversion", pa.float64()), ("temperature", pa.float64()), ("temperature_unit", pa.string()),
        ("nis", pa.float64()), ("predictions", pa.list_(_PREDICTION)),
    ]
)  # fmt: skip
_TROUBLE: Final = pa.schema(
    [
        ("tag", pa.string()), ("asset", pa.string()), ("status", pa.string()), ("reasons", pa.string()),
        ("good", pa.int64()), ("uncertain", pa.int64()), ("bad", pa.int64()), ("since", _TIME),
        ("by_reason", pa.map_(pa.string(), pa.int64())),
    ]
)  # fmt: skip

Names = Annotated[
    list[str] | None, Query(alias="tag", max_length=10_000, description="full names; default: every tag")
]
Search = Annotated[str | None, Query(max_length=100, description="a part of the name, of any case")]
AssetName = Annotated[str, Path(max_length=300, description="an asset of the plant file")]


class Current:
    """Endpoints that ask what is known now.

    Args:
        desk: where they ask.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tags: Standing | None = None

    async def index(self, request: Request) -> Response:
        """The plant, this version, and where to go on."""
        config = self._desk.look.config
        here = request.url.path.rstrip("/")
        links = {name: f"{here}/{name}" for name in LINKS}
        return as_object(
            {
                "plant": config.plant,
                "version": version("twinloop"),
                "run": self._desk.look.run,
                "links": links,
            }
        )

    def tags(self, page: Paged, asset: AssetFilter = None, search: Search = None) -> Response:
        """Tags of the plant file with their rules, by index; null where there is no such rule."""
        if asset is None and not search:
            if self._tags is None:
                self._tags = Standing(_tags_table(self._desk.tags()))
            return page.standing(self._tags)
        wanted = (search or "").lower()
        return page.whole(
            _tags_table(each for each in self._desk.tags(asset) if wanted in each[1].name.lower())
        )

    def assets(self, page: Paged) -> Response:
        """Assets as they are now: health, how many tags are Good, Uncertain and Bad, the worst of them."""
        twin = self._desk.twin
        now, shots = twin.now(), twin.snapshots()
        own: dict[str, list[tuple[int, Tag]]] = {name: [] for name in self._desk.look.config.assets}
        for index, tag in twin.table.items():
            own[tag.asset].append((index, tag))
        rows = [_asset_row(name, tags, now, shots.get(name)) for name, tags in own.items()]
        return page.whole(pa.Table.from_pylist(rows, _ASSETS))

    def asset(self, asset: AssetName) -> Response:
        """One asset with its newest snapshot as a whole, and its tags."""
        desk = self._desk
        own = desk.tags(asset)
        now, shot = desk.twin.now(), desk.twin.snapshots().get(asset)
        said = _asset_row(asset, own, now, shot)
        said["time"] = time_text(said["time"]) if shot else None
        said["snapshot"] = snapshot_object(shot) if shot else None
        said["tags"] = [_now_row(now, index, tag) for index, tag in own]
        return as_object(said)

    def latest(self, page: Paged, tag: Names = None, asset: AssetFilter = None) -> Response:
        """The newest sample of each tag, as `twinloop query latest`; a silent one is STALE."""
        desk = self._desk
        for name in tag or ():
            desk.index(name)
        names = list(tag or ())
        if asset is not None:
            own = [each.name for _, each in desk.tags(asset)]
            names = [name for name in names if name in own] if names else own
            if not names:
                return page.whole(desk.twin.queries.latest([]).slice(0, 0))
        return page.whole(desk.twin.queries.latest(names))

    def trouble(self, page: Paged, asset: AssetFilter = None) -> Response:
        """Tags by trouble, the worst first: the present status, then the share of samples not Good."""
        desk = self._desk
        own = desk.tags(asset)
        now, counts = desk.twin.now(), desk.twin.counts()
        at = np.array([index for index, _ in own], np.int64)
        judged = counts.severities[at]
        share = judged[:, 1:].sum(1) / np.maximum(judged.sum(1), 1)
        worst_first = np.lexsort((at, -share, -severity(now.status[at]).astype(np.int64)))
        rows = [_trouble_row(own[row][1], now, own[row][0], counts) for row in worst_first.tolist()]
        return page.whole(pa.Table.from_pylist(rows, _TROUBLE))

    async def health(self) -> Response:
        """Whether the loop turns, and how sources and assets are, as `/healthz` says."""
        well, said = self._desk.twin.healthz()
        return as_object({"well": well, **said})

    def pipeline(self) -> Response:
        """Sources, logs, cycles and store in figures; null for what is not known."""
        return as_object(self._desk.twin.pipeline())


def _asset_row(
    name: str, own: Sequence[tuple[int, Tag]], now: TagsNow, shot: Snapshot | None
) -> dict[str, Any]:
    at = np.array([index for index, _ in own], np.int64)
    levels = np.minimum(severity(now.status[at]), 2)
    good, uncertain, bad = np.bincount(levels, minlength=3).tolist()
    figures = {each.output: each for each in shot.predictions} if shot else {}
    temperature, conversion = figures.get("temperature"), figures.get("conversion")
    return {
        "asset": name,
        "health": shot.health.value if shot else None,
        "why": shot.why if shot else None,
        "model": (shot.model if shot else None) or None,
        "horizon_s": shot.horizon_s if shot else None,
        "time": shot.time if shot else None,
        "tags": len(own), "good": good, "uncertain": uncertain, "bad": bad,
        "worst_tag": own[int(levels.argmax())][1].name if levels.any() else None,
        "conversion": conversion.now if conversion else None,
        "temperature": temperature.now if temperature else None,
        "temperature_unit": temperature.unit if temperature else None,
        "nis": shot.nis if shot else None,
        "predictions": _predictions(shot) if shot else [],
    }  # fmt: skip


def snapshot_object(shot: Snapshot) -> dict[str, Any]:
    """A snapshot as JSON has it."""
    return {
        "time": time_text(shot.time), "asset": shot.asset, "health": shot.health.value, "why": shot.why,
        "model": shot.model, "state": shot.state, "std": shot.std, "horizon_s": shot.horizon_s,
        "predictions": _predictions(shot), "nis": shot.nis,
    }  # fmt: skip


def _predictions(shot: Snapshot) -> list[Mapping[str, Any]]:
    return [
        {"output": each.output, "unit": each.unit, "now": each.now, "value": each.value,
         "persistence": each.persistence}
        for each in shot.predictions
    ]  # fmt: skip


def _tags_table(tags: Iterable[tuple[int, Tag]]) -> pa.Table:
    return pa.Table.from_pylist([_tag_row(index, tag) for index, tag in tags], _TAGS)


def _tag_row(index: int, tag: Tag) -> dict[str, Any]:
    numbers = (tag.low, tag.high, tag.warn_low, tag.warn_high, tag.rate_limit, tag.spike, tag.zscore)
    return {
        "index": index, "tag": tag.name, "asset": tag.asset, "name": tag.name.removeprefix(f"{tag.asset}."),
        "unit": tag.unit,
        **{key: _finite(number) for key, number in zip(_RULES, numbers, strict=True)},
        "spike_fraction": _finite(tag.spike_fraction),
        "stuck_s": tag.stuck_ns / 1e9 if tag.stuck_ns else None,
        "stale_s": tag.stale_ns / 1e9 if tag.stale_ns else None,
        "every_s": tag.every_ns / 1e9, "noise": _finite(tag.noise), "analogue": tag.analogue,
    }  # fmt: skip


def _now_row(now: TagsNow, index: int, tag: Tag) -> dict[str, Any]:
    """What is known of a tag now, by the columns of `latest`."""
    heard = int(now.time[index]) != NO_TIME
    return {
        "tag": tag.name, "time": time_text(int(now.time[index])) if heard else None,
        "value": float(now.value[index]), "unit": tag.unit, **_verdict(now, index),
        "estimate": float(now.estimate[index]), "estimate_std": float(now.std[index]),
    }  # fmt: skip


def _verdict(now: TagsNow, index: int) -> dict[str, str]:
    return {
        "status": severity_name(int(now.status[index])), "reasons": format_reasons(int(now.reasons[index]))
    }  # fmt: skip


def _trouble_row(tag: Tag, now: TagsNow, index: int, counts: Counts) -> dict[str, Any]:
    good, uncertain, bad = counts.severities[index].tolist()
    numbers = {
        reason.name or "": int(counts.reasons[index, int(reason).bit_length() - 1]) for reason in Reason
    }
    return {
        "tag": tag.name, "asset": tag.asset, **_verdict(now, index),
        "good": good, "uncertain": uncertain, "bad": bad, "since": counts.since_ns,
        "by_reason": {name: number for name, number in numbers.items() if number},
    }  # fmt: skip


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
