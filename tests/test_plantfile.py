"""A plant file is loaded as meant, or refused with file, line, key and what to write; secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinloop.config.expand import measures_of, nodes_of, tags_of
from twinloop.config.models import MqttSourceConfig, OpcuaSourceConfig, PlantConfig
from twinloop.config.plantfile import load, read
from twinloop.errors import ConfigError
from twinloop.twin.models import MODELS

EXAMPLES = Path(__file__).parents[1] / "examples"

# The plant file of the interface, word for word.
INTERFACE = """\
plant: demo
data_dir: ./demo-data            # the log, the embedded store, checkpoints; relative to this file

sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:1883   # mqtts:// for TLS
    username: ${MQTT_USER}       # ${NAME} and ${NAME:-default} come from the environment
    password: ${MQTT_PASSWORD}
    qos: 1
    topics:                      # {asset} and {tag} are read from the topic
      "reactor/{asset}/sensor/{tag}": {format: json}   # fields value, unit, timestamp, quality
  dcs:
    type: opcua
    url: opc.tcp://127.0.0.1:4840
    mode: subscribe              # or poll, at each tag's `every`
    publishing_interval: 500ms   # sampling_interval: 0 and queue_size: 100 by default: nothing is thinned
    nodes:                       # {asset} expands over the assets that carry the tag
      "ns=2;s=Reactor.{asset}.Temperature.PV": temperature
      "nsu=urn:plant;s=Reactor.{asset}.Temperature.SV": temperature_sv

tags:                            # by tag name; an asset may override any key
  temperature:
    unit: degC
    range: [-50, 400]            # outside: Bad, reason RANGE
    warn_range: [0, 150]         # outside: Uncertain, reason WARN_RANGE
    rate_limit: 5                # unit per second; beyond: Uncertain, reason RATE
    spike: 20%                   # of the last good value, or an absolute "10 degC"; Uncertain, SPIKE
    zscore: 3.0                  # against the last `window` good samples; Uncertain, ZSCORE
    window: 100
    stuck: 10m                   # no change for so long: Uncertain, STUCK
    stale: 5s                    # no sample for so long: Uncertain then Bad, STALE
    every: 1s                    # cycle tier (critical 1s, auxiliary 5s, analysers 60s)
    noise: 0.5                   # measurement standard deviation, in unit
    rate_noise: 0.05             # how fast the rate wanders, unit/s per sqrt(s); documented default

assets:
  R101:
    model: stirred_tank          # optional; every parameter has a documented default
    tags: [temperature, pressure, flow_rate]
    measures: {temperature: temperature}   # model output: tag; equal names by default
    parameters: {mass_kg: 1000, heat_capacity_j_per_kg_k: 4200}

store: {type: local}             # default, embedded
log: {type: local, keep: 24h, max_size: 10GB}          # default; or memory, or kafka
web: {host: 127.0.0.1, port: 8800}
"""

SMALL = """\
plant: small
sources:
  field:
    type: mqtt
    url: mqtt://localhost
    topics:
      "{asset}/{tag}": {}
tags:
  temperature:
    unit: degC
    range: [-50, 400]
  pressure: {unit: bar}
assets:
  R101:
    model: stirred_tank
    tags: [temperature, pressure]
