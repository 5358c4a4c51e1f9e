"""From a plant file to running parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from twinloop.batch import Batch
from twinloop.config.expand import cycle_ns, measures_of
from twinloop.config.models import (
    LocalLogConfig,
    MemoryLogConfig,
    PlantConfig,
)
from twinloop.linking import Intake, namers, readers_of, silence_s, sources_of
from twinloop.log.files import newest_of
from twinloop.log.local import LocalLog
from twinloop.log.log import Log, Overflow
from twinloop.log.memory import MemoryLog
from twinloop.log.reader import read_entries
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.loop.metrics import Metrics
from twinloop.loop.supervise import Append, Supervisor
from twinloop.loop.sync import Loop, Parts
from twinloop.records import Tick, decode_outputs
from twinloop.sources.clock import Clock
from twinloop.sources.files import REPLAY, FileOptions, FileSource
from twinloop.sources.importing import ImportSource
from twinloop.sources.refeed import RefeedSource
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.impute import ImputeStage
from twinloop.stages.route import RouteStage
from twinloop.stages.validate import ValidateStage
from twinloop.storedunits import check_units
from twinloop.stores.ahead import Ahead
from twinloop.stores.local import SEAL_AFTER_S
from twinloop.stores.store import Store
from twinloop.storing import make_store
from twinloop.tags import Resolver, TagTable
from twinloop.twin.models import MODELS
from twinloop.twin.twin import AssetSpec, Twin
from twinloop.workplace import Workplace

__all__ = [
    "Replay",
    "build_fold",
    "build_loop",
    "compile_kernels",
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
    resolver = Resolver(table, namers(config))
    compile_kernels(table)
    check_units(place)
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
            return [Supervisor(FileSource(options, Intake(REPLAY, resolver, place.dictionary)), append)]
        again = RefeedSource(place.directory, readers_of(place, resolver), watch=not only_refeed)
        intake = Intake(REPLAY, resolver, place.dictionary)
        history = ImportSource(place.directory, intake, watch=not only_refeed)
        sources = [] if only_refeed else sources_of(place, resolver)
        return [
            *(
                Supervisor(
                    each,
                    append,
                    silence_s=silence_s(config, each.name),
                    nearest=partial(resolver.nearest, each.name),
                )
                for each in sources
            ),
            Supervisor(again, append, quiet=True),
            Supervisor(history, append, quiet=True),
        ]

    return Loop(parts, supervisors)


def _follower(place: Workplace) -> Ahead:
    return Ahead(place.directory / "outputs", place.directory / "store", place.table.names)


def build_fold(place: Workplace) -> Fold:
    """A plant's fold that knows nothing yet, without sources, logs or store around it."""
    return _fold(place, Resolver(place.table, namers(place.config)))


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
