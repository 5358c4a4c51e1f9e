"""Checkpoints: the fold's state with the offset it covers, as a base and increments on it, kept twice.

A *chain* is a base and the increments that followed. Two chains without a common file are kept: when the
newer one's increments have grown as large as its base, they are merged with it into the base of the next
chain, and the chain before it goes. So one broken file costs at most the way back to where the newest base
was made, and the log keeps the records from there on.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.errors import LogError
from twinloop.log.files import in_words
from twinloop.loop.checkpoint_file import ArrayHeader, DamagedError, Header, Reader, write_file
from twinloop.loop.checkpoint_merge import merge_files, read_state
from twinloop.loop.digest import state_digest
from twinloop.loop.state import Change, State

__all__ = ["Checkpoint", "Checkpoints"]

_log = logging.getLogger("twinloop.checkpoint")

BASE: Final = ".base"
INCREMENT: Final = ".increment"
_VERSION_1: Final = ".checkpoint"
_MANY: Final = 64
"""Increments of a chain, at most: each is a file to open when it is read."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The fold's state after the record at `header.offset`, as it was read.

    Attributes:
        files: what it was read from, the base first.
    """

    header: Header
    state: State
    files: tuple[Path, ...]

    @property
    def offset(self) -> int:
        """The newest record the state covers; -1 for none."""
        return self.header.offset

    @property
    def digest(self) -> str:
        """SHA-256 of the state, as `Fold.digest` gives it."""
        return state_digest(self.state)


@dataclass(slots=True)
class _Chain:
    """Files that give a state in order, the base first, their sizes, and what the last says of itself."""

    files: list[Path]
    sizes: list[int]
    tip: Header

    @property
    def is_grown(self) -> bool:
        """Whether the increments cost as much as another base would."""
        return sum(self.sizes[1:]) >= self.sizes[0] or len(self.files) > _MANY


class _HurryError(Exception):
    """The run is ending: a merge can wait."""


class Checkpoints:
    """A directory of checkpoints. What it needs of disk is about four times the state.

    Reading changes nothing. One process at a time may write; `save` and `merge` may be called from any
    thread.

    Args:
        directory: made where it is missing.
        names: of the tags by index: a state that numbers its tags otherwise is another plant's.
    """

    def __init__(self, directory: Path, names: Sequence[str] = ()) -> None:
        self._directory = directory
        self._names = list(names)
        self._chains: list[_Chain] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._saved = False
        self._reported: set[Path] = set()
        self._failed = False
        self.wants_whole = False
        """Whether the next change must be whole, because a file under the newest state is broken."""

    @property
    def covered(self) -> int | None:
        """The offset of the state that the next change is to build on; None for none."""
        return self._chains[-1].tip.offset if self._chains and not self.wants_whole else None

    def newest_offset(self, *, named: bool = False) -> int:
        """The newest offset a state covers, by what the files say of themselves; -1 without any.

        Args:
            named: by their names alone, whether they can be read or not.
        """
        if named:
            return max((_offset_of(path) for path in self._listed()), default=-1)
        return max((way[-1][1].offset for way in _ways(self._headers(), set()).values()), default=-1)

    def load(self, where: Callable[[Header], bool] = lambda _: True) -> Iterator[Checkpoint]:
        """The states that can be read, newest first; each file that cannot be is named in a warning.

        Args:
            where: which states are wanted, by what their file says of itself; the others are not read.
        """
        headers = self._headers(self._warn)
        broken: set[Path] = set()
        wanted = {header.state: header.offset for _, header in headers if where(header)}
        for state in sorted(wanted, key=lambda state: (-wanted[state], state)):
            # A state may be had in two ways: from a base, and from the increments it was merged of.
            while (way := _ways(headers, broken).get(state)) is not None:
                files = [path for path, _ in way]
                try:
                    yield Checkpoint(way[-1][1], read_state(files), tuple(files))
                    break
                except DamagedError as error:
                    self._warn(error)
                    broken.add(error.path)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """What is saved from now on builds on a state that was taken up."""
        sizes = [_size_of(path) for path in checkpoint.files]
        self._chains = [_Chain(list(checkpoint.files), sizes, checkpoint.header)]

    def tidy(self) -> None:
        """Remove what a killed process left half written."""
        for path in self._directory.glob("*.tmp"):
            self._remove(path)

    def save(self, offset: int, change: Change, record: int | None = None) -> int:
        """Write what changed; when this returns it is there for good and was read back.

        Args:
            offset: the newest record the state covers.
            change: since the state saved last, or taken up by `go_on_from`; or whole.
            record: CRC-32 of that record, by which its log is known again.

        Returns:
            The offset after which the log must keep all: two states without a common file cover what is
            before; -1 while there are none.

        Raises:
            LogError: it cannot be written.
        """
        with self._lock:
            tip = self._chains[-1].tip if self._chains else None
            if not change.whole and (tip is None or self.wants_whole or offset <= tip.offset):
                raise ValueError("the change does not build on the state saved last")
            header = self._header(offset, change, record, "" if tip is None or change.whole else tip.state)
            path = self._path(offset, BASE if change.whole else INCREMENT)
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                write_file(
                    path, header, change.small, ((each.numbers, [each.data]) for each in change.arrays)
                )
                size = _read_back(path)
            except OSError as error:
                raise LogError(f"the checkpoint {path} cannot be written: {in_words(error)}") from error
            except DamagedError as error:
                raise LogError(f"{error}, although it was just written") from error
            self._saved = True
            if change.whole:
                self._begin_chain(_Chain([path], [size], header))
                self.wants_whole = False
            else:
                chain = self._chains[-1]
                chain.files.append(path)
                chain.sizes.append(size)
                chain.tip = header
            return self._let_go()

    def is_merge_due(self, *, pressed: bool = False) -> bool:
        """Whether a merge is worth its cost; `pressed` for room, whether it lets the log go of more."""
        if not self._chains or self.wants_whole:
            return False
        chain, alone = self._chains[-1], len(self._chains) == 1
        if pressed:
            return alone or self._let_go() < chain.tip.offset
        return len(chain.files) > 1 and (chain.is_grown or (alone and self._saved))

    def merge(self) -> int:
        """Make the newest chain's state the base of a new one, from the files; returns what `save` does.

        What cannot be written is tried again at the next merge. Where a file is broken `wants_whole` is set.
        """
        with self._lock:
            chain = self._chains[-1]
            path = self._path(chain.tip.offset, BASE)
            try:
                header = merge_files(chain.files, path, go_on=self._go_on)
                self._begin_chain(_Chain([path], [_read_back(path)], header))
                self._failed = False
            except DamagedError as error:
                if error.path in chain.files:
                    _log.warning("%s: the next checkpoint holds the whole state again", error)
                    self._chains.pop()
                    self.wants_whole = True
                else:
                    self._tell_failure(error)
            except OSError as error:
                self._tell_failure(error)
            except _HurryError:
                pass
            return self._let_go()

    def hurry(self) -> None:
        """The run is ending: a merge under way is given up, and none is begun."""
        self._ending.set()

    def _go_on(self) -> None:
        if self._ending.is_set():
            raise _HurryError

    def _tell_failure(self, error: Exception) -> None:
        if not self._failed:
            _log.warning("checkpoints cannot be merged (%s): trying again with the next", error)
        self._failed = True

    def _begin_chain(self, chain: _Chain) -> None:
        """Keep the chain and the one before it; what else there is goes once there are two."""
        self._chains = [*self._chains[-1:], chain]
        if len(self._chains) == 2:
            kept = {path for each in self._chains for path in each.files}
            for path in self._listed():
                if path not in kept:
                    self._remove(path)

    def _let_go(self) -> int:
        """What both chains cover; nothing while there is one, so that the log is the other."""
        return min(each.tip.offset for each in self._chains) if len(self._chains) == 2 else -1

    def _header(self, offset: int, change: Change, record: int | None, on: str) -> Header:
        return Header(
            state=secrets.token_hex(8),
            on=on,
            offset=offset,
            record=record,
            time_ns=change.time_ns,
            tags=len(self._names),
            names=_checksum(self._names),
            small=len(change.small),
            arrays=[ArrayHeader(each.name, each.size, len(each.numbers)) for each in change.arrays],
        )

    def _path(self, offset: int, suffix: str) -> Path:
        """A name that nothing has, so that no write can spoil what is there."""
        return self._directory / f"{offset + 1:020d}-{secrets.token_hex(4)}{suffix}"

    def _headers(self, tell: Callable[[DamagedError], None] = lambda _: None) -> list[tuple[Path, Header]]:
        """What can be read of what the files say of themselves, oldest first; bases before increments."""
        found = []
        for path in self._listed():
            try:
                found.append((path, self._checked_header(path)))
            except DamagedError as error:
                tell(error)
        return sorted(found, key=lambda each: (each[1].offset, each[1].on != "", each[0]))

    def _checked_header(self, path: Path) -> Header:
        if path.suffix == _VERSION_1:
            raise DamagedError(path, "it is of version 1, which this twinloop does not read")
        with Reader(path) as reader:
            header = reader.header
        # The number of a tag is all that the state knows of it.
        if self._names and header.names != _checksum(self._names[: header.tags]):
            raise DamagedError(path, "it is another plant's: its tags are others, or numbered otherwise")
        return header

    def _listed(self) -> list[Path]:
        """What has a checkpoint's name, whatever it is."""
        try:
            paths = sorted(self._directory.iterdir())
        except OSError:
            return []
        return [path for path in paths if path.suffix in {BASE, INCREMENT, _VERSION_1}]

    def _warn(self, error: DamagedError) -> None:
        # What went away since the directory was listed was merged by the run that owns it.
        if error.path not in self._reported and os.path.lexists(error.path):
            self._reported.add(error.path)
            _log.warning("%s", error)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if path not in self._reported:
                self._reported.add(path)
                _log.warning("%s cannot be removed: %s", path, error.strerror or error)


_Found = tuple[Path, Header]


def _ways(headers: Sequence[_Found], broken: set[Path]) -> dict[str, tuple[_Found, ...]]:
    """By state: the fewest files that give it, the base first."""
    ways: dict[str, tuple[_Found, ...]] = {}
    for path, header in headers:
        if path in broken:
            continue
        way = ways.get(header.on) if header.on else ()
        if way is None or (way and way[-1][1].offset >= header.offset):
            continue
        known = ways.get(header.state)
        if known is None or len(way) + 1 < len(known):
            ways[header.state] = (*way, (path, header))
    return ways


def _read_back(path: Path) -> int:
    """The size of a file that was read from its beginning to its end and found sound."""
    with Reader(path) as reader:
        reader.read_through()
    return _size_of(path)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it went away: a merge will find out
        return 0


def _checksum(names: Sequence[str]) -> int:
    return zlib.crc32("\n".join(names).encode())


def _offset_of(path: Path) -> int:
    number = path.name.partition("-")[0].partition(".")[0]
    return int(number) - 1 if number.isascii() and number.isdigit() else -1
