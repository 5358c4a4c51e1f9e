"""From a plant file to running parts: the only file that names every part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from twinloop.batch import Batch
from twinloop.config.checks import topic_rule
from twinloop.config.expand import cycle_ns, measures_of, nodes_of, tags_of
from twinloop.config.models import (
    LocalLogConfig,
    MemoryLogConfig,
    MqttSourceConfig,
    OpcuaSourceConfig,
    PlantConfig,
    TlsConfig,
)
from twinloop.errors import ConfigError
from twinloop.log.dictionary import Dictionary
from twinloop.log.files import newest_of, read_entries
from twinloop.log.local import LocalLog
from twinloop.log.log import Log, Overflow
from twinloop.log.memory import MemoryLog
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.loop.metrics import Metrics
from twinloop.loop.supervise import Append, Supervisor
from twinloop.loop.sync import Loop, Parts
from twinloop.records import Tick, decode_outputs
from twinloop.sources.clock import Clock
from twinloop.sources.files import REPLAY, FileOptions, FileSource
from twinloop.sources.importing import ImportSource
from twinloop.sources.mqtt.client import MqttOptions, MqttSource
from twinloop.sources.mqtt.intake import MessageReader
from twinloop.sources.mqtt.topics import TopicMap
from twinloop.sources.mqtt.url import parse_url
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSecurity, OpcuaSource
from twinloop.sources.refeed import Reader, RefeedSource
from twinloop.sources.source import Source
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.stores.ahead import Ahead
from twinloop.stores.local import SEAL_AFTER_S
from twinloop.stores.store import Store
from twinloop.storing import make_store
from twinloop.tags import Refusal, Resolver, TagTable
from twinloop.tls import tls_context
from twinloop.twin.models import MODELS
from twinloop.twin.twin import AssetSpec, Twin
from twinloop.workplace import Workplace, client_id

__all__ = [
    "Replay",
    "build_fold",
    "build_loop",
    "build_readers",
    "check_sources",
    "compile_kernels",
    "secured_sources",
]

SECOND_NS: Final = 1_000_000_000
_LOG_FILE_BYTES: Final = 64 << 20
_NOTHING: Final = 2**63 - 1
_MEMORY_SEAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Replay:
    """Files to replay in place of the plant's own sources.

    Attributes:
        paths: CSV or Parquet files.
        speed: recorded seconds per second; 0 for as fast as it goes.
    """

    paths: tuple[Path, ...]
    speed: float = 0.0


class _Intake:
    """What one source may ask of its surroundings; see `Intake`."""

    def __init__(self, source: str, resolver: Resolver, dictionary: Dictionary) -> None:
        self._source = source
        self._resolver = resolver
        self._dictionary = dictionary

    def series(self, address: str, unit: str) -> int | Refusal:
        key = (self._source, address, unit)
        answer = self._resolver.resolve(key)
        return answer if isinstance(answer, Refusal) else self._dictionary.index(key)

    def now_ns(self) -> int:
        return time.time_ns()


def build_loop(
    place: Workplace, metrics: Metrics, replay: Replay | None = None, *, only_refeed: bool = False
) -> Loop:
    """The loop of a plant, ready to run.

    Must be called on the event loop that will run it.

    Args:
        place: whose data directory it works in.
        metrics: where it counts.
        replay: files to replay in place of the plant's sources.
        only_refeed: no source but the spools of dead letters fed again and of history; it ends with those.

    Raises:
        ConfigError: the plant file asks for what cannot be.
        LogError: the data directory's logs cannot be used.
    """
    config, table = place.config, place.table
    resolver = Resolver(table, _namers(config))
    compile_kernels(table)
    checkpoints = Checkpoints(place.directory / "checkpoints", table.names)
    store, log, outputs = _stores(place, checkpoints, metrics)
    period_ns = cycle_ns(config)
    tiers = _tiers(config, table)
    parts = Parts(
        log=log,
        outputs=outputs,
        new_fold=lambda: _fold(place, resolver),
        store=store,
        metrics=metrics,
        checkpoints=checkpoints if isinstance(log, LocalLog) else None,
        clock=None if replay or only_refeed else Clock(period_ns, tiers),
        follower=_follower(place) if isinstance(outputs, LocalLog) else None,
    )

    def supervisors(append: Append) -> Sequence[Supervisor]:
        if replay is not None:
            stale = table.column("stale_ns").max(initial=0)
            options = FileOptions(
                replay.paths, period_ns, tuple(tiers), 2 * int(stale) + period_ns, replay.speed
            )
            return [Supervisor(FileSource(options, _Intake(REPLAY, resolver, place.dictionary)), append)]
        again = RefeedSource(place.directory, _readers(place, resolver), watch=not only_refeed)
        intake = _Intake(REPLAY, resolver, place.dictionary)
        history = ImportSource(place.directory, intake, watch=not only_refeed)
        sources = [] if only_refeed else _sources(place, resolver)
        return [
            *(Supervisor(each, append, silence_s=_silence_s(config, each.name)) for each in sources),
            Supervisor(again, append, quiet=True),
            Supervisor(history, append, quiet=True),
        ]

    return Loop(parts, supervisors)


def _follower(place: Workplace) -> Ahead:
    return Ahead(place.directory / "outputs", place.directory / "store", place.table.names)


def build_readers(place: Workplace) -> dict[str, Reader]:
    """By source name: how dead letters are read again; sources whose letters cannot be are left out."""
    return _readers(place, Resolver(place.table, _namers(place.config)))


def build_fold(place: Workplace) -> Fold:
    """A plant's fold that knows nothing yet, without sources, logs or store around it."""
    return _fold(place, Resolver(place.table, _namers(place.config)))


