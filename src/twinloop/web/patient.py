"""HTTP with limited patience: a request must come to its end in time."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import ClassVar, Final
from weakref import WeakSet

from uvicorn.protocols.http.h11_impl import H11Protocol

from twinloop.web.sending import HANG_UP, PIECE

__all__ = ["Patient", "patient_with"]

REQUEST_WITHIN_S: Final = 15.0


class Patient(H11Protocol):
    """The server's protocol; a connection that says nothing, or never ends what it says, is cut.

    Attributes:
        transports: those open, of HTTP and of live sockets.
        within_s: how long a request may take to come.
    """

    transports: ClassVar[WeakSet[Transport]] = WeakSet()
    within_s: ClassVar[float] = REQUEST_WITHIN_S
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take a connection; it has only so long to say what it wants."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=PIECE)  # with TLS it would be eight times that
        self.app_state = {**self.app_state, HANG_UP: transport.abort}
        self.transports.add(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take some bytes of requests."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is given away; its end has only so long to be taken."""
        super().on_response_complete()
        if self._timer is None and self.transport.get_protocol() is self:
            self._timer = self.loop.call_later(self.within_s, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """While no request is whole and being answered, the time runs; a live socket has its own."""
        answering = self._has_request() and not self.cycle.response_complete
        if answering or self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.within_s, self._give_up)

    def _has_request(self) -> bool:
        return self.cycle is not None

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.get_protocol() is self:
            self.transport.abort()


def patient_with(transports: WeakSet[Transport], within_s: float) -> type[Patient]:
    """The protocol of one server, with a set of its own."""
    return type("PatientHere", (Patient,), {"transports": transports, "within_s": within_s})
