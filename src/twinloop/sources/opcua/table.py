"""What the source knows of each node during one session, and what it makes of received values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from asyncua.ua.uatypes import LocalizedText

from twinloop.batch import Received
from twinloop.foreign import readable
from twinloop.records import Alive, DeadLetter, DeadLetters, DeadReason, Link, LinkState, Record, Samples
from twinloop.sources.opcua.options import OpcuaNode, status_name
from twinloop.sources.opcua.values import Rows
from twinloop.sources.source import Intake
from twinloop.status import INFO_DATA_VALUE, OVERFLOW_BIT, Reason
from twinloop.tags import Refusal

__all__ = ["ADDRESS_CODES", "NodeTable", "unit_of"]

RAW_LIMIT: Final = 4096
"""Bytes of a value kept in a dead letter."""

# These speak of the address, not of the plant: the node is quarantined rather than its value Bad.
ADDRESS_CODES: Final = {
    0x801F_0000: "BadUserAccessDenied",
    0x8033_0000: "BadNodeIdInvalid",
    0x8034_0000: "BadNodeIdUnknown",
    0x8035_0000: "BadAttributeIdInvalid",
    0x803A_0000: "BadNotReadable",
}
_ADDRESS_CODES: Final = np.array(sorted(ADDRESS_CODES), np.uint32)
_CODE: Final = np.uint32(0xFFFF_0000)
_INFO_TYPE: Final = np.uint32(0x0000_0C00)

# UNECE Recommendation 20 codes, which an EUInformation carries packed into its unitId (OPC 10000-8, 5.6.3).
_UNECE: Final = {
    "CEL": "degC", "FAH": "degF", "KEL": "K",
    "PAL": "Pa", "HPA": "hPa", "KPA": "kPa", "MPA": "MPa", "BAR": "bar", "MBR": "mbar", "PS": "psi",
    "L2": "L/min", "LTR": "L", "MTQ": "m**3", "MQH": "m**3/hour", "MQS": "m**3/second",
    "KGM": "kg", "KGS": "kg/second", "E93": "kg/hour", "MTR": "m", "MMT": "mm", "MTS": "m/second",
    "SEC": "second", "MIN": "minute", "HUR": "hour", "HTZ": "Hz", "RPM": "rpm",
    "AMP": "A", "MA": "mA", "VLT": "V", "WTT": "W", "KWT": "kW", "P1": "percent",
}  # fmt: skip


def unit_of(information: Any) -> tuple[str, bool]:
    """A unit's name from an EUInformation, and whether its code makes it certain; ("", False) for none."""
    number = getattr(information, "UnitId", None)
    if isinstance(number, int) and 0 < number < 1 << 24:
        code = number.to_bytes(3, "big").lstrip(b"\0").decode("latin-1")
        if code in _UNECE:
            return _UNECE[code], True
    shown = getattr(information, "DisplayName", None)
    text = shown.Text if isinstance(shown, LocalizedText) else None
    return (readable(text.strip()).replace("\N{DEGREE SIGN}", "deg"), False) if text else ("", False)


