"""Every mistake a user can make is one paragraph to act on, an exit code, and never a traceback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from support.mosquitto import mosquitto
from support.nodeopcua import node_server
from support.services import free_port
from support.twin import command, eventually, running

PLANT = """\
plant: test
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:{port}
    {more}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature:
    unit: degC
    range: [-50, 400]
assets:
  R101: {{tags: [temperature]}}
web: {{port: {web}}}
"""


def plant_file(folder: Path, *, port: int = 1883, web: int = 0, more: str = "qos: 1") -> Path:
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(port=port, web=web, more=more))
    return path


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code, the words, and one short message."""
    said = done.stderr + done.stdout
    assert done.returncode == code, said
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert len(done.stderr.strip().splitlines()) <= 4, f"more than a paragraph:\n{done.stderr}"


@pytest.mark.parametrize("action", ["run", "check"])
@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("    range:", "    rnage:", ("plant.yaml:13", "tags.temperature.rnage", "range")),
        ("unit: degC", "unit: degQ", ("plant.yaml:12", "tags.temperature.unit", "degQ")),
        (
            "{tags: [temperature]}",
            "{tags: [temperature], model: stired_tank}",
            ("stired_tank", "stirred_tank"),
        ),
        ("type: mqtt", "type: mqqt", ("sources.field.type", "mqtt")),
        ("[temperature]", "[temperatur]", ("assets.R101.tags", "temperature")),
        ("qos: 1", "password: ${UNSET_PASSWORD}", ("UNSET_PASSWORD", "plant.yaml:7")),
        ("plant: test", "plant: [test", ("plant.yaml:",)),
    ],
)
def test_a_mistake_in_the_plant_file_names_file_line_and_key(
    tmp_path: Path, action: str, right: str, wrong: str, words: tuple[str, ...]
) -> None:
    plant = plant_file(tmp_path)
    assert right in plant.read_text()
    plant.write_text(plant.read_text().replace(right, wrong))
    refused(command(action, plant), 2, *words)
    assert not (tmp_path / "data").exists(), "nothing is started"


def test_a_plant_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    refused(command("run", tmp_path / "nowhere.yaml"), 2, "nowhere.yaml")


def test_a_taken_web_port_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(command("run", plant_file(tmp_path, web=port)), 1, f"127.0.0.1:{port}", "another port")
        assert not (tmp_path / "data").exists(), "nothing is started"


def test_a_broker_that_refuses_is_said_once_and_tried_again(tmp_path: Path) -> None:
    port = free_port()
    plant = plant_file(tmp_path, port=port)
    refused(command("check", plant), 1, f"127.0.0.1:{port}", "refused")
    with running(plant) as run:
        run.says("refused")
        folder = tmp_path / "broker"
        folder.mkdir()
        with mosquitto(folder, config=f"listener {port} 127.0.0.1"):
            run.says("field: connected")
        assert run.stop() == 0
        refusals = [line for line in run.lines if "refused" in line and "warning" in line]
        assert len(refusals) <= 2, refusals


def test_a_wrong_password_is_named_and_never_shown(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder, users={"plant": "right-secret"}) as broker:
        secret = {"MQTT_PASSWORD": "wrong-secret"}
        more = "username: plant\n    password: ${MQTT_PASSWORD}"
        plant = plant_file(tmp_path, port=broker.port, more=more)
        done = command("check", plant, env=secret)
        refused(done, 1, "user name or password")
        assert "wrong-secret" not in done.stderr + done.stdout
        with running(plant, env=secret) as run:
            said = run.says("user name or password")
            assert "wrong-secret" not in said
            assert run.process.poll() is None, "run keeps trying"
            assert run.stop() == 0


async def test_a_wrong_opcua_user_is_named(tmp_path: Path) -> None:
    async with node_server(tmp_path / "pki", users={"plant": "right"}, anonymous=False) as server:
        plant = tmp_path / "plant.yaml"
        plant.write_text(
            f"""
plant: test
sources:
  dcs: {{type: opcua, url: "{server.url}", username: plant, password: wrong, nodes: {{"ns=1;s=T": t}}}}
tags: {{t: {{unit: degC}}}}
assets: {{R101: {{tags: [t]}}}}
web: {{port: 0}}
""".replace('{"ns=1;s=T": t}', '{"ns=1;s={asset}": t}')
        )
        done = await asyncio.to_thread(command, "check", plant)
        refused(done, 1, "dcs", "plant")


def test_check_reads_each_tag_once_and_says_which_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder) as broker:
        done = command("check", plant_file(tmp_path, port=broker.port))
        refused(done, 1, "R101.temperature", "no message within 10 s")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant that ran once, so that it can be asked."""
    folder = tmp_path_factory.mktemp("asked")
    plant = plant_file(folder, port=free_port())
    with running(plant) as run:
        run.says("running")
        eventually((folder / "data" / "dictionary.sqlite").exists, bool)
        assert run.stop() == 0
    return plant


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("latest", "R101.temprature"), ("R101.temprature", "R101.temperature")),
        (("range",), ("one tag",)),
        (("window", "R101.temperature"), ("--every",)),
        (("range", "R101.temperature", "--start", "yesterday"), ("yesterday", "ISO 8601")),
        (("newest",), ("newest",)),
        (("snapshots", "R999"), ("R999", "R101")),
        (("range", "R101.temperature", "--start", "now", "--end", "-1h"), ("is not before the end",)),
    ],
)
def test_a_question_that_makes_no_sense_is_usage(
    asked: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(command("query", asked, *arguments), 2, *words)


def test_a_time_before_now_may_follow_its_option_after_a_blank(asked: Path) -> None:
    done = command("query", asked, "range", "R101.temperature", "--start", "-1h", "--format", "csv")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--seconds", "abc"), ("--seconds", "number", "'abc'")),
        (("demo", "--reactors", "0"), ("--reactors", "from 1 to 500")),
        (("replay", "p.yaml", "f.csv", "--speed", "fast"), ("--speed", "'fast'")),
    ],
)
def test_a_wrong_argument_is_told_in_a_user_s_words(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(command(*arguments), 2, *words)


def test_asking_before_there_is_data_says_what_to_do(tmp_path: Path) -> None:
    refused(command("query", plant_file(tmp_path), "latest"), 2, "twinloop run")
