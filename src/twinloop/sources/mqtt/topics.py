"""Topic patterns: which topics to subscribe to, and which tag an address means.

A pattern is a topic with `{asset}` and `{tag}` where the names stand, `+` for any level and `#` for the
rest: `reactor/{asset}/sensor/{tag}`. A placeholder may share its level with text (`plant/{asset}-{tag}/v`).

The *address* of a sample is its topic; where the payload carries a name (`fields: {tag: ...}` or
`{asset: ...}`), it is `TOPIC#NAME`, which no topic can be by itself. NAME is what the payload carries:
`ASSET.tag` when both, else the one of the two. So an address alone says which tag it leads to, also when
an old log is folded over a mended plant file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from twinloop.errors import ConfigError
from twinloop.sources.mqtt.payloads import PayloadDecoder, PayloadOptions, Sample

__all__ = ["Names", "TopicMap", "TopicPattern", "TopicRule"]

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_KNOWN: Final = ("asset", "tag")
_MAX_TOPIC_BYTES: Final = 65_535
_CARRIED: Final = "#"


class Names(NamedTuple):
    """What a topic says; empty where it says nothing."""

    asset: str = ""
    tag: str = ""


class TopicPattern:
    """A pattern that gives the filter to subscribe to and reads asset and tag from a topic.

    Args:
        text: the pattern as in the plant file. `$share/GROUP/` in front asks the broker to share the load.
        asset: fixed asset of a pattern without `{asset}`.
        tag: fixed tag of a pattern without `{tag}`.

    Raises:
        ConfigError: it is no valid topic filter, or names a placeholder that does not exist.

    >>> pattern = TopicPattern("reactor/{asset}/sensor/{tag}")
    >>> pattern.subscription, pattern.names("reactor/R101/sensor/temperature")
    ('reactor/+/sensor/+', Names(asset='R101', tag='temperature'))
    """

    def __init__(self, text: str, *, asset: str = "", tag: str = "") -> None:
        self.text = text
        self._fixed = Names(asset, tag)
        _check_text(text)
        share, levels = _split_share(text)
        self._levels = [_Level.parse(level, text) for level in levels]
        self._open_end = bool(self._levels) and self._levels[-1].wildcard == "#"
        placed = [name for level in self._levels for name in level.names]
        for name in _KNOWN:
            if placed.count(name) > 1:
                raise ConfigError(f"topic {text!r}: {{{name}}} stands in it twice")
            if name in placed and getattr(self._fixed, name):
                raise ConfigError(f"topic {text!r} has {{{name}}} and the option `{name}`: leave one out")
        if any(level.wildcard == "#" for level in self._levels[:-1]):
            raise ConfigError(f"topic {text!r}: `#` may only be the last level")
        self.placeholders = frozenset(placed)
        self.subscription = "/".join([*share, *(level.filter for level in self._levels)])

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"

    def names(self, topic: str) -> Names | None:
        """Asset and tag a topic of this pattern means, or None where the topic is not of this pattern."""
        levels = topic.split("/")
        own = self._levels[:-1] if self._open_end else self._levels
        if len(levels) != len(own) and not (self._open_end and len(levels) > len(own)):
            return None
        if topic.startswith("$") and not (own and own[0].is_literal):
            return None  # wildcards do not reach into the broker's own topics
        found: dict[str, str] = {}
        for level, heard in zip(own, levels, strict=False):
            if not level.read(heard, found):
                return None
        return Names(found.get("asset", self._fixed.asset), found.get("tag", self._fixed.tag))

    def topic_of(self, names: Names) -> str | None:
        """The topic on which these names are heard (wildcards stand for themselves), or None."""
        for name in _KNOWN:
            fixed = getattr(self._fixed, name)
            if fixed and getattr(names, name) and fixed != getattr(names, name):
                return None
        topic = "/".join(level.fill(names) for level in self._levels)
        return topic if "{" not in topic else None


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a pattern: `texts[0] {names[0]} texts[1] {names[1]} texts[2]`, or a wildcard."""

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()
    wildcard: str = ""

    @classmethod
    def parse(cls, level: str, pattern: str) -> _Level:
        if level in {"+", "#"}:
            return cls((), (), level)
        parts = _PLACEHOLDER.split(level)
        texts, names = tuple(parts[::2]), tuple(parts[1::2])
        for name in names:
            if name not in _KNOWN:
                near = difflib.get_close_matches(name, _KNOWN, 1)
                hint = f"; did you mean {{{near[0]}}}?" if near else "; valid are {asset} and {tag}"
                raise ConfigError(f"topic {pattern!r}: {{{name}}} is unknown{hint}")
        for text in texts:
            if set(text) & set("+#{}"):
                raise ConfigError(f"topic {pattern!r}: `+`, `#` and braces cannot be part of level {level!r}")
        if len(names) == 2 and not texts[1]:
            raise ConfigError(f"topic {pattern!r}: something must stand between the names in {level!r}")
        return cls(texts, names)

    @property
    def filter(self) -> str:
        return self.wildcard or ("+" if self.names else self.texts[0])

    @property
    def is_literal(self) -> bool:
        return not self.wildcard and not self.names

    def read(self, heard: str, found: dict[str, str]) -> bool:
        """Whether a level of a topic fits; its names go into `found`, the first as short as can be."""
        if self.wildcard:
            return True
        if not self.names:
            return heard == self.texts[0]
        first, last = self.texts[0], self.texts[-1]
        if len(heard) < len(first) + len(last) or not (heard.startswith(first) and heard.endswith(last)):
            return False
        middle = heard[len(first) : len(heard) - len(last)]
        if len(self.names) == 1:
            found[self.names[0]] = middle
            return bool(middle)
        # From 1 on: a name has at least one character.
        cut = middle.find(self.texts[1], 1)
        if cut < 0:
            return False
        found[self.names[0]], found[self.names[1]] = middle[:cut], middle[cut + len(self.texts[1]) :]
        return bool(found[self.names[1]])

    def fill(self, names: Names) -> str:
        if self.wildcard:
            return self.wildcard
        shown = [getattr(names, name) or f"{{{name}}}" for name in self.names]
        return "".join(text + name for text, name in zip(self.texts, [*shown, ""], strict=True))


