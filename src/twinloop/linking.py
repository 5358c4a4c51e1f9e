"""From a plant file to its sources: what each is told, and what it may ask of its surroundings.

What an OPC UA source needs is imported where the plant file has one: it is slow to import.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from twinloop.config.checks import topic_rule
from twinloop.config.expand import nodes_of
from twinloop.config.models import MqttSourceConfig, OpcuaSourceConfig, PlantConfig
from twinloop.config.section import TlsConfig
from twinloop.errors import ConfigError
from twinloop.log.dictionary import Dictionary
from twinloop.sources.file_rows import REPLAY
from twinloop.sources.mqtt.client import MqttOptions, MqttSource
from twinloop.sources.mqtt.intake import MessageReader
from twinloop.sources.mqtt.topics import TopicMap
from twinloop.sources.mqtt.url import parse_url
from twinloop.sources.refeed import Reader
from twinloop.sources.source import Source
from twinloop.tags import Refusal, Resolver
from twinloop.tls import tls_context
from twinloop.workplace import Workplace, client_id

__all__ = [
    "Intake",
    "build_readers",
    "check_sources",
    "namers",
    "readers_of",
    "silence_s",
    "sources_of",
]

SECOND_NS: Final = 1_000_000_000


class Intake:
    """What one source may ask of its surroundings; see `twinloop.sources.source.Intake`."""

    def __init__(self, source: str, resolver: Resolver, dictionary: Dictionary) -> None:
        self._source = source
        self._resolver = resolver
        self._dictionary = dictionary

    def series(self, address: str, unit: str) -> int | Refusal:
        """The number of a series, or why it has none."""
        key = (self._source, address, unit)
        answer = self._resolver.resolve(key)
        return answer if isinstance(answer, Refusal) else self._dictionary.index(key)

    def now_ns(self) -> int:
        """This host's clock, ns since epoch UTC."""
        return time.time_ns()


def namers(config: PlantConfig) -> dict[str, Callable[[str], str | None]]:
    """By source: the way from an address to a full tag name."""
    made: dict[str, Callable[[str], str | None]] = {REPLAY: str}
    for name, source in config.sources.items():
        if isinstance(source, MqttSourceConfig):
            made[name] = _topics(name, source).name_of
        else:
            made[name] = {node.address: node.tag for node in nodes_of(config, source)}.get
    return made


def _topics(name: str, source: MqttSourceConfig) -> TopicMap:
    try:
        return TopicMap([topic_rule(text, topic) for text, topic in source.topics.items()])
    except ConfigError as error:
        raise ConfigError(f"sources.{name}.topics: {error}") from error


def sources_of(place: Workplace, resolver: Resolver) -> list[Source]:
    """The plant's sources; they have not connected."""
    made: list[Source] = []
    for name, source in place.config.sources.items():
        intake = Intake(name, resolver, place.dictionary)
        if isinstance(source, MqttSourceConfig):
            made.append(MqttSource(_mqtt_options(place, name, source), intake))
        else:
            from twinloop.linking_opcua import opcua_source

            made.append(opcua_source(place, name, source, intake))
    return made


def readers_of(place: Workplace, resolver: Resolver) -> dict[str, Reader]:
    """By source name: how dead letters are read again; sources whose letters cannot be are left out."""
    return {
        name: MessageReader(
            name, _topics(name, source), Intake(name, resolver, place.dictionary), source.max_payload
        )
        for name, source in place.config.sources.items()
        if isinstance(source, MqttSourceConfig)
    }


def build_readers(place: Workplace) -> dict[str, Reader]:
    """By source name: how dead letters are read again; sources whose letters cannot be are left out."""
    return readers_of(place, Resolver(place.table, namers(place.config)))


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


def silence_s(config: PlantConfig, name: str) -> float:
    """How long a source may say nothing before it connects anew; 0 for as long as it likes."""
    return (config.sources[name].silence or 0) / SECOND_NS


def check_sources(place: Workplace) -> list[Source]:
    """The plant's sources, for `twinloop check`; they have not connected."""
    return sources_of(place, Resolver(place.table, namers(place.config)))
