"""A supervised MQTT link that another client, the broker or time takes away: named, and no storm.

Waiting times are a hundredth of the real ones; the broker is a real mosquitto.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from support.mosquitto import find, mosquitto
from support.tls import Authority
from test_mqtt import PROTOCOLS, Series, hear, message, options, publish, samples
from twinloop.log.memory import MemoryLog
from twinloop.loop import supervise
from twinloop.loop.supervise import Backoff, Supervisor
from twinloop.records import Link, LinkState, Record, Samples, decode_record, encode_record
from twinloop.sources.mqtt.client import MqttOptions, MqttSource, Protocol
from twinloop.tls import tls_context

PATIENCE_S = 20.0


@dataclass
class Waits(Backoff):
    """Remembers the waiting times it gave."""

    given: list[float] = field(default_factory=list)

    def next_s(self) -> float:
        self.given.append(super().next_s())
        return self.given[-1]


class Kept:
    """A supervised source and its log."""

    def __init__(self, how: MqttOptions) -> None:
        self.log = MemoryLog()
        self.waits = Waits(first_s=0.01, longest_s=0.3)
        source = MqttSource(how, Series())
        self.keeper = Supervisor(source, self._append, backoff=self.waits)

    def _append(self, record: Record, time_ns: int) -> asyncio.Future[int]:
        return asyncio.ensure_future(self.log.append(encode_record(record), time_ns))

    @property
    def records(self) -> list[Record]:
        return [decode_record(data) for _, data in self.log.read(-1, 100_000)]

    @property
    def values(self) -> list[float]:
        packed = [record.unpack() for record in self.records if isinstance(record, Samples)]
        return [value for part in packed for value in part.value.tolist()]

    @property
    def losses(self) -> list[str]:
        links = [each for each in self.records if isinstance(each, Link)]
        return [each.why for each in links if each.state is LinkState.DOWN]


@asynccontextmanager
async def kept(how: MqttOptions) -> AsyncIterator[Kept]:
    made = Kept(how)
    running = asyncio.create_task(made.keeper.run())
    try:
        yield made
    finally:
        made.keeper.stop()
        await running


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon_steady(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(supervise, "_STEADY_AT_LEAST_S", 1.0)
    caplog.set_level(logging.INFO, "twinloop")


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [line for record in caplog.records if words in (line := record.getMessage())]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_two_programs_with_one_client_id_are_named_and_wait_longer_each_time(
    tmp_path: Path, protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path) as broker:
        one = options(broker.port, protocol=protocol)
        async with kept(one) as ours:
            await until(lambda: ours.keeper.figures.connects == 1)
            async with kept(replace(one, name="other")) as other:
                sent = 0
                while len(ours.waits.given) < 8:
                    await publish(broker.port, message("temperature", float(sent)))
                    sent += 1
                # Each takes what comes while it is connected, and what the other had not acknowledged.
                await until(lambda: set(ours.values) | set(other.values) == set(map(float, range(sent))))
            lines = said(caplog, "field: mqtt://127.0.0.1:")
            assert 3 <= len(lines) <= 5, "some of the losses are said, the others are not"
            assert "probably another program uses the client id 'twin'" in lines[-1]
            assert "`client_id`" in lines[-1]
            steps = [min(0.01 * 2**step, 0.3) for step in range(8)]
            fits = [step / 2 <= wait <= step for wait, step in zip(ours.waits.given, steps, strict=False)]
            assert all(fits), f"no delivery shortens the wait: {ours.waits.given}"
            # The other program is gone: the end of the trouble is said when the connection has held.
            await until(lambda: ours.keeper._short == 0)
            assert len(said(caplog, "field: connected again")) <= 5
            assert caplog.records[-1].getMessage() == "field: connected again"
            await publish(broker.port, message("temperature", -1.0))
            await until(lambda: -1.0 in ours.values)


async def test_a_broker_that_restarts_often_is_not_taken_for_another_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path) as broker:
        async with kept(options(broker.port)) as ours:
            for times in range(1, 5):
                await until(lambda times=times: ours.keeper.figures.connects == times)  # type: ignore[misc]
                broker.kill()
                attempts = ours.keeper.figures.attempts
                await until(lambda attempts=attempts: ours.keeper.figures.attempts > attempts)  # type: ignore[misc]
                broker.start()
    assert not said(caplog, "probably")


async def test_a_user_who_is_revoked_while_connected_is_named_once_and_so_is_the_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path, users={"twin": "secret", "plant": "secret"}) as broker:

        def change(*arguments: str) -> None:
            subprocess.run([find("mosquitto_passwd"), *arguments], check=True, capture_output=True)
            broker.signal(signal.SIGHUP)

        passwords = str(tmp_path / "passwords")
        async with kept(options(broker.port, username="twin", password="secret")) as ours:
            await until(lambda: ours.keeper.figures.connects == 1)
            change("-D", passwords, "twin")
            await until(lambda: ours.keeper.figures.attempts >= 5)
            assert len(said(caplog, "user name or password refused by the broker")) == 1
            change("-b", passwords, "twin", "secret")
            await until(lambda: ours.keeper.figures.connects == 2)
            assert len(said(caplog, "field: connected again")) == 1
            assert not said(caplog, "secret")


async def test_a_certificate_that_expires_is_named_once_and_so_is_the_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("localhost", files="server")
    with mosquitto(tmp_path, certificates=server) as broker:
        async with kept(options(broker.port, tls=partial(tls_context, authority.path))) as ours:
            await until(lambda: ours.keeper.figures.connects == 1)
            authority.sign("localhost", files="server", valid_days=-1)
            broker.restart()
            await until(lambda: ours.keeper.figures.attempts >= 6)
            assert len(said(caplog, "certificate has expired: renew it at the broker")) == 1
            authority.sign("localhost", files="server")
            broker.restart()
            await until(lambda: ours.keeper.figures.connects == 2)
            assert len(said(caplog, "field: connected again")) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_idle_plant_is_asked_about_and_stays_connected(
    tmp_path: Path, protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path) as broker:
        await publish(broker.port, message("temperature", 1.0), retain=True)
        ours = Kept(options(broker.port, protocol=protocol))
        ours.keeper._silence_s = 0.05
        running = asyncio.create_task(ours.keeper.run())
        await until(lambda: bool(said(caplog, "the link is fine")))
        # Over the log, more times of silence go by: nothing is asked of the plant again.
        await asyncio.sleep(0.5)
        assert (ours.keeper.figures.attempts, ours.values) == (1, [1.0])
        assert len(said(caplog, "the link is fine")) == 1
        await publish(broker.port, message("temperature", 2.0))
        await until(lambda: ours.values == [1.0, 2.0])
        ours.keeper.stop()
        await running


async def test_a_subscription_that_was_lost_while_the_session_lives_is_brought_back(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        ours = Kept(options(broker.port))
        ours.keeper._silence_s = 0.05
        source = ours.keeper._source
        assert isinstance(source, MqttSource)
        async with source.connect() as session:
            client = session._client  # type: ignore[attr-defined]
            await client.unsubscribe("reactor/+/sensor/+")
            await publish(broker.port, message("temperature", 1.0))
            await session.renew()  # type: ignore[attr-defined]
            await publish(broker.port, message("temperature", 2.0))
            delivery = await anext(session)
    assert [record.unpack().value.tolist() for record in delivery.records if isinstance(record, Samples)] == [
        [2.0]
    ]


async def test_a_clean_stop_under_load_leaves_nothing_durable_unacknowledged(tmp_path: Path) -> None:
    durable: list[float] = []

    async def append(record: Record, _time_ns: int) -> int:
        await asyncio.sleep(0.3)  # a busy disk's commit
        if isinstance(record, Samples):
            durable.extend(record.unpack().value.tolist())
        return 1

    with mosquitto(tmp_path) as broker:
        how = options(broker.port, client_id="stops")
        keeper = Supervisor(MqttSource(how, Series()), append)
        running = asyncio.create_task(keeper.run())
        await until(lambda: keeper.figures.connects == 1)
        await publish(broker.port, *(message("temperature", float(value)) for value in range(200)))
        await until(lambda: keeper.figures.samples > 0)
        keeper.stop()
        async with asyncio.timeout(10):
            await running
            await keeper.drained()
        await publish(broker.port, message("temperature", -1.0))
        async with MqttSource(how, Series()).connect() as deliveries:
            again = samples(await hear(deliveries, 201 - len(durable))).value.tolist()
    assert durable
    assert again == [*map(float, range(len(durable), 200)), -1.0]
