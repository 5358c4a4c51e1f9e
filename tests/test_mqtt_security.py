"""MQTT links that are not as the plant file says are refused, in one line that says what to do.

The broker is a real mosquitto with TLS, client certificates and users.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mqttium.api import AsyncClient

from support.mosquitto import Mosquitto, mosquitto
from support.tls import Authority, Certificates
from test_mqtt import PROTOCOLS, Series, hear, message, options, samples
from twinloop.config.insecure import is_loopback
from twinloop.config.plantfile import read
from twinloop.errors import ConfigError, LinkError
from twinloop.sources.mqtt.client import MqttOptions, MqttSource, Protocol
from twinloop.tls import tls_context

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificates:
    return authority.sign("twin", hosts=())


@pytest.fixture(scope="module")
def broker(folder: Path, authority: Authority) -> Iterator[Mosquitto]:
    """TLS, a client certificate and a user name are asked for; a second listener is plain."""
    server = authority.sign("localhost", files="server")
    more = "require_certificate true"
    with mosquitto(folder, users={"twin": PASSWORD}, certificates=server, config=more) as running:
        yield running


def secured(port: int, authority: Authority, client: Certificates | None, **changes: Any) -> MqttOptions:
    """Everything right, unless changed."""
    shown = (client.certificate, client.key) if client else (None, None)
    right = options(
        port,
        tls=partial(tls_context, authority.path, *shown),
        certificate=client is not None,
        username="twin",
        password=PASSWORD,
        connect_timeout_s=5.0,
        clean_start=True,
    )
    return replace(right, **changes)


async def refused(wrong: MqttOptions, *words: str) -> None:
    """One line, the source and address first, without the password."""
    with pytest.raises(LinkError) as caught:
        async with MqttSource(wrong, Series()).connect() as deliveries:
            await anext(deliveries)  # TLS 1.3 brokers judge our certificate after their side is done
    said = str(caught.value)
    assert said.startswith(f"field: mqtt{'s' if wrong.tls else ''}://{wrong.host}:{wrong.port}: ")
    assert "\n" not in said
    assert PASSWORD not in said
    for word in words:
        assert re.search(word, said), said


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_with_everything_right_data_flows(
    broker: Mosquitto, authority: Authority, client: Certificates, protocol: Protocol
) -> None:
    right = secured(broker.port, authority, client, protocol=protocol)
    topic, payload = message("temperature", 85.25)
    plant = AsyncClient("plant", username="twin", password=PASSWORD)
    async with MqttSource(right, Series()).connect() as deliveries:
        tls = tls_context(authority.path, client.certificate, client.key)
        await plant.connect("localhost", broker.port, ssl=tls)
        await plant.publish(topic, payload, qos=1)
        await plant.disconnect()
        assert samples(await hear(deliveries, 1)).value.tolist() == [85.25]


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestRefused:
    async def test_plain_text_towards_a_tls_port(
        self, broker: Mosquitto, authority: Authority, client: Certificates, protocol: Protocol
    ) -> None:
        plain = secured(broker.port, authority, client, tls=None, protocol=protocol)
        await refused(plain, "mqtts://")

    async def test_an_authority_that_did_not_sign_the_broker(
        self,
        broker: Mosquitto,
        authority: Authority,
        client: Certificates,
        protocol: Protocol,
        tmp_path: Path,
    ) -> None:
        wrong = secured(broker.port, authority, client, protocol=protocol)
        stranger = Authority(tmp_path, "stranger").path
        await refused(replace(wrong, tls=partial(tls_context, stranger)), "not trusted", "tls: {ca: FILE}")
        await refused(replace(wrong, tls=tls_context), "not trusted", "tls: {ca: FILE}")

    async def test_no_client_certificate(
        self, broker: Mosquitto, authority: Authority, protocol: Protocol
    ) -> None:
        wrong = secured(broker.port, authority, None, protocol=protocol)
        await refused(wrong, "wants a client certificate", "tls: {cert: FILE, key: FILE}")

    async def test_a_client_certificate_of_another_authority_or_one_that_has_expired(
        self, broker: Mosquitto, authority: Authority, protocol: Protocol, tmp_path: Path
    ) -> None:
        stranger = Authority(tmp_path, "stranger").sign("twin", hosts=())
        wrong = secured(broker.port, authority, stranger, protocol=protocol)
        await refused(wrong, "does not trust our client certificate", "tls: cert")
        expired = authority.sign("twin", hosts=(), valid_days=-1, files="expired")
        wrong = secured(broker.port, authority, expired, protocol=protocol)
        # mosquitto's alert is lost where it closes before we have sent CONNECT.
        await refused(wrong, "(client certificate has expired|does not trust our client certificate)")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"username": "nobody"},
            {"password": "battery staple"},
            {"username": None, "password": None},
        ],
    )
    async def test_a_wrong_user_or_password_or_none(
        self,
        broker: Mosquitto,
        authority: Authority,
        client: Certificates,
        protocol: Protocol,
        wrong: dict[str, str],
    ) -> None:
        plan = secured(broker.port, authority, client, protocol=protocol, **wrong)
        await refused(plan, "user name or password refused", "`username` and `password`")

    async def test_tls_towards_a_plain_port(
        self, authority: Authority, protocol: Protocol, tmp_path: Path
    ) -> None:
        with mosquitto(tmp_path) as plain:
            wrong = secured(plain.port, authority, None, protocol=protocol)
            await refused(wrong, "does not speak TLS", "`url`")

    async def test_a_broker_whose_certificate_has_expired_or_is_for_another_host(
        self, authority: Authority, protocol: Protocol, tmp_path: Path
    ) -> None:
        elsewhere = authority.sign("elsewhere", hosts=("elsewhere", "10.1.2.3"))
        late = authority.sign("late", valid_days=-1)
        for name, server, words in [
            ("elsewhere", elsewhere, ("another host", "'127.0.0.1'", "`url`")),
            ("late", late, ("has expired", "renew it at the broker")),
        ]:
            (tmp_path / name).mkdir()
            with mosquitto(tmp_path / name, certificates=server) as own:
                await refused(secured(own.port, authority, None, protocol=protocol), *words)


async def test_a_renewed_certificate_is_taken_up_at_the_next_connection(
    broker: Mosquitto, authority: Authority
) -> None:
    late = authority.sign("twin", hosts=(), valid_days=-1, files="renewed")
    source = MqttSource(secured(broker.port, authority, late), Series())
    with pytest.raises(LinkError, match="certificate"):
        async with source.connect() as deliveries:
            await anext(deliveries)
    authority.sign("twin", hosts=(), files="renewed")
    async with source.connect():
        pass
    late.key.unlink()
    with pytest.raises(LinkError, match=r"field: mqtts://.*renewed.pem .* cannot be used"):
        async with source.connect():
            pass


PLANT = """
plant: test
sources:
  field:
    type: mqtt
    url: {url}
    {more}
    topics: {{"{{asset}}/{{tag}}": {{}}}}
