"""MQTT messages to records: samples as columns, and a dead letter for whatever is no sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from mqttium.types import Message

from twinloop.batch import NO_TIME, Received
from twinloop.errors import PayloadError
from twinloop.records import DeadLetter, DeadLetters, DeadReason, Record, Samples
from twinloop.sources.mqtt.payloads import Sample
from twinloop.sources.mqtt.topics import TopicMap, TopicRule
from twinloop.sources.refeed import Again
from twinloop.sources.source import Intake
from twinloop.status import GOOD, UNCERTAIN, Reason
from twinloop.tags import Refusal

__all__ = ["MAX_SERIES_OF_A_TAG", "Heard", "MessageReader", "Outcome"]

# What any publisher may invent is remembered only up to here; a longer text is looked at anew each time.
_MAX_RULES: Final = 100_000
_MAX_REFUSALS: Final = 10_000
_MAX_REMEMBERED: Final = 256
MAX_SERIES_OF_A_TAG: Final = 256
"""Addresses and units that may lead to one tag: each is kept for good in the data directory."""
_HEAD_BYTES: Final = 64 * 1024
_DETAILS: Final = 3
_RETAINED: Final = int(Reason.RETAINED)
_RETAINED_WORD: Final = "retained: "
"""Begins the detail of a retained message's letter, so that it is known when it is read again."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class Heard(NamedTuple):
    """A message and the time it came in, ns since epoch UTC by this host's clock."""

    arrival: int
    message: Message


class Outcome(NamedTuple):
    """One sample of a message, where it leads, or why it is none.

    Attributes:
        address: the sample's address; the topic where there is no sample.
        sample: the sample, or None where the payload could not be read.
        series: its series index, or -1.
        reason: why it is a dead letter; None where it is not.
        detail: the same in words.
    """

    address: str
    sample: Sample | None
    series: int = -1
    reason: DeadReason | None = None
    detail: str = ""