def _fold(place: Workplace, resolver: Resolver) -> Fold:
    table = place.table
    twin = Twin(_assets(place.config, table), table)
    return Fold(
        RouteStage(resolver, place.dictionary.key),
        ValidateStage(table),
        ImputeStage(table, twin.model_value),
        EstimateStage(table),
        twin,
    )


def compile_kernels(table: TagTable) -> None:
    """Compile or load the kernels before the first cycle is timed, on stages of their own."""
    batch = Batch.raw(tag=[0, 0], time=[1, 2], value=[1.0, 1.0]) if len(table) else Batch.empty()
    batch = ValidateStage(table).step(batch, [])
    ImputeStage(table).step(batch)
    EstimateStage(table).step(batch, [])
    ValidateStage(table).tick(Tick(1, []), [])


def _stores(place: Workplace, checkpoints: Checkpoints, metrics: Metrics) -> tuple[Store, Log, Log]:
    directory, config = place.directory, place.config.log
    first_output = min((offset for offset, _ in read_entries(directory / "outputs", -1, 1)), default=_NOTHING)
    # What is not sealed dies with a log in memory: seal it sooner.
    seal_s = _MEMORY_SEAL_S if isinstance(config, MemoryLogConfig) else SEAL_AFTER_S
    store = make_store(place.config, directory, place.table, first_output, seal_s, refused=metrics.refused)
    if isinstance(config, MemoryLogConfig):
        size, drop = config.max_size, Overflow(config.overflow) is Overflow.DROP_OLDEST
        log_in_memory = MemoryLog(max_bytes=size, drop_oldest=drop)
        return store, log_in_memory, MemoryLog(max_bytes=size, first=store.covered + 1, drop_oldest=drop)
    # Offsets are never given out twice, also where somebody has removed a log or its end was damaged.
    known = [checkpoints.newest_offset()]
    if (newest := newest_of(directory / "outputs")) is not None:
        known.append(decode_outputs(newest[1]).covers)
    log = _local_log(directory / "log", config, first=max(known, default=-1) + 1)
    # Outputs can be folded again, so their commits need not wait for the disk.
    outputs = _local_log(directory / "outputs", config, first=store.covered + 1, durable=False)
    return store, log, outputs


def _local_log(directory: Path, config: LocalLogConfig, *, first: int, durable: bool = True) -> LocalLog:
    overflow = Overflow(config.overflow)
    if overflow is Overflow.THIN and not durable:
        overflow = Overflow.BLOCK  # outputs are never thinned: the fold waits, and the received log is
    return LocalLog(
        directory,
        max_bytes=config.max_size,
        max_age_ns=config.keep,
        file_bytes=_LOG_FILE_BYTES,
        durable=durable,
        first=first,
        overflow=overflow,
        # Outputs are history already, and their commits wait for no disk.
        archive_ns=(config.archive or 0) if durable else 0,
        commit_interval_s=config.commit_interval / SECOND_NS if durable else 0.0,
    )


def _tiers(config: PlantConfig, table: TagTable) -> list[int]:
    return sorted({tag.every_ns for _, tag in table.items()} | {a.every for a in config.assets.values()})


def _assets(config: PlantConfig, table: TagTable) -> list[AssetSpec]:
    return [
        AssetSpec(
            name=name,
            tags=table.of_asset(name),
            model=asset.model,
            parameters=asset.parameters,
            measures=_measures(config, name),
            horizon_s=asset.horizon / SECOND_NS,
            every_ns=asset.every,
        )
        for name, asset in config.assets.items()
    ]


def _measures(config: PlantConfig, name: str) -> dict[str, str]:
    """Full tag name by model output and input; empty for none, so that no namesake is taken."""
    model = MODELS.get(config.assets[name].model or "")
    if model is None:
        return {}
    return dict.fromkeys((*model.outputs, *model.inputs), "") | measures_of(config, name, model)


def _namers(config: PlantConfig) -> dict[str, Callable[[str], str | None]]:
    """By source: the way from an address to a full tag name."""
    namers: dict[str, Callable[[str], str | None]] = {REPLAY: str}
    for name, source in config.sources.items():
        if isinstance(source, MqttSourceConfig):
            namers[name] = _topics(name, source).name_of
        else:
            namers[name] = {node.address: node.tag for node in _nodes(config, source)}.get
    return namers


def _topics(name: str, source: MqttSourceConfig) -> TopicMap:
    try:
        return TopicMap([topic_rule(text, topic) for text, topic in source.topics.items()])
    except ConfigError as error:
        raise ConfigError(f"sources.{name}.topics: {error}") from error


