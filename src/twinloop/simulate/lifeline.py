"""A child that cannot outlive its parent: both ends of the line between the demo and its processes.

The line is a pipe that only the parent holds open. Whatever ends the parent, also `kill -9`, closes it, and
the child ends at the end of file: no process group, no signal that could be missed, no race at the start.
Messages are JSON objects, one a line, both ways.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec

from twinloop.errors import LinkError

__all__ = ["Child", "Message", "end_with_parent", "tell_parent"]

Message = dict[str, Any]

STDIN: Final = 0
LINE_LIMIT: Final = 16 * 1024 * 1024  # the truth of thousands of reactors is one line
STOP_TIMEOUT_S: Final = 3.0
LAST_WORDS: Final = 20


def end_with_parent(on_message: Callable[[Message], None] | None = None) -> None:
    """From now on this process ends within moments of its parent, however that ends.

    Args:
        on_message: called in a thread of its own with every message the parent sends.
    """
    threading.Thread(target=_watch, args=(on_message,), name="lifeline", daemon=True).start()


def tell_parent(message: Message) -> None:
    """Send one message up; it is on its way when this returns."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _watch(on_message: Callable[[Message], None] | None) -> None:
    # os.read and not sys.stdin: a thread blocked in a buffered reader upsets the interpreter's own exit.
    rest = b""
    while chunk := os.read(STDIN, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        if on_message is not None:
            for line in filter(None, lines):
                on_message(msgspec.json.decode(line, type=Message))
    os._exit(0)


class Child:
    """A Python module running as a child process on the other end of a lifeline.

    Made by `Child.start`. Its standard error is not shown: the last lines become part of the `LinkError`
    that says the child ended too early.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._listener = asyncio.create_task(self._hear_stderr())

    @classmethod
    async def start(cls, name: str, module: str, *arguments: str) -> Child:
        """Start `python -m module arguments`.

        Args:
            name: what a person calls it in an error text.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a file of the user's named like a module of ours is not imported
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C is the parent's to act on
        )
        return cls(name, process)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def messages(self) -> AsyncGenerator[Message, None]:
        """What the child says, in order.

        Raises:
            LinkError: the child ended; the text carries its last words.
        """
        assert self._process.stdout is not None  # noqa: S101 - made with PIPE
        while line := await self._process.stdout.readline():
            yield msgspec.json.decode(line, type=Message)
        code = await self._process.wait()
        await self._listener
        words = self._last_words[-1] if self._last_words else "it said nothing"
        raise LinkError(f"the demo's {self._name} ended unexpectedly (exit code {code}): {words}")

    async def expect(self, key: str, timeout_s: float) -> Any:
        """The value under `key` in the first message that has it; earlier messages are passed over.

        Raises:
            LinkError: the child ended, or said no such thing within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                async with aclosing(self.messages()) as messages:
                    async for message in messages:
                        if key in message:
                            return message[key]
        except TimeoutError:
            raise LinkError(f"the demo's {self._name} did not start within {timeout_s:g} s") from None
        raise AssertionError("messages() ends by raising")

    def send(self, message: Message) -> None:
        """Send one message down; to a child that has ended it goes nowhere."""
        assert self._process.stdin is not None  # noqa: S101 - made with PIPE
        if not self._process.stdin.is_closing():
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")

    async def stop(self) -> None:
        """End the child, at the latest by SIGKILL after a few seconds; done when it is gone."""
        assert self._process.stdin is not None  # noqa: S101 - made with PIPE
        self._process.stdin.close()
        drain = asyncio.create_task(self._drain())
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await drain
        await self._listener
        with suppress(OSError):  # unread messages to a child already gone
            await self._process.stdin.wait_closed()

    async def _drain(self) -> None:
        # Process.wait only returns when the pipes are read to their end.
        assert self._process.stdout is not None  # noqa: S101 - made with PIPE
        while await self._process.stdout.read(65536):
            pass

    async def _hear_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - made with PIPE
        while line := await self._process.stderr.readline():
            if text := line.decode(errors="replace").strip():
                self._last_words.append(text)
