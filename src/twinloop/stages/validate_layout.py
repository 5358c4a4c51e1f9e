"""Where validation keeps what of which tag: rules and memory as the compiled loop takes them.

Each tag has its places in three long arrays of pages: its window (`ring`), its outliers in a row
(`suspects`) and the samples it remembers (`seen`). When the plant file changes how many places a tag has,
what still means something moves to its new places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.pages import Pages
from twinloop.stages.validate_state import NOT_JUDGED, RULE, SEEN, STATE, Memory
from twinloop.tags import TagTable

__all__ = [
    "VERSION",
    "Kept",
    "Places",
    "decoded",
    "fresh_pages",
    "fresh_state",
    "laid_out",
    "memory_of",
    "places_of",
    "rules_of",
]

VERSION: Final = 5
_LEAST_OF_SPAN: Final = 0.05
_NOISE_STEP: Final = 4.0 * np.sqrt(2.0)
"""Deviations of a difference of two readings that noise alone does not reach."""
_RULES_AS_THEY_ARE: Final = (
    "low",
    "high",
    "warn_low",
    "warn_high",
    "rate_limit",
    "spike",
    "spike_fraction",
    "zscore",
    "stuck_ns",
    "stale_ns",
)
_KINDS: Final = {"ring": np.dtype("<f8"), "suspects": np.dtype("<f8"), "seen": SEEN}
_LENGTHS: Final = {"ring": "window", "suspects": "rebaseline", "seen": "remember"}
"""The arrays of pages, and the rule that says how many places a tag has in each."""

I64 = npt.NDArray[np.int64]
Places = Mapping[str, I64]
"""How many places each tag has, by array."""


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="validate"):
    """All of the state that is not in pages: numbers and column bytes."""

    version: int
    began: int
    ticked: int
    received: int
    duplicates: int
    places: dict[str, bytes]
    units: list[str]
    state: bytes


def rules_of(table: TagTable) -> npt.NDArray[Any]:
    """The table's rules as the kernel reads them, shape (n_tags,)."""
    rules = np.zeros(len(table), RULE)
    for name in _RULES_AS_THEY_ARE:
        rules[name] = table.column(name)
    rules["noise"] = np.nan_to_num(table.column("noise"), nan=0.0)
    rules["noise_step"] = _NOISE_STEP * table.column("noise")
    rules["window"] = np.maximum(table.column("window"), 1)
    rules["every_ns"] = table.column("every_ns")
    rules["rebaseline"] = np.maximum(table.column("rebaseline"), 0)
    rules["remember"] = np.maximum(table.column("remember"), 1)
    for name, lengths in _LENGTHS.items():
        rules[name] = _starts(rules[lengths])
    # A boolean that was 0 a hundred times and becomes 1 is news, not an outlier.
    rules["zscore"][~table.column("analogue")] = np.inf
    span = rules["high"] - rules["low"]
    warn_span = rules["warn_high"] - rules["warn_low"]
    span = np.where(np.isfinite(span), span, warn_span)
    rules["least_magnitude"] = np.where(np.isfinite(span), _LEAST_OF_SPAN * span, np.nan)
    return rules


def places_of(rules: npt.NDArray[Any]) -> Places:
    """How many places the rules give each tag."""
    return {name: rules[lengths] for name, lengths in _LENGTHS.items()}


def fresh_state(n: int) -> npt.NDArray[Any]:
    """The states of tags that nothing was heard of yet."""
    state = np.zeros(n, STATE)
    for field in ("newest", "newest_at", "highest", "lost", "arrival", "good_time", "judged", "changed"):
        state[field] = NO_TIME
    state["held"] = np.nan
    state["quantum"] = np.inf
    state["reported"] = NOT_JUDGED
    return state


def fresh_pages(places: Places) -> dict[str, Pages]:
    """Empty arrays for so many places."""
    return {name: Pages(kind, int(places[name].sum())) for name, kind in _KINDS.items()}


def memory_of(state: npt.NDArray[Any], pages: Mapping[str, Pages]) -> Memory:
    """State and pages as the compiled loop takes them."""
    ring, suspects, seen = pages["ring"], pages["suspects"], pages["seen"]
    return Memory(state, ring.array, suspects.array, seen.array, ring.dirty, suspects.dirty, seen.dirty)


def decoded(small: bytes) -> tuple[Kept, npt.NDArray[Any], Places]:
    """What `Kept` holds: itself, a copy of its state, and the places its pages are laid out by.

    Raises:
        ValueError: the bytes are not a state of the validation and of this version.
    """
    try:
        kept = msgspec.msgpack.decode(small, type=Kept)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a state of the validation: {error}") from error
    if kept.version != VERSION:
        raise ValueError(f"a validation state of version {kept.version}, this is version {VERSION}")
    places = {name: np.frombuffer(data, np.int64) for name, data in kept.places.items()}
    state = np.frombuffer(bytearray(kept.state), STATE)
    lengths = {len(state), len(kept.units), *(len(counts) for counts in places.values())}
    if places.keys() != _KINDS.keys() or len(lengths) != 1:
        raise ValueError("a validation state whose parts differ in length")
    return kept, state, places


def laid_out(
    arrays: Mapping[str, bytes | memoryview], state: npt.NDArray[Any], old: Places, new: Places
) -> dict[str, Pages]:
    """Kept arrays in the places of now; the states of the tags they are of are changed to fit.

    An array whose layout is as it was is clean then, the others are marked whole.

    Raises:
        ValueError: an array is missing or not of that many places.
    """
    pages = fresh_pages(new)
    n = len(state)
    for name, kind in _KINDS.items():
        data = arrays.get(name, b"")
        if len(data) != int(old[name].sum()) * kind.itemsize:
            raise ValueError(f"a validation state with {len(data)} bytes of {name}")
        if np.array_equal(old[name], new[name]):
            pages[name].fill(data)
            continue
        there, starts = np.frombuffer(data, kind), (_starts(old[name]), _starts(new[name]))
        for index in range(n):
            was, now = int(old[name][index]), int(new[name][index])
            before = there[starts[0][index] :][:was]
            after = pages[name].array[starts[1][index] :][:now]
            if was == now:
                after[:] = before
            elif name == "seen":
                _carry_seen(state[index : index + 1], before, after)
        pages[name].soil()
    for field in ("origin", "mean", "m2", "count", "head"):
        state[field][old["ring"] != new["ring"][:n]] = 0
    state["run"][old["suspects"] != new["suspects"][:n]] = 0
    return pages


def _carry_seen(state: npt.NDArray[Any], before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
    """The newest of one tag's remembered samples, from a circle of one size into one of another."""
    in_order = np.roll(before, -int(state["first"][0]))[: int(state["remembered"][0])][-len(after) :]
    after[: len(in_order)] = in_order
    if int(state["remembered"][0]) >= min(len(before), len(after) + 1):
        state["lost"] = max(int(state["lost"][0]), int(in_order["time"][0]))  # what is older may be forgotten
    state["first"], state["remembered"] = 0, len(in_order)


def _starts(lengths: I64) -> I64:
    """Where each of several runs laid end to end begins."""
    return np.cumsum(lengths) - lengths
