"""A million damaged messages through the real decoders: nothing raises, nothing grows, nothing is lost.

`FUZZ_SEED` gives another run than the last; a failure's message names the seed and the bytes.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from mqttium.types import Message

from support.mutate import Mutator
from support.recorded import TAGS, new_fold, recorded_outputs, recorded_records
from twinloop.errors import LogError
from twinloop.log.dictionary import Dictionary
from twinloop.records import (
    DeadLetter,
    DeadLetters,
    Record,
    Samples,
    decode_outputs,
    decode_record,
    encode_outputs,
    encode_record,
)
from twinloop.sources.mqtt.intake import Heard, MessageReader
from twinloop.sources.mqtt.payloads import PayloadOptions, QualityEncoding
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.sources.opcua.options import OpcuaNode
from twinloop.sources.opcua.publish import decode_notification
from twinloop.sources.opcua.table import RAW_LIMIT, NodeTable
from twinloop.sources.timestamps import TimestampFormat
from twinloop.tags import Refusal, Resolver, TagTable

SEED = int(os.environ.get("FUZZ_SEED", "20260101"))
PAYLOADS = 1_000_000
NOTIFICATIONS = 200_000
ENTRIES = 100_000
MIB = 1 << 20
T0 = 1_767_225_600_000_000_000

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


class Intake:
    """Series as the running twin gives them: the plant's tags and units, a dictionary in memory."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._dictionary = Dictionary(None)

    def series(self, address: str, unit: str) -> int | Refusal:
        key = ("field", address, unit)
        answer = self._resolver.resolve(key)
        return answer if isinstance(answer, Refusal) else self._dictionary.index(key)

    def now_ns(self) -> int:
        return T0


@contextmanager
def bounded(what: str, growth_bytes: int, peak_bytes: int) -> Iterator[None]:
    """Hold the block to what the process may keep of it and to what one input may need for itself."""
    gc.collect()
    with suppress(OSError):  # the peak is counted anew where the system lets us
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    yield
    gc.collect()
    kept, peak = resident("VmRSS") - before, resident("VmHWM") - before
    print(f"{what}: {kept / MIB:.1f} MiB kept, {peak / MIB:.1f} MiB at most")
    assert kept < growth_bytes, f"{what}: memory grows"
    assert peak < peak_bytes, f"{what}: one input needs too much memory"


