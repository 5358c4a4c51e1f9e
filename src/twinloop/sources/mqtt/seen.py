"""What `twinloop check` hears of each tag that an MQTT source should feed."""

from __future__ import annotations

from collections.abc import Sequence

from twinloop.batch import NO_TIME
from twinloop.sources.mqtt.intake import Outcome
from twinloop.sources.mqtt.topics import TopicMap
from twinloop.sources.source import Reading
from twinloop.status import severity_name

__all__ = ["Seen"]


class Seen:
    """What was heard of each expected tag.

    Args:
        topics: which tags the topics mean.
        expected: full names of the tags the source should feed.
    """

    def __init__(self, topics: TopicMap, expected: Sequence[str]) -> None:
        self._topics = topics
        self._expected = tuple(expected)
        self._good: dict[str, Reading] = {}
        self._bad: dict[str, Reading] = {}
        self._strangers: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether every expected tag was read."""
        return all(name in self._good for name in self._expected)

    def add(self, arrival: int, outcome: Outcome) -> None:
        """Take note of one outcome of a message."""
        name = self._topics.name_of(outcome.address) or ""
        if name not in self._expected:
            if len(self._strangers) < 3:
                self._strangers[outcome.address] = outcome.detail
            return
        sample = outcome.sample
        if sample is None:
            self._bad[name] = Reading(outcome.address, name, problem=outcome.detail)
            return
        reading = Reading(
            address=outcome.address,
            tag=name,
            value=repr(sample.value),
            unit=sample.unit,
            status=severity_name(sample.status),
            time_ns=arrival if sample.time == NO_TIME else sample.time,
            problem=outcome.detail if outcome.reason else "",
        )
        (self._bad if reading.problem else self._good)[name] = reading

    def readings(self, timeout_s: float) -> list[Reading]:
        """One for each expected tag, in their order."""
        return [
            self._good.get(name) or self._bad.get(name) or self._missing(name, timeout_s)
            for name in self._expected
        ]

    def _missing(self, name: str, timeout_s: float) -> Reading:
        topic = self._topics.topic_of(name)
        if topic is None:
            return Reading("", name, problem="no topic of the source leads to this tag")
        problem = f"no message within {timeout_s:g} s"
        if self._strangers:
            problem += f" (heard instead: {', '.join(self._strangers)})"
        return Reading(topic, name, problem=problem)
