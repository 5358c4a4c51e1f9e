"""`web` of the plant file as typed models: where pages are served, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema

from twinloop.config.fields import Duration, FilePath, Flag, Secret, Text, whole
from twinloop.config.insecure import is_loopback
from twinloop.config.section import Section
from twinloop.config.text import SECOND_NS
from twinloop.passwords import PasswordHash

__all__ = ["LOGIN_KEYS", "SHORTEST_TOKEN", "WebConfig", "WebTlsConfig", "web_problems", "web_warnings"]

SHORTEST_TOKEN: Final = 16
HOUR_NS: Final = 3600 * SECOND_NS
LOGIN_KEYS: Final = ("username", "password_hash", "password_hash_file", "token", "token_file")


def _hash(value: object) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError("expected a hash as `twinloop password` prints it (it is not shown here)")  # noqa: TRY004 - pydantic's way
    PasswordHash.parse(text)
    return SecretStr(str(text))


class WebTlsConfig(Section):
    """`tls` of `web`: what the server shows."""

    cert: FilePath = Field(description="certificate chain (PEM)")
    key: FilePath = Field(description="private key of `cert` (PEM), without a passphrase")


class WebConfig(Section):
    """Where the pages, the HTTP API, /healthz and /metrics are served, and who may look."""

    host: Text = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: Annotated[int, whole(0, 65535)] = Field(8800, description="TCP port; 0 takes a free one")
    names: list[Text] = Field(
        default_factory=list, description="further host names by which it is reached, as of a proxy before it"
    )
    tls: WebTlsConfig | None = Field(None, description="certificate for https://: `cert` and `key`")
    behind_tls: Flag = Field(
        False, description="true: a proxy before it has TLS: cookies are Secure, pages https:// alone"
    )
    username: Text | None = Field(None, description="who may look, with `password_hash`")
    password_hash: Annotated[
        SecretStr | None,
        BeforeValidator(_hash),
        WithJsonSchema({"type": "string", "format": "password"}),
    ] = Field(None, description="as `twinloop password` prints it; or keep it in the environment: ${NAME}")
    password_hash_file: FilePath | None = Field(None, description="a file with the hash, in its place")
    token: Secret | None = Field(
        None, description="a bearer token that programs show; keep it in the environment: ${NAME}"
    )
    token_file: FilePath | None = Field(None, description="a file with the token, in its place")
    session: Duration = Field(
        12 * HOUR_NS,
        ge=60 * SECOND_NS,
        le=90 * 24 * HOUR_NS,
        description="how long a login in a browser lasts",
    )
    writable: Flag = Field(False, description="true: lab samples may be sent in by HTTP")

    @property
    def has_login(self) -> bool:
        """Whether only those who are known may look."""
        return any(getattr(self, key) for key in LOGIN_KEYS)

    @property
    def is_open(self) -> bool:
        """Whether others than this host can reach it."""
        return not is_loopback(self.host)


def web_problems(web: WebConfig) -> Iterator[tuple[str, str]]:
    """What is refused, as key and text."""
    if web.password_hash and web.password_hash_file:
        yield "password_hash_file", "password_hash or password_hash_file, not both"
    if web.token and web.token_file:
        yield "token_file", "token or token_file, not both"
    if web.token and len(web.token.get_secret_value()) < SHORTEST_TOKEN:
        yield (
            "token",
            f"too short: {SHORTEST_TOKEN} characters at least, as `openssl rand -hex 32` makes them",
        )
    has_hash = bool(web.password_hash or web.password_hash_file)
    if bool(web.username) != has_hash:
        yield ("password_hash" if has_hash else "username"), "username and password_hash go together"
    if web.is_open and not web.has_login:
        text = (
            f"{web.host} can be reached from other hosts, and there is no login: set `username` and "
            "`password_hash` (`twinloop password` makes one) or `token`, each also from a file; "
            "or listen on 127.0.0.1"
        )
        yield "host", text


def web_warnings(web: WebConfig | None) -> Iterator[tuple[str, str]]:
    """What is allowed and hardly meant, as key and text."""
    if web is not None and web.is_open and web.tls is None and not web.behind_tls:
        text = (
            "nothing is encrypted on the way, the login neither: set `tls: {cert: ..., key: ...}`, "
            "or `behind_tls: true` where only a proxy with TLS reaches it"
        )
        yield "host", text