"""


def loaded(folder: Path, text: str | bytes, **env: str) -> PlantConfig:
    path = folder / "plant.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, env)


def refusal(folder: Path, text: str | bytes, **env: str) -> list[str]:
    """The lines of the error, without the folder in front of them."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, **env)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_the_plant_file_of_the_interface_loads(tmp_path: Path) -> None:
    config = loaded(tmp_path, INTERFACE, MQTT_USER="operator", MQTT_PASSWORD="0123")
    field, dcs = config.sources["field"], config.sources["dcs"]
    assert isinstance(field, MqttSourceConfig)
    assert isinstance(dcs, OpcuaSourceConfig)
    assert field.username == "operator"
    assert field.password is not None
    assert field.password.get_secret_value() == "0123"
    assert config.data_dir == tmp_path / "demo-data"
    assert [node.address for node in nodes_of(config, dcs)] == ["ns=2;s=Reactor.R101.Temperature.PV"]
    tag = tags_of(config)[0]
    assert (tag.name, tag.low, tag.high, tag.spike_fraction) == ("R101.temperature", -50, 400, 0.2)
    assert (tag.stuck_ns, tag.stale_ns) == (600 * 10**9, 5 * 10**9)
    assert measures_of(config, "R101", MODELS["stirred_tank"]) == {"temperature": "R101.temperature"}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads_without_a_warning(example: Path) -> None:
    assert read(example, {}).warnings == ()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("range: [", "rnage: ["),
            "plant.yaml:11: tags.temperature.rnage: unknown key; did you mean 'range'?",
        ),
        (
            ("unit: bar", "unit: bra"),
            "plant.yaml:12: tags.pressure.unit: unknown unit 'bra'; did you mean 'bar'?",
        ),
        (
            ("unit: degC", "unit: bar"),
            (
                "plant.yaml:16: assets.R101.tags.temperature: tag 'temperature' cannot show "
                "the model's temperature: unit 'bar' cannot become 'K': "
                "[length]^-1 [mass] [time]^-2 is not [temperature]; or write `measures: {temperature: off}`"
            ),
        ),
        (
            ("stirred_tank", "stired_tank"),
            "plant.yaml:15: assets.R101.model: unknown model 'stired_tank'; did you mean 'stirred_tank'?",
        ),
        (
            (", pressure]", ", presure]"),
            (
                "plant.yaml:16: assets.R101.tags.presure: tag 'presure' is not defined under `tags`; "
                "did you mean 'pressure'?"
            ),
        ),
        (
            ("type: mqtt", "type: mqqt"),
            "plant.yaml:4: sources.field.type: expected mqtt or opcua, got 'mqqt'; did you mean 'mqtt'?",
        ),
        (("type: mqtt", "qos: 1"), "plant.yaml:3: sources.field.type: missing; it must be mqtt or opcua"),
        (
            ("url: mqtt://localhost", "qos: 2"),
            "plant.yaml:3: sources.field.url: missing; it must be given",
        ),
        (
            ("[-50, 400]", "[400, -50]"),
            "plant.yaml:11: tags.temperature.range: the low end 400 is not below the high end -50",
        ),
        (("[-50, 400]", "[a, 4]"), "plant.yaml:11: tags.temperature.range: expected a number, got 'a'"),
        (
            ("[-50, 400]", "5"),
            "plant.yaml:11: tags.temperature.range: expected two numbers [low, high], got 5",
        ),
        (
            ('"{asset}/{tag}": {}', '"{asset}/{tga}": {}'),
            'plant.yaml:7: sources.field.topics."{asset}/{tga}": {tga} is unknown; did you mean {tag}?',
        ),
        (("plant: small", "# none"), "plant.yaml:1: plant: missing; it must be given"),
        (("plant: small", "plant: 7"), "plant.yaml:1: plant: expected text, got 7; put it in quotes"),
        (
            ("mqtt://localhost", "http://localhost"),
            "plant.yaml:5: sources.field.url: expected mqtt://HOST:PORT or mqtts://HOST:PORT, got 'http://localhost'",
        ),
        (
            ("plant: small", "plant: small\nlog: {type: kafka}"),
            "plant.yaml:2: log.type: 'kafka' is not available in this version; expected local or memory",
        ),
        (
            ("    model: stirred_tank\n", "    model: stirred_tank\n    parameters: {mas_kg: 1}\n"),
            (
                "plant.yaml:16: assets.R101.parameters.mas_kg: model stirred_tank has no parameter 'mas_kg'; "
                "did you mean 'mass_kg'?"
            ),
        ),
        (
            ("    model: stirred_tank\n", "    model: stirred_tank\n    measures: {temprature: pressure}\n"),
            (
                "plant.yaml:16: assets.R101.measures.temprature: model stirred_tank has no output or input "
                "'temprature'; did you mean 'temperature'?"
            ),
        ),
        (
            ("  pressure:", "  temperature: {}\n  pressure:"),
            "plant.yaml:12: tags.temperature: duplicate key 'temperature'; it is also on line 9",
        ),
    ],
)
def test_one_mistake_is_one_line_with_its_place_and_a_way_out(
    tmp_path: Path, change: tuple[str, str], line: str
) -> None:
    assert change[0] in SMALL
    assert refusal(tmp_path, SMALL.replace(*change, 1)) == [line]


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = SMALL.replace("mqtt://localhost", "mqtt:/localhost").replace("range:", "rnage:")
    text = (
        text.replace("unit: bar", "unit: bra").replace("stirred_tank", "tank").replace("{asset}/", "{aset}/")
    )
    text = text.replace("field:", "field:\n    password: ${PASSWORD}")
    lines = refusal(tmp_path, text)
    assert [line.split(": ")[0] for line in lines] == [f"plant.yaml:{n}" for n in (4, 6, 8, 12, 13, 16)]
    assert [line.split(": ")[1].rsplit(".", 1)[-1] for line in lines] == [
        "password",
        "url",
        '"{aset}/{tag}"',
        "rnage",
        "unit",
        "model",
    ]


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ('"ns=2;x=A": {tag: pressure, asset: R101}', "expected i=, s=, g= or b="),
        ('"ns=2;s=A": pressure', "does not say which asset"),
        ('"ns=2;s={asset}": {tag: pressure, asset: R101}', "leave one out"),
        ('"ns=2;s={asset}.{tag}": pressure', "knows {asset} only"),
        ('"ns=2;s=A": {tag: pressure, asset: R11}', "unknown asset 'R11'; did you mean 'R101'?"),
        ('"ns=2;s={asset}": presure', "unknown tag 'presure'; did you mean 'pressure'?"),
        ('"ns=2;s=A": {tag: level, asset: R101}', "asset 'R101' has no tag 'level'"),
        ('"ns=2;s={asset}": {tag: pressure, aset: R101}', "unknown key; did you mean 'asset'?"),
    ],
)
def test_a_node_that_leads_nowhere_is_named(tmp_path: Path, node: str, problem: str) -> None:
    source = f"  dcs:\n    type: opcua\n    url: opc.tcp://localhost\n    nodes:\n      {node}\n"
    (line,) = refusal(tmp_path, SMALL.replace("tags:\n", f"{source}tags:\n", 1))
    assert line.startswith("plant.yaml:12: sources.dcs.nodes.")
    assert problem in line


