"""`/healthz` and `/metrics` over a real socket."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Counter

from support.looks import HandMade
from twinloop.config.web import WebConfig
from twinloop.errors import StartError
from twinloop.web.probe import Probe


@pytest.fixture
def look() -> HandMade:
    return HandMade()


@pytest.fixture
def probe(look: HandMade) -> Iterator[Probe]:
    Counter("twinloop_samples", "Samples", registry=look.registry).inc(3)
    made = Probe(look, WebConfig(port=0))
    yield made
    made.close()


def get(probe: Probe, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{probe.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_in_prometheus_text(probe: Probe) -> None:
    status, text = get(probe, "/metrics")
    assert status == 200
    assert "twinloop_samples_total 3.0" in text


def test_health_is_200_while_well_and_503_otherwise(probe: Probe, look: HandMade) -> None:
    assert json.loads(get(probe, "/healthz")[1]) == {"status": "starting"}
    twin = look.begin()
    assert get(probe, "/healthz")[0] == get(probe, "/readyz")[0] == 200
    twin.well = False
    status, text = get(probe, "/healthz")
    assert status == get(probe, "/readyz")[0] == 503
    assert json.loads(text)["plant"] == "test"


def test_what_is_not_there_is_a_404_and_writing_a_405(probe: Probe) -> None:
    assert get(probe, "/../etc/passwd")[0] == 404
    assert get(probe, "/metrics", "POST")[0] == 405


def test_a_taken_port_is_refused_with_a_way_out(probe: Probe) -> None:
    with pytest.raises(StartError, match=rf"127.0.0.1:{probe.port} cannot be listened on .*port"):
        Probe(HandMade(), WebConfig(port=probe.port))
