"""What joins the keys of a plant file: names that must be known, units that must fit, patterns that lead on.

Each check yields findings; nothing here knows files or lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from twinloop.config.expand import carriers, measures_of, nodes_of, unit_of
from twinloop.config.insecure import is_loopback
from twinloop.config.models import (
    AssetConfig,
    InfluxStoreConfig,
    MqttSourceConfig,
    OpcuaSourceConfig,
    PlantConfig,
    TopicConfig,
)
from twinloop.config.text import nearest
from twinloop.config.web import LOGIN_KEYS, web_problems, web_warnings
from twinloop.errors import ConfigError
from twinloop.sources.mqtt.payloads import PayloadOptions
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.sources.mqtt.url import parse_url
from twinloop.sources.opcua.nodes import NodeAddress
from twinloop.twin.model import Model
from twinloop.twin.models import MODELS, parameter_problem
from twinloop.units import conversion

__all__ = ["Finding", "Path", "errors", "topic_rule", "warnings"]

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit together.

    Attributes:
        path: the keys that lead to it.
        text: what is wrong, in words.
        needs: other parts it was concluded from; when one of those is itself wrong, this may not be.
    """

    path: Path
    text: str
    needs: tuple[Path, ...] = ()


def errors(config: PlantConfig) -> Iterator[Finding]:
    """Everything because of which the plant file is refused, beyond single keys."""
    for name, asset in config.assets.items():
        yield from _asset_tags(config, name, asset)
        yield from _asset_model(config, name, asset)
    for name, rules in config.tags.items():
        if rules.spike and rules.spike.unit:
            path: Path = ("tags", name, "spike")
            yield from _unit_finding(path, rules.spike.unit, rules.unit, needs=(("tags", name, "unit"),))
    for name, source in config.sources.items():
        if source.password and not source.username:
            yield Finding(("sources", name, "password"), "a password without a username")
        if isinstance(source, MqttSourceConfig):
            yield from _mqtt(config, ("sources", name), source)
        else:
            yield from _opcua(config, ("sources", name), source)
    if isinstance(config.store, InfluxStoreConfig):
        yield from _influx(config, config.store)
    if config.web is not None:
        needs = tuple(("web", key) for key in LOGIN_KEYS)
        yield from (Finding(("web", key), text, needs) for key, text in web_problems(config.web))


def warnings(config: PlantConfig) -> Iterator[Finding]:
    """What is allowed and yet hardly meant: tags that nothing feeds, patterns that lead nowhere."""
    fed: set[str] = set()
    for name, source in config.sources.items():
        if isinstance(source, OpcuaSourceConfig):
            yield from _unmatched_nodes(config, name, source, fed)
        else:
            yield from _unprotected(name, source)
            yield from _unmatched_topics(config, name, source, fed)
    for name, asset in config.assets.items():
        for tag in asset.tags:
            if f"{name}.{tag}" not in fed:
                yield Finding(("assets", name, "tags", tag), "no source leads to it")
            if tag not in config.tags:
                yield Finding(("assets", name, "tags", tag), "has no rules under `tags`: no unit, no limits")
        yield from _unused(config, name, asset)
    for tag in config.tags:
        if not carriers(config, tag):
            yield Finding(("tags", tag), "no asset has this tag")
    if isinstance(config.store, InfluxStoreConfig):
        yield from _unprotected_store(config.store)
    yield from (Finding(("web", key), text) for key, text in web_warnings(config.web))


def _unused(config: PlantConfig, name: str, asset: AssetConfig) -> Iterator[Finding]:
    """Tags that bear the name of a model's input and yet are not used, as their unit does not fit."""
    model = MODELS.get(asset.model or "")
    if model is None:
        return
    used = measures_of(config, name, model)
    for quantity, unit in zip(model.inputs, model.input_units, strict=True):
        if quantity in asset.tags and quantity not in used and quantity not in asset.measures:
            own = unit_of(config, name, quantity)
            reason = f"its unit {own!r} cannot become {unit!r}" if own else "it has no unit"
            text = f"the model does not use it as its {quantity}: {reason}"
            yield Finding(("assets", name, "tags", quantity), text)


