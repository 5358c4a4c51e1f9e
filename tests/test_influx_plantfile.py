"""`store: {type: influxdb}` in a plant file, and what `twinloop check` says of it."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from support.influx import ADMIN, influxdb
from support.services import free_port
from twinloop.cli.check import check
from twinloop.config.models import InfluxStoreConfig
from twinloop.config.plantfile import Loaded, read
from twinloop.errors import ConfigError
from twinloop.storing import look_at_store

PLANT = """\
plant: small
tags: {{temperature: {{unit: degC}}}}
assets: {{R101: {{tags: [temperature]}}}}
store:
  type: influxdb
  {more}
"""
NEEDED = "bucket: plant"


def loaded(folder: Path, *more: str, **env: str) -> Loaded:
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(more="\n  ".join(more)))
    return read(path, env)


def refusal(folder: Path, *more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, *more, P="s3cret")
    assert "s3cret" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_forgotten_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text("plant: small\ntags: {}\nassets: {}\nstore: {url: http://127.0.0.1:8086, bucket: b}\n")
    with pytest.raises(ConfigError, match=r"store.*'url' goes with `type: influxdb`, which is missing"):
        read(path, {})


def test_every_key_arrives_and_secrets_stay_hidden(tmp_path: Path) -> None:
    store = loaded(
        tmp_path,
        "url: https://influx:8086/behind",
        NEEDED,
        "token: ${P}",
        "org: plant",
        "measurement: m",
        "timeout: 2s",
        "existing: {R101.temperature: {measurement: cpu, tags: {host: a}, field: f, bucket: telegraf}}",
        P="s3cret",
    ).config.store
    assert isinstance(store, InfluxStoreConfig)
    assert store.token is not None
    assert store.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(store)
    assert store.existing["R101.temperature"].tags == {"host": "a"}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((NEEDED,), "plant.yaml:4: store.url: missing; it must be given"),
        (("url: http://localhost",), "plant.yaml:4: store.bucket: missing; it must be given"),
        (
            ("url: ftp://localhost", NEEDED),
            "plant.yaml:6: store.url: expected http://HOST:PORT or https://HOST:PORT",
        ),
        (
            ("url: http://u:${P}@localhost", NEEDED),
            "plant.yaml:6: store.url: a user name does not belong in the URL; use the keys",
        ),
        (
            ("url: http://influx.example:8086", NEEDED),
            "plant.yaml:6: store.url: http:// to another host is not protected",
        ),
        (
            ("url: http://localhost?db=x", NEEDED),
            "plant.yaml:6: store.url: expected http://HOST:PORT or https",
        ),
        (
            ("url: http://[::1]:8086", NEEDED, "username: u"),
            "plant.yaml:8: store.username: username and",
        ),
        (
            ("url: http://localhost", NEEDED, "username: u", "password: ${P}", "token: ${P}"),
            "plant.yaml:10: store.token: a token or a username, not both",
        ),
        (
            ("url: http://localhost", NEEDED, "tls: {ca: ca.pem}"),
            "plant.yaml:8: store.tls: certificates need a url that begins with https://",
        ),
        (
            ("url: https://h", NEEDED, "tls: {cert: c.pem}"),
            "plant.yaml:8: store.tls: cert and key go together",
        ),
        (
            ("url: http://localhost", NEEDED, "existing: {R101.temprature: {measurement: m}}"),
            "plant.yaml:8: store.existing.R101.temprature: no tag 'R101.temprature'; did you mean 'R101.t",
        ),
        (
            ("url: http://localhost", NEEDED, "existing: {R101.temperature: {field: f}}"),
            "plant.yaml:8: store.existing.R101.temperature.measurement: missing; it must be given",
        ),
        (
            ("url: http://localhost", NEEDED, "bukket: b"),
            "plant.yaml:8: store.bukket: unknown key; did you mean",
        ),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, more: tuple[str, ...], line: str) -> None:
    [told] = refusal(tmp_path, *more)
    assert told.replace('"', "").startswith(line)


def test_an_unprotected_link_that_is_meant_is_warned_of_at_each_start(tmp_path: Path) -> None:
    login = ("username: u", "password: ${P}")
    found = loaded(tmp_path, "url: http://influx", NEEDED, *login, "insecure: true", P="p").warnings
    assert "who is on the way can read and change values and the login" in "\n".join(found)
    found = loaded(tmp_path, "url: https://influx", NEEDED, "insecure: true").warnings
    assert "store.insecure: changes nothing with https://" in "\n".join(found)


def test_a_certificate_that_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = loaded(tmp_path, "url: https://influx", NEEDED, "tls: {ca: nowhere.pem}").config
    with pytest.raises(ConfigError, match=r"store\.tls: ca .*nowhere\.pem cannot be read"):
        look_at_store(config)


def checked(folder: Path, url: str, password: str) -> tuple[int, str]:
    loaded(folder, f"url: {url}", NEEDED, "username: admin", "password: ${P}", P=password)
    out = io.StringIO()
    problems = asyncio.run(check(folder / "plant.yaml", {"P": password}, out, 5.0))
    assert password not in out.getvalue()
    return problems, out.getvalue()


def test_check_says_whether_the_store_takes_points(tmp_path: Path) -> None:
    (tmp_path / "influx").mkdir()
    with influxdb(tmp_path / "influx") as server:
        right, text = checked(tmp_path, server.url, ADMIN[1])
        assert f"store: InfluxDB 1.6.7~rc0 at {server.url} takes points" in text
        wrong, text = checked(tmp_path, server.url, "wr0ng")
        assert "store: InfluxDB 1.6.7~rc0" in text
        assert "refused user admin (authorization failed)" in text
        assert wrong == right + 1
    away, text = checked(tmp_path, f"http://127.0.0.1:{free_port()}", "wr0ng")
    assert "cannot be reached: Connection refused" in text
    assert away == right + 1
