"""The history of a plant, asked from Python or the command line, also while another process runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinloop.aggregates import Configuration
from twinloop.aggregates.asking import ask_aggregates
from twinloop.answers import Answer, joined
from twinloop.config.expand import tags_of
from twinloop.config.models import PlantConfig
from twinloop.config.plantfile import load
from twinloop.errors import QueryError
from twinloop.log.dictionary import Dictionary
from twinloop.sources.refeed import Ledger, letter_key
from twinloop.stores.queries import LocalQueries
from twinloop.stores.rows import Entry
from twinloop.storing import OutputsReader, Reading, make_queries
from twinloop.tags import TagTable
from twinloop.timetext import parse_duration, parse_time

__all__ = ["Plant", "is_stepped", "open_plant", "open_queries"]

Moment = str | int | datetime | None
"""A time: ISO 8601, relative to now (`-1h`), a datetime, ns since the epoch, or None for open.

A datetime without a zone is taken as UTC, as in text.
"""


def open_queries(
    config: PlantConfig, unsealed: Callable[[int], Iterable[Entry]] | None = None
) -> LocalQueries:
    """The store's answers, with what the running twin has not sealed yet.

    With `log: {type: memory}` the newest outputs are in that process alone: what the store has not sealed
    yet is not seen from elsewhere.

    Args:
        config: the plant file.
        unsealed: reads the output log after an offset; by default from the data directory.

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
    indices, units = dict(dictionary.tags), dict(dictionary.units)
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
    outputs = OutputsReader(directory)
    beside = directory / "outputs"
    reading = Reading(unsealed or outputs, active, beside, units, settled, outputs.close)
    return make_queries(config, table, reading)


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
    """Questions to one plant's history; an `Answer` is an Arrow table with `.to_pandas()` and `.plot()`.

    Use it as a context, or `close` it.
    """

    def __init__(self, config: PlantConfig) -> None:
        self._queries = open_queries(config)
        self._config = config

    def latest(self, *tags: str) -> Answer:
        """The newest sample of each tag, of all tags when none is named.

        Raises:
            QueryError: a tag is not known.
        """
        return Answer(self._queries.latest(tags), "latest")

    def range(self, tag: str | Iterable[str], start: Moment = None, end: Moment = None) -> Answer:
        """Every sample received in [start, end), ascending time, each with its estimate.

        Of several tags one after the other, in the order asked for; `tag` says whose a row is.

        Raises:
            QueryError: a tag is not known, or a time cannot be read.
        """
        bounds = _moments(start, end)
        return Answer(joined({each: self._queries.range(each, *bounds) for each in _each(tag)}), "range")

    def window(
        self,
        tag: str | Iterable[str],
        every: str | int,
        start: Moment = None,
        end: Moment = None,
        *,
        aggregate: str | Iterable[str] = (),
        uncertain_as_good: bool = False,
        configuration: Configuration | None = None,
    ) -> Answer:
        """Mean, min, max, count and good fraction over epoch-aligned windows; or aggregates by Part 13.

        Args:
            tag: full name; of several tags the rows come one tag after the other, with a column `tag`.
            every: width, `"1m"` or ns.
            start, end: as for `range`.
            aggregate: of `twinloop.aggregates.AGGREGATES`: the columns are then `time` and, of each, its
                value and its status. Every window has a row then, also one without samples.
            uncertain_as_good: Uncertain values count for mean, min and max, and are not taken for Bad.
            configuration: how aggregates are worked out; by default as the standard says, and stepped
                where the tag is a boolean or an enumeration.

        Raises:
            QueryError: a tag or an aggregate is not known, or a time cannot be read.
        """
        every_ns = parse_duration(every) if isinstance(every, str) else every
        start_ns, end_ns = _moments(start, end)
        names = _each(aggregate)

        def ask(each: str) -> pa.Table:
            if not names:
                widened = uncertain_as_good
                return self._queries.window(each, every_ns, start_ns, end_ns, uncertain_as_good=widened)
            rules = configuration or Configuration(
                treat_uncertain_as_bad=not uncertain_as_good, stepped=is_stepped(self._config, each)
            )
            return ask_aggregates(
                self._queries, each, every_ns, start_ns, end_ns, names=names, configuration=rules
            )

        if isinstance(tag, str):
            return Answer(ask(tag), "window", tag=tag, unit=self._unit(tag))
        return Answer(joined({each: ask(each) for each in _each(tag)}), "window")

    def _unit(self, tag: str) -> str:
        return next((each.unit for each in tags_of(self._config) if each.name == tag), "")

    @property
    def tags(self) -> list[str]:
        """Full names of the tags of the plant file."""
        return [tag.name for tag in tags_of(self._config)]

    def events(self, start: Moment = None, end: Moment = None) -> Answer:
        """What happened in [start, end), ascending time."""
        return Answer(self._queries.events(*_moments(start, end)), "events")

    def dead(self, start: Moment = None, end: Moment = None, *, settled: bool = False) -> Answer:
        """Payloads that became no sample, with their bytes, origin and reason.

        Those that became samples by `twinloop refeed` are left out, unless `settled` asks for them.
        """
        return Answer(self._queries.dead(*_moments(start, end), settled=settled), "dead")

    def snapshots(self, asset: str | None = None, start: Moment = None, end: Moment = None) -> Answer:
        """The twin's states and predictions, of one asset or of all."""
        return Answer(self._queries.snapshots(asset, *_moments(start, end)), "snapshots")

    def close(self) -> None:
        """Let go of the files."""
        self._queries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_stepped(config: PlantConfig, tag: str) -> bool:
    """Whether a tag's last value holds until its next: booleans and enumerations, by the plant file."""
    return any(each.name == tag and not each.analogue for each in tags_of(config))


def _each(names: str | Iterable[str]) -> list[str]:
    """Names, each once; a single one may stand by itself."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def _moments(*moments: Moment) -> Sequence[int | None]:
    now = time.time_ns()
    texts = [each.isoformat() if isinstance(each, datetime) else each for each in moments]
    return [parse_time(each, now) if isinstance(each, str) else each for each in texts]
