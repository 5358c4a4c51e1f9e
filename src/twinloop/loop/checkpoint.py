"""Checkpoints: the fold's state with the offset it covers, written atomically, two kept."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from twinloop.errors import LogError
from twinloop.loop.digest import state_digest

__all__ = ["Checkpoint", "Checkpoints"]

_log = logging.getLogger("twinloop.checkpoint")

VERSION: Final = 1
_KEPT: Final = 2


class Checkpoint(msgspec.Struct, frozen=True):
    """The fold's state after the record at `offset`.

    Attributes:
        version: of this layout.
        offset: the newest record the state covers; -1 for none.
        state: the fold's own bytes.
        crc: CRC-32 of `state`.
    """

    version: int
    offset: int
    state: bytes
    crc: int

    @property
    def digest(self) -> str:
        """SHA-256 of the state, as `Fold.digest` gives it."""
        return state_digest(self.state)


class Checkpoints:
    """A directory of checkpoints, named by offset.

    Args:
        directory: made where it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, offset: int, state: bytes) -> int:
        """Write a checkpoint aside, sync it, rename it into place, and drop all but the newest two.

        Returns:
            The offset of the oldest checkpoint kept: the log must keep what comes after it.

        Raises:
            LogError: it cannot be written.
        """
        checkpoint = Checkpoint(VERSION, offset, state, zlib.crc32(state))
        path = self._directory / f"{offset + 1:020d}.checkpoint"
        aside = path.with_suffix(".tmp")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(msgspec.msgpack.encode(checkpoint))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            self._sync_directory()
            paths = self._paths()
            for old in paths[_KEPT:]:
                old.unlink()
        except OSError as error:
            raise LogError(f"the checkpoint {path} cannot be written: {error}") from error
        return int(paths[:_KEPT][-1].stem) - 1

    def _sync_directory(self) -> None:
        """Make the rename itself durable: the log may be trimmed on the strength of it."""
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def load(self) -> Iterator[Checkpoint]:
        """The checkpoints that can be read, newest first; each that cannot be is named in a warning."""
        for path in self._paths():
            try:
                found = msgspec.msgpack.decode(path.read_bytes(), type=Checkpoint)
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning("the checkpoint %s cannot be read (%s): trying the one before", path, error)
                continue
            if found.version == VERSION and found.crc == zlib.crc32(found.state):
                yield found
            else:
                _log.warning(
                    "the checkpoint %s is damaged or of another version: trying the one before", path
                )

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.checkpoint"), reverse=True)
