"""What a source promises. Sources are the only parts that hear the plant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from twinloop.records import Record
from twinloop.tags import Refusal

__all__ = ["Delivery", "Intake", "Reading", "Renewable", "Source"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a source heard since the last delivery.

    Attributes:
        records: samples, dead letters and notes on addresses, in the order they were heard.
        ack: to be called once, after every record is durable in the log; lets the source acknowledge
            to its peer. Never blocks, never raises; after a lost connection it does nothing.
        samples: number of samples in `records`, for the counters.
    """

    records: tuple[Record, ...]
    ack: Callable[[], None]
    samples: int = 0


class Intake(Protocol):
    """What a source may ask of its surroundings."""

    def series(self, address: str, unit: str) -> int | Refusal:
        """The series index of an address and unit of this source, or why it leads to no tag.

        Durable before it returns; cached by the caller where it is asked for every sample.
        """
        ...

    def now_ns(self) -> int:
        """This host's clock, ns since epoch UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """One tag as `twinloop check` reads it.

    Attributes:
        address: topic or NodeId.
        tag: full name the address leads to; empty where it leads to none.
        value: the value as text; empty where there is none.
        problem: what is wrong, in words; empty when the tag was read.
    """

    address: str
    tag: str
    value: str = ""
    unit: str = ""
    status: str = ""
    time_ns: int = 0
    problem: str = ""


@runtime_checkable
class Renewable(Protocol):
    """What an iterator of deliveries may offer: to find out whether silence is the plant's or the link's."""

    async def renew(self) -> None:
        """Return when the peer has answered, and sends what it has to say from now on.

        Called while the next delivery is awaited; may be cancelled.

        Raises:
            LinkError: it does not answer in time, or no longer lets us hear.
        """
        ...


class Source(Protocol):
    """One connection to the plant."""

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        ...

    def connect(self) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """One attempt to connect; it never reconnects by itself.

        Entering raises `LinkError` when the peer cannot be reached or refuses, in one sentence a person
        can act on. The iterator yields deliveries until the connection is lost, which it reports by
        raising `LinkError`; it ends without an error only when the source is exhausted (a file).
        Leaving closes every session and socket, also when cancelled, within a few seconds.
        """
        ...

    async def check(self, timeout_s: float) -> list[Reading]:
        """Read each configured address once (`twinloop check`), with a session of its own.

        Raises:
            LinkError: the peer cannot be reached or refuses.
        """
        ...
