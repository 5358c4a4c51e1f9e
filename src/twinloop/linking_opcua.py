"""What an OPC UA source is told; imported only where the plant file has one."""

from __future__ import annotations

from typing import Final

from twinloop.config.expand import nodes_of, tags_of
from twinloop.config.models import OpcuaSourceConfig, PlantConfig
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSecurity, OpcuaSource
from twinloop.sources.source import Intake, Source
from twinloop.workplace import Workplace

__all__ = ["opcua_source", "secured_sources"]

SECOND_NS: Final = 1_000_000_000


def opcua_source(place: Workplace, name: str, source: OpcuaSourceConfig, intake: Intake) -> Source:
    """One source; it has not connected."""
    return OpcuaSource(_opcua_options(place, name, source), intake)


def secured_sources(place: Workplace) -> list[OpcuaOptions]:
    """The OPC UA sources whose channel is protected, for `twinloop trust`."""
    return [
        _opcua_options(place, name, source)
        for name, source in place.config.sources.items()
        if isinstance(source, OpcuaSourceConfig) and source.security.policy != "None"
    ]


def _opcua_options(place: Workplace, name: str, source: OpcuaSourceConfig) -> OpcuaOptions:
    """The options of one source."""
    nodes = _nodes(place.config, source)
    stale = {tag.name: tag.stale_ns / SECOND_NS for _, tag in place.table.items()}
    return OpcuaOptions(
        name=name,
        url=source.url,
        nodes=tuple(nodes),
        mode=source.mode,
        publishing_interval_s=source.publishing_interval / SECOND_NS,
        sampling_interval_s=source.sampling_interval / SECOND_NS,
        queue_size=source.queue_size,
        username=source.username,
        password=source.password.get_secret_value() if source.password else None,
        security=OpcuaSecurity(
            policy=source.security.policy,
            mode=source.security.mode,
            certificate=source.security.cert,
            private_key=source.security.key,
            own=place.directory,
            server_certificate=source.security.server_cert,
            pins=place.directory / "trusted",
        ),
        user_certificate=source.user_cert,
        user_key=source.user_key,
        insecure=source.insecure,
        plant=place.config.plant,
        history=source.history,
        history_max_s=source.history_max / SECOND_NS,
        kept=place.directory / "opcua" / f"{name}.json",
        reading=not place.owned,
        connect_timeout_s=source.connect_timeout / SECOND_NS,
        retry_s=source.retry / SECOND_NS,
        session_timeout_s=source.session_timeout / SECOND_NS,
        keepalive_s=source.keepalive / SECOND_NS,
        # Read well before it would count as stale: a value that does not change is not a lost one.
        reread_after_s={node.address: 0.6 * stale.get(node.tag, 0.0) for node in nodes},
    )


def _nodes(config: PlantConfig, source: OpcuaSourceConfig) -> list[OpcuaNode]:
    every = {tag.name: tag.every_ns / SECOND_NS for tag in tags_of(config)}
    return [OpcuaNode(node.address, node.tag, every[node.tag]) for node in nodes_of(config, source)]
