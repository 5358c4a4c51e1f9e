"""What stands in the logs: records in, outputs out, and their encoding.

A record is one thing the fold must know; an `Outputs` is what folding one record gave. Both are encoded
with MessagePack, columns as raw bytes: decoding runs no code from the log and copies no column.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Final

import msgspec

from twinloop.batch import Batch, Received
from twinloop.errors import LogError

__all__ = [
    "Alive",
    "ClockSet",
    "DeadLetter",
    "DeadLetters",
    "DeadReason",
    "Event",
    "EventKind",
    "Health",
    "Link",
    "LinkState",
    "Loss",
    "Outputs",
    "Prediction",
    "Record",
    "Samples",
    "Snapshot",
    "Started",
    "Thinned",
    "Tick",
    "decode_outputs",
    "decode_record",
    "encode_outputs",
    "encode_record",
]


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What fits a column; MessagePack's integers go further."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


@unique
class DeadReason(StrEnum):
    """Why bytes could not become a sample."""

    UNDECODABLE = "UNDECODABLE"
    """Not the format the plant file names."""
    UNKNOWN_TAG = "UNKNOWN_TAG"
    """The address leads to no tag of the plant file."""
    WRONG_UNIT = "WRONG_UNIT"
    """The unit is unknown or cannot become the tag's unit."""
    NOT_NUMERIC = "NOT_NUMERIC"
    """The value is a text, or there is none."""
    BAD_TIMESTAMP = "BAD_TIMESTAMP"
    """The timestamp cannot be read."""
    BAD_QUALITY = "BAD_QUALITY"
    """The quality is no known word or code."""
    TOO_LARGE = "TOO_LARGE"
    """The payload is longer than `max_payload`; only its head is kept."""
    REFUSED = "REFUSED"
    """A store on a server will never take the sample; its line, as it was sent, is kept."""


@unique
class EventKind(StrEnum):
    """What happened, for the event stream and the dashboard."""

    STATUS = "STATUS"
    """A tag's severity changed; `why` names the reasons."""
    REBASELINED = "REBASELINED"
    """After k outliers in a row the level has moved: statistics begin anew."""
    HEALTH = "HEALTH"
    """An asset's sync health changed."""
    DIVERGED = "DIVERGED"
    """A belief stopped making sense and was reset."""
    LINK_UP = "LINK_UP"
    """A source is connected."""
    LINK_DOWN = "LINK_DOWN"
    """A source was lost or refused; `why` says how."""
    ADDRESS_LOST = "ADDRESS_LOST"
    """One address of a source (a node) cannot be read; it is quarantined and retried."""
    ADDRESS_FOUND = "ADDRESS_FOUND"
    """A quarantined address can be read again."""
    OVERRUN = "OVERRUN"
    """A cycle took longer than its period; the next tick carries the number missed."""
    LOST = "LOST"
    """Entries of a log are gone for good before their reader had them; `why` says which."""
    CLOCK_BACK = "CLOCK_BACK"
    """A tag goes by its source's clock again, which was set back from one time to another."""
    CLOCK_SET = "CLOCK_SET"
    """This host's clock was set from one time to another."""
    STARTED = "STARTED"
    """The twin was started; `why` says since when it had been away."""
    THINNED = "THINNED"
    """A full log left samples out before the fold had read them; `why` says how many of which records."""


@unique
class Health(StrEnum):
    """How far an asset's twin is in step with its plant."""

    STARTING = "STARTING"
    IN_SYNC = "IN_SYNC"
    LAGGING = "LAGGING"
    STALE = "STALE"
    DIVERGED = "DIVERGED"


@unique
class LinkState(StrEnum):
    """What a source says about itself or one of its addresses."""

    UP = "up"
    DOWN = "down"
    ADDRESS_LOST = "address_lost"
    ADDRESS_FOUND = "address_found"


