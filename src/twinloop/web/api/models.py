"""What answers look like, for the OpenAPI document; that they do is a test's to say."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from twinloop.records import DeadReason, EventKind, Health
from twinloop.web.api.answering import FORMATS
from twinloop.web.api.problems import MEDIA_TYPE

__all__ = ["BODY", "Said", "components", "object_of", "plain", "problems", "rows_of"]

Said = dict[int | str, dict[str, Any]]
"""Answers by their status, as FastAPI takes them."""

_REF: Final = "#/components/schemas/{model}"

Time = Annotated[
    str, Field(description="ISO 8601 in UTC, ending in Z", examples=["2026-03-01T10:00:00.250Z"])
]
Status = Literal["Good", "Uncertain", "Bad"]
Reasons = Annotated[str, Field(description="checks that fired, joined by |", examples=["RATE|SPIKE"])]
Number = float | None


class Answer(BaseModel):
    """What all of them have in common: every key is always there, and no other."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Error(Answer):
    """One place where a request is wrong."""

    where: str
    detail: str


class Problem(Answer):
    """Why there is no other answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Error] = []

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)


class Index(Answer):
    """The plant, this version, and where to go on; `run` names the process."""

    plant: str
    version: str
    run: str
    links: dict[str, str]


class Tag(Answer):
    """A tag's rules in its unit; null is none. `index` is that of the live frames."""

    index: int
    tag: str
    asset: str
    name: str
    unit: str
    range_low: Number
    range_high: Number
    warn_low: Number
    warn_high: Number
    rate_limit: Number
    spike: Number
    zscore: Number
    spike_fraction: Number
    stuck_s: Number
    stale_s: Number
    every_s: float
    noise: Number
    analogue: bool


class Prediction(Answer):
    """One output `horizon_s` ahead, beside the value if nothing changed."""

    output: str
    unit: str
    now: Number
    value: Number
    persistence: Number


class Snapshot(Answer):
    """An asset's twin at one tick."""

    time: Time
    asset: str
    health: Health
    why: str
    model: str
    state: dict[str, Number]
    std: dict[str, Number]
    horizon_s: Number
    predictions: list[Prediction]
    nis: Number


class AssetState(Answer):
    """An asset as it is now; `good`, `uncertain` and `bad` count its tags."""

    asset: str
    health: Health | None
    why: str | None
    model: str | None
    horizon_s: Number
    time: Time | None
    good: int
    uncertain: int
    bad: int
    worst_tag: str | None
    conversion: Number
    temperature: Number
    temperature_unit: str | None
    nis: Number
    predictions: list[Prediction]


class AssetNow(AssetState):
    """An asset as it is now, with the number of its tags."""

    tags: int


class Before(Answer):
    """A sample of a tag that is known."""

    time: Time
    value: Number
    unit: str
    status: Status
    reasons: Reasons
    estimate: Number
    estimate_std: Number


class Sample(Answer):
    """A sample with its estimate."""

    tag: str
    time: Time
    value: Number
    unit: str
    status: Status
    reasons: Reasons
    estimate: Number
    estimate_std: Number


class SampleNow(Answer):
    """The newest sample of a tag; `time` is null before any."""

    tag: str
    time: Time | None
    value: Number
    unit: str
    status: Status
    reasons: Reasons
    estimate: Number
    estimate_std: Number


class Asset(AssetState):
    """An asset with its newest snapshot and the newest sample of each tag."""

    tags: list[SampleNow]
    snapshot: Snapshot | None


class Window(Answer):
    """[time, time + every): `count` is of all samples, `mean`, `min` and `max` of the Good ones."""

    time: Time
    mean: Number
    min: Number
    max: Number
    count: int
    good_fraction: float


class AggregateWindow(BaseModel):
    """Of each aggregate asked for its value and, as `NAME_status`, its status."""

    time: Time

    model_config = ConfigDict(extra="allow")


class Event(Answer):
    """Something that happened to a tag, an asset or a source."""

    time: Time
    subject: str
    kind: EventKind
    before: str
    after: str
    why: str


class PredictionRow(Answer):
    """A prediction made at `time` of what is at `due`."""

    time: Time
    asset: str
    output: str
    unit: str
    horizon_s: float
    due: Time
    now: Number
    value: Number
    persistence: Number


class Quality(Answer):
    """Samples of a tag in a window."""

    tag: str
    time: Time
    count: int
    good: int
    uncertain: int
    bad: int


class Trouble(Answer):
    """A tag's present status, and its samples since the start."""

    tag: str
    asset: str
    status: Status
    reasons: Reasons
    good: int
    uncertain: int
    bad: int
    since: Time
    by_reason: dict[str, int]


