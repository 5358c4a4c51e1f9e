"""The plant file as typed models: every key, its type, its default and its meaning.

The models only know one key at a time. What joins keys (a tag that an asset names, a model's outputs) is
checked in `twinloop.config.checks`; a file is read and its errors are worded in `twinloop.config.plantfile`.
Durations are kept in ns, sizes in bytes, paths are resolved against the plant file's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from twinloop.config.fields import (
    ONE_OF,
    Duration,
    FilePath,
    Flag,
    MqttUrl,
    Name,
    Number,
    OpcuaUrl,
    OptionalDuration,
    OptionalNumber,
    OptionalRange,
    OptionalSpike,
    Secret,
    Size,
    Text,
    Unit,
    mapping,
    whole,
)
from twinloop.config.influx import ExistingConfig, InfluxStoreConfig
from twinloop.config.section import Section, TlsConfig, typed
from twinloop.config.text import SECOND_NS, show
from twinloop.config.web import WebConfig, WebTlsConfig
from twinloop.tags import DEFAULT_REBASELINE, DEFAULT_REMEMBER, DEFAULT_REWIND_NS

__all__ = [
    "AssetConfig",
    "ExistingConfig",
    "InfluxStoreConfig",
    "LocalLogConfig",
    "LocalStoreConfig",
    "MemoryLogConfig",
    "MqttSourceConfig",
    "NodeConfig",
    "OpcuaSourceConfig",
    "PlantConfig",
    "SecurityConfig",
    "TagRules",
    "TlsConfig",
    "TopicConfig",
    "WebConfig",
    "WebTlsConfig",
]

MINUTE_NS: Final = 60 * SECOND_NS


def _node(value: object) -> object:
    """A node's tag alone, or a mapping that names it."""
    return {"tag": value} if isinstance(value, str) else value


def _asset_tags(value: object) -> object:
    """A list of tag names, or a mapping of them to overriding rules; a mapping from here on."""
    if not isinstance(value, list):
        return mapping(value)
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f"expected tag names, got {show(item)}")  # noqa: TRY004 - pydantic's way
    doubled = {item for item in value if value.count(item) > 1}
    if doubled:
        raise ValueError(f"tag {show(min(doubled))} is listed twice")
    return {str(item): {} for item in value}


