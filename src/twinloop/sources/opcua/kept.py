"""What a source knows of its server beyond one session and one run: names of namespaces, times heard.

The file is written aside and renamed into place: now and then, and when a session ends. What it says of
times is never ahead of the log, as only what is durable there is noted; so a restart asks for too much
rather than too little, and the fold drops what it has had.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.durable import place_file
from twinloop.sources.opcua.nodes import NodeAddress

__all__ = ["Kept"]

_log = logging.getLogger(__name__)

_VERSION: Final = 1
I64 = npt.NDArray[np.int64]


class _File(msgspec.Struct, frozen=True):
    """The file's content.

    Attributes:
        version: of this layout.
        endpoint: whose namespaces they are; another server's indices mean something else.
        namespaces: URI by index, as of the first connect.
        times: by address: the newest time heard, and where an open gap begins (0 for none), ns.
    """

    version: int
    endpoint: str
    namespaces: dict[int, str] = {}
    times: dict[str, tuple[int, int]] = {}


class Kept:
    """What is kept of one source; its arrays have one entry a configured node.

    Args:
        path: the file; None keeps nothing.
        endpoint: the server's URL.
        addresses: the configured nodes' addresses.
        writable: whether this process may write; `check` only reads.

    Attributes:
        heard: newest time of a node's values that is durable in the log, ns; `NO_TIME` before any.
        gap: where a node's gap begins that history has not filled yet; `NO_TIME` for none.
        namespaces: URI by the index that the plant file uses, as of the first connect.
    """

    def __init__(
        self, path: Path | None, endpoint: str, addresses: Sequence[str], *, writable: bool = True
    ) -> None:
        self._path = path
        self._endpoint = endpoint
        self._addresses = addresses
        self._writable = writable and path is not None
        self._writing = threading.Lock()
        self._written = b""
        self._failed = False
        self._where: dict[str, int] = {}
        found = self._load()
        self.namespaces = dict(found.namespaces) if found.endpoint == endpoint else {}
        times = [found.times.get(address, (NO_TIME, 0)) for address in addresses]
        self.heard: I64 = np.array([heard for heard, _ in times], np.int64)
        self.gap: I64 = np.array([gap or NO_TIME for _, gap in times], np.int64)

    def _load(self) -> _File:
        nothing = _File(_VERSION, self._endpoint)
        if self._path is None:
            return nothing
        try:
            data = self._path.read_bytes()
            found = msgspec.json.decode(data, type=_File)
        except FileNotFoundError:
            return nothing
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s): gaps up to now are not filled", self._path, error)
            return nothing
        return found if found.version == _VERSION else nothing

    def note(self, places: npt.NDArray[np.int64], times: I64) -> None:
        """Values of some nodes are durable in the log."""
        np.maximum.at(self.heard, places, times)

    def learn(self, addresses: Iterable[NodeAddress], namespaces: Sequence[str]) -> list[str]:
        """Keep the URIs of indices used for the first time; a sentence for each namespace that has moved."""
        moved = []
        for address in addresses:
            index, uri = address.index, address.uri
            if not uri and 0 < index < len(namespaces):
                uri = self.namespaces.setdefault(index, namespaces[index])
            if not uri or uri not in namespaces:
                continue
            now = namespaces.index(uri)
            before = self._where.get(uri, now if address.uri else index)
            self._where[uri] = now
            if now != before and namespaces[before : before + 1] != [uri]:
                moved.append(f"the server has renumbered its namespaces: {uri} was {before} and is {now} now")
        return moved

    def encoded(self) -> bytes:
        """The file's content as it should be now."""
        times = {
            address: (heard, gap if gap != NO_TIME else 0)
            for address, heard, gap in zip(
                self._addresses, self.heard.tolist(), self.gap.tolist(), strict=True
            )
            if heard != NO_TIME
        }
        return msgspec.json.encode(_File(_VERSION, self._endpoint, self.namespaces, times))

    def write(self, content: bytes) -> None:
        """Put the file in its place, durably, unless it says that already. Any thread may."""
        if not self._writable or self._path is None:
            return
        with self._writing:
            if content == self._written:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                place_file(self._path, content)
                self._written = content
                self._failed = False
            except OSError as error:
                if not self._failed:
                    _log.warning("%s cannot be written: %s", self._path, error.strerror or error)
                self._failed = True