class Thinned(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a full log left out before the fold read it: its arrival still counts, so that it is no silence.

    Attributes:
        series, arrival: by series, the newest arrival left out since the tick before, ns since epoch UTC.
        first, samples: the first offset of the file, and how many samples were left out of it; told once, in
            the file's last record with samples.
    """

    series: list[_Index] = []
    arrival: list[_Int64] = []
    first: _Count = 0
    samples: _Count = 0

    def __post_init__(self) -> None:
        if len(self.series) != len(self.arrival):
            raise ValueError("series and arrival differ in length")


class Samples(msgspec.Struct, frozen=True, tag="samples", omit_defaults=True):
    """Received samples, as the column bytes of `Received.buffers()`.

    Attributes:
        columns: the bytes; empty where every sample was left out.
        live: whether they were heard as they came to be; not those of a history read, a file or a dead letter
            fed again, whose times say nothing about the source's clock.
        thinned: what a full log left out; None for nothing.
    """

    columns: list[bytes] = []
    live: bool = True
    thinned: Thinned | None = None

    def __post_init__(self) -> None:
        if self.columns:
            Received.check_buffers(self.columns)

    @classmethod
    def pack(cls, received: Received, *, live: bool = True) -> Samples:
        """The record of some received samples."""
        return cls(received.buffers(), live)

    def unpack(self) -> Received:
        """The received samples, over the record's own memory."""
        return Received.from_buffers(self.columns) if self.columns else Received.empty()

    def newest(self, otherwise: int) -> int:
        """The newest arrival, also of what was left out; `otherwise` where there is none or it is older."""
        left_out = max(self.thinned.arrival, default=otherwise) if self.thinned else otherwise
        return max(left_out, int(self.unpack().arrival_time.max(initial=otherwise)))


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """Bytes that could not become a sample, kept whole with where they came from and why.

    Attributes:
        time: arrival, ns since epoch UTC.
        source: the source's name in the plant file.
        origin: topic, NodeId or file and line.
        raw: the bytes as received.
        reason: a `DeadReason`.
        detail: what was wrong, in words.
    """

    time: _Int64
    source: str
    origin: str
    raw: bytes
    reason: DeadReason
    detail: str


class DeadLetters(msgspec.Struct, frozen=True, tag="dead"):
    """Dead letters a source found; records too, so that they are durable before the ack."""

    letters: list[DeadLetter]


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """Time itself, as a record: the fold reads no other clock.

    Attributes:
        time: the scheduled time, ns since epoch UTC.
        tiers: the cycle tiers due, as their periods in ns, ascending.
        missed: cycles that fell out because an earlier one took too long.
    """

    time: _Int64
    tiers: list[_Int64]
    missed: _Count = 0


class Link(msgspec.Struct, frozen=True, tag="link"):
    """A source came, went, or lost or found one address.

    Attributes:
        time: ns since epoch UTC.
        source: the source's name in the plant file.
        state: a `LinkState`.
        address: the node concerned; empty for the whole source.
        why: one sentence for a person; no secrets.
    """

    time: _Int64
    source: str
    state: LinkState
    address: str = ""
    why: str = ""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Series asked again whose answer had not changed: it renews their age and adds no sample.

    Attributes:
        time: arrival of the answer, ns since epoch UTC.
        series: indices into the series dictionary.
    """

    time: _Int64
    series: list[_Index]


class Loss(msgspec.Struct, frozen=True, tag="loss"):
    """Entries of a log were dropped to make room, or were damaged, before their reader had them.

    Attributes:
        time: when that was found, ns since epoch UTC.
        log: `received`, whose reader is the fold, or `outputs`, whose reader is the store.
        first, last: the offsets that are gone.
        entries: how many there were, at most; 0 where nobody knows.
    """

    time: int
    log: str
    first: int
    last: int
    entries: int = 0


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The twin was started: what went by since the record before it, nobody was there to hear.

    Attributes:
        time: this host's clock, ns since epoch UTC.
    """

    time: _Int64


class ClockSet(msgspec.Struct, frozen=True, tag="clock_set"):
    """This host's wall clock was found to have been set, so that all times before are by another clock.

    Attributes:
        time: the new clock's time, ns since epoch UTC.
        by_ns: how much it is ahead of the old one's; negative when it was set back.
    """

    time: _Int64
    by_ns: _Int64


Record = Samples | DeadLetters | Tick | Link | Alive | Loss | Started | ClockSet


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something a person may want to know, once.

    Attributes:
        time: ns since epoch UTC.
        subject: full tag name, asset or source.
        kind: an `EventKind`.
        before: the state left; empty where there was none.
        after: the state entered.
        why: reasons or a sentence.
    """

    time: _Int64
    subject: str
    kind: EventKind
    before: str = ""
    after: str = ""
    why: str = ""


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """What the model says one output will be, beside what doing nothing would say.

    Attributes:
        output: the model's output name (or its state's), in `unit`.
        unit: engineering unit of the numbers.
        now: the value the prediction starts from.
        value: the model's value `horizon_s` later.
        persistence: the value if nothing changed (the honest baseline).
    """

    output: str
    unit: str
    now: float
    value: float
    persistence: float


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One asset's twin at one tick.

    Attributes:
        time: the tick's time, ns since epoch UTC.
        asset: the asset's name.
        health: sync health.
        why: what the health rests on; empty when IN_SYNC.
        model: the model's name; empty where the asset has none.
        state: state means by name, units in the name's suffix.
        std: standard deviations of the states that have one.
        horizon_s: how far ahead the predictions look, seconds; 0 without a model.
        predictions: one per model output or named figure.
        nis: mean normalised innovation squared over the asset's tags (1 is expected); NaN before any.
    """

    time: _Int64
    asset: str
    health: Health
    why: str = ""
    model: str = ""
    state: dict[str, float] = {}
    std: dict[str, float] = {}
    horizon_s: float = 0.0
    predictions: list[Prediction] = []
    nis: float = float("nan")


