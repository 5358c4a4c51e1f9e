"""Messages to records, where publishers may invent what they like: memory and dictionary stay bounded."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable

from mqttium.types import Message

from twinloop.records import DeadLetter, DeadLetters, DeadReason, Record
from twinloop.sources.mqtt.intake import MAX_SERIES_OF_A_TAG, Heard, MessageReader
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.tags import Refusal

TOPICS = TopicMap([TopicRule(TopicPattern("plant/+/{asset}/{tag}"))])
MIB = 1024 * 1024


class Dictionary:
    """An intake that takes any unit of R101 and numbers it for good."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], int] = {}

    def series(self, address: str, unit: str) -> int | Refusal:
        if "/R101/" not in address:
            return Refusal(DeadReason.UNKNOWN_TAG, f"{address}: no such tag")
        return self.keys.setdefault((address, unit), len(self.keys))

    def now_ns(self) -> int:
        return 0


def read(reader: MessageReader, messages: Iterable[tuple[str, bytes]]) -> tuple[int, list[DeadLetter]]:
    """How many samples the messages gave, and the dead letters."""
    heard = [Heard(0, Message(topic, payload)) for topic, payload in messages]
    records: tuple[Record, ...]
    records, samples = reader.read(heard)
    return samples, [each for record in records if isinstance(record, DeadLetters) for each in record.letters]


def test_units_and_topics_without_end_fill_neither_dictionary_nor_memory() -> None:
    intake = Dictionary()
    reader = MessageReader("field", TOPICS, intake, MIB)
    count = 2 * MAX_SERIES_OF_A_TAG
    units = [
        ("plant/a/R101/t", json.dumps({"value": 1, "unit": f"{i} furlong"}).encode()) for i in range(count)
    ]
    samples, letters = read(reader, units)
    assert samples == len(intake.keys) == MAX_SERIES_OF_A_TAG
    assert {letter.reason for letter in letters} == {DeadReason.UNKNOWN_TAG}
    assert "R101.t" in letters[0].detail
    samples, _ = read(reader, [(f"plant/{i}/R101/p", b"1") for i in range(count)])
    assert samples == MAX_SERIES_OF_A_TAG, "each tag has its own share"
    assert read(reader, [("plant/a/R101/t", b'{"value": 1, "unit": "0 furlong"}')])[0] == 1, (
        "known ones go on"
    )


def test_long_topics_that_lead_nowhere_are_not_remembered() -> None:
    reader = MessageReader("field", TOPICS, Dictionary(), MIB)
    tracemalloc.start()
    for place in range(500):
        for topic in (f"plant/{'x' * 60_000}{place}/R999/t", f"other/{'x' * 60_000}{place}"):
            assert read(reader, [(topic, b"1")])[1][0].origin == topic
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MIB


def test_short_topics_that_lead_nowhere_are_forgotten_in_time() -> None:
    reader = MessageReader("field", TOPICS, Dictionary(), MIB)
    for begin in range(0, 120_000, 10_000):
        read(reader, [(f"plant/a/X{place}/t", b"1") for place in range(begin, begin + 10_000)])
    assert len(reader._rules) <= 100_000
    assert len(reader._refusals) <= 10_000


def test_an_array_of_nothing_but_mistakes_is_one_dead_letter_and_little_memory() -> None:
    payload = b"[" + b"{}," * 100_000 + b"{}]"
    reader = MessageReader("field", TOPICS, Dictionary(), MIB)
    tracemalloc.start()
    samples, [letter] = read(reader, [("plant/a/R101/t", payload)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (samples, letter.raw) == (0, payload)
    assert letter.detail.startswith("element 0: ")
    assert letter.detail.endswith("and 99998 more of this message")
    assert peak < 16 * MIB