def topic_rule(pattern: str, topic: TopicConfig) -> TopicRule:
    """The rule of one topic pattern of the plant file.

    Raises:
        ConfigError: the pattern is no topic filter, or does not say which tag or asset it means.
    """
    options = PayloadOptions(
        format=topic.format,
        fields={str(role): key for role, key in topic.fields.items()},
        timestamp_format=topic.timestamp_format,
        quality_encoding=topic.quality_encoding,
        values=topic.values,
        unit=topic.unit,
    )
    return TopicRule(TopicPattern(pattern, asset=topic.asset or "", tag=topic.tag or ""), options)


def _asset_tags(config: PlantConfig, name: str, asset: AssetConfig) -> Iterator[Finding]:
    for tag, own in asset.tags.items():
        path: Path = ("assets", name, "tags", tag)
        meant = _slip(tag, config.tags.keys() - asset.tags.keys()) if tag not in config.tags else None
        if meant:
            text = f"tag {tag!r} is not defined under `tags`; did you mean {meant!r}?"
            yield Finding(path, text, (("tags", tag),))
        needs = (("tags", tag), ("tags", tag, "unit"), ("tags", tag, "spike"), (*path, "unit"))
        base = config.tags.get(tag)
        if base and base.unit and "unit" in own.model_fields_set:
            clash = list(_unit_finding((*path, "unit"), base.unit, own.unit, needs=needs))
            yield from clash
            if clash:
                continue
        if own.spike and own.spike.unit:
            unit = unit_of(config, name, tag)
            yield from _unit_finding((*path, "spike"), own.spike.unit, unit, needs=needs)


def _asset_model(config: PlantConfig, name: str, asset: AssetConfig) -> Iterator[Finding]:
    path: Path = ("assets", name)
    if asset.model is None:
        for key in ("measures", "parameters"):
            if getattr(asset, key):
                yield Finding((*path, key), "an asset without a model has none", ((*path, "model"),))
        return
    model = MODELS.get(asset.model)
    if model is None:
        hint = nearest(asset.model, MODELS) or f"; known are {', '.join(sorted(MODELS))}"
        yield Finding((*path, "model"), f"unknown model {asset.model!r}{hint}")
        return
    for parameter, value in asset.parameters.items():
        problem = parameter_problem(model, parameter, value)
        if problem:
            yield Finding((*path, "parameters", parameter), problem)
    yield from _measures(config, name, asset, model)


def _measures(config: PlantConfig, name: str, asset: AssetConfig, model: Model) -> Iterator[Finding]:
    path: Path = ("assets", name, "measures")
    units = dict(zip((*model.outputs, *model.inputs), (*model.output_units, *model.input_units), strict=True))
    for quantity in asset.measures:
        if quantity not in units:
            hint = nearest(quantity, units) or f"; known are {', '.join(units)}"
            text = f"model {model.name} has no output or input {quantity!r}{hint}"
            yield Finding((*path, quantity), text)
    for quantity, full_name in measures_of(config, name, model).items():
        if quantity not in units:
            continue
        tag = full_name.removeprefix(f"{name}.")
        here: Path = (*path, quantity) if quantity in asset.measures else ("assets", name, "tags", tag)
        own: Path = ("assets", name, "tags", tag)
        if tag not in asset.tags:
            yield Finding(here, f"{name} has no tag {tag!r}{nearest(tag, asset.tags)}", (own,))
        else:
            needs = (own, (*own, "unit"), ("tags", tag, "unit"))
            yield from _measured_unit(config, Finding(here, quantity, needs), (name, tag), units[quantity])


def _measured_unit(
    config: PlantConfig, measured: Finding, tag: tuple[str, str], unit: str
) -> Iterator[Finding]:
    """A finding when a tag's unit cannot become that of the quantity it measures (`measured.text`)."""
    try:
        conversion(unit_of(config, *tag), unit)
    except ConfigError as error:
        way_out = f"; or write `measures: {{{measured.text}: off}}`" if measured.path[2] == "tags" else ""
        text = f"tag {tag[1]!r} cannot show the model's {measured.text}: {error}{way_out}"
        yield Finding(measured.path, text, measured.needs)


def _unit_finding(path: Path, source: str, target: str, *, needs: tuple[Path, ...]) -> Iterator[Finding]:
    try:
        conversion(source, target)
    except ConfigError as error:
        yield Finding(path, str(error), needs)


