"""From the plant file's rules to what the parts are built of: tags, node addresses, measures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from twinloop.config.fields import Spike
from twinloop.config.models import OpcuaSourceConfig, PlantConfig, TagRules
from twinloop.config.text import SECOND_NS
from twinloop.errors import ConfigError
from twinloop.tags import Tag
from twinloop.twin.model import Model
from twinloop.units import conversion, delta_factor

__all__ = [
    "NodeTarget",
    "carriers",
    "cycle_ns",
    "measures_of",
    "nodes_of",
    "rules_of",
    "tag_of",
    "tags_of",
    "unit_of",
]

STALE_CYCLES: Final = 5
"""A tag without a rule of its own is stale after so many of its `every`."""


class NodeTarget(NamedTuple):
    """One node to take in.

    Attributes:
        pattern: the key in the plant file.
        address: the NodeId's text, `{asset}` filled in.
        tag: full name of the tag it leads to.
    """

    pattern: str
    address: str
    tag: str


def tags_of(config: PlantConfig) -> list[Tag]:
    """Every tag of every asset with its rules worked out, in the order of the file.

    Raises:
        ConfigError: an asset's own unit cannot take over the rules of the tag's.
    """
    return [tag_of(config, asset, name) for asset, one in config.assets.items() for name in one.tags]


def tag_of(config: PlantConfig, asset: str, name: str) -> Tag:
    """One tag of one asset: the rules under `tags`, then the asset's own, then the defaults.

    Raises:
        ConfigError: as for `tags_of`.
    """
    rules = rules_of(config, asset, name)
    low, high = rules.range or (-math.inf, math.inf)
    warn_low, warn_high = rules.warn_range or (-math.inf, math.inf)
    step, share = _spike(rules)
    analogue = rules.type == "analogue"
    judged_by_zscore = analogue or "zscore" in rules.model_fields_set
    return Tag(
        name=f"{asset}.{name}",
        asset=asset,
        unit=rules.unit,
        low=low,
        high=high,
        warn_low=warn_low,
        warn_high=warn_high,
        rate_limit=rules.rate_limit or math.inf,
        spike=step,
        spike_fraction=share,
        zscore=(rules.zscore if judged_by_zscore else None) or math.inf,
        window=rules.window,
        rebaseline=rules.rebaseline,
        remember=rules.remember,
        stuck_ns=rules.stuck or 0,
        stale_ns=_stale_ns(rules),
        every_ns=rules.every,
        noise=rules.noise or math.nan,
        rate_noise=rules.rate_noise or math.nan,
        rewind_ns=rules.rewind or 0,
        analogue=analogue,
        fill=rules.fill,
    )


def rules_of(config: PlantConfig, asset: str, name: str) -> TagRules:
    """The rules of one tag of one asset; where the asset has another unit, numbers are converted to it.

    Raises:
        ConfigError: as for `tags_of`.
    """
    base = config.tags.get(name, TagRules())
    own = config.assets[asset].tags[name]
    given = {key: getattr(own, key) for key in own.model_fields_set}
    if base.unit and given.get("unit", base.unit) != base.unit:
        base = _in_unit(base, given["unit"])
    return base.model_copy(update=given)


def unit_of(config: PlantConfig, asset: str, name: str) -> str:
    """The unit of one tag of one asset; empty where the plant file says none."""
    own = config.assets[asset].tags[name]
    base = config.tags.get(name, TagRules())
    return own.unit if "unit" in own.model_fields_set else base.unit


def _in_unit(rules: TagRules, unit: str) -> TagRules:
    """The same rules with every number in another unit."""
    factor, offset = conversion(rules.unit, unit)
    change: dict[str, object] = {}
    for key in ("range", "warn_range"):
        ends = getattr(rules, key)
        if ends:
            change[key] = tuple(end * factor + offset for end in ends)
    for key in ("rate_limit", "noise", "rate_noise"):
        size = getattr(rules, key)
        if size:
            change[key] = size * factor
    if rules.spike and not rules.spike.relative and not rules.spike.unit:
        change["spike"] = Spike(rules.spike.size, unit=rules.unit)
    return rules.model_copy(update=change)


def _spike(rules: TagRules) -> tuple[float, float]:
    """The largest step in the tag's unit, and as a share; inf where a rule does not say."""
    if rules.spike is None:
        return math.inf, math.inf
    if rules.spike.relative:
        return math.inf, rules.spike.size
    factor = delta_factor(rules.spike.unit, rules.unit) if rules.spike.unit else 1.0
    return rules.spike.size * factor, math.inf


def _stale_ns(rules: TagRules) -> int:
    if "stale" in rules.model_fields_set:
        return rules.stale or 0
    return STALE_CYCLES * rules.every


def cycle_ns(config: PlantConfig) -> int:
    """The period of the loop, ns: `cycle`, else the smallest `every` of tags and assets, else 1 s."""
    if config.cycle:
        return config.cycle
    periods = [asset.every for asset in config.assets.values()]
    periods += [
        rules_of(config, asset, name).every for asset, one in config.assets.items() for name in one.tags
    ]
    return min(periods, default=SECOND_NS)


def carriers(config: PlantConfig, tag: str) -> list[str]:
    """The assets that carry a tag, in the order of the file."""
    return [name for name, asset in config.assets.items() if tag in asset.tags]


def nodes_of(config: PlantConfig, source: OpcuaSourceConfig) -> Iterator[NodeTarget]:
    """Every node of an OPC UA source, `{asset}` expanded over the assets that carry the tag."""
    for pattern, node in source.nodes.items():
        assets = [node.asset] if node.asset else carriers(config, node.tag)
        for asset in assets:
            yield NodeTarget(pattern, pattern.replace("{asset}", asset), f"{asset}.{node.tag}")


def measures_of(config: PlantConfig, name: str, model: Model) -> dict[str, str]:
    """Full tag name by model output or input: what `measures` says, else the tag of the same name.

    An input's namesake whose unit does not fit (a mass flow where the model means a volume flow, or a tag
    without a unit) is left out, as the twin does.
    """
    asset = config.assets[name]
    same = {output: output for output in model.outputs if output in asset.tags}
    inputs = zip(model.inputs, model.input_units, strict=True)
    fitting = {
        quantity: quantity
        for quantity, unit in inputs
        if quantity in asset.tags and _fits(unit_of(config, name, quantity), unit)
    }
    wanted = {**same, **fitting, **asset.measures}
    return {quantity: f"{name}.{tag}" for quantity, tag in wanted.items() if tag is not None}


def _fits(source: str, target: str) -> bool:
    try:
        conversion(source, target)
    except ConfigError:
        return False
    return True
