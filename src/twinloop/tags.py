"""Tags, the table of them that the hot path indexes, and the way from an address to a tag."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from twinloop.errors import ConfigError
from twinloop.records import DeadReason
from twinloop.units import conversion

__all__ = [
    "DEFAULT_REBASELINE",
    "DEFAULT_REMEMBER",
    "DEFAULT_REWIND_NS",
    "Refusal",
    "Resolver",
    "Route",
    "SeriesDictionary",
    "SeriesKey",
    "Tag",
    "TagTable",
]

SECOND_NS: Final = 1_000_000_000
DEFAULT_REBASELINE: Final = 10
DEFAULT_REMEMBER: Final = 4096
DEFAULT_REWIND_NS: Final = 60 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One measured quantity of one asset and the rules it is judged by; numbers in `unit`.

    Attributes:
        name: full name, `ASSET.tag`.
        asset: the asset's name.
        unit: engineering unit, as pint reads it; empty takes numbers as they come.
        low, high: instrument range; beyond it Bad.
        warn_low, warn_high: warn range; beyond it Uncertain.
        rate_limit: largest plausible change per second; inf switches the check off.
        spike: largest plausible step from the last good value, in `unit`; inf off.
        spike_fraction: the same as a fraction of the last good value; inf off.
        zscore: largest plausible distance in standard deviations; inf off.
        window: good samples the z-score compares with.
        rebaseline: outliers in a row after which the level counts as moved.
        remember: samples among which a redelivered one is recognised.
        stuck_ns: no change for so long is suspect, ns; 0 off.
        stale_ns: no sample for so long is stale, ns; 0 off.
        every_ns: cycle tier, ns.
        noise: measurement standard deviation; NaN means "estimate it from the data".
        rate_noise: how fast the rate wanders, unit/s per sqrt(s).
        rewind_ns: how late a sample may be and still be folded into the belief, ns; 0 off.
        analogue: whether the filter applies (booleans and enumerations are only held).
        fill: what stands in for bad or missing values: `hold`, `linear`, `model` or `none`.
    """

    name: str
    asset: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    warn_low: float = -math.inf
    warn_high: float = math.inf
    rate_limit: float = math.inf
    spike: float = math.inf
    spike_fraction: float = math.inf
    zscore: float = 3.0
    window: int = 100
    rebaseline: int = DEFAULT_REBASELINE
    remember: int = DEFAULT_REMEMBER
    stuck_ns: int = 0
    stale_ns: int = 0
    every_ns: int = SECOND_NS
    noise: float = math.nan
    rate_noise: float = math.nan
    rewind_ns: int = DEFAULT_REWIND_NS
    analogue: bool = True
    fill: str = "hold"


_COLUMNS: Final[dict[str, type]] = {
    "low": np.float64,
    "high": np.float64,
    "warn_low": np.float64,
    "warn_high": np.float64,
    "rate_limit": np.float64,
    "spike": np.float64,
    "spike_fraction": np.float64,
    "zscore": np.float64,
    "window": np.int64,
    "rebaseline": np.int64,
    "remember": np.int64,
    "stuck_ns": np.int64,
    "stale_ns": np.int64,
    "every_ns": np.int64,
    "noise": np.float64,
    "rate_noise": np.float64,
    "rewind_ns": np.int64,
    "analogue": np.bool_,
}


