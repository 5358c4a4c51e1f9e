"""The OPC UA source against node-opcua, a server that neither we nor asyncua's authors wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from support.nodeopcua import node_server
from support.services import free_port
from support.uacerts import client_certificate
from support.uaserver import FakeIntake, collect, of_series, received
from twinloop.errors import LinkError
from twinloop.records import Link, LinkState
from twinloop.sources.opcua.client import OpcuaNode, OpcuaOptions, OpcuaSecurity, OpcuaSource
from twinloop.sources.opcua.table import unit_of
from twinloop.sources.opcua.trust import pin_server

URI = "nsu=urn:plant;s="
UNCERTAIN, SENSOR_FAILURE = 0x4090_0000, 0x808C_0000


def source(url: str, *names: str, intake: FakeIntake | None = None, **options: Any) -> OpcuaSource:
    nodes = tuple(OpcuaNode(URI + name, f"R101.{name}", 0.05) for name in names)
    options = {"publishing_interval_s": 0.1, **options}
    return OpcuaSource(OpcuaOptions(name="dcs", url=url, nodes=nodes, **options), intake or FakeIntake())


async def test_values_units_statuses_and_source_times_arrive_as_sent(tmp_path: Path) -> None:
    intake = FakeIntake()
    sent = [
        ("2026-03-01T12:00:00.001Z", 85.0, 0),
        ("2026-03-01T12:00:00.002Z", 86.25, UNCERTAIN),
        ("2026-03-01T12:00:00.003Z", 999.0, SENSOR_FAILURE),
        ("2026-03-01T12:00:00.004Z", 87.5, 0),
    ]
    async with node_server(tmp_path) as server:
        await server.tell("add", name="T", value=20.0, unit="degree_celsius")
        await server.tell("add", name="P", value=3, type="Int32")
        async with source(server.url, "T", "P", intake=intake).connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 2)
            rows = [
                {"name": "T", "value": value, "status": status, "source": time}
                for time, value, status in sent
            ]
            await server.tell("writes", rows=rows)
            await server.tell("write", name="P", value=4)
            records = await collect(deliveries, lambda got: len(received(got)) == 5)
    assert intake.known == {(URI + "T", "degC"): 0, (URI + "P", ""): 1}
    temperature = of_series(records, 0)
    assert temperature.value.tolist() == [85.0, 86.25, 999.0, 87.5]  # a Bad value keeps its number
    assert temperature.status.tolist() == [status for *_, status in sent]
    base = 1_772_366_400_000_000_000
    assert temperature.source_time.tolist() == [base + milli * 1_000_000 for milli in (1, 2, 3, 4)]
    assert of_series(records, 1).value.tolist() == [4.0]


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_requests_keep_to_the_limits_the_server_states(tmp_path: Path, mode: str) -> None:
    names = [f"n{place}" for place in range(30)]
    async with node_server(tmp_path, limit=7) as server:
        for place, name in enumerate(names):
            await server.tell("add", name=name, value=place)
        made = source(server.url, *names, mode=mode)
        async with made.connect() as deliveries:
            records = await collect(deliveries, lambda got: len(received(got)) == 30)
        readings = await made.check(5.0)
    assert sorted(received(records).value.tolist()) == list(range(30))
    assert [reading.value for reading in readings] == [repr(float(place)) for place in range(30)]


async def test_a_node_removed_under_way_is_lost_and_found_again_by_name(tmp_path: Path) -> None:
    async with node_server(tmp_path) as server:
        await server.tell("add", name="T", value=1)
        made = source(server.url, "T", retry_s=0.1, reread_after_s={URI + "T": 0.2})
        async with made.connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 1)
            await server.tell("remove", name="T")
            lost = await collect(deliveries, lambda got: any(isinstance(record, Link) for record in got))
            await server.tell("add", name="T", value=2)
            found = await collect(deliveries, lambda got: len(received(got)) == 1)
    assert [(r.state, r.address) for r in lost if isinstance(r, Link)] == [
        (LinkState.ADDRESS_LOST, URI + "T")
    ]
    assert [r.state for r in found if isinstance(r, Link)] == [LinkState.ADDRESS_FOUND]
    assert received(found).value.tolist() == [2.0]


async def test_a_restarted_server_that_numbers_its_namespaces_anew_is_followed_and_nothing_mixed_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    by_index, by_uri = "ns=2;s=T", "nsu=urn:other;s=T"
    nodes = (OpcuaNode(by_index, "R101.a"), OpcuaNode(by_uri, "R101.b"))
    url = f"opc.tcp://127.0.0.1:{port}"
    asked = OpcuaOptions(
        name="dcs", url=url, nodes=nodes, publishing_interval_s=0.1, kept=tmp_path / "dcs.json"
    )
    intake = FakeIntake()
    made = OpcuaSource(asked, intake)
    async with node_server(tmp_path / "pki", port=port, after=["urn:other"]) as server:
        await server.tell("add", name="T", value=1)
        await server.tell("add", name="T", value=100, namespace="urn:other")
        async with made.connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 2)
            server.kill()
            with pytest.raises(LinkError, match="connection was lost"):
                await collect(deliveries, lambda _: False)
    async with node_server(tmp_path / "pki", port=port, before=["urn:other"]) as server:
        await server.tell("add", name="T", value=2)
        await server.tell("add", name="T", value=200, namespace="urn:other")
        for one in (made, OpcuaSource(asked, intake)):  # the same process, and one that knows but the file
            caplog.clear()
            async with one.connect() as deliveries:
                records = await collect(deliveries, lambda got: len(received(got)) == 2)
            assert of_series(records, intake.known[by_index, ""]).value.tolist() == [2.0]
            assert of_series(records, intake.known[by_uri, ""]).value.tolist() == [200.0]
            moved = [line for line in caplog.messages if "renumbered its namespaces" in line]
            assert "urn:plant was 2 and is 3 now" in moved[0]
            assert len(moved) == 2 - (one is not made)  # of nsu= there is nothing to remember over a restart
        readings = await OpcuaSource(dataclasses.replace(asked, reading=True), intake).check(5.0)
        assert [reading.value for reading in readings] == ["2.0", "200.0"]


async def test_sign_and_encrypt_with_user_name_takes_the_right_password_only(tmp_path: Path) -> None:
    certificate, key = client_certificate(tmp_path)
    security = OpcuaSecurity(
        policy="Basic256Sha256",
        mode="SignAndEncrypt",
        certificate=certificate,
        private_key=key,
        pins=tmp_path / "trusted",
    )
    users = {"operator": "right"}
    async with node_server(tmp_path / "pki", users=users, anonymous=False) as server:
        await server.tell("add", name="T", value=4)
        login: dict[str, Any] = {"username": "operator", "password": "right", "security": security}
        await pin_server(source(server.url, "T", **login)._options)
        async with source(server.url, "T", **login).connect() as deliveries:
            records = await collect(deliveries, lambda got: len(received(got)) == 1)
        assert received(records).value.tolist() == [4.0]
        with pytest.raises(LinkError, match="user 'operator' was refused") as caught:
            await source(server.url, "T", **{**login, "password": "wrong"}).connect().__aenter__()
        assert "wrong" not in str(caught.value)
        with pytest.raises(LinkError, match="takes no anonymous users"):
            await source(server.url, "T", security=security).connect().__aenter__()
        in_clear: dict[str, Any] = {"username": "operator", "password": "right"}
        async with source(server.url, "T", **in_clear).connect() as deliveries:
            await collect(deliveries, lambda got: len(received(got)) == 1)


async def test_a_client_certificate_the_server_does_not_trust_is_named(tmp_path: Path) -> None:
    certificate, key = client_certificate(tmp_path)
    pins = tmp_path / "trusted"
    security = OpcuaSecurity(policy="Aes256Sha256RsaPss", certificate=certificate, private_key=key, pins=pins)
    async with node_server(tmp_path / "pki", trust=False) as server:
        await pin_server(source(server.url, "T", security=security)._options)
        with pytest.raises(LinkError, match=r"certificate .*client\.pem .*trusted certificates"):
            await source(server.url, "T", security=security).connect().__aenter__()


def test_a_unit_is_certain_by_its_unece_code_and_a_guess_by_its_display_name() -> None:
    class Information:
        UnitId = int.from_bytes(b"KPA", "big")
        DisplayName = None

    assert unit_of(Information()) == ("kPa", True)
    assert unit_of(None) == ("", False)