class MessageReader:
    """Reads messages into records; every message ends in a sample or a dead letter, none is left out.

    Args:
        source: the source's name in the plant file, for the dead letters.
        topics: which tags the topics mean.
        intake: gives series their index.
        max_payload: longer payloads are dead letters, of which the first 64 KiB are kept.
    """

    def __init__(self, source: str, topics: TopicMap, intake: Intake, max_payload: int) -> None:
        self._source = source
        self._topics = topics
        self._intake = intake
        self._max_payload = max_payload
        self._rules: dict[str, TopicRule | None] = {}
        self._series: dict[tuple[str, str], int] = {}
        self._refusals: dict[tuple[str, str], Refusal] = {}
        self._series_of_tag: Counter[str | None] = Counter()

    def read(self, heard: Sequence[Heard]) -> tuple[tuple[Record, ...], int]:
        """The records of some messages, and how many samples are in them.

        A message that is wholly or partly no sample makes one dead letter with all its bytes.

        Raises:
            LogError: a new series could not be made durable.
        """
        columns = _Columns()
        letters: list[DeadLetter] = []
        for arrival, message in heard:
            dead: list[Outcome] = []
            count = 0
            for outcome in self.outcomes(message):
                if outcome.sample is None or outcome.reason is not None:
                    count += 1
                    if len(dead) < _DETAILS:
                        dead.append(outcome)
                else:
                    columns.add(outcome.series, outcome.sample, arrival, retained=message.retain)
            if dead:
                letters.append(self._letter(arrival, message, dead, count))
        records: list[Record] = []
        if columns.series:
            records.append(Samples.pack(columns.received()))
        if letters:
            records.append(DeadLetters(letters))
        return tuple(records), len(columns.series)

    def read_again(self, letters: Sequence[DeadLetter]) -> tuple[Samples | None, list[Again]]:
        """The samples of the letters that can be read whole now, and what became of each letter.

        They have the letter's arrival time. A letter of which any part still fails gives none: it stays
        what it is, and its parts that never failed are samples already.

        Raises:
            LogError: a new series could not be made durable.
        """
        columns = _Columns()
        answers = [self._again(letter, columns) for letter in letters]
        return Samples.pack(columns.received(), live=False) if columns.series else None, answers

    def _again(self, letter: DeadLetter, columns: _Columns) -> Again:
        if letter.reason is DeadReason.TOO_LARGE:
            return Again(0, "only its head was kept")
        retained = letter.detail.startswith(_RETAINED_WORD)
        read: list[tuple[int, Sample]] = []
        for outcome in self.outcomes(Message(letter.origin, letter.raw, retain=retained)):
            if outcome.sample is None or outcome.reason is not None:
                return Again(0, outcome.detail)
            read.append((outcome.series, outcome.sample))
        for series, sample in read:
            columns.add(series, sample, letter.time, retained=retained)
        return Again(len(read), "" if read else "it holds no sample")

    def outcomes(self, message: Message) -> Iterator[Outcome]:
        """What each part of a message is; at least one outcome."""
        topic = message.topic
        if len(message.payload) > self._max_payload:
            detail = f"{len(message.payload)} bytes are more than max_payload ({self._max_payload})"
            yield Outcome(topic, None, reason=DeadReason.TOO_LARGE, detail=detail)
            return
        rule = self._rule(topic)
        if rule is None:
            detail = f"{topic}: no pattern of the source fits"
            yield Outcome(topic, None, reason=DeadReason.UNKNOWN_TAG, detail=detail)
            return
        for item in rule.decoder.decode(message.payload):
            if isinstance(item, PayloadError):
                yield Outcome(topic, None, reason=DeadReason(item.reason), detail=item.detail)
                continue
            address = rule.address(topic, item)
            series = self._series_of(address, item.unit)
            if isinstance(series, int):
                yield Outcome(address, item, series)
            else:
                yield Outcome(address, item, reason=series.reason, detail=series.detail)

    def _rule(self, topic: str) -> TopicRule | None:
        try:
            return self._rules[topic]
        except KeyError:
            rule = self._topics.match(topic)
            if len(topic) <= _MAX_REMEMBERED:
                _remember(self._rules, topic, rule, _MAX_RULES)
            return rule

    def _series_of(self, address: str, unit: str) -> int | Refusal:
        key = address, unit
        try:
            return self._series[key]
        except KeyError:
            return self._refusals.get(key) or self._new_series(address, unit)

    def _new_series(self, address: str, unit: str) -> int | Refusal:
        name = self._topics.name_of(address)
        if self._series_of_tag[name] >= MAX_SERIES_OF_A_TAG:
            detail = f"{address}: more than {MAX_SERIES_OF_A_TAG} topics and units lead to {name}"
            return Refusal(DeadReason.UNKNOWN_TAG, detail)
        answer = self._intake.series(address, unit)
        if isinstance(answer, int):
            self._series[address, unit] = answer
            self._series_of_tag[name] += 1
        elif len(address) + len(unit) <= _MAX_REMEMBERED:
            _remember(self._refusals, (address, unit), answer, _MAX_REFUSALS)
        return answer

    def _letter(self, arrival: int, message: Message, dead: list[Outcome], count: int) -> DeadLetter:
        details = [outcome.detail for outcome in dead]
        if count > len(dead):
            details.append(f"and {count - len(dead)} more of this message")
        too_large = len(message.payload) > self._max_payload
        return DeadLetter(
            time=arrival,
            source=self._source,
            origin=message.topic,
            raw=message.payload[:_HEAD_BYTES] if too_large else message.payload,
            reason=dead[0].reason or DeadReason.UNDECODABLE,
            detail=(_RETAINED_WORD if message.retain else "") + "; ".join(details),
        )


class _Columns:
    """Columns of `Received` as they grow."""

    def __init__(self) -> None:
        self.series: list[int] = []
        self._time: list[int] = []
        self._arrival: list[int] = []
        self._value: list[float] = []
        self._status: list[int] = []
        self._reasons: list[int] = []

    def add(self, series: int, sample: Sample, arrival: int, *, retained: bool) -> None:
        status, reasons = sample.status, 0
        if retained and sample.time == NO_TIME:
            # Kept by the broker since nobody knows when: not to be taken for a value of now.
            reasons = _RETAINED
            status = UNCERTAIN if status >> 30 == GOOD else status
        self.series.append(series)
        self._time.append(sample.time)
        self._arrival.append(arrival)
        self._value.append(sample.value)
        self._status.append(status)
        self._reasons.append(reasons)

    def received(self) -> Received:
        return Received.of(
            series=self.series,
            source_time=self._time,
            server_time=[NO_TIME] * len(self.series),
            arrival_time=self._arrival,
            value=self._value,
            status=self._status,
            reasons=self._reasons,
        )


def _remember(cache: dict[_K, _V], key: _K, value: _V, most: int) -> None:
    if len(cache) >= most:
        cache.clear()
    cache[key] = value
