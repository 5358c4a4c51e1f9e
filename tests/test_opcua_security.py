"""Who is let in and who is trusted: the OPC UA source against real servers, with and without security."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.nodeopcua import NodeServer, node_server
from support.uacerts import client_certificate
from support.uaproxy import network
from support.uaserver import FakeIntake, UaServer, collect, received, ua_server
from twinloop.cli.trust import trust
from twinloop.errors import ConfigError, LinkError
from twinloop.loop.supervise import Backoff, Supervisor
from twinloop.records import Record
from twinloop.sources.opcua.certificates import fingerprint, read_certificate
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSecurity, OpcuaSource
from twinloop.sources.opcua.trust import pin_server

SERVER = "urn:twinloop:test:server"
pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "s3cret-of-the-operator"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeServer]:
    pki = tmp_path_factory.mktemp("pki") / "pki"
    async with node_server(pki, users={"operator": SECRET, "revoked": SECRET}) as running:
        await running.tell("add", name="T", value=4)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(server: NodeServer) -> AsyncIterator[UaServer]:
    """A server whose certificate the tests change."""
    del server
    async with ua_server() as running:
        await running.add("T", 3.0)
        yield running


def options(url: str, data: Path, policy: Any = "Basic256Sha256", **more: Any) -> OpcuaOptions:
    security = OpcuaSecurity(
        policy=policy, mode=more.pop("mode", "SignAndEncrypt"), own=data, pins=data / "trusted"
    )
    nodes = (OpcuaNode("ns=2;s=T", "R101.T"),)
    return OpcuaOptions(
        name="dcs", url=url, nodes=nodes, **{"security": security, "publishing_interval_s": 0.1, **more}
    )


async def values(asked: OpcuaOptions) -> list[float]:
    async with OpcuaSource(asked, FakeIntake()).connect() as deliveries:
        records = await collect(deliveries, lambda got: len(received(got)) == 1)
    return [float(value) for value in received(records).value]


async def refusal(asked: OpcuaOptions) -> str:
    """Why the source was refused: one line, without the password."""
    with pytest.raises(LinkError) as caught:
        await OpcuaSource(asked, FakeIntake()).connect().__aenter__()
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("dcs: ")
    assert SECRET not in said
    assert "traceback" not in said.lower()
    return said


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"])
async def test_every_policy_and_mode_works_with_the_own_certificate_and_a_password(
    server: NodeServer, tmp_path: Path, policy: str, mode: str
) -> None:
    asked = options(server.url, tmp_path, policy, mode=mode, username="operator", password=SECRET)
    await pin_server(asked)
    assert await values(asked) == [4.0]


async def test_a_certificate_nobody_pinned_is_refused_with_its_fingerprint_and_the_way_to_pin_it(
    server: NodeServer, tmp_path: Path
) -> None:
    asked = options(server.url, tmp_path)
    said = await refusal(asked)
    pinned = await pin_server(asked)
    assert "not trusted yet" in said
    assert fingerprint(pinned.certificate) in said
    assert "`twinloop trust PLANT.yaml dcs`" in said
    assert pinned.before is None
    assert (await pin_server(asked)).before == pinned.certificate


async def test_a_changed_certificate_is_refused_with_both_fingerprints_until_it_is_pinned_in_turn(
    other: UaServer, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    await other.certify(client_certificate(tmp_path, SERVER))
    asked = options(other.url, tmp_path)
    old = (await pin_server(asked)).certificate
    assert await values(asked) == [3.0]
    await other.certify(client_certificate(tmp_path / "new", SERVER))
    said = await refusal(asked)
    pinned = await pin_server(asked)
    assert fingerprint(old) in said
    assert fingerprint(pinned.certificate) in said
    assert "`twinloop trust PLANT.yaml dcs`" in said
    assert pinned.before == old
    assert await values(asked) == [3.0]


async def test_a_certificate_the_plant_file_names_is_the_only_one_taken(
    server: NodeServer, tmp_path: Path
) -> None:
    asked = options(server.url, tmp_path)
    shown = (await pin_server(asked)).path
    other, _ = client_certificate(tmp_path)
    right = dataclasses.replace(asked.security, server_certificate=shown, pins=None)
    assert await values(dataclasses.replace(asked, security=right)) == [4.0]
    wrong = dataclasses.replace(asked.security, server_certificate=other)
    said = await refusal(dataclasses.replace(asked, security=wrong))
    assert str(other) in said
    assert fingerprint(read_certificate(other)) in said


async def test_an_expired_certificate_is_refused_unless_insecurity_is_asked_for(
    other: UaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await other.certify(client_certificate(tmp_path, SERVER, expired=True))
    asked = options(other.url, tmp_path)
    await pin_server(asked)
    assert "certificate expired on 20" in await refusal(asked)
    assert await values(dataclasses.replace(asked, insecure=True)) == [3.0]
    assert any("expired on 20" in line for line in caplog.messages)


async def test_a_wrong_password_and_a_user_that_must_have_one_are_one_sentence_each(
    server: NodeServer, tmp_path: Path
) -> None:
    asked = options(server.url, tmp_path, username="operator", password="wrong-" + SECRET)
    await pin_server(asked)
    said = await refusal(asked)
    assert "user 'operator' was refused; check username and password" in said


async def test_a_user_whose_password_is_changed_is_refused_at_the_next_session(
    server: NodeServer, tmp_path: Path
) -> None:
    asked = options(server.url, tmp_path, username="revoked", password=SECRET)
    await pin_server(asked)
    source = OpcuaSource(asked, FakeIntake())
    async with source.connect() as deliveries:
        await collect(deliveries, lambda got: len(received(got)) == 1)
        await server.tell("users", revoked="another one")
        await server.tell("drop_sessions")
        with pytest.raises(LinkError, match="the server ended the session"):
            await collect(deliveries, lambda _: False)
    assert "user 'revoked' was refused" in await refusal(asked)


async def test_plain_text_where_the_server_demands_security_is_refused_with_what_it_offers(
    other: UaServer, tmp_path: Path
) -> None:
    await other.certify(client_certificate(tmp_path, SERVER))
    said = await refusal(options(other.url, tmp_path, security=OpcuaSecurity()))
    assert "does not offer the security policy asked for (None)" in said
    assert "Basic256Sha256, SignAndEncrypt" in said
    said = await refusal(options(other.url, tmp_path, "Aes256Sha256RsaPss"))
    assert "(Aes256Sha256RsaPss, SignAndEncrypt)" in said
    assert "Basic256Sha256, SignAndEncrypt" in said


async def test_a_password_is_not_sent_in_clear_text_unless_that_is_asked_for(
    other: UaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await other.certify(None)
    asked = options(other.url, tmp_path, security=OpcuaSecurity(), username="u", password=SECRET)
    said = await refusal(asked)
    assert "clear text only, so it was not sent" in said
    assert "insecure: true" in said
    with caplog.at_level(logging.WARNING):
        assert await values(dataclasses.replace(asked, insecure=True)) == [3.0]
    assert any("sent in clear text" in line for line in caplog.messages)
    assert SECRET not in caplog.text


async def test_a_server_that_refuses_is_asked_once_a_step_and_named_once(
    server: NodeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def append(record: Record, stamp: int) -> int:  # noqa: ARG001 - a log that takes everything
        return 0

    async with network(server.url) as way:
        asked = options(way.url, tmp_path, username="operator", password=f"wrong-{SECRET}")
        await pin_server(asked)
        before = way.connections
        enough = asyncio.Event()
        steps: list[float] = []

        def draw() -> float:
            steps.append(1.0)
            if len(steps) == 3:
                enough.set()
            return 1.0

        backoff = Backoff(first_s=0.2, longest_s=0.2, draw=draw)
        supervisor = Supervisor(OpcuaSource(asked, FakeIntake()), append, backoff=backoff)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(20):
            await enough.wait()
        supervisor.stop()
        await running
        assert supervisor.figures.attempts == len(steps)
    # One attempt asks for the endpoints, whose certificate is compared, and opens a session.
    assert way.connections - before <= 2 * supervisor.figures.attempts
    refused = [line for line in caplog.messages if "user 'operator' was refused" in line]
    assert len(refused) == 1


PLANT = """\
plant: test
data_dir: ./data
sources:
  dcs:
    type: opcua
    url: {url}
    security: {{policy: {policy}}}
    nodes:
      "ns=2;s={{asset}}": temperature