def _model_parameter(value: object) -> object:
    """A number or a word; a number's text (from the environment) is a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a number or a word, got {show(value)}")  # noqa: TRY004 - pydantic's way
    try:
        return float(value)
    except ValueError:
        return str(value)
    except OverflowError:
        raise ValueError(f"expected a number or a word, got {show(value)}") from None


def _off(value: object) -> object:
    """`false` and `off` mean none."""
    return None if value is False or value == "off" else value


class TopicConfig(Section):
    """What the payloads of one topic pattern look like and where they lead."""

    format: Annotated[Literal["json", "number"], ONE_OF] = Field(
        "json", description="`json`, or `number`: a bare number as text"
    )
    fields: dict[
        Annotated[Literal["value", "unit", "timestamp", "quality", "tag", "asset"], ONE_OF], Text
    ] = Field(default_factory=dict, description="JSON keys by role; a dot leads into nested objects")
    timestamp_format: Annotated[Literal["auto", "iso", "s", "ms", "us", "ns"], ONE_OF] = Field(
        "auto", description="ISO 8601, or a number since the epoch in s, ms, us or ns"
    )
    quality_encoding: Annotated[Literal["ua", "opcda"], ONE_OF] = Field(
        "ua", description="what a number as quality is: `ua` (0 is Good) or `opcda` (192 is Good)"
    )
    values: dict[str, Number] = Field(
        default_factory=dict, description="numbers for words: {OPEN: 1, CLOSED: 0}"
    )
    unit: Unit = Field("", description="unit of payloads that do not say theirs; default: the tag's")
    asset: Name | None = Field(None, description="the asset, where the topic does not name it")
    tag: Name | None = Field(None, description="the tag, where the topic does not name it")


class MqttSourceConfig(Section):
    """A source of `type: mqtt`."""

    type: Literal["mqtt"] = Field(description="`mqtt`")
    url: MqttUrl = Field(description="mqtt://HOST:1883, or mqtts://HOST:8883 for TLS")
    insecure: Flag = Field(
        False, description="true: allow mqtt:// to another host, where everyone can read along"
    )
    username: Text | None = Field(None, description="user name")
    password: Secret | None = Field(None, description="password; keep it in the environment: ${NAME}")
    protocol: Annotated[Literal["5", "3.1.1"], ONE_OF] = Field(
        "5", description="MQTT version, `5` or `3.1.1`"
    )
    client_id: Text | None = Field(None, description="default: made of plant, source and a kept random part")
    clean_start: Flag = Field(False, description="true: the broker keeps nothing for us while we are away")
    session_expiry: Duration = Field(
        24 * 60 * MINUTE_NS,
        le=0xFFFF_FFFF * SECOND_NS,
        description="how long the broker keeps our messages while we are away (MQTT 5)",
    )
    qos: Annotated[int, whole(0, 2)] = Field(1, description="quality of service asked for: 0, 1 or 2")
    receive_maximum: Annotated[int, whole(1, 65535)] = Field(
        65535, description="messages in flight before an acknowledgement (MQTT 5)"
    )
    keepalive: Duration = Field(30 * SECOND_NS, description="longest silence on the socket before a ping")
    max_payload: Size = Field(
        2**20, description="longer payloads go to the dead letters, with their head only"
    )
    connect_timeout: Duration = Field(10 * SECOND_NS, description="longest wait for a connection")
    silence: OptionalDuration = Field(
        MINUTE_NS, description="no message for so long: ask the broker; without an answer, connect again"
    )
    tls: TlsConfig | None = Field(None, description="certificates for mqtts://")
    topics: dict[str, TopicConfig] = Field(
        min_length=1, description="by topic pattern with {asset} and {tag}; the first that matches counts"
    )


class SecurityConfig(Section):
    """`security` of an OPC UA source: how the channel is protected."""

    policy: Annotated[
        Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"], ONE_OF
    ] = Field("None", description="security policy")
    mode: Annotated[Literal["Sign", "SignAndEncrypt"], ONE_OF] = Field(
        "SignAndEncrypt", description="of a policy other than None"
    )
    cert: FilePath | None = Field(
        None, description="this client's certificate (PEM or DER); default: its own, made once and kept"
    )
    key: FilePath | None = Field(None, description="private key of `cert`")
    server_cert: FilePath | None = Field(
        None, description="the server's certificate; default: the one pinned by `twinloop trust`"
    )


class NodeConfig(Section):
    """Where a node pattern leads."""

    tag: Name = Field(description="tag name")
    asset: Name | None = Field(None, description="the asset, where the pattern has no {asset}")


class OpcuaSourceConfig(Section):
    """A source of `type: opcua`."""

    type: Literal["opcua"] = Field(description="`opcua`")
    url: OpcuaUrl = Field(description="opc.tcp://HOST:4840/PATH")
    username: Text | None = Field(None, description="user name; default: anonymous")
    password: Secret | None = Field(None, description="password; keep it in the environment: ${NAME}")
    user_cert: FilePath | None = Field(
        None, description="a user's certificate (PEM or DER), in place of a user name"
    )
    user_key: FilePath | None = Field(None, description="private key of `user_cert`")
    mode: Annotated[Literal["subscribe", "poll"], ONE_OF] = Field(
        "subscribe", description="`poll` reads at each tag's `every`"
    )
    publishing_interval: Duration = Field(SECOND_NS // 2, description="how often the server sends changes")
    sampling_interval: Duration = Field(0, description="how often the server looks; 0: at every change")
    queue_size: Annotated[int, whole(1, 1_000_000)] = Field(
        100, description="values the server keeps for a node in between"
    )
    connect_timeout: Duration = Field(10 * SECOND_NS, description="longest wait for a connection or answer")
    session_timeout: Duration = Field(MINUTE_NS, description="how long the server keeps a silent session")
    keepalive: Duration = Field(
        5 * SECOND_NS, description="a subscription without changes says so this often"
    )
    retry: Duration = Field(30 * SECOND_NS, description="how often a node that failed is tried again")
    silence: OptionalDuration = Field(
        None, description="no data for so long: connect again; default `off`, as the keep-alive watches"
    )
    history: Flag = Field(True, description="fill the gap of an outage from the server's history")
    history_max: Duration = Field(
        24 * 60 * MINUTE_NS, gt=0, description="how far back a gap is filled at most"
    )
    security: SecurityConfig = Field(SecurityConfig(), description="protection of the channel")
    insecure: Flag = Field(
        False, description="true: allow a channel without security off this host, and passwords in clear text"
    )
    nodes: dict[str, Annotated[NodeConfig, BeforeValidator(_node)]] = Field(
        min_length=1, description="tag name by NodeId (ns= or nsu=); {asset} expands over assets with the tag"
    )


class TagRules(Section):
    """How a tag is read and judged; numbers in its `unit`. An asset may override any key."""

    unit: Unit = Field("", description="engineering unit; whatever arrives is converted to it")
    type: Annotated[Literal["analogue", "boolean", "enum"], ONE_OF] = Field(
        "analogue", description="`boolean` and `enum` are held, not filtered, and have no z-score"
    )
    range: OptionalRange = Field(None, description="[low, high] of the instrument; outside: Bad, RANGE")
    warn_range: OptionalRange = Field(None, description="[low, high]; outside: Uncertain, WARN_RANGE")
    rate_limit: OptionalNumber = Field(None, description="unit per second; beyond: Uncertain, RATE")
    spike: OptionalSpike = Field(
        None, description="`20%` of the last good value, or a step as `10` or '10 degC'; Uncertain, SPIKE"
    )
    zscore: OptionalNumber = Field(
        3.0, description="deviations of the last `window` values; Uncertain, ZSCORE"
    )
    window: Annotated[int, whole(10, 1_000_000)] = Field(
        100, description="good samples the z-score compares with"
    )
    rebaseline: Annotated[int, whole(2, 1_000_000)] = Field(
        DEFAULT_REBASELINE, description="outliers in a row after which the level has moved"
    )
    remember: Annotated[int, whole(1, 1_000_000)] = Field(
        DEFAULT_REMEMBER, description="samples among which a redelivered one is recognised; 16 bytes each"
    )
    stuck: OptionalDuration = Field(None, description="no change for so long: Uncertain, STUCK")
    stale: OptionalDuration = Field(
        None, description="no sample for so long: Uncertain, then Bad, STALE; default: five times `every`"
    )
    every: Duration = Field(SECOND_NS, gt=0, description="cycle tier; never thins what arrives")
    noise: OptionalNumber = Field(
        None, description="measurement standard deviation; default: estimated from the data"
    )
    rate_noise: OptionalNumber = Field(
        None, description="how fast the rate wanders, unit/s per sqrt(s); default: from `noise` and the data"
    )
    rewind: OptionalDuration = Field(
        DEFAULT_REWIND_NS,
        description="a sample late by no more is folded into the estimate at its place; 0 or `off`: none is",
    )
    fill: Annotated[Literal["hold", "linear", "model", "none"], ONE_OF] = Field(
        "hold", description="what stands in for bad or missing values"
    )


class AssetConfig(Section):
    """One piece of equipment: its tags and, where it has one, its model."""

    model: Text | None = Field(None, description="name of a model; default: none, the tags alone")
    tags: Annotated[dict[str, TagRules], BeforeValidator(_asset_tags)] = Field(
        default_factory=dict, description="list of tag names, or a mapping of them to overriding rules"
    )
    measures: dict[str, Annotated[Name | None, BeforeValidator(_off)]] = Field(
        default_factory=dict, description="tag by model output or input; equal names by default; `off`: none"
    )
    parameters: dict[str, Annotated[float | str, BeforeValidator(_model_parameter)]] = Field(
        default_factory=dict, description="model parameters that differ from their defaults"
    )
    horizon: Duration = Field(MINUTE_NS, gt=0, description="how far ahead the model predicts")
    every: Duration = Field(SECOND_NS, gt=0, description="cycle tier of the asset's twin")


class LocalStoreConfig(Section):
    """The embedded store, in `data_dir`."""

    type: Literal["local"] = Field("local", description="`local`")
    keep: OptionalDuration = Field(
        None, description="samples go when they are older; default `off`: everything is kept"
    )
    then: Annotated[Literal["1m", "nothing"], ONE_OF] = Field(
        "1m", description="what stays of them: `1m`, each minute's mean, min, max and count; or `nothing`"
    )


class LocalLogConfig(Section):
    """The log on disk, in `data_dir`."""

    type: Literal["local"] = Field(
        "local", description="`local`, on disk, or `memory`, gone with the process"
    )
    keep: Duration = Field(24 * 60 * MINUTE_NS, gt=0, description="oldest records are trimmed after this")
    max_size: Size = Field(10 * 10**9, gt=0, description="oldest records are trimmed beyond this")
    overflow: Annotated[Literal["block", "drop_oldest", "thin"], ONE_OF] = Field(
        "block",
        description="when full of what is still needed: `block`, or `drop_oldest` or `thin` with an event",
    )
    archive: OptionalDuration = Field(
        None, description="keep trimmed records, compressed, for so long; default `off`"
    )
    commit_interval: Duration = Field(
        0, le=SECOND_NS, description="wait so long for company before a commit; 0: as soon as the disk can"
    )


class MemoryLogConfig(LocalLogConfig):
    """The log in memory: fast, and gone with the process."""

    type: Literal["memory"] = Field("memory", description="`memory`")  # type: ignore[assignment]
    max_size: Size = Field(256 * 10**6, gt=0, description="oldest records are trimmed beyond this")

    @model_validator(mode="after")
    def _memory_keeps_nothing(self) -> Self:
        for key in ("archive", "commit_interval"):
            if getattr(self, key):
                raise ValueError(f"{key} needs a log on disk (type: local)")
        if self.overflow == "thin":
            raise ValueError("overflow: thin needs a log on disk (type: local)")
        return self


SourceConfig = Annotated[MqttSourceConfig | OpcuaSourceConfig, Field(discriminator="type")]
StoreConfig = Annotated[
    LocalStoreConfig | InfluxStoreConfig,
    Field(discriminator="type"),
    typed("local", "local", "influxdb", shown_by={"url": "influxdb", "bucket": "influxdb"}),
]
LogConfig = Annotated[
    LocalLogConfig | MemoryLogConfig, Field(discriminator="type"), typed("local", "local", "memory")
]


class PlantConfig(Section):
    """A whole plant file."""

    plant: Name = Field(description="name of the plant")
    data_dir: FilePath = Field(
        Path(),
        description="folder of log, store and checkpoints, relative to this file; default: PLANT-data",
    )
    cycle: OptionalDuration = Field(None, description="period of the loop; default: the smallest `every`")
    sources: dict[Name, SourceConfig] = Field(default_factory=dict, description="connections by name")
    tags: dict[Name, TagRules] = Field(default_factory=dict, description="rules by tag name")
    assets: dict[Name, AssetConfig] = Field(default_factory=dict, description="equipment by name")
    store: StoreConfig = Field(LocalStoreConfig(), description="where history goes")
    log: LogConfig = Field(LocalLogConfig(), description="where records wait and are replayed from")
    web: Annotated[WebConfig | None, BeforeValidator(_off)] = Field(
        WebConfig(), description="own HTTP port; `off` for none"
    )

    @model_validator(mode="before")
    @classmethod
    def _data_beside_the_file(cls, value: object) -> object:
        """Two plants in one folder do not share data unless they say so."""
        if isinstance(value, dict) and "data_dir" not in value:
            return {**value, "data_dir": f"{value.get('plant', 'plant')}-data"}
        return value