tags: {{t: {{}}}}
assets: {{R101: {{tags: [t]}}}}
"""


def warnings_of(folder: Path, url: str, more: str = "qos: 1", **env: str) -> tuple[str, ...]:
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(url=url, more=more))
    return read(path, env).warnings


@pytest.mark.parametrize("host", ["broker.example", "192.168.1.7", "[fe80::1]", "localhost.example"])
def test_plain_text_off_this_host_is_refused_until_the_plant_file_says_so(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        warnings_of(tmp_path, f"mqtt://{host}:1883")
    assert str(caught.value).startswith(f"{tmp_path}/plant.yaml:6: sources.field.url: ")
    assert "mqtts://" in str(caught.value)
    assert "`insecure: true`" in str(caught.value)
    (warning,) = warnings_of(tmp_path, f"mqtt://{host}:1883", "insecure: true")
    assert warning.startswith(f"{tmp_path}/plant.yaml:7: sources.field.insecure: the link is not protected")


def test_a_password_in_plain_text_is_warned_about_by_name(tmp_path: Path) -> None:
    more = 'username: u\n    password: "${P}"\n    insecure: true'
    (warning,) = warnings_of(tmp_path, "mqtt://broker", more, P="battery staple")
    assert "the password" in warning
    assert "battery staple" not in warning


@pytest.mark.parametrize(
    "url", ["mqtt://localhost", "mqtt://127.1.2.3:1884", "mqtt://[::1]", "mqtts://broker"]
)
def test_what_stays_on_this_host_or_is_protected_needs_no_word(tmp_path: Path, url: str) -> None:
    assert warnings_of(tmp_path, url) == ()


def test_insecure_does_not_switch_off_the_verification_and_says_so(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, "mqtts://broker", "insecure: true")
    assert "verified always" in warning


def test_an_unreadable_insecure_is_the_only_thing_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        warnings_of(tmp_path, "mqtt://broker", "insecure: perhaps")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.255.0.3", True),
        ("::1", True),
        ("[::1]", True),
        ("128.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - asked about, not listened on
        ("localhost.example", False),
        ("::2", False),
        ("", False),
    ],
)
def test_loopback_is_known_by_its_name_alone(host: str, is_own: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is is_own