def _nodes(config: PlantConfig, source: OpcuaSourceConfig) -> list[OpcuaNode]:
    every = {tag.name: tag.every_ns / SECOND_NS for tag in tags_of(config)}
    return [OpcuaNode(node.address, node.tag, every[node.tag]) for node in nodes_of(config, source)]


def _sources(place: Workplace, resolver: Resolver) -> list[Source]:
    made: list[Source] = []
    for name, source in place.config.sources.items():
        intake = _Intake(name, resolver, place.dictionary)
        if isinstance(source, MqttSourceConfig):
            made.append(MqttSource(_mqtt_options(place, name, source), intake))
        else:
            made.append(OpcuaSource(_opcua_options(place, name, source), intake))
    return made


def _readers(place: Workplace, resolver: Resolver) -> dict[str, Reader]:
    return {
        name: MessageReader(
            name, _topics(name, source), _Intake(name, resolver, place.dictionary), source.max_payload
        )
        for name, source in place.config.sources.items()
        if isinstance(source, MqttSourceConfig)
    }


def _mqtt_options(place: Workplace, name: str, source: MqttSourceConfig) -> MqttOptions:
    try:
        endpoint = parse_url(source.url)
        tls = source.tls or TlsConfig(ca=None, cert=None, key=None)
        context = partial(tls_context, tls.ca, tls.cert, tls.key) if endpoint.tls else None
        if context is not None:
            context()  # at each connection again; what cannot be used now is refused now
    except ConfigError as error:
        raise ConfigError(f"sources.{name}.{error}") from error
    topics = _topics(name, source)
    nodes = {
        node.tag
        for other in place.config.sources.values()
        if isinstance(other, OpcuaSourceConfig)
        for node in nodes_of(place.config, other)
    }
    names = [tag.name for _, tag in place.table.items() if tag.name not in nodes]
    return MqttOptions(
        name=name,
        host=endpoint.host,
        port=endpoint.port,
        topics=topics,
        client_id=source.client_id or client_id(place, name),
        tls=context,
        certificate=tls.cert is not None,
        username=source.username,
        password=source.password.get_secret_value() if source.password else None,
        protocol=source.protocol,
        qos=source.qos,
        clean_start=source.clean_start,
        session_expiry_s=_whole_seconds(source.session_expiry),
        receive_maximum=source.receive_maximum,
        keepalive_s=_whole_seconds(source.keepalive),
        connect_timeout_s=source.connect_timeout / SECOND_NS,
        max_payload=source.max_payload,
        expected=[tag for tag in names if topics.topic_of(tag) is not None],
    )


def _whole_seconds(duration_ns: int) -> int:
    """Rounded up, as MQTT counts in seconds."""
    return -(-duration_ns // SECOND_NS)


def _opcua_options(place: Workplace, name: str, source: OpcuaSourceConfig) -> OpcuaOptions:
    nodes = _nodes(place.config, source)
    stale = {tag.name: tag.stale_ns / SECOND_NS for _, tag in place.table.items()}
    return OpcuaOptions(
        name=name,
        url=source.url,
        nodes=tuple(nodes),
        mode=source.mode,
        publishing_interval_s=source.publishing_interval / SECOND_NS,
        sampling_interval_s=source.sampling_interval / SECOND_NS,
        queue_size=source.queue_size,
        username=source.username,
        password=source.password.get_secret_value() if source.password else None,
        security=OpcuaSecurity(
            policy=source.security.policy,
            mode=source.security.mode,
            certificate=source.security.cert,
            private_key=source.security.key,
            own=place.directory,
            server_certificate=source.security.server_cert,
            pins=place.directory / "trusted",
        ),
        user_certificate=source.user_cert,
        user_key=source.user_key,
        insecure=source.insecure,
        plant=place.config.plant,
        history=source.history,
        history_max_s=source.history_max / SECOND_NS,
        kept=place.directory / "opcua" / f"{name}.json",
        reading=not place.owned,
        connect_timeout_s=source.connect_timeout / SECOND_NS,
        retry_s=source.retry / SECOND_NS,
        session_timeout_s=source.session_timeout / SECOND_NS,
        keepalive_s=source.keepalive / SECOND_NS,
        # Read well before it would count as stale: a value that does not change is not a lost one.
        reread_after_s={node.address: 0.6 * stale.get(node.tag, 0.0) for node in nodes},
    )


def _silence_s(config: PlantConfig, name: str) -> float:
    return (config.sources[name].silence or 0) / SECOND_NS


def check_sources(place: Workplace) -> list[Source]:
    """The plant's sources, for `twinloop check`; they have not connected."""
    return _sources(place, Resolver(place.table, _namers(place.config)))


def secured_sources(place: Workplace) -> list[OpcuaOptions]:
    """The OPC UA sources whose channel is protected, for `twinloop trust`."""
    return [
        _opcua_options(place, name, source)
        for name, source in place.config.sources.items()
        if isinstance(source, OpcuaSourceConfig) and source.security.policy != "None"
    ]