tags:
  temperature: {{unit: degC}}
assets:
  T: {{tags: [temperature]}}
"""


async def test_trust_shows_the_certificate_pins_it_and_says_why_where_it_cannot(
    server: NodeServer, tmp_path: Path
) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT.format(url=server.url, policy="Basic256Sha256"))
    shown, again = io.StringIO(), io.StringIO()
    assert await trust(plant, {}, None, shown) == 0
    pin = tmp_path / "data" / "trusted" / "dcs.der"
    assert f"pinned in {pin}" in shown.getvalue()
    assert fingerprint(read_certificate(pin)) in shown.getvalue()
    assert "own-certificate.der" in shown.getvalue()
    assert await trust(plant, {}, "dcs", again) == 0
    assert "was pinned already" in again.getvalue()
    pin.write_bytes(client_certificate(tmp_path)[0].read_bytes())
    assert await trust(plant, {}, "dcs", again) == 0
    assert "it replaces SHA-256 " in again.getvalue()
    with pytest.raises(ConfigError, match="no source 'other'; the plant file has dcs"):
        await trust(plant, {}, "other", again)
    plant.write_text(PLANT.format(url="opc.tcp://127.0.0.1:1", policy="Basic256Sha256"))
    assert await trust(plant, {}, "dcs", again) == 1
    assert "not pinned: dcs: opc.tcp://127.0.0.1:1: connection refused" in again.getvalue()
    plant.write_text(PLANT.format(url=server.url, policy="None"))
    with pytest.raises(ConfigError, match="is not OPC UA with a security policy"):
        await trust(plant, {}, "dcs", again)
    with pytest.raises(ConfigError, match="no source needs a pinned certificate"):
        await trust(plant, {}, None, again)


@pytest.mark.long
async def test_a_user_may_be_known_by_a_certificate(tmp_path: Path) -> None:
    certificate, key = client_certificate(tmp_path, "urn:twinloop:test:user")
    async with node_server(tmp_path / "pki", anonymous=False, userCertificates=True) as server:
        await server.tell("add", name="T", value=6)
        asked = options(server.url, tmp_path, user_certificate=certificate, user_key=key)
        await pin_server(asked)
        assert await values(asked) == [6.0]


async def test_files_that_do_not_belong_together_are_named(server: NodeServer, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    certificate, _ = client_certificate(tmp_path / "a")
    _, key = client_certificate(tmp_path)
    security = OpcuaSecurity(policy="Basic256Sha256", certificate=certificate, private_key=key)
    said = await refusal(options(server.url, tmp_path, security=security))
    assert f"the key in {key} is not that of the certificate in {certificate}" in said


async def test_an_own_certificate_that_cannot_be_made_is_one_sentence(
    server: NodeServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    said = await refusal(options(server.url, tmp_path / "file"))
    assert f"no own certificate can be made or read in {tmp_path / 'file'}" in said