def test_an_inputs_namesake_of_another_unit_is_left_out_and_an_outputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text(SMALL.replace("unit: bar", "unit: kg/h"))
    (warning,) = read(path, {}).warnings
    assert warning.endswith("the model does not use it as its pressure: its unit 'kg/h' cannot become 'Pa'")
    (line,) = refusal(tmp_path, SMALL.replace("    unit: degC\n", ""))
    assert "tag 'temperature' cannot show the model's temperature: unit '' cannot become 'K'" in line


def test_what_is_hardly_meant_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text(
        SMALL.replace('"{asset}/{tag}"', '"{asset}/temperature/{tag}"').replace(", pressure]", ", level]")
    )
    warnings = [line.removeprefix(f"{tmp_path}/") for line in read(path, {}).warnings]
    assert "plant.yaml:12: tags.pressure: no asset has this tag" in warnings
    assert "plant.yaml:16: assets.R101.tags.level: has no rules under `tags`: no unit, no limits" in warnings


def test_variables_fill_texts_and_typed_fields_and_cannot_add_structure(tmp_path: Path) -> None:
    text = SMALL.replace("mqtt://localhost", "mqtt://${HOST:-broker}:${PORT}") + "web: {port: '${WEB}'}\n"
    text = text.replace("unit: bar", 'unit: bar, spike: "${SPIKE}"').replace(
        "topics:", 'username: "$${x}"\n    insecure: true\n    topics:'
    )
    config = loaded(tmp_path, text, PORT="1999", WEB="8080", SPIKE="10%")
    source = config.sources["field"]
    assert (source.url, source.username) == ("mqtt://broker:1999", "${x}")
    assert config.web is not None
    assert config.web.port == 8080
    lines = refusal(tmp_path, text, PORT="1999", WEB="8080}\nlog: {type: memory", SPIKE="1")
    assert lines == [
        "plant.yaml:19: web.port: expected a whole number from 0 to 65535, got what the environment gives"
    ]


