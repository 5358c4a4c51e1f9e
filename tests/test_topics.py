"""Which topics a pattern subscribes to, and which tag an address means."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.sources.mqtt.payloads import PayloadOptions, Sample
from twinloop.sources.mqtt.topics import Names, TopicMap, TopicPattern, TopicRule

REACTOR = TopicPattern("reactor/{asset}/sensor/{tag}")
BY_PAYLOAD = PayloadOptions(fields={"tag": "name", "asset": "device"})
ODD = (
    "reactor/{asset}/sensor/{tag}",
    "{asset}/{tag}",
    "+/{asset}-{tag}/#",
    "#",
    "a.{tag}.b/{asset}",
    "$SYS/{asset}/{tag}",
    "$share/g/{asset}/{tag}",
)
topics = st.lists(st.text("aR1/+#$-. {}\0é\ud800", max_size=6), max_size=6).map("/".join) | st.text(
    max_size=20
)
names = st.text(
    st.characters(exclude_characters="/+#.{}\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)


def rule(text: str, *, asset: str = "", tag: str = "", payload: PayloadOptions | None = None) -> TopicRule:
    """A pattern with its options."""
    return TopicRule(TopicPattern(text, asset=asset, tag=tag), payload)


def test_names_stand_where_the_pattern_has_them() -> None:
    assert REACTOR.subscription == "reactor/+/sensor/+"
    assert REACTOR.names("reactor/R101/sensor/temperature") == Names("R101", "temperature")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "reactor",
        "reactor/R101/sensor",
        "reactor/R101/sensor/temperature/raw",
        "reactor//sensor/temperature",
        "reactor/R101/sensor/",
        "/reactor/R101/sensor/temperature",
        "Reactor/R101/sensor/temperature",
    ],
)
def test_a_topic_of_another_shape_is_not_of_the_pattern(topic: str) -> None:
    assert REACTOR.names(topic) is None


@pytest.mark.parametrize(
    ("text", "subscription", "topic", "found"),
    [
        ("plant/{asset}-{tag}/v", "plant/+/v", "plant/R101-flow-rate/v", Names("R101", "flow-rate")),
        ("{tag}@{asset}", "+", "flow@R1", Names("R1", "flow")),
        ("p/x{asset}y/{tag}", "p/+/+", "p/xR1y/t", Names("R1", "t")),
        ("+/{asset}/{tag}", "+/+/+", "any/R1/t", Names("R1", "t")),
        ("{asset}/{tag}/#", "+/+/#", "R1/t/a/b/c", Names("R1", "t")),
        ("{asset}/{tag}/#", "+/+/#", "R1/t", Names("R1", "t")),
        ("$share/twins/{asset}/{tag}", "$share/twins/+/+", "R1/t", Names("R1", "t")),
        (
            "Ünïcode/{asset}/{tag}",
            "Ünïcode/+/+",
            "Ünïcode/反応器/température",
            Names("反応器", "température"),
        ),
    ],
)
def test_placeholders_may_share_a_level_and_stand_beside_wildcards(
    text: str, subscription: str, topic: str, found: Names
) -> None:
    pattern = TopicPattern(text)
    assert (pattern.subscription, pattern.names(topic)) == (subscription, found)


@pytest.mark.parametrize("topic", ["plant/R101/v", "plant/-flow/v", "plant/R101-/v", "plant/-/v"])
def test_each_name_in_a_shared_level_needs_a_character(topic: str) -> None:
    assert TopicPattern("plant/{asset}-{tag}/v").names(topic) is None


def test_wildcards_do_not_reach_the_brokers_own_topics() -> None:
    assert TopicPattern("{asset}/{tag}").names("$SYS/uptime") is None
    assert TopicPattern("#").names("$SYS/uptime") is None
    assert TopicPattern("$SYS/{tag}", asset="broker").names("$SYS/uptime") == Names("broker", "uptime")


def test_asset_and_tag_may_be_fixed_where_the_topic_does_not_have_them() -> None:
    mapped = TopicMap([rule("boiler/temp", asset="R101", tag="temperature"), rule("r2/{tag}", asset="R102")])
    assert mapped.subscriptions == ("boiler/temp", "r2/+")
    assert mapped.name_of("boiler/temp") == "R101.temperature"
    assert mapped.name_of("r2/level") == "R102.level"
    assert mapped.name_of("r3/level") is None


def test_the_first_pattern_that_fits_decides() -> None:
    special = rule("reactor/R101/sensor/{tag}", asset="R999")
    mapped = TopicMap([special, rule("reactor/{asset}/sensor/{tag}")])
    assert mapped.name_of("reactor/R101/sensor/level") == "R999.level"
    assert mapped.name_of("reactor/R102/sensor/level") == "R102.level"
    assert mapped.match("reactor/R101/sensor/level") is special


def test_equal_filters_are_subscribed_to_once() -> None:
    mapped = TopicMap([rule("x/{asset}/{tag}"), rule("x/{tag}/{asset}"), rule("y/{asset}/{tag}")])
    assert mapped.subscriptions == ("x/+/+", "y/+/+")


@pytest.mark.parametrize(
    ("made", "sample", "name"),
    [
        (rule("all", payload=BY_PAYLOAD), Sample(1.0, tag="flow", asset="R1"), "R1.flow"),
        (
            rule("all/{asset}", payload=PayloadOptions(fields={"tag": "n"})),
            Sample(1.0, tag="flow"),
            "R9.flow",
        ),
        (
            rule("all/R9", tag="flow", payload=PayloadOptions(fields={"asset": "n"})),
            Sample(1.0, asset="R1"),
            "R1.flow",
        ),
        (rule("all", payload=PayloadOptions(fields={"tag": "n"})), Sample(1.0, tag="R1.flow"), "R1.flow"),
    ],
)
def test_an_address_carries_what_the_payload_named(made: TopicRule, sample: Sample, name: str) -> None:
    topic = made.pattern.text.replace("{asset}", "R9")
    address = made.address(topic, sample)
    assert address.startswith(f"{topic}#")
    assert TopicMap([made]).name_of(address) == name
    assert TopicMap([made]).name_of(topic) is None


def test_the_topic_of_a_tag_is_where_it_is_expected() -> None:
    mapped = TopicMap([rule("a/temp", asset="R1", tag="t"), rule("b/+/{asset}/{tag}/#")])
    assert mapped.topic_of("R1.t") == "a/temp"
    assert mapped.topic_of("R1.level") == "b/+/R1/level/#"
    assert TopicMap([rule("a/temp", asset="R1", tag="t")]).topic_of("R2.t") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a/#/{asset}/{tag}", "last level"),
        ("a/x+/{asset}/{tag}", "part of level"),
        ("a/{asset}#/{tag}", "part of level"),
        ("a/{asset}/{tga}", r"did you mean \{tag\}"),
        ("a/{}/{tag}", "unknown"),
        ("a/{asset/{tag}", "braces"),
        ("{asset}/{asset}/{tag}", "twice"),
        ("{asset}{tag}", "between"),
        ("a\0/{asset}/{tag}", "NUL"),
        ("a" * 70_000 + "/{asset}/{tag}", "longer"),
        ("$share/x", "GROUP"),
        ("a/{asset}", "which tag"),
        ("a/{tag}", "which asset"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rule(text)


def test_what_the_topic_names_cannot_be_named_a_second_time() -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        rule("{asset}/{tag}", asset="R1")
    with pytest.raises(ConfigError, match="both topic and payload name the tag"):
        rule("{asset}/{tag}", payload=PayloadOptions(fields={"tag": "n"}))


@given(topic=topics)
def test_no_topic_however_hostile_does_more_than_lead_nowhere(topic: str) -> None:
    for text in ODD:
        found = TopicPattern(text).names(topic)
        assert found is None or "/" not in found.asset + found.tag
    mapped = TopicMap([rule("{asset}/{tag}"), rule("#", payload=BY_PAYLOAD)])
    name = mapped.name_of(topic)
    assert name is None or name


@given(asset=names, tag=names)
def test_a_topic_made_from_names_gives_them_back(asset: str, tag: str) -> None:
    for text in ("reactor/{asset}/sensor/{tag}", "{tag}/x{asset}y", "a/{asset}"):
        pattern = TopicPattern(text, tag="" if "{tag}" in text else tag)
        topic = pattern.topic_of(Names(asset, tag))
        if topic is not None and not topic.startswith("$"):
            assert pattern.names(topic) == Names(asset, tag)


@pytest.mark.timeout(20)
def test_a_topic_as_long_as_mqtt_allows_is_read_in_linear_time() -> None:
    """Many separators in one level must not make it try every way to split."""
    assert TopicPattern("{asset}-{tag}z/end").names("-" * 65_000 + "/end") is None


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "+", "#"]), min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_a_filter_is_left_out_only_when_another_brings_all_its_topics(levels: list[list[str]]) -> None:
    texts = [
        "/".join([*(each for each in one if each != "#"), *(["#"] if "#" in one else [])]) for one in levels
    ]
    rules = [TopicRule(TopicPattern(text, asset="A", tag="t")) for text in texts]
    kept = TopicMap(rules).subscriptions
    assert len(set(kept)) == len(kept)
    for length in range(1, 5):
        for topic in itertools.product("abc", repeat=length):
            heard = "/".join(topic)
            wanted = any(rule.pattern.names(heard) for rule in rules)
            brought = [text for text in kept if TopicPattern(text, asset="A", tag="t").names(heard)]
            assert bool(brought) == wanted


def test_a_pattern_within_a_wider_one_is_not_subscribed_to_twice() -> None:
    special, general = TopicPattern("p/{asset}/flow", tag="f"), TopicPattern("p/{asset}/{tag}")
    topics = TopicMap([TopicRule(special), TopicRule(general)])
    assert topics.subscriptions == ("p/+/+",)
    assert topics.name_of("p/A/flow") == "A.f"
