"""`twinloop run`, `check` and `trust` against a server with security: nothing in clear, nothing lost."""

from __future__ import annotations

import asyncio
import subprocess
import urllib.request
from pathlib import Path

import pytest

from support.nodeopcua import node_server
from support.twin import command, eventually, query, running

SECRET = "s3cret-of-the-operator"
PLANT = """\
plant: test
data_dir: ./data
sources:
  dcs:
    type: opcua
    url: {url}
    username: operator
    password: ${{DCS_PASSWORD}}
    publishing_interval: 100ms
    security: {{policy: Basic256Sha256, mode: SignAndEncrypt}}
    nodes:
      "ns=2;s={{asset}}.T": temperature
tags:
  temperature: {{unit: degC, zscore: off}}
assets:
  R101: {{tags: [temperature]}}
web: {{port: {port}}}
"""


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - this test's own
        return str(answer.read().decode())


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_plant_with_security_from_the_first_start_to_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    env = {"DCS_PASSWORD": SECRET}
    monkeypatch.setenv("DCS_PASSWORD", SECRET)

    async def tell(*arguments: str | Path, env: dict[str, str] = env) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(command, *arguments, env=env)
        said.extend((done.stdout, done.stderr))
        return done

    async with node_server(tmp_path / "pki", users={"operator": SECRET}, anonymous=False) as server:
        await server.tell("add", name="R101.T", value=20, history=1000)
        plant = tmp_path / "plant.yaml"
        plant.write_text(PLANT.format(url=server.url, port=0))
        with running(plant, env=env) as run:
            line = await asyncio.to_thread(run.says, "not trusted yet", 60.0)
            assert "`twinloop trust PLANT.yaml dcs`" in line
            trusted = await tell("trust", plant, "dcs")
            assert trusted.returncode == 0
            assert "pinned in " in trusted.stdout
            shown = next(one.split()[-1] for one in trusted.stdout.splitlines() if "SHA-256" in one)
            assert shown in line
            await asyncio.to_thread(run.says, "dcs: connected", 60.0)
            own = (tmp_path / "data" / "own-certificate.der").read_bytes()
            checked = await tell("check", plant)
            assert checked.returncode == 0, checked.stdout
            assert (tmp_path / "data" / "own-certificate.der").read_bytes() == own
            web = next(one for one in run.lines if "/healthz and /metrics" in one).split()
            address = next(word for word in web if word.startswith("http://")).removesuffix("/healthz")
            said += [await asyncio.to_thread(fetched, f"{address}/{page}") for page in ("healthz", "metrics")]
            await asyncio.to_thread(eventually, lambda: query(plant, "latest"), bool)
            assert await asyncio.to_thread(run.stop) == 0
            said += run.lines
        for value in range(21, 31):  # while twinloop is down
            await server.tell("write", name="R101.T", value=value)
        again = await tell("trust", plant)
        assert "was pinned already" in again.stdout
        with running(plant, env=env) as run:
            await asyncio.to_thread(run.says, "the gap was filled with", 60.0)
            rows = await asyncio.to_thread(
                eventually,
                lambda: query(plant, "range", "R101.temperature"),
                lambda rows: len(rows) >= 11,
            )
            assert await asyncio.to_thread(run.stop) == 0
            said += run.lines
        assert [float(row["value"]) for row in rows] == [float(value) for value in range(20, 31)]
        refused = await tell("check", plant, env={"DCS_PASSWORD": f"wrong-{SECRET}"})
        assert refused.returncode == 1
        assert "user 'operator' was refused; check username and password" in refused.stdout
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in "".join(said)
    assert "Traceback" not in "".join(said)
