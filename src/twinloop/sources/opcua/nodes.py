"""NodeIds as people write them, and as a server numbers them today.

A namespace index is the server's own and may change when it restarts; a namespace URI does not. So an
address keeps what was written, and becomes a number only for the length of one session.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from twinloop.errors import ConfigError

if TYPE_CHECKING:
    from asyncua import ua

__all__ = ["NodeAddress"]

_MAX_INDEX = 0xFFFF
_MAX_NUMBER = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A NodeId in the text form of OPC 10000-6, 5.3.1.11: `ns=2;s=Name`, `nsu=urn:plant;i=42`.

    Attributes:
        text: as written in the plant file.
        identifier: the number, text, GUID or bytes after `i=`, `s=`, `g=` or `b=`.
        index: the namespace index; 0 where none was written. Not used when `uri` is given.
        uri: the namespace URI, or empty.
    """

    text: str
    identifier: int | str | uuid.UUID | bytes
    index: int = 0
    uri: str = ""

    @classmethod
    def parse(cls, text: str) -> NodeAddress:
        """The address a text stands for; a string identifier may itself contain `;` and `=`.

        Raises:
            ConfigError: the text is no NodeId; the message says what is wrong with it.

        >>> NodeAddress.parse("nsu=urn:plant;s=Reactor.R101;PV").identifier
        'Reactor.R101;PV'
        """
        rest, index, uri = text.strip(), 0, ""
        if rest.startswith("ns="):
            written, _, rest = rest[3:].partition(";")
            if not (written.isascii() and written.isdigit() and int(written) <= _MAX_INDEX):
                raise ConfigError(f"node {text!r}: ns= must be a whole number from 0 to {_MAX_INDEX}")
            index = int(written)
        elif rest.startswith("nsu="):
            uri, _, rest = rest[4:].partition(";")
            if not uri:
                raise ConfigError(f"node {text!r}: nsu= names no namespace URI")
        return cls(text, _identifier(rest, text), index, uri)

    def resolve(self, namespaces: Sequence[str], known: Mapping[int, str] | None = None) -> ua.NodeId:
        """The NodeId in a server with these namespaces.

        Args:
            namespaces: the server's URIs, by index.
            known: what the indices of the plant file stood for at the first connect.

        Raises:
            LookupError: the server does not have the namespace URI; the message says so.
        """
        from asyncua import ua  # late: reading a plant file needs no OPC UA stack

        index = self.index
        if self.uri:
            # The standard escapes ";" and "%" in the URI; people rarely do. Both are understood.
            decoded = unquote(self.uri)
            found = [i for i, uri in enumerate(namespaces) if uri in {self.uri, decoded}]
            if not found:
                raise LookupError(f"the server has no namespace {self.uri}")
            index = found[0]
        elif (uri := (known or {}).get(index)) and namespaces[index : index + 1] != [uri]:
            if uri not in namespaces:
                raise LookupError(
                    f"ns={index} was the namespace {uri} at the first connect, and the server has none of "
                    "that name now; write nsu= and the URI meant"
                )
            index = namespaces.index(uri)
        identifier: Any = self.identifier  # asyncua wants subclasses of int, str ... and takes plain ones
        return ua.NodeId(identifier, ua.Int16(index))


def _identifier(rest: str, text: str) -> int | str | uuid.UUID | bytes:
    kind, equals, value = rest.partition("=")
    if not equals or kind not in {"i", "s", "g", "b"}:
        raise ConfigError(f"node {text!r}: expected i=, s=, g= or b=, as in ns=2;s=Name")
    if not value:
        raise ConfigError(f"node {text!r}: nothing after {kind}=")
    if kind == "s":
        return value
    if kind == "i":
        if not (value.isascii() and value.isdigit() and int(value) <= _MAX_NUMBER):
            raise ConfigError(f"node {text!r}: i= must be a whole number from 0 to {_MAX_NUMBER}")
        return int(value)
    try:
        return uuid.UUID(value) if kind == "g" else base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        wanted = "a GUID" if kind == "g" else "base64"
        raise ConfigError(f"node {text!r}: what follows {kind}= is not {wanted}") from None
