"""Where a plant's history goes and is asked for: the only file that chooses among stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.config.models import InfluxStoreConfig, LocalStoreConfig, PlantConfig
from twinloop.config.section import TlsConfig
from twinloop.config.text import SECOND_NS
from twinloop.errors import ConfigError, StartError, StoreBusy
from twinloop.log.reader import LogReader
from twinloop.records import decode_outputs
from twinloop.stores.influx.options import Existing, InfluxOptions
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.stores.retention import Retention
from twinloop.stores.rows import Entry
from twinloop.stores.store import Store
from twinloop.tags import TagTable
from twinloop.tls import tls_context

__all__ = ["OutputsReader", "Reading", "look_at_store", "make_queries", "make_store", "units_of"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What questions need beside the store; see `LocalQueries`."""

    unsealed: Callable[[int], Iterable[Entry]]
    active: Sequence[bool]
    ahead: Path
    units: Mapping[int, str]
    settled: Callable[[pa.Table], npt.NDArray[np.bool_]]
    release: Callable[[], None]


class OutputsReader:
    """What a data directory's output log holds after an offset, asked again and again."""

    def __init__(self, directory: Path) -> None:
        self._reader = LogReader(directory / "outputs")

    def __call__(self, after: int) -> Iterator[Entry]:
        """Outputs after an offset, ascending. Raises LogError where they cannot be read."""
        for offset, data in self._reader.entries(after):
            yield offset, decode_outputs(data)

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


def units_of(table: TagTable, stored: Mapping[int, str] = MappingProxyType({})) -> list[str]:
    """Units by index: those that history is stored in, where they are known, else of the plant file."""
    return [stored.get(index, tag.unit if (tag := table[index]) else "") for index in range(len(table))]


def make_store(
    config: PlantConfig,
    directory: Path,
    table: TagTable,
    redeliverable_from: int,
    seal_after_s: float,
    *,
    refused: Callable[[int], None],
) -> Store:
    """The store of a plant file, in a data directory.

    Args:
        config: the plant file.
        directory: the data directory.
        table: the tags.
        redeliverable_from, seal_after_s: see `LocalStore`.
        refused: told how many samples a store on a server will never take.

    Raises:
        ConfigError: something the plant file asks for is not installed, or cannot be used.
        StartError: the directory cannot be used.
    """
    folder = directory / "store"
    more = {"redeliverable_from": redeliverable_from, "seal_after_s": seal_after_s}
    try:
        if isinstance(config.store, InfluxStoreConfig):
            from twinloop.stores.influx.store import InfluxStore

            options = _influx_options(config.plant, config.store)
            names, units = table.names, units_of(table)
            return InfluxStore(options, folder, names, units, refused=refused, **more)  # type: ignore[arg-type]
        kept = _retention(config.store)
        return LocalStore(folder, table.names, background=True, retention=kept, **more)  # type: ignore[arg-type]
    except OSError as error:
        raise StartError(f"the store {folder} cannot be used: {error}") from error


def _retention(config: LocalStoreConfig) -> Retention | None:
    return Retention(config.keep, minutes=config.then == "1m") if config.keep else None


def make_queries(config: PlantConfig, table: TagTable, reading: Reading) -> LocalQueries:
    """The answers of the store of a plant file.

    Raises:
        ConfigError: as for `make_store`.
    """
    folder, names = config.data_dir / "store", table.names
    units = units_of(table, reading.units)
    asked: Callable[..., LocalQueries] = LocalQueries
    if isinstance(config.store, InfluxStoreConfig):
        from twinloop.stores.influx.queries import InfluxQueries

        asked = partial(InfluxQueries, _influx_options(config.plant, config.store))
    return asked(
        folder,
        names,
        units,
        reading.unsealed,
        active=reading.active,
        ahead=reading.ahead,
        settled=reading.settled,
        release=reading.release,
    )


def look_at_store(config: PlantConfig) -> tuple[str, str]:
    """What `twinloop check` says of a store on a server, and what is wrong with it; empty for nothing.

    Raises:
        ConfigError: as for `make_store`.
    """
    if not isinstance(config.store, InfluxStoreConfig):
        return "", ""
    from twinloop.stores.influx.client import Client

    client = Client(_influx_options(config.plant, config.store))
    try:
        where = client.look()
    except StoreBusy as busy:
        return "", f"store: {busy}"
    finally:
        client.close()
    return f"store: {where} takes points", ""


def _influx_options(plant: str, store: InfluxStoreConfig) -> InfluxOptions:
    tls = store.tls or TlsConfig(ca=None, cert=None, key=None)
    context = partial(tls_context, tls.ca, tls.cert, tls.key) if store.url.startswith("https:") else None
    try:
        if context is not None:
            context()  # what cannot be used is refused now
    except ConfigError as error:
        raise ConfigError(f"store.{error}") from error
    return InfluxOptions(
        plant=plant,
        url=store.url,
        bucket=store.bucket,
        token=store.token.get_secret_value() if store.token else "",
        org=store.org or "",
        username=store.username or "",
        password=store.password.get_secret_value() if store.password else "",
        measurement=store.measurement,
        tls=context,
        timeout_s=store.timeout / SECOND_NS,
        existing={
            name: Existing(each.measurement, dict(each.tags), each.field, each.bucket or "")
            for name, each in store.existing.items()
        },
    )
