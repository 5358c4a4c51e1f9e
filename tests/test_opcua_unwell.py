"""A server that refuses for now or goes round in circles: it is asked again later, and not without end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.uaerrors import UaStatusCodeError

from twinloop.errors import LinkError
from twinloop.sources.opcua.publish import Publisher


class Refusing:
    """Answers every Publish request at once with the same refusal."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def publish_raw(self, acks: list[ua.SubscriptionAcknowledgement]) -> Buffer:
        self.asked.append(len(acks))
        await asyncio.sleep(0)
        raise UaStatusCodeError(ua.StatusCodes.BadTimeout)


async def test_a_publish_request_refused_at_once_is_repeated_slowly_until_patience_ends() -> None:
    raw: Any = Refusing()
    publisher = Publisher(raw, "dcs", 0.02)
    publisher.watch(7, 0.2)
    publisher.acknowledge(7, 1)
    with pytest.raises(LinkError, match="subscription silent for"):
        async with asyncio.timeout(5):
            await anext(publisher.notifications())
    assert 3 <= len(raw.asked) <= 12
    assert sum(raw.asked) > 1  # what a failed request was to acknowledge goes with the next