class TopicRule:
    """A pattern and how its payloads are read.

    Args:
        pattern: the topic pattern.
        options: how its payloads are written.

    Raises:
        ConfigError: nothing says which tag the samples belong to, or two things do.
    """

    def __init__(self, pattern: TopicPattern, options: PayloadOptions | None = None) -> None:
        self.pattern = pattern
        self.options = options or PayloadOptions()
        self.decoder = PayloadDecoder(self.options)
        self._carries = self.options.carries_tag or self.options.carries_asset
        fixed = pattern._fixed  # noqa: SLF001 - the two are one thing in two layers
        in_topic = {name for name in _KNOWN if name in pattern.placeholders or getattr(fixed, name)}
        for name, carried in (("asset", self.options.carries_asset), ("tag", self.options.carries_tag)):
            if carried and name in in_topic:
                raise ConfigError(f"topic {pattern.text!r}: both topic and payload name the {name}")
        if not self.options.carries_tag and "tag" not in in_topic:
            raise ConfigError(
                f"topic {pattern.text!r} does not say which tag: write {{tag}} in it, or set `tag`"
            )
        if not self.options.carries_tag and not self.options.carries_asset and "asset" not in in_topic:
            raise ConfigError(
                f"topic {pattern.text!r} does not say which asset: write {{asset}} in it, or set `asset`"
            )

    def address(self, topic: str, sample: Sample) -> str:
        """The address of a sample heard on `topic`."""
        if not self._carries:
            return topic
        return f"{topic}{_CARRIED}{'.'.join(name for name in (sample.asset, sample.tag) if name)}"

    def name_of(self, topic: str, carried: str) -> str | None:
        """The full tag name of an address split at its first `#`, or None where it is not of this rule."""
        names = self.pattern.names(topic)
        if names is None or bool(carried) != self._carries:
            return None
        parts = (names.asset, carried, names.tag)
        return ".".join(part for part in parts if part)

    def topic_of(self, name: str) -> str | None:
        """The topic on which a tag is expected, or None where it cannot be one of this rule's."""
        asset, _, tag = name.partition(".")
        topic = self.pattern.topic_of(Names(asset, tag))
        if topic is None or self._carries:
            return topic
        if "+" in topic or "#" in topic:
            return topic
        return topic if self.name_of(topic, "") == name else None


