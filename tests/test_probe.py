"""`/healthz` and `/metrics` over a real socket."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from twinloop.errors import StartError
from twinloop.web.probe import Probe


@pytest.fixture
def state() -> dict[str, Any]:
    return {"well": True}


@pytest.fixture
def probe(state: dict[str, Any]) -> Iterator[Probe]:
    registry = CollectorRegistry()
    Counter("twinloop_samples", "Samples", registry=registry).inc(3)
    made = Probe("127.0.0.1", 0, registry, lambda: (bool(state["well"]), dict(state)))
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


def test_healthz_is_200_while_well_and_503_otherwise(probe: Probe, state: dict[str, Any]) -> None:
    assert get(probe, "/healthz")[0] == 200
    state["well"] = False
    status, text = get(probe, "/healthz")
    assert status == 503
    assert json.loads(text) == {"well": False}


def test_what_is_not_there_is_a_404_and_writing_a_405(probe: Probe) -> None:
    assert get(probe, "/../etc/passwd")[0] == 404
    assert get(probe, "/metrics", "POST")[0] == 405


def test_a_taken_port_is_refused_with_a_way_out(probe: Probe) -> None:
    with pytest.raises(StartError, match=rf"127.0.0.1:{probe.port} cannot be listened on .*port"):
        Probe("127.0.0.1", probe.port, CollectorRegistry(), lambda: (True, {}))