@pytest.mark.parametrize(
    ("place", "with_variable"),
    [
        ("unit: degC", "unit: ${SECRET}"),
        ("type: mqtt", "type: ${SECRET}"),
        ("model: stirred_tank", "model: ${SECRET}"),
        ("tags: [temperature, pressure]", "tags: [temperature, '${SECRET}']"),
        ("plant: ", "${SECRET}: "),
        ("type: mqtt", "type: x${SECRET}"),
    ],
)
def test_what_a_variable_gives_is_in_no_message(tmp_path: Path, place: str, with_variable: str) -> None:
    assert place in SMALL
    text = SMALL.replace(place, with_variable, 1)
    path = tmp_path / "plant.yaml"
    path.write_text(text)
    for secret in ("hunter2-hunter2", "h2/"):
        try:
            said = "\n".join(read(path, {"SECRET": secret}).warnings)
        except ConfigError as error:
            said = str(error)
        assert said
        assert secret not in said


def test_a_variable_that_is_not_set_is_named_with_its_place(tmp_path: Path) -> None:
    text = SMALL.replace("localhost", "${HOST}").replace("unit: bar", "unit: '${}'")
    assert refusal(tmp_path, text, HOSTS="x") == [
        "plant.yaml:5: sources.field.url: environment variable HOST is not set; did you mean 'HOSTS'?",
        "plant.yaml:12: tags.pressure.unit: expected ${NAME} or ${NAME:-default}; write $${ for a plain ${",
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=6, max_size=20),
    place=st.sampled_from(
        ["    password: {}", "    password: [{}]", "    pasword: {}", "    username: u\n    password: {}"]
    ),
    quote=st.sampled_from(["'", '"', ""]),
    inherited=st.booleans(),
)
def test_a_secret_is_in_no_message_and_no_repr(
    tmp_path: Path, secret: str, place: str, quote: str, *, inherited: bool
) -> None:
    text = place.format("${SECRET}" if inherited else f"{quote}{secret}{quote}")
    broken = SMALL.replace("    type: mqtt\n", f"    type: mqtt\n{text}\n    qos: 7\n")
    whole = SMALL.replace("    type: mqtt\n", f"    type: mqtt\n{text}\n")
    assert not any(secret in line for line in refusal(tmp_path, broken, SECRET=secret))
    try:
        shown = repr(loaded(tmp_path, whole, SECRET=secret))
    except ConfigError as error:
        shown = str(error)
    assert secret not in shown


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://u:hunter2@localhost",
        "mqtt:/u:hunter2@localhost",
        "mqtt//u:hunter2@localhost",
        "mqt://u:hunter2@localhost",
        "mqtt://u:hunter2/@localhost",
    ],
)
def test_a_password_in_the_url_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    (line,) = refusal(tmp_path, SMALL.replace("mqtt://localhost", url))
    assert "username and password" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", "plant.yaml: the file is empty; a plant file begins with `plant: NAME`"),
        (b"# nothing\n", "plant.yaml: the file is empty; a plant file begins with `plant: NAME`"),
        (b"- a\n", "plant.yaml:1: expected keys and values (`plant: NAME`), got a list"),
        (b"plant: a\nx: \xff\n", "plant.yaml:2: byte 0xff is not UTF-8; save it as UTF-8"),
        (b"plant: a\n\tweb: off\n", "plant.yaml:2: a tab; YAML is indented by spaces"),
        (
            b"plant: a\nweb: {port: 1\n",
            "plant.yaml:2: this does not fit the lines above: check indentation, quotes, brackets and commas",
        ),
        (b"plant: 'a\n", "plant.yaml:1: a quoted text does not end, or has an unknown escape in it"),
        (b"plant: {a: ${B}}\n", "plant.yaml:1: inside { } or [ ] a text with ${NAME} must be in quotes"),
        (b"plant: a\n---\nplant: b\n", "plant.yaml:2: a second document (---); a plant file is one"),
        (
            b"plant: *s3cret\n",
            "plant.yaml:1: an alias (*NAME) without its anchor; put text that begins with * in quotes",
        ),
        (b"plant: a\x00b\n", "plant.yaml:1: a control character has no place in YAML"),
        (
            b"plant: a: b\n",
            "plant.yaml:1: a colon where none may stand: check the indentation, or put the text in quotes",
        ),
        (
            b"plant: !!python/object/apply:os.system [id]\n",
            "plant.yaml:1: plant: a YAML tag (!NAME) is not allowed; quote text that begins with !",
        ),
        (b"plant: a\ntags: &t {x: *t}\n", "plant.yaml:2: nested more than 32 deep, or an alias of itself"),
        (b"plant: " + b"[" * 5000, "plant.yaml: nested too deeply"),
        (b"plant: a\n? [b]\n: c\n", "plant.yaml:2: a key must be a plain text"),
    ],
)
def test_a_file_that_is_no_plant_file_is_refused_in_one_line(tmp_path: Path, text: bytes, line: str) -> None:
    assert refusal(tmp_path, text) == [line]


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "once aliases are expanded" in refusal(tmp_path, "\n".join(bomb))[0]


