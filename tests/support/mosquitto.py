"""A real mosquitto on a free port of 127.0.0.1, for as long as a test needs it."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.services import free_port, missing
from support.tls import Certificates

__all__ = ["Mosquitto", "find", "mosquitto"]

_START_S = 10.0


class Mosquitto:
    """One broker that can be stopped and started again on the same port.

    Args:
        directory: where its files go; kept between restarts.
        users: passwords by user name; none means that anybody may connect.
        certificates: makes the port TLS only.
        persistence: sessions and retained messages survive an orderly restart.
        config: further lines of mosquitto.conf.
    """

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        persistence: bool = False,
        config: str = "",
    ) -> None:
        self.port = free_port()
        self._program = find("mosquitto")
        self._log = directory / "mosquitto.log"
        self._config = directory / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"user {getpass.getuser()}",
            "max_queued_messages 0",
            *_access(directory, users or {}),
            *_tls(certificates),
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {directory}/",
            config,
        ]
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and return once it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto did not start:\n{self._log.read_text()}")
            time.sleep(0.005)  # between two looks at the port; the condition ends the wait

    def stop(self) -> None:
        """End it in order (SIGTERM): with persistence, it writes its sessions first."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_S)
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_START_S)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGHUP has it read its passwords again."""
        assert self._process is not None
        self._process.send_signal(number)

    def restart(self) -> None:
        """Stop it in order and start it again on the same port."""
        self.stop()
        self.start()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


@contextmanager
def mosquitto(
    directory: Path,
    *,
    users: Mapping[str, str] | None = None,
    certificates: Certificates | None = None,
    persistence: bool = False,
    config: str = "",
) -> Iterator[Mosquitto]:
    """A running broker, ended with the block; skips the test where mosquitto is not installed."""
    broker = Mosquitto(
        directory, users=users, certificates=certificates, persistence=persistence, config=config
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def find(program: str) -> str:
    """Where a program of mosquitto's is; skips the test where it is not."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing(program, "install it with `apt install mosquitto`")
    return found


def _access(directory: Path, users: Mapping[str, str]) -> list[str]:
    if not users:
        return ["allow_anonymous true"]
    passwords = directory / "passwords"
    passwords.touch(mode=0o600)
    for user, password in users.items():
        subprocess.run([find("mosquitto_passwd"), "-b", str(passwords), user, password], check=True)
    return ["allow_anonymous false", f"password_file {passwords}"]


def _tls(certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return []
    return [
        f"cafile {certificates.authority}",
        f"certfile {certificates.certificate}",
        f"keyfile {certificates.key}",
    ]
