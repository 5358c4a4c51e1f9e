"""What a plant file may say of an OPC UA source's security, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.config.insecure import is_loopback
from twinloop.config.plantfile import read
from twinloop.errors import ConfigError

PLANT = """\
plant: test
sources:
  dcs:
    type: opcua
    url: {url}
    {more}
    nodes:
      "ns=2;s={{asset}}.T": temperature
tags:
  temperature: {{unit: degC}}
assets:
  R101: {{tags: [temperature]}}
"""
AWAY = "opc.tcp://dcs.plant.example:4840"
HERE = "opc.tcp://127.0.0.1:4840"


def findings(folder: Path, url: str, more: str) -> tuple[list[str], list[str]]:
    """What makes the plant file refused, and its warnings, a line each."""
    path = folder / "plant.yaml"
    path.write_text(PLANT.format(url=url, more=more))
    try:
        return [], list(read(path, {"HOST": "10.0.0.7"}).warnings)
    except ConfigError as error:
        return str(error).splitlines(), []


@pytest.mark.parametrize("url", [AWAY, "opc.tcp://192.0.2.1", "opc.tcp://[2001:db8::1]", "opc.tcp://${HOST}"])
def test_a_channel_without_security_off_this_host_is_refused_unless_allowed_and_then_warned_of(
    tmp_path: Path, url: str
) -> None:
    (refused,), _ = findings(tmp_path, url, "mode: subscribe")
    assert ":5: sources.dcs.url: neither signed nor encrypted" in refused
    assert "`security: {policy: Basic256Sha256}`" in refused
    assert "`insecure: true`" in refused
    refusals, (warning,) = findings(tmp_path, url, "insecure: true")
    assert not refusals
    assert "sources.dcs.insecure: neither signed nor encrypted" in warning
    assert findings(tmp_path, url, "security: {policy: Basic256Sha256}") == ([], [])
    assert findings(tmp_path, url, "security: {policy: Aes256Sha256RsaPss, mode: Sign}") == ([], [])


@pytest.mark.parametrize("url", [HERE, "opc.tcp://localhost", "opc.tcp://[::1]:4840", "opc.tcp://127.1.2.3"])
def test_on_this_host_nothing_needs_security(tmp_path: Path, url: str) -> None:
    assert findings(tmp_path, url, "mode: subscribe") == ([], [])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("security: {policy: Basic256Sha256, cert: a.pem}", "cert and key go together"),
        ("user_cert: a.pem", "user_cert and user_key go together"),
        (
            "user_cert: a.pem\n    user_key: k.pem\n    username: u",
            "a certificate or by a name, not by both",
        ),
        ("security: {policy: Basic256Sha265}", "Basic256Sha256"),
        ("history_max: 0", "history_max"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, more: str, why: str) -> None:
    (refused,), _ = findings(tmp_path, HERE, more)
    assert why in refused


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
        ("::", False),
        ("", False),
    ],
)
def test_a_loopback_host_is_known_by_its_name_alone(host: str, loopback: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is loopback