def _in_the_open(source: MqttSourceConfig) -> bool:
    """Whether what a source says and hears passes a network unprotected."""
    try:
        endpoint = parse_url(source.url)
    except ConfigError:  # told where it is read
        return False
    return not endpoint.tls and not is_loopback(endpoint.host)


def _unprotected(name: str, source: MqttSourceConfig) -> Iterator[Finding]:
    path: Path = ("sources", name, "insecure")
    if source.insecure and _in_the_open(source):
        text = "values" + (" and the password" if source.password else "")
        yield Finding(path, f"the link is not protected: who is on the way can read and change {text}")
    elif source.insecure and source.url.startswith("mqtts://"):
        yield Finding(path, "changes nothing with mqtts://: the broker's certificate is verified always")


def _mqtt(config: PlantConfig, path: Path, source: MqttSourceConfig) -> Iterator[Finding]:
    if not source.insecure and _in_the_open(source):
        text = "mqtt:// to another host is not protected: use mqtts://, or allow it with `insecure: true`"
        yield Finding((*path, "url"), text, ((*path, "insecure"),))
    if source.tls and not source.url.startswith("mqtts://"):
        yield Finding((*path, "tls"), "certificates need a url that begins with mqtts://")
    if source.tls and bool(source.tls.cert) != bool(source.tls.key):
        yield Finding((*path, "tls"), "cert and key go together")
    for pattern, topic in source.topics.items():
        here: Path = (*path, "topics", pattern)
        try:
            topic_rule(pattern, topic)
        except ConfigError as error:
            text = str(error).removeprefix(f"topic {pattern!r}").removeprefix(":").strip()
            yield Finding(here, text, ((*here, "asset"), (*here, "tag"), (*here, "fields")))
        yield from _target(config, here, topic.asset, topic.tag)


def _influx(config: PlantConfig, store: InfluxStoreConfig) -> Iterator[Finding]:
    if _store_in_the_open(store) and not store.insecure:
        text = "http:// to another host is not protected: use https://, or allow it with `insecure: true`"
        yield Finding(("store", "url"), text, (("store", "insecure"),))
    if urlsplit(store.url).query or urlsplit(store.url).fragment:
        yield Finding(("store", "url"), "expected http://HOST:PORT or https://HOST:PORT alone")
    if store.tls and not store.url.startswith("https://"):
        yield Finding(("store", "tls"), "certificates need a url that begins with https://")
    if store.tls and bool(store.tls.cert) != bool(store.tls.key):
        yield Finding(("store", "tls"), "cert and key go together")
    if bool(store.username) != bool(store.password):
        key = "password" if store.password else "username"
        yield Finding(("store", key), "username and password go together")
    if store.token and store.username:
        yield Finding(("store", "token"), "a token or a username, not both")
    tags = {f"{asset}.{tag}" for asset, one in config.assets.items() for tag in one.tags}
    for name in store.existing:
        if name not in tags:
            yield Finding(
                ("store", "existing", name), f"no tag {name!r}{nearest(name, tags)}", (("assets",),)
            )


def _store_in_the_open(store: InfluxStoreConfig) -> bool:
    url = urlsplit(store.url)
    return url.scheme == "http" and not is_loopback(url.hostname or "")


def _unprotected_store(store: InfluxStoreConfig) -> Iterator[Finding]:
    path: Path = ("store", "insecure")
    if store.insecure and _store_in_the_open(store):
        text = "values" + (" and the login" if store.token or store.password else "")
        yield Finding(path, f"the link is not protected: who is on the way can read and change {text}")
    elif store.insecure and store.url.startswith("https://"):
        yield Finding(path, "changes nothing with https://: the server's certificate is verified always")


def _opcua(config: PlantConfig, path: Path, source: OpcuaSourceConfig) -> Iterator[Finding]:
    yield from _opcua_security(path, source)
    for pattern, node in source.nodes.items():
        here: Path = (*path, "nodes", pattern)
        try:
            NodeAddress.parse(pattern)
        except ConfigError as error:
            yield Finding(here, str(error).removeprefix(f"node {pattern!r}: "))
        if "{tag}" in pattern:
            yield Finding(here, "a node pattern knows {asset} only; write a pattern for each tag")
        elif "{asset}" in pattern and node.asset:
            yield Finding(here, "the pattern has {asset} and so has the key `asset`: leave one out")
        elif "{asset}" not in pattern and not node.asset:
            text = f"does not say which asset: write {{tag: {node.tag}, asset: NAME}}, or {{asset}} in it"
            yield Finding(here, text, ((*here, "asset"),))
        yield from _target(config, here, node.asset, node.tag)


