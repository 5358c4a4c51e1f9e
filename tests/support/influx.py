"""A real InfluxDB 1.x and a real VictoriaMetrics on free ports, for as long as tests need them."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from support.services import free_port, missing
from support.tls import Certificates
from twinloop.stores.influx.options import InfluxOptions

__all__ = ["ADMIN", "Influx", "influxdb", "victoria_metrics"]

ADMIN = ("admin", "s3cr'et €")
_START_S = 20.0
_HTTP = urllib3.PoolManager(retries=False)
_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  {limits}
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
  log-enabled = false
  {tls}
[monitor]
  store-enabled = false
[continuous_queries]
  enabled = false
[logging]
  level = "warn"
"""


class Influx:
    """One influxd with authentication on, that can be killed and started again on the same port.

    Args:
        directory: where its files go; kept between restarts.
        certificates: makes it speak https.
        limits: further lines of its section `data`.
    """

    def __init__(self, directory: Path, certificates: Certificates | None = None, limits: str = "") -> None:
        found = shutil.which("influxd")
        if found is None:
            missing("influxd", "install it with `apt install influxdb`")
        self._program = found
        self.port = free_port()
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self.port}"
        trusted = str(certificates.authority) if certificates else None
        self._http = urllib3.PoolManager(retries=False, ca_certs=trusted)
        self._directory = directory
        self._config = directory / "influxdb.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        tls = ""
        if certificates:
            tls = (
                f'https-enabled = true\n  https-certificate = "{certificates.certificate}"\n'
                f'  https-private-key = "{certificates.key}"'
            )
        self._settings = {"directory": directory, "port": self.port, "rpc": free_port(), "tls": tls}
        self.limit(limits)

    def limit(self, limits: str) -> None:
        """Give it other lines of `data`, from its next start on."""
        self._config.write_text(_CONFIG.format(**self._settings, limits=limits))

    def start(self) -> None:
        """Start it and return once it answers."""
        # Its own files, and no settings of a user's.
        env = {key: value for key, value in os.environ.items() if not key.startswith("INFLUXDB_")}
        with (self._directory / "influxd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "run", "-config", str(self._config)], stdout=log, stderr=log, env=env
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"influxd:\n{(self._directory / 'influxd.log').read_text()}")
            time.sleep(0.02)  # between two looks; the condition ends the wait

    def _answers(self) -> bool:
        try:
            return self._http.request("GET", f"{self.url}/ping", timeout=1.0).status == 204
        except urllib3.exceptions.HTTPError:
            return False

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_START_S)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: stopped, it answers nothing and refuses nothing."""
        assert self._process is not None
        self._process.send_signal(number)

    def begin(self) -> None:
        """Make the administrator."""
        name, password = ADMIN
        escaped = password.replace("'", "\\'")
        self.ask(f"CREATE USER {name} WITH PASSWORD '{escaped}' WITH ALL PRIVILEGES", login=None)

    def ask(
        self, statement: str, database: str = "", login: tuple[str, str] | None = ADMIN
    ) -> list[dict[str, Any]]:
        """The series a statement gives."""
        asked = urlencode({"q": statement, "db": database, "epoch": "ns"})
        [result] = json.loads(self._post(f"/query?{asked}", b"", login))["results"]
        assert "error" not in result, result
        found: list[dict[str, Any]] = result.get("series", [])
        return found

    def write(self, lines: str, database: str) -> None:
        """Points of somebody else."""
        self._post(f"/write?db={quote(database)}&precision=n", lines.encode(), ADMIN)

    def _post(self, path: str, body: bytes, login: tuple[str, str] | None) -> bytes:
        pair = base64.b64encode(":".join(login or ()).encode()).decode()
        headers = {"Authorization": f"Basic {pair}"} if login else {}
        answer = self._http.request("POST", f"{self.url}{path}", body=body, headers=headers, timeout=10.0)
        assert answer.status < 300, answer.data
        return answer.data

    def options(self, database: str = "", **more: Any) -> InfluxOptions:
        """How to reach a database of its own."""
        name, password = ADMIN
        own = database or f"plant {next(self._names)}"
        given = {"plant": "demo", "url": self.url, "bucket": own, "username": name, "password": password}
        return InfluxOptions(**{**given, **more})


@contextmanager
def influxdb(directory: Path, certificates: Certificates | None = None, limits: str = "") -> Iterator[Influx]:
    """A running InfluxDB with an administrator, ended with the block; skips where it is not installed."""
    server = Influx(directory, certificates, limits)
    try:
        server.start()
        server.begin()
        yield server
    finally:
        server.kill()


@contextmanager
def victoria_metrics(directory: Path) -> Iterator[str]:
    """The URL of a running VictoriaMetrics, ended with the block; skips where it is not installed."""
    program = shutil.which("victoria-metrics")
    if program is None:
        missing("victoria-metrics", "install it with `apt install victoria-metrics`")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [program, f"-storageDataPath={directory}", f"-httpListenAddr=127.0.0.1:{port}"]
    command += ["-retentionPeriod=100y", "-loggerLevel=ERROR"]
    with (directory / "victoria-metrics.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                _HTTP.request("GET", f"{url}/health", timeout=1.0)
                break
            except urllib3.exceptions.HTTPError:
                assert process.poll() is None, "victoria-metrics ended"
                assert time.monotonic() < deadline, "victoria-metrics does not answer"
                time.sleep(0.02)  # between two looks; the condition ends the wait
        yield url
    finally:
        process.kill()
        process.wait(_START_S)
