"""A data directory and who has it: its lock, its dictionary, the tags in it, the name brokers know it by."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twinloop.config.expand import tags_of
from twinloop.config.models import PlantConfig
from twinloop.durable import place_file
from twinloop.errors import StartError
from twinloop.log.dictionary import Dictionary
from twinloop.tags import TagTable

__all__ = ["Workplace", "borrowed_workplace", "client_id", "holder_of", "workplace"]

_LOOKED_AT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Workplace:
    """A data directory and the tags in it.

    Attributes:
        owned: nobody else appends to it meanwhile, and this process may write.
    """

    config: PlantConfig
    directory: Path
    dictionary: Dictionary
    table: TagTable
    owned: bool = True


@contextmanager
def workplace(config: PlantConfig) -> Iterator[Workplace]:
    """Take the data directory for this process, for as long as the context is open.

    Raises:
        StartError: another process has it, or it cannot be made or written.
    """
    directory = config.data_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise StartError(f"data_dir {directory} cannot be used: {error.strerror or error}") from error
    with lock:
        _take(lock.fileno(), directory)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        dictionary = Dictionary(directory / "dictionary.sqlite")
        tags = tags_of(config)
        table = TagTable(tags, dictionary.add_tags(tag.name for tag in tags))
        try:
            yield Workplace(config, directory, dictionary, table)
        finally:
            dictionary.close()


@contextmanager
def borrowed_workplace(config: PlantConfig) -> Iterator[Workplace]:
    """The plant's tags without its data directory: nothing is written, no running twin is disturbed."""
    dictionary = Dictionary(None)
    tags = tags_of(config)
    table = TagTable(tags, dictionary.add_tags(tag.name for tag in tags))
    try:
        yield Workplace(config, config.data_dir, dictionary, table, owned=False)
    finally:
        dictionary.close()


def holder_of(directory: Path) -> str:
    """The process that has a data directory; empty where nobody has."""
    try:
        with (directory / "lock").open(encoding="ascii") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return _holder(directory)
    return ""


def _holder(directory: Path) -> str:
    return (directory / "lock").read_text(encoding="ascii").strip() or "unknown"


def _take(descriptor: int, directory: Path) -> None:
    until_s = time.monotonic() + _LOOKED_AT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < until_s:  # perhaps somebody only looks who has it, which takes it too
                time.sleep(_LOOKED_AT_S / 20)
                continue
            raise StartError(
                f"data_dir {directory} is in use by another twinloop (process {_holder(directory)}): "
                "stop it first, or give this plant a data_dir of its own"
            ) from error
        return


def client_id(place: Workplace, source: str) -> str:
    """Stable for this data directory and alone at the broker: plant, source and a random part kept here."""
    path = place.directory / "client-id"
    own = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if not own:
        own = secrets.token_hex(6)
        if place.owned:
            place_file(path, f"{own}\n".encode())  # the broker's session hangs on it
    return f"twinloop-{place.config.plant}-{source}-{own}"