def test_anchors_and_merges_save_repetition(tmp_path: Path) -> None:
    text = SMALL.replace("    unit: degC\n", "    &warm\n    unit: degC\n", 1).replace(
        "  pressure: {unit: bar}", "  pressure: {<<: *warm, unit: bar}"
    )
    text = text.replace("temperature:\n    &warm", "temperature: &warm")
    config = loaded(tmp_path, text)
    assert (config.tags["pressure"].unit, config.tags["pressure"].range) == ("bar", (-50, 400))


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_path_that_cannot_be_read_is_a_refusal(tmp_path: Path, name: str) -> None:
    (tmp_path / "missng.yaml").touch()
    with pytest.raises(ConfigError, match=r"did you mean 'missng.yaml'|is a folder"):
        load(tmp_path / name, {})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text("ab:{}[]&*!|>-#'\"\n ${}%@", max_size=80).map(str.encode)))
def test_any_bytes_are_a_plant_file_or_a_refusal(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError):  # none of these has a `plant` key
        load(path, {})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_taken_or_refused_in_words(tmp_path: Path, data: st.DataObject) -> None:
    words = [
        "5",
        "-1",
        "abc",
        "off",
        "null",
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "1e400",
        ".nan",
        "true",
        "20%",
        "''",
    ]
    lines = SMALL.splitlines()
    row = data.draw(st.integers(0, len(lines) - 1))
    key = lines[row].partition(": ")[0].rstrip(":")
    kept = lines[row + 1 :]
    depth = len(key) - len(key.lstrip())
    while kept and len(kept[0]) - len(kept[0].lstrip()) > depth:
        kept.pop(0)
    text = "\n".join([*lines[:row], f"{key}: {data.draw(st.sampled_from(words))}", *kept])
    shown = ""
    try:
        loaded(tmp_path, text)
    except ConfigError as error:
        shown = str(error)
    assert all(line.startswith(f"{tmp_path}/plant.yaml:") for line in shown.splitlines())
