"""`twinloop run` and a broker that is killed, refuses, drops or swallows: counted, told apart, recovered."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from support.mosquitto import mosquitto
from support.plants import TEMPERATURE, plant_file, publisher
from support.proxy import proxy
from support.twin import eventually, query, running
from twinloop.batch import Received
from twinloop.log.reader import read_entries
from twinloop.records import Samples, decode_record

T0_S = 1_772_359_200  # 2026-03-01T10:00:00Z
KILLS = 4
LONG_S = 90.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


class Load:
    """Publishes numbered values of QoS 1 until told to stop, whatever becomes of the broker.

    Attributes:
        sent: how many were given to the client.
        acknowledged: the numbers the broker has acknowledged.
    """

    def __init__(self, port: int) -> None:
        self.sent = 0
        self.acknowledged: set[int] = set()
        self._numbers: dict[int, int] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, client_id="load")
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _on_publish(self, _client: object, _data: object, mid: int, *_: object) -> None:
        if mid in self._numbers:
            self.acknowledged.add(self._numbers.pop(mid))

    def _publish(self) -> None:
        while not self._stop.wait(0.002):
            number = self.sent
            stamp = (T0_S + number) * 1000
            text = json.dumps({"value": float(number), "timestamp": stamp})
            told = self._client.publish(TEMPERATURE, text, qos=1)
            self._numbers[told.mid] = number
            self.sent += 1

    def more(self, count: int) -> None:
        """Return when so many more were sent."""
        target = self.sent + count
        eventually(lambda: self.sent, lambda sent: sent >= target)

    def passed(self, number: int) -> None:
        """Return when the broker has acknowledged that one."""
        eventually(lambda: self.acknowledged, lambda acknowledged: number in acknowledged)

    def stop(self) -> None:
        """Return when the broker has acknowledged all that is still in flight."""
        self._stop.set()
        self._thread.join()
        eventually(lambda: len(self.acknowledged), lambda count: count == self.sent)
        self._client.disconnect()
        self._client.loop_stop()


def received(plant: Path) -> list[float]:
    """The values in twinloop's log, in the order they came: what it has acknowledged, and redeliveries."""
    records = [decode_record(data) for _, data in read_entries(plant.parent / "data" / "log", -1)]
    columns = [record.unpack() for record in records if isinstance(record, Samples)]
    return Received.concat(columns).value.tolist() if columns else []


def test_a_broker_killed_under_load_loses_only_what_it_lost_itself_and_nothing_is_doubled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """mosquitto acknowledges what it keeps in memory: what it had not passed on dies with it.

    That is told apart by twinloop's own log, which holds every message before it is acknowledged: all in it
    is stored exactly once, and what the plant sent after the last restart is there without a gap.
    """
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder, persistence=True, config="autosave_interval 1") as broker:
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{broker.port}", tags=", range: [0, 1000000]")
        with running(plant) as run:
            run.says("field: connected", within_s=LONG_S)
            load = Load(broker.port)
            for _ in range(KILLS):
                load.more(300)
                broker.kill()
                broker.start()
                load.passed(load.sent)
            run.says("field: connected again", within_s=LONG_S)
            sent_before = load.sent
            load.more(300)
            load.stop()
            eventually(
                lambda: set(received(plant)),
                lambda got: set(map(float, range(sent_before + 50, load.sent))) <= got,
            )
            assert run.stop() == 0
    heard = Counter(received(plant))
    stored = Counter(float(row["value"]) for row in query(plant, "range", "R101.temperature"))
    lost_by_broker = load.sent - len(heard)
    with capsys.disabled():
        print(  # noqa: T201 - the figures this test is for
            f"\nsent {load.sent}, acknowledged by the broker {len(load.acknowledged)}, lost by the broker "
            f"{lost_by_broker}, received {heard.total()}, of these redelivered {heard.total() - len(heard)}, "
            f"stored {stored.total()}"
        )
    assert stored.keys() == heard.keys(), "every message twinloop acknowledged is stored"
    assert set(stored.values()) == {1}, "and once"


