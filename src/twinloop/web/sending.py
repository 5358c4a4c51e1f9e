"""Answers go out in pieces, as fast as they are taken, but not slower than a least rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from starlette.types import Receive, Send

__all__ = ["HANG_UP", "MOST_UNSENT", "PIECE", "Room", "hang_up_of", "send_in_pieces"]

HANG_UP: Final = "twinloop.hang_up"
"""Where the state of a request's scope has what ends its connection at once."""

PIECE: Final = 64 << 10
"""What is no longer goes out at once, and is not counted: of 500 connections that is 32 MiB."""
MOST_UNSENT: Final = 128 << 20
GRACE_S: Final = 30.0
LEAST_BYTES_PER_S: Final = 128 << 10


class Room:
    """How many bytes may be held for others at once; of one event loop's.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def take(self, size: int) -> bool:
        """Hold so many more; False, and none are, where there is no room."""
        if self._held + size > self._most:
            return False
        self._held += size
        return True

    def give_back(self, size: int) -> None:
        """So many are held no longer."""
        self._held -= size


def hang_up_of(state: dict[str, object]) -> Callable[[], object] | None:
    """What ends the connection of a request by the state of its scope; None where nothing can."""
    found = state.get(HANG_UP)
    return found if callable(found) else None


async def send_in_pieces(
    body: bytes, *, more: bool, send: Send, receive: Receive, hang_up: Callable[[], object] | None
) -> None:
    """Send a body as it is taken; who takes it too slowly is hung up on.

    Args:
        body: what is sent.
        more: whether something follows it.
        send, receive: of the request.
        hang_up: ends its connection.

    Raises:
        TimeoutError: it was too slow, and nothing can end the connection.
    """
    try:
        async with asyncio.timeout(GRACE_S + len(body) / LEAST_BYTES_PER_S):
            for piece, is_last in _pieces(body):
                # The server waits in here until the peer has taken most of what it was given before.
                await send({"type": "http.response.body", "body": piece, "more_body": more or not is_last})
    except TimeoutError:
        if hang_up is None:
            raise
        hang_up()
        while (await receive())["type"] != "http.disconnect":
            pass


def _pieces(body: bytes) -> Iterator[tuple[bytes, bool]]:
    for first in range(0, max(len(body), 1), PIECE):
        yield body[first : first + PIECE], first + PIECE >= len(body)
