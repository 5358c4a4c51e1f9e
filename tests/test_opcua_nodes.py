"""NodeIds as written in plant files."""

from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.sources.opcua.nodes import NodeAddress

NAMESPACES = ("http://opcfoundation.org/UA/", "urn:server", "urn:plant", "http://a;b/%")


@pytest.mark.parametrize(
    ("text", "identifier", "index"),
    [
        ("ns=2;s=Reactor.R101.Temperature.PV", "Reactor.R101.Temperature.PV", 2),
        ("i=2258", 2258, 0),
        ("ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a", uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a"), 1),
        ("ns=1;b=" + base64.b64encode(b"\0\1").decode(), b"\0\1", 1),
        ("nsu=urn:plant;i=7", 7, 2),
        ("nsu=http://a%3Bb/%25;s=x", "x", 3),
    ],
)
def test_every_form_resolves_in_the_servers_namespaces(text: str, identifier: object, index: int) -> None:
    node = NodeAddress.parse(text).resolve(NAMESPACES)
    assert (node.Identifier, node.NamespaceIndex) == (identifier, index)


@given(st.text(min_size=1), st.integers(0, 65535))
def test_a_string_identifier_may_contain_anything(name: str, index: int) -> None:
    address = NodeAddress.parse(f"ns={index};s={name}x")
    assert (address.identifier, address.index) == (f"{name}x".rstrip(), index)


def test_a_namespace_the_server_lacks_is_named() -> None:
    with pytest.raises(LookupError, match="no namespace urn:elsewhere"):
        NodeAddress.parse("nsu=urn:elsewhere;i=1").resolve(NAMESPACES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Temperature", "expected i="),
        ("ns=x;i=1", "ns= must be"),
        ("ns=70000;i=1", "ns= must be"),
        ("i=-1", "i= must be"),
        ("i=4294967296", "i= must be"),
        ("g=1234", "not a GUID"),
        ("b=***", "not base64"),
        ("s=", "nothing after s="),
        ("nsu=;s=a", "names no namespace"),
    ],
)
def test_what_is_no_node_id_is_refused_with_the_text_and_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        NodeAddress.parse(text)
    assert repr(text) in str(caught.value)
