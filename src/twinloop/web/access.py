"""Who may look: by which host names, from which pages, with which login. Pure of any web framework."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from twinloop.config.insecure import is_loopback
from twinloop.config.web import SHORTEST_TOKEN, WebConfig
from twinloop.errors import ConfigError
from twinloop.passwords import PasswordHash
from twinloop.web.attempts import Attempts, Pace
from twinloop.web.sessions import Sessions

__all__ = ["Access", "Asking", "Grant", "TooManyError"]

_log = logging.getLogger("twinloop.web")

LOGIN_EACH: Final = Pace(5, 30.0)
LOGIN_TOGETHER: Final = Pace(20, 3.0)
TOKEN_EACH: Final = Pace(20, 5.0)
TOKEN_TOGETHER: Final = Pace(200, 0.2)
_LONGEST_FILE: Final = 4096
_LONGEST_PASSWORD: Final = 1024
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class TooManyError(Exception):
    """Too many logins failed: another may be tried in `wait_s` seconds."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many logins failed; try again in {wait_s} s")
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Asking:
    """What of a request says who asks; empty for what it lacks.

    Attributes:
        address: the peer's.
        hosts: every `Host` header.
        origin, site: the headers `Origin` and `Sec-Fetch-Site`.
        authorization, cookie: these headers.
    """

    address: str
    hosts: Sequence[str]
    origin: str = ""
    site: str = ""
    authorization: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to look, for as long as `holds` says so."""

    holds: Callable[[], bool]


class Access:
    """The rules of a plant file's `web`.

    Args:
        config: these.
        port: the port listened on.

    Raises:
        ConfigError: a file that it names cannot be used.
    """

    def __init__(self, config: WebConfig, port: int) -> None:
        self.is_open = config.is_open
        self.has_tls = config.tls is not None or config.behind_tls
        self.username = config.username or ""
        self._password = _password_of(config)
        self._token = _token_of(config)
        self.sessions = Sessions(config.session / 1e9)
        self.logins = Attempts(LOGIN_EACH, LOGIN_TOGETHER)
        self.tokens = Attempts(TOKEN_EACH, TOKEN_TOGETHER)
        # Browsers share cookies among a host's ports: two twins on one host do not log each other out.
        self.cookie_name = f"{'__Host-' if self.has_tls else ''}twinloop-{port}"
        self._names = frozenset(_bare(name) for name in (*config.names, *_own_names(config.host)))

    @property
    def has_login(self) -> bool:
        """Whether only those who are known may look."""
        return self._password is not None or self._token is not None

    @property
    def has_password(self) -> bool:
        """Whether people log in by name and password."""
        return self._password is not None

    def knows_host(self, hosts: Sequence[str]) -> bool:
        """Whether a request means this server, and no name that was made to lead here (DNS rebinding).

        An address cannot be made to lead anywhere else, and beyond loopback the login protects, too. Who does
        not say which host is meant is no browser.
        """
        if len(hosts) != 1:
            return not hosts
        host = _bare(_without_port(hosts[0]))
        return host in self._names or (self.is_open and _is_address(host))

    def knows_origin(self, asking: Asking) -> bool:
        """Whether what a page sends comes from a page of ours; programs that are no browsers do not say."""
        if asking.site not in {"", "same-origin", "none"}:
            return False
        if not asking.origin:
            return True
        try:
            origin = urlsplit(asking.origin)
        except ValueError:
            return False
        expected = {"https"} if self.has_tls else {"http", "https"}  # a proxy may have TLS and not be told of
        same = _with_port(origin.netloc, origin.scheme) == _with_port("".join(asking.hosts), origin.scheme)
        return origin.scheme in expected and same

    def grant(self, asking: Asking) -> Grant | None:
        """Leave for who asks, by token or session; for everyone where there is no login.

        Raises:
            TooManyError: too many tokens were wrong.
        """
        if not self.has_login:
            return Grant(lambda: True)
        kind, _, given = asking.authorization.partition(" ")
        if kind.lower() == "bearer" and self._token is not None:
            return self._by_token(given.strip(), asking.address)
        session = self.session_of(asking.cookie)
        if session and self.sessions.holds(session):
            return Grant(lambda: self.sessions.holds(session))
        return None

    def _by_token(self, given: str, address: str) -> Grant | None:
        """By a right token always: wrong ones of others at the same address do not shut it out.

        A token is longer than can be guessed, so it may be judged before wrong ones are counted.
        """
        if self._token is not None and hmac.compare_digest(_digest(given), self._token):
            return Grant(lambda: True)
        if wait_s := self.tokens.take(address):
            raise TooManyError(wait_s)
        return None

    def session_of(self, cookie: str) -> str:
        """The session's name in a `Cookie` header; empty for none."""
        try:
            found = SimpleCookie(cookie).get(self.cookie_name)
        except CookieError:
            return ""
        return found.value if found is not None else ""

    def log_in(self, username: str, password: str, address: str) -> str:
        """The name of a new session; empty where name or password is wrong.

        It takes its time and 32 MiB: not for event loops, and one at a time. Where there is no password, the
        token logs in.

        Raises:
            TooManyError: too many logins failed.
        """
        if wait_s := self.logins.take(address):
            raise TooManyError(wait_s)
        if not self._fits(username, password[:_LONGEST_PASSWORD]):
            _log.warning("web: a login from %s failed", address)
            return ""
        self.logins.give_back(address)
        return self.sessions.begin()

    def _fits(self, username: str, password: str) -> bool:
        if self._password is None:
            return self._token is not None and hmac.compare_digest(_digest(password), self._token)
        known = hmac.compare_digest(_digest(username), _digest(self.username))
        return self._password.fits(password) and known


def _password_of(config: WebConfig) -> PasswordHash | None:
    if config.password_hash_file is not None:
        try:
            return PasswordHash.parse(_secret_in(config.password_hash_file, "password_hash_file"))
        except ValueError as error:
            raise ConfigError(f"web.password_hash_file {config.password_hash_file}: {error}") from None
    return PasswordHash.parse(config.password_hash.get_secret_value()) if config.password_hash else None


def _token_of(config: WebConfig) -> bytes | None:
    if config.token_file is not None:
        token = _secret_in(config.token_file, "token_file")
        if len(token) < SHORTEST_TOKEN:
            raise ConfigError(
                f"web.token_file {config.token_file}: a token has {SHORTEST_TOKEN} characters at least"
            )
        return _digest(token)
    return _digest(config.token.get_secret_value()) if config.token else None


def _secret_in(path: Path, key: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        raise ConfigError(f"web.{key} {path} cannot be read: {why}") from None


def _digest(text: str) -> bytes:
    """Of one length whatever the text, so that comparing two of them tells nothing by its time."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _own_names(host: str) -> list[str]:
    if is_loopback(host):
        return [*_LOOPBACK_NAMES, host]
    return [*_LOOPBACK_NAMES, host, socket.gethostname()]


def _bare(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _without_port(netloc: str) -> str:
    """The host of `HOST:PORT` or `[ADDRESS]:PORT`; an address of IPv6 has colons of its own."""
    host, colon, port = netloc.strip().rpartition(":")
    return host if colon and port.isdigit() and (":" not in host or host.endswith("]")) else netloc.strip()


def _with_port(netloc: str, scheme: str) -> str:
    """In lower case and without the scheme's own port, so that two ways to write it compare."""
    return netloc.strip().lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