class Outputs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What folding one record gave: everything downstream of the fold reads only these.

    Attributes:
        covers: the offset of the record folded; ascending, so a store can skip what it has.
        time: the newest time the fold knew, ns: the tick or arrival that caused this.
        samples: judged and estimated rows, as `Batch.buffers()`; empty for none.
        fills: substitutes for bad or missing values, as `Batch.buffers()`; never rows of history.
        events, snapshots, dead: see their types.
        duplicates: redelivered samples that were folded once and left out here.
    """

    covers: _Int64
    time: _Int64
    samples: list[bytes] = []
    fills: list[bytes] = []
    events: list[Event] = []
    snapshots: list[Snapshot] = []
    dead: list[DeadLetter] = []
    duplicates: _Count = 0

    def __post_init__(self) -> None:
        for columns in (self.samples, self.fills):
            if columns:
                Batch.check_buffers(columns)

    def batch(self) -> Batch:
        """The judged rows."""
        return Batch.from_buffers(self.samples) if self.samples else Batch.empty()

    def filled(self) -> Batch:
        """The substitutes."""
        return Batch.from_buffers(self.fills) if self.fills else Batch.empty()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing a reader could want."""
        return not (self.samples or self.fills or self.events or self.snapshots or self.dead)


_encoder: Final = msgspec.msgpack.Encoder()
_record_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)
_outputs_decoder: Final = msgspec.msgpack.Decoder(Outputs)


def encode_record(record: Record) -> bytes:
    """A record's bytes for the log."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> Record:
    """The inverse of `encode_record`.

    Raises:
        LogError: the bytes are not a record.
    """
    try:
        return _record_decoder.decode(data)
    except (ValueError, RecursionError) as error:  # of msgspec's own, and for texts that are not UTF-8
        raise LogError(f"a log entry is not a record: {error}") from error


def encode_outputs(outputs: Outputs) -> bytes:
    """The bytes of some outputs for the output log."""
    return _encoder.encode(outputs)


def decode_outputs(data: bytes) -> Outputs:
    """The inverse of `encode_outputs`.

    Raises:
        LogError: the bytes are not outputs.
    """
    try:
        return _outputs_decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise LogError(f"an output log entry cannot be read: {error}") from error