def test_attempts_keep_to_the_steps_tags_go_stale_and_both_recover(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder) as broker, proxy(broker.port) as between, publisher(broker.port) as plant_side:
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{between.port}", tags=", stale: 4s")

        def latest_after(value: float) -> tuple[str, str]:
            plant_side.send({"value": value})
            rows = query(plant, "latest")
            return (rows[0]["value"], rows[0]["status"]) if rows else ("", "")

        with running(plant) as run:
            run.says("field: connected", within_s=LONG_S)
            eventually(lambda: latest_after(20.0), lambda found: found == ("20.0", "Good"))
            between.attempts.clear()
            began_s = time.monotonic()
            between.dropping = True
            between.cut()
            seen: list[str] = []

            def look() -> str:
                seen.append(query(plant, "latest")[0]["status"])
                return seen[-1]

            eventually(look, lambda status: status == "Bad")
            assert list(dict.fromkeys(seen)) == ["Good", "Uncertain", "Bad"]
            assert "STALE" in query(plant, "latest")[0]["reasons"]
            eventually(lambda: len(between.attempts), lambda count: count >= 5)
            times = [began_s, *between.attempts]
            waits = [later - earlier for earlier, later in itertools.pairwise(times)]
            slack_s = 1.0  # of a busy machine
            for wait, step in zip(waits, (1, 2, 4, 8, 16), strict=False):
                assert step / 2 <= wait <= step + slack_s, waits
            between.dropping = False
            run.says("field: connected again", within_s=LONG_S)
            eventually(lambda: latest_after(21.0), lambda found: found == ("21.0", "Good"))
            assert run.stop() == 0
        lost = [line for line in run.lines if "trying again" in line]
        assert len(lost) <= 2, f"said once, or twice as the cause changes: {lost}"
        assert len([line for line in run.lines if "connected again" in line]) == 1


@pytest.mark.parametrize("more", ["keepalive: 2s\n    silence: off", "silence: 2s\n    connect_timeout: 2s"])
def test_a_connection_that_swallows_everything_is_ended_and_made_anew(tmp_path: Path, more: str) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder) as broker, proxy(broker.port) as between, publisher(broker.port) as plant_side:
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{between.port}", more)
        with running(plant) as run:
            run.says("field: connected", within_s=LONG_S)
            plant_side.send({"value": 20.0, "timestamp": T0_S})
            eventually(lambda: query(plant, "latest"), bool)
            between.swallowing = True
            plant_side.send({"value": 21.0, "timestamp": T0_S + 1})
            run.says("no answer in time")
            between.swallowing = False
            run.says("field: connected again", within_s=LONG_S)
            rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 2)
            assert [row["value"] for row in rows] == ["20.0", "21.0"], "what was swallowed comes again"
            assert run.stop() == 0


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_what_is_published_while_the_twin_is_away_arrives_when_it_is_back(
    tmp_path: Path,
    clean: bool,  # noqa: FBT001
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder) as broker, publisher(broker.port) as plant_side:
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{broker.port}", "qos: 2")
        with running(plant) as run:
            run.says("field: connected", within_s=LONG_S)
            plant_side.send({"value": 0.0, "timestamp": T0_S})
            eventually(lambda: query(plant, "latest"), bool)
            if clean:
                assert run.stop() == 0
            else:
                run.process.kill()
                run.process.wait()
        for number in range(1, 6):
            plant_side.send({"value": number, "timestamp": T0_S + number}, qos=1 + number % 2)
        with running(plant) as run:
            rows = eventually(lambda: query(plant, "range", "R101.temperature"), lambda rows: len(rows) == 6)
            assert [float(row["value"]) for row in rows] == [0, 1, 2, 3, 4, 5]
            assert run.stop() == 0
