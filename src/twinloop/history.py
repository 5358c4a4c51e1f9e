"""The history of a plant, asked from Python or the command line, also while another process runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.config.expand import tags_of
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import QueryError
from twinloop.log.dictionary import Dictionary
from twinloop.log.files import read_entries
from twinloop.records import Outputs, decode_outputs
from twinloop.sources.refeed import Ledger, letter_key
from twinloop.stores.queries import LocalQueries
from twinloop.storing import Reading, make_queries
from twinloop.tags import TagTable
from twinloop.timetext import parse_duration, parse_time

__all__ = ["Plant", "open_plant", "open_queries", "outputs_after"]

Moment = str | int | None
"""A time: ISO 8601, relative to now (`-1h`), ns since the epoch, or None for open."""


def open_queries(config: PlantConfig) -> LocalQueries:
    """The store's answers, with what the running twin has not sealed yet.

    With `log: {type: memory}` the newest outputs are in that process alone: what the store has not sealed
    yet is not seen from here.

    Raises:
        ConfigError: the store needs a package that is not installed.
        QueryError: there is no data directory yet.
        LogError: it cannot be read.
    """
    directory = config.data_dir
    path = directory / "dictionary.sqlite"
    if not path.exists():
        raise QueryError(f"there is no data in {directory} yet: start `twinloop run` first")
    dictionary = Dictionary(path, readonly=True)
    indices = dict(dictionary.tags)
    dictionary.close()
    table = TagTable(tags_of(config), indices)

    ledger = Ledger(directory)

    def settled(letters: pa.Table) -> npt.NDArray[np.bool_]:
        if ledger.is_empty:
            return np.zeros(len(letters), bool)
        times = letters["time"].cast(pa.int64()).to_pylist()
        rest = (letters[name].to_pylist() for name in ("source", "origin", "raw"))
        keys = [letter_key(*each) for each in zip(times, *rest, strict=True)]
        fed = ledger.fed(keys)
        return np.array([key in fed for key in keys], bool)

    active = [bool(each) for each in table.active]
    unsealed = partial(outputs_after, directory)
    return make_queries(config, table, Reading(unsealed, active, directory / "outputs", settled))


def outputs_after(directory: Path, after: int) -> Iterator[tuple[int, Outputs]]:
    """What a data directory's output log holds after an offset.

    Raises:
        LogError: it cannot be read.
    """
    for offset, data in read_entries(directory / "outputs", after):
        yield offset, decode_outputs(data)


def open_plant(path: str | Path, env: Mapping[str, str] | None = None) -> Plant:
    """The history of the plant a plant file describes; `twinloop.open` is this function.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from; this process's environment by default.

    Raises:
        ConfigError: the plant file cannot be used.
        QueryError: there is no data yet.
    """
    return Plant(load(Path(path), os.environ if env is None else env))


class Plant:
    """Questions to one plant's history; answers are Arrow tables (`.to_pandas()` where pandas is installed).

    Status and reasons are codes: `twinloop.status` has the words. Use it as a context, or `close` it.
    """

    def __init__(self, config: PlantConfig) -> None:
        self._queries = open_queries(config)

    def latest(self, *tags: str) -> pa.Table:
        """The newest sample of each tag, of all tags when none is named.

        Raises:
            QueryError: a tag is not known.
        """
        return self._queries.latest(tags)

    def range(self, tag: str, start: Moment = None, end: Moment = None) -> pa.Table:
        """Every sample received in [start, end), ascending time, each with its estimate.

        Raises:
            QueryError: the tag is not known, or a time cannot be read.
        """
        return self._queries.range(tag, *_moments(start, end))

    def window(
        self,
        tag: str,
        every: str | int,
        start: Moment = None,
        end: Moment = None,
        *,
        uncertain_as_good: bool = False,
    ) -> pa.Table:
        """Mean, min, max, count and good fraction over windows aligned to the epoch.

        Args:
            tag: full name.
            every: width, `"1m"` or ns.
            start, end: as for `range`.
            uncertain_as_good: Uncertain values count for mean, min and max too.

        Raises:
            QueryError: the tag is not known, or a time cannot be read.
        """
        every_ns = parse_duration(every) if isinstance(every, str) else every
        bounds = _moments(start, end)
        return self._queries.window(tag, every_ns, *bounds, uncertain_as_good=uncertain_as_good)

    def events(self, start: Moment = None, end: Moment = None) -> pa.Table:
        """What happened in [start, end), ascending time."""
        return self._queries.events(*_moments(start, end))

    def dead(self, start: Moment = None, end: Moment = None, *, settled: bool = False) -> pa.Table:
        """Payloads that became no sample, with their bytes, origin and reason.

        Those that became samples by `twinloop refeed` are left out, unless `settled` asks for them.
        """
        return self._queries.dead(*_moments(start, end), settled=settled)

    def snapshots(self, asset: str | None = None, start: Moment = None, end: Moment = None) -> pa.Table:
        """The twin's states and predictions, of one asset or of all."""
        return self._queries.snapshots(asset, *_moments(start, end))

    def close(self) -> None:
        """Let go of the files."""
        self._queries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _moments(*moments: Moment) -> Sequence[int | None]:
    now = time.time_ns()
    return [parse_time(each, now) if isinstance(each, str) else each for each in moments]