class NodeTable:
    """Turns rows into records and keeps each node's last answer, by the node's place in the options.

    Args:
        source: the source's name.
        nodes: the configured nodes.
        intake: gives series and the time.
        lost: addresses known to be lost, with why; shared by the sessions of a source, so that a loss is
            reported once however often the link comes and goes.
    """

    def __init__(self, source: str, nodes: Sequence[OpcuaNode], intake: Intake, lost: dict[str, str]) -> None:
        count = len(nodes)
        self._source = source
        self._nodes = nodes
        self._intake = intake
        self._lost = lost
        self._refusals: dict[int, Refusal] = {}
        self._series = np.full(count, -1, np.int32)
        self._is_lost = np.array([node.address in lost for node in nodes], bool)
        self._answered = np.zeros(count, bool)
        self._value = np.zeros(count, np.int64)  # the bits of the last value: NaN equals itself
        self._status = np.zeros(count, np.uint32)
        self._time = np.zeros(count, np.int64)

    def identify(self, place: int, unit: str, *, certain: bool) -> None:
        """Ask which series a node is, by the unit the server says, or else by the tag's own."""
        address = self._nodes[place].address
        series = self._intake.series(address, unit)
        if isinstance(series, Refusal) and unit and not certain and series.reason == DeadReason.WRONG_UNIT:
            # Display names are free text: one that means nothing to us is as good as none.
            series = self._intake.series(address, "")
        if isinstance(series, Refusal):
            self._refusals[place] = series
        else:
            self._series[place] = series

    def lose(self, place: int, why: str) -> list[Record]:
        """The record that an address is lost; none if that is known already."""
        address = self._nodes[place].address
        self._is_lost[place] = True
        if self._lost.get(address) == why:
            return []
        self._lost[address] = why
        now = self._intake.now_ns()
        return [Link(now, self._source, LinkState.ADDRESS_LOST, address, why)]

    def take(self, rows: Rows, *, repeated: bool = False) -> tuple[list[Record], int, list[int]]:
        """Records of received rows, the number of samples, and the places whose address is gone.

        Args:
            rows: `handle` is the node's place.
            repeated: the values were asked for, not sent by themselves: one that is the same as the last
                is no new sample and only renews the series' age.
        """
        arrival = self._intake.now_ns()
        strange = rows.handle >= len(self._nodes)
        gone = ~strange & ~self.there(rows)
        records: list[Record] = []
        places = [int(place) for place in np.unique(rows.handle[gone])]
        for place in places:
            code = int(rows.status[gone & (rows.handle == place)][-1])
            records += self.lose(place, f"the server says {status_name(code)}")
        letters = self._letters(rows, arrival, records)
        letters += [
            self._letter(arrival, "", f"{rows.value[row]!r}", DeadReason.UNKNOWN_TAG, "unknown client handle")
            for row in np.flatnonzero(strange)
        ]
        kept = np.flatnonzero(~gone & ~strange)
        records += self._found(rows.handle[kept])
        samples = self._numbers(rows, kept, arrival, records, letters, repeated=repeated)
        if letters:
            records.append(DeadLetters(letters))
        return records, samples, places

    def there(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows are values of configured nodes, and not the news that a node is not there."""
        known = rows.handle < len(self._nodes)
        return known & ~np.isin(rows.status & _CODE, _ADDRESS_CODES)

    def recall(self, place: int, rows: Rows, inside: npt.NDArray[np.bool_]) -> tuple[list[Record], int]:
        """Records of values from a node's history, and the number of samples.

        They say nothing of how the node is now, and a node without a tag has none.

        Args:
            place: the node's place.
            rows: `handle` has no meaning.
            inside: the rows wanted.
        """
        if self._series[place] < 0:
            return [], 0
        arrival = self._intake.now_ns()
        records: list[Record] = []
        count = int(inside.sum())
        if count:
            received = Received(
                np.full(count, self._series[place], np.int32),
                rows.source[inside],
                rows.server[inside],
                np.full(count, arrival, np.int64),
                rows.value[inside],
                rows.status[inside],
                np.zeros(count, np.uint32),
            )
            records.append(Samples.pack(received, live=False))
        if rows.others:
            address = self._nodes[place].address
            letters = [
                DeadLetter(
                    arrival,
                    self._source,
                    address,
                    other.raw[:RAW_LIMIT],
                    DeadReason.NOT_NUMERIC,
                    f"{address}: its history holds {other.kind}, not a number",
                )
                for other in rows.others
            ]
            records.append(DeadLetters(letters))
        return records, count

    def _numbers(
        self,
        rows: Rows,
        kept: npt.NDArray[np.intp],
        arrival: int,
        records: list[Record],
        letters: list[DeadLetter],
        *,
        repeated: bool,
    ) -> int:
        handle, value, status = rows.handle[kept], rows.value[kept], rows.status[kept]
        source, server = rows.source[kept], rows.server[kept]
        series = self._series[handle]
        fresh = np.ones(len(handle), bool)
        if repeated:
            same = (self._value[handle] == value.view(np.int64)) & (self._status[handle] == status)
            fresh = ~(self._answered[handle] & same & (self._time[handle] == source))
        self._answered[handle] = True
        self._value[handle], self._status[handle], self._time[handle] = value.view(np.int64), status, source
        led = series >= 0
        use = fresh & led
        if use.any():
            overflow = (status & _INFO_TYPE == INFO_DATA_VALUE) & (status & np.uint32(OVERFLOW_BIT) != 0)
            received = Received(
                series[use],
                source[use],
                server[use],
                np.full(int(use.sum()), arrival, np.int64),
                value[use],
                status[use],
                np.where(overflow, np.uint32(Reason.OVERFLOW), np.uint32(0))[use],
            )
            records.append(Samples.pack(received))
        if not (fresh | ~led).all():
            records.append(Alive(arrival, [int(index) for index in np.unique(series[~fresh & led])]))
        for row in np.flatnonzero(fresh & ~led):
            place = int(handle[row])
            refusal = self._refusals.get(place) or Refusal(DeadReason.UNKNOWN_TAG, "not identified yet")
            address = self._nodes[place].address
            letters.append(
                self._letter(arrival, address, repr(float(value[row])), refusal.reason, refusal.detail)
            )
        return int(use.sum())

    def _letters(self, rows: Rows, arrival: int, records: list[Record]) -> list[DeadLetter]:
        letters = []
        for other in rows.others:
            known = other.handle < len(self._nodes)
            address = self._nodes[other.handle].address if known else ""
            detail = f"{address}: holds {other.kind}, not a number"
            if known:
                records += self.lose(other.handle, f"it holds {other.kind}, not a number")
            raw = other.raw[:RAW_LIMIT]
            letters.append(DeadLetter(arrival, self._source, address, raw, DeadReason.NOT_NUMERIC, detail))
        return letters

    def _letter(self, arrival: int, address: str, value: str, reason: DeadReason, detail: str) -> DeadLetter:
        return DeadLetter(arrival, self._source, address, value.encode(), reason, detail)

    def undecodable(self, raw: bytes, detail: str) -> DeadLetters:
        """The record of a message that cannot be read; only its head is kept."""
        now = self._intake.now_ns()
        letter = DeadLetter(now, self._source, "", raw[:RAW_LIMIT], DeadReason.UNDECODABLE, detail)
        return DeadLetters([letter])

    def _found(self, handles: npt.NDArray[np.int64]) -> list[Record]:
        if not self._is_lost.any():
            return []
        records: list[Record] = []
        now = self._intake.now_ns()
        for place in np.unique(handles[self._is_lost[handles]]):
            self._is_lost[place] = False
            address = self._nodes[place].address
            if self._lost.pop(address, None) is not None:
                records.append(Link(now, self._source, LinkState.ADDRESS_FOUND, address))
        return records
