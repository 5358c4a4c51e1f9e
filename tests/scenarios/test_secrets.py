"""No secret leaves a twin: not in its messages, its files, its metrics, in whatever spelling."""

from __future__ import annotations

import base64
import re
import urllib.request
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from support.mosquitto import mosquitto
from support.plants import plant_file, publisher
from support.twin import command, eventually, query, running

RIGHT = "s3cret/päss word+&%"
WRONG = "wr0ng/päss word+&%"


def spellings(secret: str) -> set[bytes]:
    """The secret and what else it could be written as."""
    raw = secret.encode()
    found = {
        raw,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(secret).encode(),
        repr(secret).encode(),
    }
    found |= {quote(secret, safe="").encode(), quote_plus(secret).encode(), secret.encode("unicode_escape")}
    # In base64 a secret looks otherwise by what stands before it; the middle is the same.
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + raw)
        found.add(encoded[(4 * shift + 2) // 3 + 1 : -4])
    return found


def leaks(secret: str, text: bytes) -> list[bytes]:
    return [each for each in spellings(secret) if each in text]


@pytest.mark.parametrize(
    ("password", "arguments"),
    [
        (RIGHT, ("--debug",)),
        (WRONG, ("--debug", "--log-format", "json")),
        pytest.param(RIGHT, ("--log-format", "json"), marks=pytest.mark.long),
        pytest.param(WRONG, (), marks=pytest.mark.long),
    ],
)
def test_a_password_stands_in_no_message_no_file_and_no_page(
    tmp_path: Path, password: str, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    users = {"twin": RIGHT, "plant": "plant"}
    with mosquitto(folder, users=users) as broker, publisher(broker.port, "plant", "plant") as plant_side:
        more = "username: twin\n    password: ${MQTT_PASSWORD}"
        plant = plant_file(tmp_path, f"mqtt://127.0.0.1:{broker.port}", more)
        env = {"MQTT_PASSWORD": password}
        with running(plant, *arguments, env=env) as run:
            web = re.search(r"http://[^/]+", run.says("/healthz"))
            assert web
            if password == RIGHT:
                run.says("field: connected")
                plant_side.send({"value": 20.0})
                plant_side.send(b"no number")
                plant.write_text(plant.read_text().replace("${MQTT_PASSWORD}", '"unused"'))
                eventually(lambda: query(plant, "latest"), bool)
            else:
                run.says("user name or password refused")
            pages = [urllib.request.urlopen(f"{web[0]}/{name}").read() for name in ("metrics", "healthz")]  # noqa: S310
            assert run.stop() == 0
        said = "\n".join(run.lines).encode()
        files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert len(files) > 3
    assert leaks(password, said) == []
    assert [leaks(password, page) for page in pages] == [[], []]
    assert {path: found for path, data in files.items() if (found := leaks(password, data))} == {}


def test_a_password_in_a_plant_file_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    more = f'username: twin\n    pasword: "{RIGHT}"\n    qos: "{RIGHT}"'
    plant = plant_file(tmp_path, "mqtt://127.0.0.1:1", more)
    done = command("run", plant, "--debug")
    assert done.returncode == 2
    assert "did you mean 'password'" in done.stderr


def test_the_spellings_would_be_found() -> None:
    for shift in range(4):
        text = base64.b64encode(b"u" * shift + RIGHT.encode() + b" and more")
        assert leaks(RIGHT, text)
    assert leaks(RIGHT, f"mqtt://u:{quote(RIGHT)}@h".encode())
    assert not leaks(RIGHT, b"field: user name or password refused")