class TopicMap:
    """The topics of one source; the first pattern that fits decides.

    Args:
        rules: in the order of the plant file.
    """

    def __init__(self, rules: Iterable[TopicRule]) -> None:
        self.rules: Sequence[TopicRule] = tuple(rules)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters to subscribe to, in order; one whose topics another brings already is left out.

        A broker may deliver a message once for every filter it fits.
        """
        filters = list(dict.fromkeys(rule.pattern.subscription for rule in self.rules))
        return tuple(
            each for each in filters if not any(other != each and _covers(other, each) for other in filters)
        )

    @property
    def unshared(self) -> tuple[str, ...]:
        """The same for one who only listens: what a shared subscription gives is taken from others."""
        plain = ("/".join(_split_share(each)[1]) for each in self.subscriptions)
        return tuple(dict.fromkeys(plain))

    def match(self, topic: str) -> TopicRule | None:
        """The rule of a topic, or None."""
        return next((rule for rule in self.rules if rule.pattern.names(topic) is not None), None)

    def name_of(self, address: str) -> str | None:
        """The full tag name an address leads to, or None. Pure; any text is allowed.

        >>> rules = [TopicRule(TopicPattern("reactor/{asset}/sensor/{tag}"))]
        >>> TopicMap(rules).name_of("reactor/R101/sensor/temperature")
        'R101.temperature'
        """
        topic, _, carried = address.partition(_CARRIED)
        rule = self.match(topic)
        return rule.name_of(topic, carried) if rule else None

    def topic_of(self, name: str) -> str | None:
        """The topic on which a tag is expected, with wildcards where they are open, or None."""
        return next((topic for rule in self.rules if (topic := rule.topic_of(name)) is not None), None)


def _covers(wide: str, narrow: str) -> bool:
    """Whether every topic of one filter fits the other; shared subscriptions cover nothing else.

    >>> _covers("plant/+/+", "plant/+/flow"), _covers("plant/#", "plant"), _covers("+", "#")
    (True, True, False)
    """
    if wide.startswith("$") or narrow.startswith("$"):
        return False
    wide_levels, narrow_levels = wide.split("/"), narrow.split("/")
    for position, level in enumerate(wide_levels):
        if level == "#":
            return True
        if position == len(narrow_levels) or narrow_levels[position] == "#":
            return False
        if level not in {"+", narrow_levels[position]}:
            return False
    return len(wide_levels) == len(narrow_levels)


def _check_text(text: str) -> None:
    if not text:
        raise ConfigError("a topic is empty")
    if "\0" in text or len(text.encode(errors="replace")) > _MAX_TOPIC_BYTES:
        raise ConfigError(f"topic {text[:40]!r} is longer than MQTT allows or has a NUL in it")


def _split_share(text: str) -> tuple[list[str], list[str]]:
    levels = text.split("/")
    if levels[0] == "$share":
        if len(levels) < 3 or not levels[1] or set(levels[1]) & set("+#{}"):
            raise ConfigError(f"topic {text!r}: a shared subscription is $share/GROUP/TOPIC")
        return levels[:2], levels[2:]
    return [], levels
