"""The plant file with its secrets hidden: as it is written, but for what nobody may read.

Hidden is the value of every key that the configuration takes for a secret or that it calls like one, wherever
such a value stands again, what a comment says of such a key, and user names and passwords in addresses. What
comes from the environment stays as `${NAME}`, without its default.
"""

from __future__ import annotations

import io
import re
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twinloop.config.models import PlantConfig

__all__ = ["HIDDEN", "hidden", "secret_keys"]

HIDDEN: Final = "<hidden>"
_CALLED_SO: Final = re.compile(r"pass(word|wd|phrase)?|secret|token|credential|api_?key|hash", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_]\w*)(:-[^}]*)?\}", re.ASCII)
_TELLING: Final = 4
"""A shorter text may be part of any word, and is hidden only where it stands as a value."""


def hidden(raw: bytes) -> str:
    """A plant file's text without its secrets.

    Raises:
        ValueError: it cannot be read, so nobody knows what in it is secret.
    """
    text = raw.decode("utf-8-sig")
    try:
        root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    except Exception as error:
        raise ValueError("the plant file cannot be read") from error
    places: dict[int, tuple[int, str]] = {}
    secrets: set[str] = set()
    for node in _secrets(root):
        begin, end, value = node.start_mark.index, node.end_mark.index, str(node.value)
        told = _told(value) | _told(text[begin:end].strip("\"' \n"))
        if told:
            places[begin] = (end, _shown(value))
            secrets |= told
    shown = _replaced(text, places)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _TELLING:
            shown = shown.replace(secret, HIDDEN)
    return _without_userinfo(_without_comments_of_secrets(shown))


def _told(value: str) -> set[str]:
    """What a value says beside the names of variables: texts around them, and their defaults."""
    found = {each[2][2:] for each in _VARIABLE.finditer(value) if each[2]}
    return {each for each in (*found, *_VARIABLE.sub("\n", value).split("\n")) if each.strip()}


def _secrets(root: Node | None) -> Iterator[ScalarNode]:
    """The values of secret keys; of what is merged or repeated by an alias, where it is written."""
    seen: set[int] = set()
    left: list[tuple[Node, bool]] = [(root, False)] if root is not None else []
    while left:
        node, secret = left.pop()
        if isinstance(node, ScalarNode):
            if secret and str(node.value):
                yield node
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            left += [(each, secret) for each in node.value]
        elif isinstance(node, MappingNode):
            left += [(value, str(key.value) in secret_keys()) for key, value in node.value]


@cache
def secret_keys() -> frozenset[str]:
    """The keys of the configuration whose values are secrets, or that are called so."""
    found: set[str] = set()
    left: list[type[BaseModel]] = [PlantConfig]
    seen: set[type[BaseModel]] = set()
    while left:
        model = left.pop()
        seen.add(model)
        for name, field in model.model_fields.items():
            kinds = list(_parts(field.annotation))
            if SecretStr in kinds or (_CALLED_SO.search(name) and Path not in kinds):
                found.add(name)
            left += [
                each
                for each in kinds
                if isinstance(each, type) and issubclass(each, BaseModel) and each not in seen
            ]
    return frozenset(found)


def _parts(kind: Any) -> Iterator[Any]:
    """A type and the types it is made of."""
    yield kind
    for each in typing.get_args(kind):
        yield from _parts(each)


def _shown(value: str) -> str:
    """What stands in place of a secret: its variables, if it is nothing else."""
    if _VARIABLE.sub("", value).strip():
        return f'"{HIDDEN}"'
    names = (f"${{{found[1]}:-{HIDDEN}}}" if found[2] else found[0] for found in _VARIABLE.finditer(value))
    return '"' + "".join(names) + '"'


def _replaced(text: str, places: dict[int, tuple[int, str]]) -> str:
    parts, at = [], 0
    for begin in sorted(places):
        end, shown = places[begin]
        # A block (| or >) reaches to where the next key begins; what is around it stays.
        old = text[begin:end]
        parts += [text[at:begin], shown, old[len(old.rstrip()) :]]
        at = end
    return "".join([*parts, text[at:]])


def _without_comments_of_secrets(text: str) -> str:
    """Comments that name a secret key, without what follows it."""
    keys = "|".join(re.escape(key) for key in sorted(secret_keys(), key=len, reverse=True))
    named = re.compile(rf"(#.*?(?:{keys}|{_CALLED_SO.pattern})\w*)\b(.*)", re.IGNORECASE)
    return "\n".join(named.sub(rf"\1 {HIDDEN}", line) if "#" in line else line for line in text.split("\n"))


def _without_userinfo(text: str) -> str:
    return re.sub(r"://[^/\s@\"']*@", "://", text)
