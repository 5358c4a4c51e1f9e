"""`store: {type: influxdb}` of the plant file as typed models."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from twinloop.config.fields import Duration, Flag, HttpUrl, Name, Secret, Text
from twinloop.config.section import Section, TlsConfig
from twinloop.config.text import SECOND_NS

__all__ = ["ExistingConfig", "InfluxStoreConfig"]

LONGEST_S: Final = 60


class ExistingConfig(Section):
    """Where a tag's history from before twinloop is, written by Telegraf or others."""

    measurement: Text = Field(description="the measurement")
    tags: dict[str, Text] = Field(
        default_factory=dict, description="tags that say which series; others may have any value"
    )
    field: Text = Field("value", description="the field that holds the value")
    bucket: Text | None = Field(None, description="bucket or database; default: the store's")


class InfluxStoreConfig(Section):
    """History in InfluxDB 1.x, 2.x or 3.x."""

    type: Literal["influxdb"] = Field(description="`influxdb`")
    url: HttpUrl = Field(description="http://HOST:8086, or https:// for TLS")
    bucket: Text = Field(description="the bucket; of InfluxDB 1.x the database, made when it is missing")
    token: Secret | None = Field(
        None, description="of InfluxDB 2.x and 3.x; keep it in the environment: ${NAME}"
    )
    org: Text | None = Field(None, description="organisation, of InfluxDB 2.x")
    username: Text | None = Field(None, description="user name, of InfluxDB 1.x")
    password: Secret | None = Field(None, description="password; keep it in the environment: ${NAME}")
    insecure: Flag = Field(
        False, description="true: allow http:// to another host, where everyone can read along"
    )
    measurement: Name = Field(
        "twinloop", description="where samples go; what fills gaps goes to that name and `_fills`"
    )
    tls: TlsConfig | None = Field(None, description="certificates for https://: `ca`, `cert`, `key`")
    timeout: Duration = Field(
        5 * SECOND_NS,
        gt=0,
        le=LONGEST_S * SECOND_NS,
        description="longest wait for a connection, and for an answer to what was written",
    )
    existing: dict[str, ExistingConfig] = Field(
        default_factory=dict, description="by full tag name: a series of others, read before the tag's own"
    )