class DeadLetter(Answer):
    """A payload that became no sample; `raw` is text, or `base64:` and its code."""

    time: Time
    source: str
    origin: str
    reason: DeadReason
    detail: str
    raw: str


class DeadCount(Answer):
    """Dead letters of a source, an origin and a reason."""

    source: str
    origin: str
    reason: DeadReason
    count: int
    first: Time
    last: Time
    detail: str


class StatusCode(Answer):
    """The OPC UA status code."""

    number: int
    name: str


class Why(Answer):
    """A check that fired; `rule` is as in the plant file, null where it is by none."""

    reason: str
    rule: str | None
    sentence: str


class Filter(Answer):
    """The measurement noise given, the gain and the innovation, where they can be told."""

    noise: Number
    gain: Number
    innovation: Number
    note: Annotated[str | None, Field(description="why gain and innovation are not told, where that is it")]


class ModelUsed(Answer):
    """The asset's model, null for none, and the version of twinloop."""

    name: str | None
    version: str


class LogPlace(Answer):
    """Where the sample stands in a log."""

    name: str
    offset: int


class ProvenanceOf(Answer):
    """Where a number comes from; `before` holds the samples before it, newest first."""

    tag: str
    time: Time
    value: Number
    unit: str
    status: Status
    reasons: Reasons
    estimate: Number
    estimate_std: Number
    status_code: StatusCode
    arrival: Time
    why: list[Why]
    filter: Filter
    model: ModelUsed
    log: LogPlace
    before: list[Before]


class HealthNow(BaseModel):
    """Whether the loop turns, and how sources and assets are."""

    well: bool
    status: str

    model_config = ConfigDict(extra="allow")


class Pipeline(BaseModel):
    """Sources, logs, cycles and store in figures."""

    sources: list[dict[str, Any]]
    logs: list[dict[str, Any]]
    cycles: dict[str, Any]
    store: dict[str, Any]
    totals: dict[str, Any]

    model_config = ConfigDict(extra="allow")


class LabSample(Answer):
    """A sample to be taken; `unit` is converted to the tag's own, `status` Good, Uncertain, Bad or a code."""

    tag: str
    time: str
    value: float | bool
    unit: str = ""
    status: str = "Good"

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)


class Taken(Answer):
    """How many samples were taken."""

    taken: int


_MODELS: Final = (
    Problem, Index, Tag, AssetNow, Asset, Sample, Window, AggregateWindow, Event, Snapshot, PredictionRow,
    Quality, Trouble, DeadLetter, DeadCount, ProvenanceOf, HealthNow, Pipeline, LabSample, Taken,
)  # fmt: skip

_SAID: Final = {
    400: "it can be read and not be answered: too much at once, or a start that is not before its end",
    403: "the plant file does not let samples in",
    404: "no such tag or asset, or nothing of it yet",
    405: "another method",
    406: "none of the formats there are",
    413: "too much at once",
    415: "not JSON",
    422: "something in it cannot be read",
    503: "not now; Retry-After says when to ask again",
}
_TEXT: Final[dict[str, Any]] = {"type": "string"}


def components() -> dict[str, Any]:
    """The schemas that answers refer to."""
    _, made = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_REF)
    schemas: dict[str, Any] = made["$defs"]
    return schemas


def rows_of(*models: type[BaseModel]) -> Said:
    """The 200 of rows in every format, with a link to the next page."""
    refs = [_schema(model) for model in models]
    items = refs[0] if len(refs) == 1 else {"anyOf": refs}
    content: dict[str, Any] = {media: {"schema": _TEXT} for media in FORMATS.values()}
    content["application/json"] = {"schema": {"type": "array", "items": items}}
    link = {"description": 'the next page, rel="next"; none after the last', "schema": _TEXT}
    return {200: {"description": "rows", "content": content, "headers": {"Link": link}}}


def object_of(model: type[BaseModel], status: int = 200) -> Said:
    """The answer that is one object."""
    content = {"application/json": {"schema": _schema(model)}}
    return {status: {"description": (model.__doc__ or "").rstrip("."), "content": content}}


def plain(media: str, schema: dict[str, Any], said: str) -> Said:
    """The answer that is a text."""
    return {200: {"description": said, "content": {media: {"schema": schema}}}}


def problems(*statuses: int) -> Said:
    """What else may be answered."""
    content = {MEDIA_TYPE: {"schema": _schema(Problem)}}
    return {status: {"description": _SAID[status], "content": content} for status in statuses}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": _schema(LabSample)}}},
    }
}
"""What is sent in."""
