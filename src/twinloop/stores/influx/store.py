"""The store in InfluxDB: samples and fills go to the server, everything else stays in a journal beside it.

An entry is handed to the journal when InfluxDB has accepted all its points, so the journal's `covered` is the
store's. A kill anywhere means that points are sent again, and the same series and time overwrites itself.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from twinloop.durable import place_file
from twinloop.errors import StoreBusy
from twinloop.records import DeadLetter, DeadReason, Outputs
from twinloop.stores.influx.client import Client
from twinloop.stores.influx.lines import Encoder
from twinloop.stores.influx.options import InfluxOptions
from twinloop.stores.influx.sending import Bad, Limited, Sending
from twinloop.stores.influx.stored import FirstStored
from twinloop.stores.local import SEAL_AFTER_S, LocalStore
from twinloop.stores.rows import KINDS, Entry, tables

__all__ = ["ELSEWHERE", "SOURCE", "InfluxStore"]

logger = logging.getLogger("twinloop.store")

ELSEWHERE: Final = "samples-elsewhere.json"
"""In a store's directory: that its samples are on a server, and on which."""
SOURCE: Final = "(store)"
"""The source of dead letters that InfluxDB made: no source of a plant file can have the name."""
POINTS: Final = ("samples", "fills")
_ROWS_AT_ONCE: Final = 20_000
_SOONEST_S: Final = 0.5
_LATEST_S: Final = 30.0
_PATIENCE: Final = 3
"""A server may take so many times longer to look a row up than to take points; a stop waits for it."""
MILLISECOND_NS: Final = 1_000_000


class InfluxStore:
    """A `Store` in InfluxDB and in one directory, the journal's; one process writes.

    Args:
        options: the server.
        directory: the journal's, made when it is missing.
        names, units: full tag names and their units by index.
        redeliverable_from, seal_after_s: see `LocalStore`.
        refused: told how many points have become dead letters.

    Raises:
        ConfigError: the extra is not installed, or a certificate cannot be used.
        OSError: the directory cannot be made or read.
    """

    def __init__(
        self,
        options: InfluxOptions,
        directory: Path,
        names: Sequence[str],
        units: Sequence[str],
        *,
        redeliverable_from: int = 0,
        seal_after_s: float = SEAL_AFTER_S,
        refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._client = Client(options, _PATIENCE * options.timeout_s)
        self._journal = LocalStore(
            directory,
            names,
            redeliverable_from=redeliverable_from,
            seal_after_s=seal_after_s,
            keeps=[kind for kind in KINDS if kind not in {*POINTS, "minutes"}],
            background=True,
        )
        self._names = list(names)
        self._refused = refused
        self._encoders = {
            kind: Encoder(options.measurement_of(kind), options.plant, names, units) for kind in POINTS
        }
        self._stored = {
            kind: FirstStored(self._client, options.measurement_of(kind), options.plant, names)
            for kind in POINTS
        }
        self._failures = 0
        self._found = False
        self._mark(directory, options)

    def _mark(self, directory: Path, options: InfluxOptions) -> None:
        """Leave word for those who read the directory alone that the samples are not in it."""
        place = {"url": options.url, "bucket": options.bucket, "measurement": options.measurement}
        with suppress(OSError):  # derived; the next start tries again
            place_file(directory / ELSEWHERE, json.dumps(place).encode())

    @property
    def covered(self) -> int:
        """The newest output-log offset that InfluxDB and the journal have for good."""
        return self._journal.covered

    def write(self, entries: Sequence[Entry]) -> None:
        """Send the points of entries, ascending by offset, and note those that were accepted.

        Points that InfluxDB will never take become dead letters of their entry, one each. Those over a limit
        of its number of series wait for it to be raised; points of the series it has it takes meanwhile.

        Raises:
            StoreBusy: InfluxDB or the journal's disk does not take them now; those it took stay taken.
        """
        fresh = [entry for entry in entries if entry[0] > self._journal.taken]
        try:
            if not self._found:
                self._client.look()
                self._found = True
            limited: Limited | None = None
            for group in _groups(fresh):
                try:
                    letters = self._deliver(group)
                except Limited as busy:
                    limited = limited or busy
                if limited is None:  # else the entries after it are sent, and not noted
                    self._journal.write(_with_letters(group, letters) if letters else group)
            if limited is not None:
                raise limited
        except StoreBusy as busy:
            self._failures += 1
            wait_s = min(_LATEST_S, _SOONEST_S * 2 ** min(self._failures - 1, 10))
            raise StoreBusy(str(busy), retry_after_s=max(wait_s, busy.retry_after_s)) from busy
        if self._failures:
            self._failures = 0
            self._journal.seal()  # so that `covered` says that it goes on

    def seal(self) -> None:
        """Make the journal of what InfluxDB has durable now.

        Raises:
            StoreBusy: the disk refused; what was taken stays taken.
        """
        self._journal.seal()

    def close(self) -> None:
        """Seal the journal and let go of the connections.

        Raises:
            StoreBusy: the disk refused; what is after `covered` stays in the output log.
        """
        self._client.close()
        self._journal.close()

    def _deliver(self, group: Sequence[Entry]) -> Mapping[int, list[DeadLetter]]:
        """Send the points of some entries; the dead letters they left, by the entry's offset.

        Raises:
            Limited: all was sent, and some of it was over a limit.
            StoreBusy: not all was sent.
        """
        limited = ""
        letters: dict[int, list[DeadLetter]] = defaultdict(list)
        made = tables(group, POINTS)
        for kind in POINTS:
            rows = self._stored[kind].fresh(made[kind])
            if not len(rows):
                continue
            sending = Sending(self._client, self._encoders[kind].lines(rows))
            taken = np.ones(len(rows), bool)
            taken[[each.row for each in sending.bad]] = False
            self._stored[kind].sent(rows.filter(pa.array(taken)))
            limited = limited or sending.limited
            for each in sending.bad:
                letters[rows["offset"][each.row].as_py()].append(self._letter(rows, each))
        if limited:
            where = f"{self._client.where} has no room for more series ({limited})"
            raise Limited(f"{where}: have its limit raised, or old series dropped", retry_after_s=0.0)
        count = sum(map(len, letters.values()))
        if count:
            some = next(iter(letters.values()))[0]
            logger.warning(
                "store: %d points refused for good, the first of %s: %s", count, some.origin, some.detail
            )
            self._refused(count)
        return letters

    def _letter(self, rows: pa.Table, bad: Bad) -> DeadLetter:
        arrival = rows["arrival_ms"][bad.row].as_py() * MILLISECOND_NS
        name = self._names[rows["tag"][bad.row].as_py()]
        return DeadLetter(arrival, SOURCE, name, bad.raw, DeadReason.REFUSED, bad.why)


def _groups(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Entries, some thousand rows at a time."""
    rows, first = 0, 0
    for at, (_, outputs) in enumerate(entries):
        rows += sum(len(columns[0]) // 4 for columns in (outputs.samples, outputs.fills) if columns)
        if rows >= _ROWS_AT_ONCE:
            yield entries[first : at + 1]
            rows, first = 0, at + 1
    if first < len(entries):
        yield entries[first:]


def _with_letters(group: Sequence[Entry], letters: Mapping[int, list[DeadLetter]]) -> list[Entry]:
    made: list[Entry] = []
    for offset, outputs in group:
        own = letters.get(offset)
        more: Outputs = msgspec.structs.replace(outputs, dead=[*outputs.dead, *own]) if own else outputs
        made.append((offset, more))
    return made
