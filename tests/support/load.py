"""A plant under load for a long test: a publisher at a steady rate, and what the twin says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

__all__ = ["Publisher", "figures", "memory_mib", "p99_s", "peak_mib"]

BATCH_S = 0.02
AHEAD = 4000


class Publisher:
    """A process that publishes numbered samples of several tags at a rate, QoS 1.

    Args:
        port: the broker's.
        per_s: samples a second.
        tags: full topics; messages go round them.
        at_once: samples a message.

    Attributes:
        sent: samples published so far; sample n has the value n and a time of its own.
        acknowledged: of these, taken by the broker.
    """

    def __init__(self, port: int, per_s: float, tags: list[str], at_once: int = 1) -> None:
        self.sent = self.acknowledged = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(per_s), str(at_once), *tags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.sent, self.acknowledged = map(int, line.split())

    def stop(self) -> None:
        """Return when the broker has acknowledged everything."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _publish(port: int, per_s: float, at_once: int, tags: list[str]) -> None:
    """Publish until stdin ends; tell ten times a second how far it is."""
    acknowledged = [0]

    def count(*_: object) -> None:
        acknowledged[0] += at_once

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(500)
    client.on_publish = count
    client.connect("127.0.0.1", port)
    client.loop_start()
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    sent, began, told = 0, time.monotonic(), 0.0
    while not ended.wait(BATCH_S) or acknowledged[0] < sent:
        due = int((time.monotonic() - began) * per_s) if not ended.is_set() else 0
        # A busy machine gets less, and never a client that chokes on what it has queued.
        while sent + at_once <= min(due, acknowledged[0] + AHEAD):
            at_us = time.time_ns() // 1000
            rows = [{"value": sent + i, "timestamp": at_us + i} for i in range(at_once)]
            text = json.dumps(rows if at_once > 1 else rows[0])
            client.publish(tags[sent // at_once % len(tags)], text, qos=1)
            sent += at_once
        if time.monotonic() > told + 0.1:
            told = time.monotonic()
            print(sent, acknowledged[0], flush=True)  # noqa: T201 - to who started us
        if ended.is_set():
            time.sleep(BATCH_S)  # between two looks; the condition ends the wait
    print(sent, acknowledged[0], flush=True)  # noqa: T201 - the same
    client.disconnect()


def figures(port: int) -> dict[str, float]:
    """The metrics of a running twin by name and labels, as Prometheus would have them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(twinloop_[^ ]+) ([^ ]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def p99_s(before: dict[str, float], after: dict[str, float]) -> float:
    """The upper bound of the bucket that holds the 99th percentile of the cycles between two looks."""
    pattern = re.compile(r'twinloop_cycle_seconds_bucket\{le="([^"]+)"\}')
    counts = {
        float(match[1]): after[name] - before.get(name, 0.0)
        for name in after
        if (match := pattern.fullmatch(name))
    }
    total = max(counts.values(), default=0.0)
    return min((limit for limit, count in counts.items() if count >= 0.99 * total), default=float("nan"))


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    return _status(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """The most it ever had."""
    return _status(pid, "VmHWM")


def _status(pid: int, key: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    _publish(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