def _opcua_security(path: Path, source: OpcuaSourceConfig) -> Iterator[Finding]:
    security = source.security
    if bool(security.cert) != bool(security.key):
        yield Finding((*path, "security"), "cert and key go together")
    if bool(source.user_cert) != bool(source.user_key):
        yield Finding((*path, "user_cert"), "user_cert and user_key go together")
    elif source.user_cert and source.username:
        yield Finding((*path, "user_cert"), "a user is known by a certificate or by a name, not by both")
    if _is_open(source) and not source.insecure:
        text = (
            "neither signed nor encrypted, and not on this host: set `security: {policy: Basic256Sha256}`, "
            "or `insecure: true` where the network is trusted"
        )
        yield Finding((*path, "url"), text, ((*path, "security"), (*path, "insecure")))


def _is_open(source: OpcuaSourceConfig) -> bool:
    """Whether what the source says and hears can be read and changed on its way over a network."""
    return source.security.policy == "None" and not is_loopback(urlsplit(source.url).hostname or "")


def _target(config: PlantConfig, path: Path, asset: str | None, tag: str | None) -> Iterator[Finding]:
    """Whether asset and tag, as far as a pattern names them, are in the plant file."""
    if asset and asset not in config.assets:
        text = f"unknown asset {asset!r}{nearest(asset, config.assets)}"
        yield Finding((*path, "asset"), text, (("assets", asset),))
    if tag is None:
        return
    known = set(config.tags).union(*(one.tags for one in config.assets.values()))
    meant = _slip(tag, known) if tag not in known else None
    if meant and not asset:
        text = f"unknown tag {tag!r}; did you mean {meant!r}?"
        yield Finding((*path, "tag"), text, (("tags", tag),))
    elif asset in config.assets and tag not in config.assets[asset].tags:
        text = f"asset {asset!r} has no tag {tag!r}{nearest(tag, config.assets[asset].tags)}"
        yield Finding((*path, "tag"), text, (("assets", asset, "tags", tag),))


def _slip(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is a slip of the pen for; names that differ in a number are others."""
    for candidate in sorted(known):
        same_numbers = re.sub(r"\D", "", name) == re.sub(r"\D", "", candidate)
        if same_numbers and _edits(name, candidate) <= (1 if len(name) < 8 else 2):
            return candidate
    return None


def _edits(first: str, second: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other))
            if i > 1 and j > 1 and one == second[j - 2] and first[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _unmatched_nodes(
    config: PlantConfig, name: str, source: OpcuaSourceConfig, fed: set[str]
) -> Iterator[Finding]:
    """Adds the tags a source feeds to `fed`; finds patterns that lead nowhere, and a channel that is open."""
    targets = list(nodes_of(config, source))
    fed.update(target.tag for target in targets)
    leading = {target.pattern for target in targets}
    for pattern in source.nodes.keys() - leading:
        yield Finding(("sources", name, "nodes", pattern), "leads to nothing: no asset has the tag")
    if _is_open(source):
        text = "neither signed nor encrypted: anyone on the way can read and change what passes"
        yield Finding(("sources", name, "insecure"), text)


def _unmatched_topics(
    config: PlantConfig, name: str, source: MqttSourceConfig, fed: set[str]
) -> Iterator[Finding]:
    """Adds the tags a source may feed to `fed`; finds patterns that none of the plant's tags can come by."""
    rules = [topic_rule(pattern, topic) for pattern, topic in source.topics.items()]
    names = [f"{asset}.{tag}" for asset, one in config.assets.items() for tag in one.tags]
    for rule in rules:
        leading = _fed_by(rule, names)
        fed.update(leading)
        if not leading:
            yield Finding(("sources", name, "topics", rule.pattern.text), "leads to no tag of any asset")


def _fed_by(rule: TopicRule, names: Iterable[str]) -> list[str]:
    return [name for name in names if TopicMap([rule]).topic_of(name) is not None]
