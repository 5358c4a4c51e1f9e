"""`twinloop trust`: show the certificate a server has, and from then on take no other for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from twinloop.config.plantfile import load
from twinloop.errors import ConfigError, LinkError
from twinloop.linking_opcua import secured_sources
from twinloop.sources.opcua.certificates import fingerprint, read_certificate
from twinloop.sources.opcua.client import OpcuaOptions
from twinloop.sources.opcua.trust import Pinned, pin_server
from twinloop.workplace import borrowed_workplace

__all__ = ["trust"]


async def trust(path: Path, env: Mapping[str, str], name: str | None, out: TextIO) -> int:
    """Pin the certificates that the plant's OPC UA servers show now; returns how many could not be had.

    Args:
        path: the plant file.
        env: where `${NAME}` comes from.
        name: the one source meant; None for every one with security.
        out: where the certificates are shown.

    Raises:
        ConfigError: the plant file cannot be used, or there is nothing to trust.
    """
    failed = 0
    with borrowed_workplace(load(path, env)) as place:
        chosen = _chosen(secured_sources(place), sorted(place.config.sources), name)
    for options in chosen:
        out.write(f"{options.name}: {options.url}\n")
        try:
            pinned = await pin_server(options, lambda shown: _write(out, _table(shown)))
        except LinkError as error:
            failed += 1
            out.write(f"  not pinned: {error}\n")
        else:
            _write(out, _lines(pinned))
    return failed


def _chosen(secured: Sequence[OpcuaOptions], names: Sequence[str], name: str | None) -> list[OpcuaOptions]:
    pinnable = [options for options in secured if options.security.server_certificate is None]
    if name is None and pinnable:
        return pinnable
    if name is None:
        raise ConfigError("no source needs a pinned certificate: none is OPC UA with a security policy")
    if name not in names:
        raise ConfigError(f"no source {name!r}; the plant file has {', '.join(names) or 'none'}")
    for options in pinnable:
        if options.name == name:
            return [options]
    if any(options.name == name for options in secured):
        raise ConfigError(f"sources.{name}.security: `server_cert` says already which certificate is trusted")
    raise ConfigError(f"sources.{name} has no certificate to pin: it is not OPC UA with a security policy")


def _write(out: TextIO, lines: Sequence[str]) -> None:
    out.writelines(f"  {line}\n" for line in lines)


def _table(shown: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in shown)
    return [f"{label:{width}}  {text}" for label, text in shown]


def _lines(pinned: Pinned) -> list[str]:
    if pinned.before is None:
        line = f"pinned in {pinned.path}"
    elif pinned.before == pinned.certificate:
        line = f"was pinned already, in {pinned.path}"
    else:
        line = f"pinned in {pinned.path}; it replaces SHA-256 {fingerprint(pinned.before)}"
    own = fingerprint(read_certificate(pinned.own))
    return [line, f"the server has to trust this client in turn: {pinned.own}, SHA-256 {own}"]