def resident(which: str) -> int:
    """Bytes of memory this process has (VmRSS) or had at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{which}:")[1].split()[0])


# --- MQTT ---------------------------------------------------------------------------------------------

FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"value": "data.value", "timestamp": "data.at", "unit": "meta.0", "quality": "q"},
    {"tag": "name"},
    {"tag": "name", "asset": "device"},
)
STAMPS: tuple[object, ...] = (
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.123456789+01:00",
    1_767_225_600,
    1_767_225_600.25,
    T0,
    "1767225600000",
    *[None] * 5,
)
UNITS = ("degC", "bar", "L/min", "m3/h", "J/(kg K)", "kg m^2 s-1", "dB", "%", "furlong", "°F", "bar(g)")
TOKENS = tuple(
    text.encode()
    for text in (
        "NaN", "-Infinity", "1e999", "null", "true", '"value":', '"unit":', '"quality":', '"timestamp":',
        "9" * 400, "k", "m", "\\ud800", "\\u0000", "(((((", "**9", "^-9", "degC", "°", "0x80000000",
        "0001-01-01T00:00:00Z", "[[[[",
    )
)  # fmt: skip


def option_sets() -> list[PayloadOptions]:
    """Every option with every other."""
    forms: tuple[TimestampFormat, ...] = get_args(TimestampFormat)
    encodings: tuple[QualityEncoding, ...] = get_args(QualityEncoding)
    words: tuple[dict[str, float], ...] = ({}, {"OPEN": 1, "CLOSED": 0})
    both = itertools.product(words, ("", "K"))
    json_sets = [
        PayloadOptions(
            fields=fields, timestamp_format=form, quality_encoding=encoding, values=values, unit=unit
        )
        for form, encoding, fields, (values, unit) in itertools.product(forms, encodings, FIELDS, list(both))
    ]
    numbers = [
        PayloadOptions(format="number", values=values, unit=unit)
        for values, unit in itertools.product(words, ("", "K"))
    ]
    return json_sets + numbers


class Payloads:
    """Payloads as an option set reads them, damaged by the byte or in one of their fields."""

    def __init__(self, seed: int) -> None:
        arrays = [
            json.dumps([{"value": i, "timestamp": 1_767_225_600 + i} for i in range(n)]) for n in (2, 50)
        ]
        bare = ["85.25", "true", "-1e3", '"OPEN"', "OPEN", " 1e3\n", "-.5", "nan", "[1, 2.5, null]", "", "[]"]
        self._bytes = Mutator(seed, [text.encode() for text in (*arrays, *bare)], TOKENS)
        self._texts = Mutator(seed + 1, [unit.encode() for unit in UNITS], TOKENS)
        self._random = self._bytes.random

    def next(self, options: PayloadOptions) -> bytes:
        """One payload."""
        pick = self._random
        if options.format == "number" or pick.random() < 0.1:
            return self._bytes.next()
        unit: object = pick.choice(("degC", "K", None, pick.choice(UNITS)))
        stamp: object = pick.choice(STAMPS)
        quality: object = pick.choice(("Good", None, 192, 0, 0x808C_0000, "Bad"))
        value: object = pick.choice((85.5, 3, 21.25, True, "23.5", "OPEN", None, math.nan))
        kind = pick.randrange(12)
        if kind == 0:
            unit = self._texts.next().decode(errors="replace")
        elif kind == 1:
            stamp = self._texts.damaged(str(stamp).encode()).decode(errors="surrogateescape")
        elif kind == 2:
            quality = self._texts.damaged(b"BadSensorFailure").decode(errors="surrogateescape")
        elif kind == 3:
            value = self._texts.damaged(b"-23.5e2").decode(errors="surrogateescape")
        elif kind == 4:
            unit, quality, value = pick.sample((unit, [value], {"value": stamp}, 2**70, -1, 1e308, ""), 3)
        names = {"name": "temperature", "device": "R101"}
        if "asset" not in options.fields:
            names["name"] = "R101.temperature" if pick.random() < 0.1 else "temperature"
        flat: object = {"value": value, "unit": unit, "timestamp": stamp, "quality": quality, **names}
        if "value" in options.fields and pick.random() < 0.9:
            flat = {"data": {"value": value, "at": stamp}, "meta": [unit], "q": quality}
        payload = json.dumps(flat if pick.random() < 0.9 else [flat] * pick.randrange(5)).encode()
        return payload if kind > 6 or kind < 5 else self._bytes.damaged(payload)


def test_a_million_damaged_payloads_are_samples_or_one_dead_letter_each_with_its_bytes() -> None:
    options = option_sets()
    rules = []
    for index, each in enumerate(options):
        names = "{asset}/{tag}" if not (each.carries_tag or each.carries_asset) else "+"
        names = "{asset}" if each.carries_tag and not each.carries_asset else names
        rules.append(TopicRule(TopicPattern(f"c{index}/{names}"), each))
    topics = TopicMap(rules)
    resolver = Resolver(TagTable(TAGS), {"field": topics.name_of})
    # More than one, because a tag takes only so many addresses and units from one source.
    readers = [MessageReader("field", topics, Intake(resolver), MIB) for _ in range(28)]
    sound_topics = [
        f"c{index}/{'R101/temperature' if '{tag}' in rule.pattern.text else 'R101'}"
        for index, rule in enumerate(rules)
    ]
    payloads = Payloads(SEED)
    paths = Mutator(
        SEED + 1, [t.encode() for t in sound_topics], (b"/", b"+", b"#", b"$SYS/", b"R101.", b"\0")
    )
    counts: Counter[str] = Counter()
    with bounded("MQTT", 64 * MIB, 128 * MIB):
        for _ in range(PAYLOADS):
            index = paths.random.randrange(len(options))
            topic = sound_topics[index]
            if paths.random.random() < 0.05:
                topic = paths.next().decode(errors="ignore")  # the client refuses what is not UTF-8
            message = Message(topic, payloads.next(options[index]), retain=paths.random.random() < 0.1)
            try:
                count_message(readers[index % len(readers)], message, counts)
            except Exception as error:  # noqa: BLE001 - whatever it is, the input goes with it
                pytest.fail(f"seed {SEED}: {message.topic!r} {message.payload!r}: {error!r}")
    print(f"{PAYLOADS} payloads, {len(options)} option sets, seed {SEED}: {dict(counts.most_common())}")
    assert counts["messages"] == PAYLOADS
    assert min(counts["samples"], counts["dead"]) > PAYLOADS // 5, "the damage is too small or too great"


def count_message(reader: MessageReader, message: Message, counts: Counter[str]) -> None:
    """Read one message, and hold what came of it against the promise."""
    records, samples = reader.read([Heard(T0, message)])
    letters = [each for record in records if isinstance(record, DeadLetters) for each in record.letters]
    assert len(letters) <= 1, "one message, one letter"
    assert samples or letters, "nothing is left out"
    assert sum(len(record.unpack()) for record in records if isinstance(record, Samples)) == samples
    for letter in letters:
        assert (letter.raw, letter.origin) == (message.payload, message.topic)
        assert letter.detail
        assert len(letter.detail) < 2_000 + 4 * len(letter.origin)
        counts[letter.reason.value] += 1
    for record in records:
        assert decode_record(encode_record(record)) == record
    counts.update(messages=1, samples=samples, dead=len(letters))


# --- OPC UA -------------------------------------------------------------------------------------------


def publish_response(*parts: tuple[int, bytes]) -> bytes:
    """Parameters of a Publish response with extension objects of the given type ids."""
    objects = b"".join(struct.pack("<BBHBi", 1, 0, kind, 1, len(body)) + body for kind, body in parts)
    return struct.pack("<IiIBIqi", 77, 1, 8, 0, 9, 133_000_000_000_000_000, len(parts)) + objects


def sound_notifications() -> list[bytes]:
    """Data changes of every variant type, numbers and others, beside status changes and keep-alives."""
    variants = [
        ua.Variant(value, ua.VariantType[kind])
        for kind, value in (
            ("Double", 85.5), ("Float", 1.5), ("Boolean", True), ("Byte", 7), ("SByte", -7), ("Int16", -300),
            ("UInt16", 300), ("Int32", -70_000), ("UInt32", 70_000), ("Int64", -(2**60)), ("UInt64", 2**60),
            ("String", "running"), ("ByteString", b"\1\2\3"), ("Guid", UUID(int=5)),
            ("LocalizedText", ua.LocalizedText("läuft", "de")), ("QualifiedName", ua.QualifiedName("x", 2)),
            ("NodeId", ua.NodeId(ua.String("abc"), ua.Int16(2))), ("StatusCode", ua.StatusCode(ua.UInt32(0))),
            ("Null", None),
            ("ExtensionObject", ua.Range(0.0, 1.0)), ("Variant", ua.Variant(1.0)),
            ("DataValue", ua.DataValue()),
            ("Double", [1.0, 2.0, 3.0]), ("String", ["a", "b"]), ("Variant", [ua.Variant(1.0)] * 3),
            ("ExtensionObject", [ua.EUInformation()]), ("DateTime", datetime(2026, 1, 1, tzinfo=UTC)),
        )
    ]  # fmt: skip
    variants.append(ua.Variant([[1, 2], [3, 4]], ua.VariantType.Int32, [ua.Int32(2), ua.Int32(2)]))
    stamp = ua.DateTime(2026, 1, 1, tzinfo=UTC)
    bodies = []
    for place, variant in enumerate(variants):
        value = ua.DataValue(
            variant,
            ua.StatusCode(ua.UInt32(0x8000_0000 * (place % 2))),
            stamp,
            stamp,
            ua.UInt16(5),
            ua.UInt16(6),
        )
        bodies.append(struct.pack("<I", place % 5) + struct_to_binary(value))
    frames = [publish_response((811, struct.pack("<i", 1) + body + b"\xff" * 4)) for body in bodies]
    together = struct.pack("<i", len(bodies)) + b"".join(bodies) + b"\xff" * 4
    numbers = struct.pack("<i", 11) + b"".join(bodies[:11]) + b"\xff" * 4
    ended = struct.pack("<Ii", 0x800A_0000, -1)
    return [
        *frames,
        publish_response((811, together)),
        publish_response((811, numbers)),
        publish_response((811, numbers), (811, numbers)),
        publish_response((820, ended)),
        publish_response(),
    ]


def test_damaged_notifications_are_values_or_dead_letters_and_never_an_exception() -> None:
    nodes = [OpcuaNode(f"ns=2;s={tag.name}", tag.name) for tag in TAGS] + [OpcuaNode("ns=2;s=X", "X.x")] * 2
    names = {node.address: node.tag for node in nodes}
    resolver = Resolver(TagTable(TAGS), {"field": names.get})
    hostile = (b"\x80", b"\xc0\xff\xff\xff\x7f", b"\x98\1\0\0\0\x80", b"\x17\1\x18", b"\x18" * 300, b"\x96")
    frames = Mutator(SEED + 2, sound_notifications(), hostile, in_place=0.7)
    table = NodeTable("field", nodes, Intake(resolver), {})
    for place in range(len(nodes)):
        table.identify(place, "", certain=False)
    counts: Counter[str] = Counter()
    with bounded("OPC UA", 32 * MIB, 64 * MIB):
        for _ in range(NOTIFICATIONS):
            frame = frames.next()
            try:
                count_notification(table, frame, counts)
            except Exception as error:  # noqa: BLE001 - whatever it is, the input goes with it
                pytest.fail(f"seed {SEED}: {frame.hex()}: {error!r}")
    print(f"{NOTIFICATIONS} notifications, seed {SEED}: {dict(counts.most_common())}")
    assert min(counts["samples"], counts["undecodable"]) > NOTIFICATIONS // 100


def count_notification(table: NodeTable, frame: bytes, counts: Counter[str]) -> None:
    """Read one notification as a session does, and hold what came of it against the promise."""
    made = decode_notification(frame)
    records: list[Record] = []
    for raw, error in made.undecodable:
        letters = table.undecodable(raw, error.detail)
        assert [letter.raw for letter in letters.letters] == [raw[:RAW_LIMIT]]
        assert raw in frame, "the bytes as they came"
        records.append(letters)
    for rows in made.rows:
        found, samples, _ = table.take(rows, repeated=counts["notifications"] % 3 == 0)
        records += found
        counts["samples"] += samples
        counts["others"] += len(rows.others)
    for record in records:
        assert decode_record(encode_record(record)) == record
    dead: list[DeadLetter] = [
        each for record in records if isinstance(record, DeadLetters) for each in record.letters
    ]
    counts.update(notifications=1, undecodable=len(made.undecodable), dead=len(dead))


# --- logs ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_damaged_log_entries_are_refused_or_folded_and_never_anything_else() -> None:
    records = Mutator(SEED + 3, [encode_record(each) for each in recorded_records()], in_place=0.9)
    outputs = Mutator(SEED + 4, [encode_outputs(each) for each in recorded_outputs()], in_place=0.9)
    counts: Counter[str] = Counter()
    sound = new_fold()
    for offset, record in enumerate(recorded_records()):
        sound.step(offset, record)
    state, fold = sound.snapshot(), new_fold()
    with bounded("logs", 32 * MIB, 128 * MIB):
        for offset in range(ENTRIES):
            data = records.next()
            if offset % 100 == 0:  # damage must not hide behind a state that earlier damage has made deaf
                fold = new_fold()
                fold.restore(state)
            try:
                record = decode_record(data)
            except LogError:
                counts["records refused"] += 1
            else:
                folded = fold.step(offset, record)
                assert decode_outputs(encode_outputs(folded)) is not None
                counts["records folded"] += 1
                counts["rows"] += len(folded.batch())
                counts["dead"] += len(folded.dead)
                if isinstance(record, Samples):
                    met = len(folded.batch()) + len(folded.dead) + folded.duplicates
                    assert met == len(record.unpack()), f"seed {SEED}: {data.hex()}: a sample is left out"
            try:
                read = decode_outputs(outputs.next())
            except LogError:
                counts["outputs refused"] += 1
            else:
                counts["outputs read"] += 1
                counts["rows read"] += len(read.batch()) + len(read.filled())
    print(f"{ENTRIES} entries of each log, seed {SEED}: {dict(counts.most_common())}")
    assert min(counts.values()) > ENTRIES // 100
