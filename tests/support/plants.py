"""A small MQTT plant for scenarios, and who publishes in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from support.twin import PATIENCE_S

__all__ = ["TEMPERATURE", "Publisher", "plant_file", "publisher"]

TEMPERATURE = "reactor/R101/sensor/temperature"


def plant_file(folder: Path, url: str, more: str = "qos: 1", tags: str = "") -> Path:
    """A plant file whose MQTT source has `more` keys and whose temperature has the rules `tags`."""
    path = folder / "plant.yaml"
    path.write_text(f"""
plant: test
data_dir: ./data
sources:
  field:
    type: mqtt
    url: {url}
    {more}
    topics:
      "reactor/{{asset}}/sensor/{{tag}}": {{format: json}}
tags:
  temperature: {{unit: degC, zscore: off{tags}}}
assets:
  R101: {{tags: [temperature]}}
web: {{port: 0}}
""")
    return path


class Publisher:
    """An ordinary client of the plant; `send` returns when the broker has the message."""

    def __init__(self, port: int, user: str = "", password: str = "") -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if user:
            self._client.username_pw_set(user, password)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, payload: Any, topic: str = TEMPERATURE, *, qos: int = 1, retain: bool = False) -> None:
        """Publish a payload, JSON unless it is bytes."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload)
        self._client.publish(topic, raw, qos=qos, retain=retain).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        """Leave in order."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def publisher(port: int, user: str = "", password: str = "") -> Iterator[Publisher]:
    """A connected publisher."""
    made = Publisher(port, user, password)
    try:
        yield made
    finally:
        made.close()
