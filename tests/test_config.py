"""The rules of a plant file become the rules of its tags; every key is documented with its default."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from twinloop.config import models
from twinloop.config.expand import cycle_ns, measures_of, tag_of, tags_of
from twinloop.config.models import PlantConfig, TagRules
from twinloop.config.schema import json_schema
from twinloop.config.text import parse_duration, parse_size
from twinloop.errors import ConfigError
from twinloop.twin.models import MODELS

DOCS = (Path(__file__).parents[1] / "docs" / "PLANT_FILE.md").read_text()
SECOND = 10**9

HEADINGS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "Top level": (models.PlantConfig, {"plant": "PLANT"}),
    "`sources`: `type: mqtt`": (
        models.MqttSourceConfig,
        {"type": "mqtt", "url": "mqtt://h", "topics": {"{asset}/{tag}": {}}},
    ),
    "`tls` of an MQTT source": (models.TlsConfig, {}),
    "`topics`": (models.TopicConfig, {}),
    "`sources`: `type: opcua`": (
        models.OpcuaSourceConfig,
        {"type": "opcua", "url": "opc.tcp://h", "nodes": {"i=1": "t"}},
    ),
    "`security` of an OPC UA source": (models.SecurityConfig, {}),
    "`nodes`": (models.NodeConfig, {"tag": "t"}),
    "`tags`": (models.TagRules, {}),
    "`assets`": (models.AssetConfig, {}),
    "`store`": (models.LocalStoreConfig, {}),
    "`store`: `type: influxdb`": (
        models.InfluxStoreConfig,
        {"type": "influxdb", "url": "http://h", "bucket": "b"},
    ),
    "`existing` of an InfluxDB store": (models.ExistingConfig, {"measurement": "m"}),
    "`log`": (models.LocalLogConfig, {}),
    "`web`": (models.WebConfig, {}),
    "`tls` of `web`": (models.WebTlsConfig, {"cert": "c.pem", "key": "k.pem"}),
}


def plant(tags: dict[str, Any], **assets: Any) -> PlantConfig:
    return PlantConfig.model_validate({"plant": "p", "tags": tags, "assets": assets})


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    model, least = HEADINGS[heading]
    section = DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    assert rows.keys() == model.model_fields.keys()
    plain = model.model_validate(least)
    for key, cell in rows.items():
        if cell == "required":
            assert model.model_fields[key].is_required()
        elif cell == "none":
            assert not getattr(plain, key)
        elif cell != "defaults":
            written = YAML(typ="safe").load(cell.strip("`"))
            assert getattr(model.model_validate({**least, key: written}), key) == getattr(plain, key)


def test_the_examples_of_the_documentation_load() -> None:
    known = {"topics", "nodes", "assets", "tls", "security", "store", "log", "web"}
    blocks = [YAML(typ="safe").load(text) for text in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)]
    assert {key for block in blocks for key in block} == known
    for block in blocks:
        for key, value in block.items():
            wrapped: dict[str, Any] = {key: value}
            if key in {"tls", "topics"}:
                wrapped = {"sources": {"s": {**HEADINGS["`sources`: `type: mqtt`"][1], key: value}}}
            if key in {"security", "nodes"}:
                wrapped = {"sources": {"s": {**HEADINGS["`sources`: `type: opcua`"][1], key: value}}}
            PlantConfig.model_validate({"plant": "p", **wrapped})


def test_an_asset_overrides_any_key_and_inherits_the_rest() -> None:
    config = plant(
        {"t": {"unit": "degC", "range": [0, 100], "zscore": 4, "every": "5s"}},
        A={"tags": ["t"]},
        B={"tags": {"t": {"range": [0, 50], "zscore": "off"}}},
    )
    a, b = tags_of(config)
    assert (a.name, a.high, a.zscore, a.stale_ns) == ("A.t", 100, 4, 25 * SECOND)
    assert (b.name, b.high, b.zscore, b.unit, b.every_ns) == ("B.t", 50, math.inf, "degC", 5 * SECOND)


def test_an_assets_own_unit_takes_the_numbers_over() -> None:
    rules = {"unit": "degC", "range": [0, 100], "rate_limit": 5, "spike": 10, "noise": 0.5}
    tag = tag_of(plant({"t": rules}, A={"tags": {"t": {"unit": "degF", "noise": 1}}}), "A", "t")
    assert (tag.low, tag.high, tag.rate_limit, tag.spike, tag.noise) == (32, 212, 9, 18, 1)


def test_rules_that_cannot_be_taken_over_are_refused() -> None:
    config = plant({"t": {"unit": "degC", "range": [0, 100]}}, A={"tags": {"t": {"unit": "bar"}}})
    with pytest.raises(ConfigError, match="cannot become"):
        tags_of(config)


@pytest.mark.parametrize(
    ("spike", "step", "share"),
    [
        ("20%", math.inf, 0.2),
        ("10 degF", 10 * 5 / 9, math.inf),
        (10, 10, math.inf),
        ("off", math.inf, math.inf),
    ],
)
def test_a_spike_is_a_share_or_a_step(spike: object, step: float, share: float) -> None:
    tag = tag_of(plant({"t": {"unit": "degC", "spike": spike}}, A={"tags": ["t"]}), "A", "t")
    assert tag.spike == pytest.approx(step)
    assert tag.spike_fraction == share


def test_what_is_not_said_is_off_or_its_documented_default() -> None:
    tag = tag_of(plant({"t": None}, A={"tags": ["t"]}), "A", "t")
    assert (tag.low, tag.warn_high, tag.rate_limit, tag.spike) == (-math.inf, math.inf, math.inf, math.inf)
    assert (tag.zscore, tag.window, tag.stuck_ns, tag.stale_ns) == (3.0, 100, 0, 5 * SECOND)
    assert math.isnan(tag.noise)
    assert math.isnan(tag.rate_noise)


def test_a_boolean_is_not_analogue_and_has_no_zscore_unless_asked() -> None:
    config = plant({"a": {"type": "boolean"}, "b": {"type": "enum", "zscore": 5}}, A={"tags": ["a", "b"]})
    a, b = tags_of(config)
    assert (a.analogue, a.zscore, b.analogue, b.zscore) == (False, math.inf, False, 5)


def test_the_cycle_is_the_smallest_period_unless_it_is_given() -> None:
    config = plant({"t": {"every": "200ms"}}, A={"tags": ["t"]})
    assert cycle_ns(config) == SECOND // 5
    assert cycle_ns(config.model_copy(update={"cycle": SECOND})) == SECOND
    assert cycle_ns(plant({})) == SECOND


def test_a_model_takes_tags_of_its_names_when_they_have_a_unit() -> None:
    config = plant(
        {
            "temperature": {"unit": "degC"},
            "pressure": {},
            "jacket": {"unit": "degC"},
            "flow_rate": {"unit": "L/min"},
        },
        A={
            "model": "stirred_tank",
            "tags": ["temperature", "pressure", "jacket", "flow_rate"],
            "measures": {"coolant_temperature": "jacket", "flow_rate": "off"},
        },
    )
    assert measures_of(config, "A", MODELS["stirred_tank"]) == {
        "temperature": "A.temperature",
        "coolant_temperature": "A.jacket",
    }


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500ms", SECOND // 2),
        ("5s", 5 * SECOND),
        ("10m", 600 * SECOND),
        ("24h", 86400 * SECOND),
        (0, 0),
        ("0", 0),
    ],
)
def test_a_duration_is_an_integer_and_a_unit(text: object, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["5", 5, "1.5s", "-1s", "5 weeks", "", None, True, False, "99999999999999d", "\u0665s"]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("10GB", 10**10), ("64MiB", 2**26), ("1 kB", 1000), ("0", 0)])
def test_a_size_is_an_integer_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", True, "TRUE"])
def test_a_flag_may_be_on_or_off_in_words(word: object) -> None:
    least = {**HEADINGS["`sources`: `type: mqtt`"][1], "clean_start": word}
    flag = models.MqttSourceConfig.model_validate(least).clean_start
    assert flag is (word not in {"off", "no"})


def test_the_schema_describes_every_key_and_refuses_others() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections)
    assert all("description" in key for section in sections for key in section["properties"].values())
    names = {name for section in sections for name in section["properties"]}
    assert TagRules.model_fields.keys() | PlantConfig.model_fields.keys() <= names
    assert "pattern" in str(schema["$defs"]["TagRules"]["properties"]["every"])