class TagTable:
    """Tags by stable index. An index once given to a name is never given to another.

    Args:
        tags: the tags of the present plant file.
        indices: stable index of every name ever seen (from the data directory); names without one get
            the next free indices in the order of `tags`. Names no longer in the file leave holes:
            `table[i]` is None there and `active[i]` False.
    """

    def __init__(self, tags: Iterable[Tag], indices: Mapping[str, int] | None = None) -> None:
        known = dict(indices or {})
        following = max(known.values(), default=-1) + 1
        present: dict[int, Tag] = {}
        for tag in tags:
            if tag.name not in known:
                known[tag.name] = following
                following += 1
            present[known[tag.name]] = tag
        self._indices: dict[str, int] = known
        self._tags: list[Tag | None] = [present.get(index) for index in range(following)]
        self._names: list[str] = [""] * following
        for name, index in known.items():
            self._names[index] = name
        self.active: npt.NDArray[np.bool_] = np.array([tag is not None for tag in self._tags], bool)

    def __len__(self) -> int:
        return len(self._tags)

    def __getitem__(self, index: int) -> Tag | None:
        return self._tags[index]

    def items(self) -> Iterator[tuple[int, Tag]]:
        """Index and tag of the present plant file, ascending."""
        return ((index, tag) for index, tag in enumerate(self._tags) if tag is not None)

    @property
    def indices(self) -> Mapping[str, int]:
        """The stable index of every name, also of those no longer in the plant file."""
        return self._indices

    @property
    def names(self) -> Sequence[str]:
        """Names by index, also of holes."""
        return self._names

    def index(self, name: str) -> int | None:
        """The index of a tag of the present plant file, or None."""
        index = self._indices.get(name)
        return index if index is not None and self._tags[index] is not None else None

    def of_asset(self, asset: str) -> list[int]:
        """Indices of an asset's tags, ascending."""
        return [i for i, tag in enumerate(self._tags) if tag is not None and tag.asset == asset]

    def column(self, name: str) -> npt.NDArray[Any]:
        """One rule of all tags as an array, shape (len(table),); holes have the defaults.

        Raises:
            KeyError: `name` is not a numeric attribute of `Tag`.
        """
        default = Tag(name="", asset="")
        return np.array([getattr(tag or default, name) for tag in self._tags], _COLUMNS[name])


SeriesKey = tuple[str, str, str]
"""Source name, address (topic or NodeId), unit as the source wrote it (empty: not said)."""


class SeriesDictionary(Protocol):
    """The durable numbering of series; an index once given is never given to another key."""

    def index(self, key: SeriesKey) -> int:
        """The key's index; a new key is on disk before this returns. Raises LogError."""
        ...

    def key(self, index: int) -> SeriesKey:
        """The key of an index. Raises KeyError for one never given."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where a series leads: value in the tag's unit = `value * factor + offset`."""

    tag: int
    factor: float
    offset: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a series leads nowhere: the dead letter's reason and detail."""

    reason: DeadReason
    detail: str


class Resolver:
    """Leads a source's address and unit to a tag by the present plant file.

    Sources ask before they append, so that the raw bytes of what leads nowhere reach the dead letters;
    the fold asks again, so that old records mean what a mended plant file says.

    Args:
        table: the tags.
        namers: by source name, the function from an address to a full tag name, or None.
    """

    def __init__(self, table: TagTable, namers: Mapping[str, Callable[[str], str | None]]) -> None:
        self._table = table
        self._namers = namers

    def resolve(self, key: SeriesKey) -> Route | Refusal:
        """The tag and conversion a series leads to, or why it leads nowhere. Pure, not cached."""
        source, address, unit = key
        namer = self._namers.get(source)
        name = namer(address) if namer else None
        index = self._table.index(name) if name else None
        tag = self._table[index] if index is not None else None
        if index is None or tag is None:
            missing = f"no tag {name} in the plant file" if name else "no pattern leads to a tag"
            return Refusal(DeadReason.UNKNOWN_TAG, f"{source}: {address}: {missing}")
        if not tag.unit:  # nobody said what its numbers mean: they are taken as they come
            return Route(index, 1.0, 0.0)
        try:
            factor, offset = conversion(unit or tag.unit, tag.unit)
        except ConfigError as error:
            return Refusal(DeadReason.WRONG_UNIT, f"{source}: {address}: {error}")
        return Route(index, factor, offset)

    def nearest(self, source: str, address: str) -> str:
        """The tag that may be meant by an address which leads to none; empty where none is near.

        It may take milliseconds: not for every sample. Looked for is another tag of the asset, or that tag of
        another asset.
        """
        namer = self._namers.get(source)
        asset, _, own = ((namer(address) if namer else None) or "").rpartition(".")
        known = [name for name in self._table.indices if self._table.index(name) is not None]
        if meant := {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == asset}:
            near = difflib.get_close_matches(own, meant, 1)
        else:
            meant = {name.rpartition(".")[0]: name for name in known if name.rpartition(".")[2] == own}
            near = difflib.get_close_matches(asset, meant, 1)
        return meant[near[0]] if near else ""
