"""The plant file as the web shows it: what is secret is nowhere in it, in whatever way it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twinloop.config.models import PlantConfig
from twinloop.web.api.plantfile import HIDDEN, hidden, secret_keys

SECRET = "hunter2-öß"


def shown(text: str) -> str:
    return hidden(text.encode())


def secret_places(schema: dict[str, Any], node: Any, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of keys whose values JSON Schema calls passwords."""
    if isinstance(node, dict):
        if (ref := node.get("$ref")) and ref not in seen:
            yield from secret_places(schema, schema["$defs"][ref.rpartition("/")[2]], seen | {ref})
        for key, each in node.get("properties", {}).items():
            if '"format": "password"' in str(each).replace("'", '"'):
                yield key
        for each in node.values():
            yield from secret_places(schema, each, seen)
    elif isinstance(node, list):
        for each in node:
            yield from secret_places(schema, each, seen)


def test_every_secret_key_of_the_plant_file_is_known() -> None:
    schema = PlantConfig.model_json_schema()
    found = set(secret_places(schema, schema))
    assert found >= {"password", "token"}
    assert found <= secret_keys()


@pytest.mark.parametrize("key", sorted(secret_keys()))
@pytest.mark.parametrize(
    "written",
    [
        f"  KEY: {SECRET}\n",
        f'  KEY: "{SECRET}"\n',
        f"  'KEY': '{SECRET}'\n",
        f'  "KEY": {SECRET}  # a comment\n',
        f"  KEY: |\n    {SECRET}\n",
        f"  KEY: >-\n    {SECRET}\n    and more\n",
        f'  KEY:\n    "{SECRET}"\n',
        f"  x: {{url: a, KEY: {SECRET}, b: 1}}\n",
        f"  KEY: ${{NAME:-{SECRET}}}\n",
        f"  KEY: a${{NAME}}{SECRET}\n",
        f"  KEY: &anchor {SECRET}\n  other: *anchor\n",
        f"  plain: &anchor {SECRET}\n  KEY: *anchor\n",
        f"  base: &base {{KEY: {SECRET}}}\n  x: {{<<: *base}}\n",
        f"  ? KEY\n  : {SECRET}\n",
        f"  KEY: [{SECRET}, b]\n",
        f"  # KEY: {SECRET}\n",
        f"  x: 1  # the old KEY was {SECRET}\n",
        f"  KEY: {SECRET}\n  note: it is {SECRET}, they say  # {SECRET}\n",
        f'  KEY: "{SECRET[:4]}\\u0066{SECRET[4:]}"\n  x: {SECRET[:4]}f{SECRET[4:]}\n',
        f"  x: 1\r\n  KEY: {SECRET}\r\n  y: 2\r\n",
    ],
)
def test_no_spelling_of_a_secret_is_shown(key: str, written: str) -> None:
    text = shown(f"plant: demo\nsources:\n{written.replace('KEY', key)}web: {{port: 8800}}\n")
    assert SECRET not in text
    assert f"{SECRET[:4]}f{SECRET[4:]}" not in text
    assert SECRET[4:] not in text
    assert text.startswith("plant: demo\nsources:\n")
    assert text.endswith("web: {port: 8800}\n")


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff"),
        min_size=4,
        max_size=20,
    )
)
def test_no_secret_is_shown_whatever_it_is(secret: str) -> None:
    rest = ["plant: demo\nsources:\n  field:\n    password: ", "\nassets: {}\n"]
    assume(secret not in "".join(rest) and secret not in HIDDEN and "${" not in secret)
    quoted = "'" + secret.replace("'", "''") + "'"
    text = shown(f"{rest[0]}{quoted}{rest[1]}")
    assert text == f'{rest[0]}"{HIDDEN}"{rest[1]}'


def test_what_comes_from_the_environment_stays_as_it_is_written() -> None:
    text = "plant: demo\nstore:\n  token: ${INFLUX_TOKEN}\n  password: '${A}${B}'\n"
    assert shown(text) == text


def test_a_default_of_a_secret_is_none_to_be_shown() -> None:
    text = shown("plant: demo\nstore: {token: '${T:-s3cret}'}\n")
    assert text == f'plant: demo\nstore: {{token: "${{T:-{HIDDEN}}}"}}\n'


def test_addresses_lose_user_and_password() -> None:
    text = shown("plant: demo  # see http://me:pw@host/x and mqtt://tok@broker:1883\n")
    assert text == "plant: demo  # see http://host/x and mqtt://broker:1883\n"


def test_everything_else_stays_as_it_is_written() -> None:
    text = "# a plant\nplant: demo\ntags:\n  password: {unit: degC}   # a tag may be called so\n"
    assert shown(text).startswith("# a plant\nplant: demo\ntags:\n  password: {unit: degC}")


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"plant: [", b"a: b: c"])
def test_a_file_that_cannot_be_read_is_not_shown(raw: bytes) -> None:
    with pytest.raises(ValueError):
        hidden(raw)


def test_what_is_shown_is_still_yaml() -> None:
    from ruamel.yaml import YAML

    text = shown(f"plant: demo\nstore: {{type: influxdb, token: {SECRET}, org: o}}\nlog: {{type: local}}\n")
    assert YAML(typ="safe").load(text)["store"] == {"type": "influxdb", "token": HIDDEN, "org": "o"}
