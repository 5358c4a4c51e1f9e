"""Our own parts keep the laws that `twinloop.testing` holds every part to, and broken parts do not."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage

from support.influx import influxdb
from support.mosquitto import mosquitto
from support.services import free_port
from twinloop.batch import Batch
from twinloop.log.local import LocalLog
from twinloop.log.memory import MemoryLog
from twinloop.records import Event, Outputs
from twinloop.sources.files import FileOptions, FileSource
from twinloop.sources.mqtt.client import MqttOptions, MqttSource, Protocol
from twinloop.sources.mqtt.topics import TopicMap, TopicPattern, TopicRule
from twinloop.sources.source import Intake
from twinloop.stages.estimate import EstimateStage
from twinloop.stages.validate import ValidateStage
from twinloop.stores.influx.queries import InfluxQueries
from twinloop.stores.influx.store import InfluxStore
from twinloop.stores.local import LocalStore
from twinloop.stores.queries import LocalQueries
from twinloop.tags import Tag, TagTable
from twinloop.testing import BrokenLawError, check_log, check_source, check_stage, check_store

SECOND = 1_000_000_000
TABLE = TagTable(
    [
        Tag(name="R101.temperature", asset="R101", low=0, high=100, spike=50, rate_limit=40, stale_ns=SECOND),
        Tag(name="R101.pressure", asset="R101", noise=0.5, window=5, rebaseline=3, stuck_ns=3 * SECOND),
        Tag(name="R101.running", asset="R101", analogue=False),
    ]
)


def test_the_memory_log_keeps_the_laws() -> None:
    check_log(lambda _: MemoryLog(), durable=False)


@pytest.mark.parametrize("durable", [True, False])
def test_the_local_log_keeps_the_laws(*, durable: bool) -> None:
    check_log(lambda directory: LocalLog(directory, file_bytes=1 << 16, durable=durable))


def test_the_local_store_keeps_the_laws() -> None:
    check_store(LocalStore, LocalQueries)


def test_the_influxdb_store_keeps_the_laws(tmp_path: Path) -> None:
    def make(directory: Path, names: Sequence[str]) -> InfluxStore:
        return InfluxStore(server.options(directory.name), directory, names, [""] * len(names))

    def ask(directory: Path, *more: Any) -> InfluxQueries:
        return InfluxQueries(server.options(directory.name), directory, *more)

    with influxdb(tmp_path) as server:
        check_store(make, ask)


def test_validation_and_estimation_keep_the_laws() -> None:
    check_stage(ValidateStage, TABLE)
    check_stage(EstimateStage, TABLE)


def test_the_file_source_keeps_the_laws(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"

    async def say(count: int) -> None:
        rows = "".join(f"2026-03-01T10:00:{i:02d}Z,R101.t,{i}\n" for i in range(count))
        await asyncio.to_thread(path.write_text, f"time,tag,value\n{rows}")

    options = FileOptions((path,), SECOND, (SECOND,), 5 * SECOND)
    check_source(lambda intake: FileSource(options, intake), say, finite=True)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_mqtt_source_keeps_the_laws(tmp_path: Path, protocol: Protocol) -> None:
    topics = TopicMap([TopicRule(TopicPattern("reactor/{asset}/{tag}"))])
    numbers = itertools.count()

    with mosquitto(tmp_path) as broker:

        async def say(count: int) -> None:
            client = AsyncClient("plant", protocol=MQTTProtocolVersion.MQTTv5)
            await client.connect("127.0.0.1", broker.port)
            messages = [PublishMessage("reactor/R101/t", b"%d" % next(numbers), qos=1) for _ in range(count)]
            await (await client.publish_many(messages)).wait()
            await client.disconnect()

        def source(port: int, client_id: str, intake: Intake) -> MqttSource:
            options = MqttOptions(
                name="field",
                host="127.0.0.1",
                port=port,
                topics=topics,
                client_id=client_id,
                protocol=protocol,
            )
            return MqttSource(options, intake)

        clients = itertools.count()  # each law has a session of its own
        check_source(
            lambda intake: source(broker.port, f"twin-{next(clients)}", intake),
            say,
            redelivers=True,
            unreachable=lambda intake: source(free_port(), "twin", intake),
        )


class _ForgetfulStore(LocalStore):
    """Says that it covers what it only took."""

    @property
    def covered(self) -> int:
        return max([super().covered, *(offset for offset, _ in self._pending)])


class _GreedyStore(LocalStore):
    """Takes what is delivered again as if it were new."""

    def write(self, entries: Sequence[tuple[int, Outputs]]) -> None:
        super().write([(self.stats.entries + i, outputs) for i, (_, outputs) in enumerate(entries)])


class _CountingStage(EstimateStage):
    """Its rows depend on how many came before in the same batch."""

    def step(self, batch: Batch, events: list[Event]) -> Batch:
        made = super().step(batch, events)
        return made.with_columns(rate=made.rate + len(made))


def test_the_store_that_the_documentation_writes_keeps_the_laws() -> None:
    page = (Path(__file__).parents[2] / "docs" / "EXTENDING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    said: dict[str, Any] = {}
    for block in blocks:
        exec(block, said)  # noqa: S102 - our own page
    tests = [each for name, each in said.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_parts_that_break_a_law_are_told_which() -> None:
    with pytest.raises(BrokenLawError, match="opened again covers no less"):
        check_store(_ForgetfulStore, LocalQueries)
    with pytest.raises(BrokenLawError, match="is there once"):
        check_store(_GreedyStore, LocalQueries)
    with pytest.raises(BrokenLawError, match="how many samples come at once") as stage:
        check_stage(_CountingStage, TABLE)
    assert "one law is broken" in str(stage.value)
    with pytest.raises(BrokenLawError, match="goes on where it stopped"):
        check_log(lambda _: MemoryLog())
