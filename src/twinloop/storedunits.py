"""The units that history is stored in, against those of the plant file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from twinloop.errors import ConfigError
from twinloop.stores.queries import LocalQueries
from twinloop.storing import OutputsReader
from twinloop.tags import Tag
from twinloop.units import conversion
from twinloop.workplace import Workplace

__all__ = ["check_units"]

_TOLD: Final = 5


def check_units(place: Workplace) -> None:
    """Return where each tag that has history still has the unit that this is in, and keep the units of all.

    Stored numbers have no unit of their own: with another one they would be others.

    Raises:
        ConfigError: a tag with history has another unit in the plant file.
        LogError: the output log or the dictionary cannot be used.
    """
    known, tags = place.dictionary.units, dict(place.table.items())
    changed = [index for index, tag in tags.items() if not _is_same(known.get(index, tag.unit), tag.unit)]
    if changed:
        stored = _stored(place)
        _refuse([(tags[index], known[index]) for index in changed if index in stored])
    place.dictionary.set_units({index: tag.unit for index, tag in tags.items()})


def _is_same(stored: str, unit: str) -> bool:
    """Whether numbers in one unit are the same in the other; none takes any."""
    try:
        return not stored or (bool(unit) and conversion(stored, unit) == (1.0, 0.0))
    except ConfigError:
        return False


def _stored(place: Workplace) -> set[int]:
    """The tags that have history, sealed or not."""
    names = place.table.names
    with closing(OutputsReader(place.directory)) as outputs:
        queries = LocalQueries(place.directory / "store", names, [""] * len(names), outputs)
        return set(queries.newest()["tag"].to_pylist())


def _refuse(changed: Sequence[tuple[Tag, str]]) -> None:
    if not changed:
        return
    told = ", ".join(
        f"{tag.name} ({unit or 'none'}, now {tag.unit or 'none'})" for tag, unit in changed[:_TOLD]
    )
    more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
    raise ConfigError(
        f"the history of {told}{more} is in another unit than the plant file has now, and would be taken "
        "for numbers in the new one. Keep the unit; or give the tag another name; or take its history along: "
        "`twinloop export` as the plant file was, then `twinloop import`, which converts, with a new data_dir"
    )
