"""`twinloop run` against a real node-opcua server: values, statuses and source times arrive as sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.nodeopcua import NodeServer, node_server
from support.services import free_port
from support.twin import command, eventually, query, running


def plant_file(folder: Path, url: str, extra: str = "") -> Path:
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: test
data_dir: ./data
sources:
  dcs:
    type: opcua
    url: {url}
    publishing_interval: 100ms
    retry: 1s
    nodes:
      "nsu=urn:plant;s={{asset}}.Temperature.PV": temperature
      "nsu=urn:plant;s={{asset}}.Level.PV": level
{extra}
tags:
  temperature: {{unit: degC, range: [-50, 400]}}
  level: {{unit: "%"}}
assets:
  R101: {{tags: [temperature, level]}}
web: {{port: 0}}
""")
    return path


async def nodes(server: NodeServer) -> None:
    await server.tell("add", name="R101.Temperature.PV", value=20.0, unit="degree_celsius")
    await server.tell("add", name="R101.Level.PV", value=50.0)


async def test_values_statuses_and_source_times_arrive_as_sent(tmp_path: Path) -> None:
    async with node_server(tmp_path / "pki") as server:
        await nodes(server)
        plant = plant_file(tmp_path, server.url)
        with running(plant) as run:
            await asyncio.to_thread(run.says, "dcs: connected")
            await asyncio.to_thread(eventually, lambda: query(plant, "latest"), lambda rows: len(rows) == 2)
            sent = [(85.0, 0), (86.0, 0x40930000), (87.0, 0x808C0000), (88.0, 0)]
            for second, (value, status) in enumerate(sent):
                source = f"2026-03-01T10:00:0{second}.250Z"
                await server.tell(
                    "write", name="R101.Temperature.PV", value=value, status=status, source=source
                )
            rows = await asyncio.to_thread(
                eventually,
                lambda: query(plant, "range", "R101.temperature", end="2026-03-02"),
                lambda rows: len(rows) == 4,
            )
            assert [row["time"] for row in rows] == [f"2026-03-01T10:00:0{i}.250Z" for i in range(4)]
            assert [float(row["value"]) for row in rows] == [85.0, 86.0, 87.0, 88.0]
            assert [row["status"] for row in rows] == ["Good", "Uncertain", "Bad", "Good"]
            assert "SOURCE_STATUS" in rows[1]["reasons"]
            assert await asyncio.to_thread(run.stop) == 0


async def test_a_server_that_restarts_is_connected_again_without_help(tmp_path: Path) -> None:
    port = free_port()
    plant = plant_file(tmp_path, f"opc.tcp://127.0.0.1:{port}")
    async with node_server(tmp_path / "pki", port=port) as server:
        await nodes(server)
        with running(plant) as run:
            await asyncio.to_thread(run.says, "dcs: connected")
            await asyncio.to_thread(eventually, lambda: query(plant, "latest"), lambda rows: len(rows) == 2)
            server.kill()
            await asyncio.to_thread(run.says, "trying again")
            async with node_server(tmp_path / "pki", port=port) as again:
                await nodes(again)
                await asyncio.to_thread(run.says, "dcs: connected again")
                await again.tell("write", name="R101.Temperature.PV", value=77.0)
                latest = await asyncio.to_thread(
                    eventually,
                    lambda: query(plant, "latest", "R101.temperature"),
                    lambda rows: rows[0]["value"] == "77.0",
                )
                assert latest[0]["status"] == "Good"
                assert await asyncio.to_thread(run.stop) == 0


async def test_a_missing_node_is_named_and_the_rest_go_on(tmp_path: Path) -> None:
    async with node_server(tmp_path / "pki") as server:
        await server.tell("add", name="R101.Level.PV", value=50.0)
        plant = plant_file(tmp_path, server.url)
        checked = await asyncio.to_thread(command, "check", plant)
        assert checked.returncode == 1
        assert "R101.Temperature.PV" in checked.stdout
        assert "Traceback" not in checked.stderr
        with running(plant) as run:
            said = await asyncio.to_thread(run.says, "is not read")
            assert "R101.Temperature.PV" in said
            rows = await asyncio.to_thread(
                eventually, lambda: query(plant, "latest"), lambda rows: len(rows) == 1
            )
            assert rows[0]["tag"] == "R101.level"
            await server.tell("add", name="R101.Temperature.PV", value=21.5)
            await asyncio.to_thread(run.says, "is read again")
            await asyncio.to_thread(eventually, lambda: query(plant, "latest"), lambda rows: len(rows) == 2)
            assert await asyncio.to_thread(run.stop) == 0


async def test_a_value_that_does_not_change_is_not_a_lost_one(tmp_path: Path) -> None:
    async with node_server(tmp_path / "pki") as server:
        await nodes(server)
        plant = plant_file(tmp_path, server.url)
        plant.write_text(plant.read_text().replace('unit: "%"', 'unit: "%", stale: 2s'))
        with running(plant, "--seconds", "8") as run:
            assert await asyncio.to_thread(run.process.wait, 30) == 0
        level = await asyncio.to_thread(query, plant, "latest", "R101.level")
        assert level[0]["status"] == "Good", "an unchanged answer renews the age"
        assert len(await asyncio.to_thread(query, plant, "range", "R101.level")) == 1, "and adds no sample"
