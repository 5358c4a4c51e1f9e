"""YAML into plain data that still knows its lines; nothing in a file can run code or grow without bound.

YAML 1.2 through ruamel's parser: only the node graph is taken from it, so that every key keeps its line,
both lines of a duplicate key can be named, and aliases are counted as they expand.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from twinloop.config.text import FromEnvironment, nearest

__all__ = ["Path", "Problem", "Tree", "UnreadableError", "dotted", "read_yaml"]

Path = tuple[str | int, ...]

MOST_BYTES: Final = 4 * 2**20
MOST_VALUES: Final = 200_000
DEEPEST: Final = 32
_PREFIX: Final = "tag:yaml.org,2002:"
_TELLING: Final = 8
"""A shorter text is masked only where it is quoted, as it may be part of any word."""
_SECRET_KEYS: Final = {"password", "token"}
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class UnreadableError(Exception):
    """The text is not YAML that can be used at all.

    Args:
        line: 1-based; 0 where it is about the whole file.
        text: why, without anything of the file's content that may be a secret.
    """

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file.

    Attributes:
        line: 1-based line.
        path: the keys that lead there.
        text: what is wrong, in words.
    """

    line: int
    path: Path = field(compare=False)
    text: str


@dataclass(slots=True)
class Tree:
    """Plain data (dict, list, str, int, float, bool, None) and where each part of it stands.

    Attributes:
        data: the content.
        lines: 1-based line of every key and list item, by path.
        problems: duplicate keys (the first counts), unset variables and the like.
        absent: paths whose value could not be had; None stands there in `data`.
        hidden: texts in which a variable was replaced, and what the variables held; see `masked`.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    absent: set[Path] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)

    def masked(self, text: str) -> str:
        """A message without what the environment gave, wherever it was quoted from."""
        for secret in sorted(self.hidden, key=len, reverse=True):
            for shown in (repr(secret), f'"{secret}"'):
                text = text.replace(shown, repr(FromEnvironment(secret)))
            if len(secret) >= _TELLING:
                text = text.replace(secret, repr(FromEnvironment(secret)))
        return text

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest part of it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def dotted(path: Path) -> str:
    """A path as messages show it: `tags.temperature.range[0]`; keys with dots are quoted.

    >>> dotted(("sources", "dcs", "nodes", "ns=2;s=A.B", "tag"))
    'sources.dcs.nodes."ns=2;s=A.B".tag'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w-]+", part)
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def read_yaml(raw: bytes, env: Mapping[str, str]) -> Tree:
    """The content of a YAML 1.2 file with `${NAME}` and `${NAME:-default}` replaced from `env`.

    Variables are replaced in texts after parsing, so that a value cannot add structure.

    Raises:
        UnreadableError: it is too large, no UTF-8, no YAML, or expands beyond bounds.
    """
    if len(raw) > MOST_BYTES:
        raise UnreadableError(0, f"larger than {MOST_BYTES // 2**20} MiB; is it a plant file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnreadableError(line, f"byte 0x{raw[error.start]:02x} is not UTF-8; save it as UTF-8") from None
    node = _compose(text)
    reader = _Reader(env)
    if node is not None:
        reader.tree.data = reader.value(node, ())
    return reader.tree


def _compose(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            node: Node | None = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        raise UnreadableError(*_in_words(error, text.splitlines())) from None
    except RecursionError:
        raise UnreadableError(0, "nested too deeply") from None
    except YAMLError as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        raise UnreadableError(line, "a control character has no place in YAML") from None
    return node


_NO_TAGS: Final = "a YAML tag (!NAME) is not allowed; quote text that begins with !"
_WORDS: Final = (
    ("\\t", "a tab; YAML is indented by spaces"),
    ("undefined alias", "an alias (*NAME) without its anchor; put text that begins with * in quotes"),
    ("another document", "a second document (---); a plant file is one"),
    ("mapping values", "a colon where none may stand: check the indentation, or put the text in quotes"),
    ("any token", "a text may not begin with this character (one of @ ` % and the like); put it in quotes"),
    ("quoted scalar", "a quoted text does not end, or has an unknown escape in it"),
    ("", "this does not fit the lines above: check indentation, quotes, brackets and commas"),
)
"""What a parse error means, by a phrase of ruamel's message; the first that is found counts."""


def _in_words(error: MarkedYAMLError, lines: list[str]) -> tuple[int, str]:
    """Line and meaning of a parse error; never with text of the file, which may be a secret."""
    mark = error.problem_mark
    if mark is None or mark.line >= len(lines):  # the end of the file: where it began says more
        mark = error.context_mark or mark
    line = min(mark.line + 1, len(lines)) if mark else 0
    said = f"{error.problem} {error.context}"
    content = lines[line - 1] if line else ""
    if content.lstrip(" ").startswith("\t"):
        return line, _WORDS[0][1]
    if "flow" in said and "${" in content:
        return line, "inside { } or [ ] a text with ${NAME} must be in quotes"
    return line, next(words for phrase, words in _WORDS if phrase in said)


class _Reader:
    """Turns nodes into data, counting as it goes."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.tree = Tree()
        self._env = env
        self._values = 0

    def value(self, node: Node, path: Path) -> Any:
        self._values += 1
        line = node.start_mark.line + 1
        if self._values > MOST_VALUES:
            raise UnreadableError(line, f"more than {MOST_VALUES} values once aliases are expanded")
        if len(path) > DEEPEST:
            raise UnreadableError(line, f"nested more than {DEEPEST} deep, or an alias of itself")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if str(node.tag) not in {f"{_PREFIX}map", f"{_PREFIX}seq"}:
            self._problem(node, path, _NO_TAGS)
            self.tree.absent.add(path)
            return None
        if isinstance(node, SequenceNode):
            return self._sequence(node, path)
        return self._mapping(node, path)

    def _problem(self, node: Node, path: Path, text: str) -> None:
        self.tree.problems.append(Problem(node.start_mark.line + 1, path, text))

    def _sequence(self, node: SequenceNode, path: Path) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.tree.lines[*path, index] = item.start_mark.line + 1
            items.append(self.value(item, (*path, index)))
        return items

    def _mapping(self, node: Node, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_node, value_node in self._merged(node, path):
            if not isinstance(key_node, ScalarNode):
                self._problem(key_node, path, "a key must be a plain text")
                continue
            key = self._substituted(str(key_node.value), key_node, path)
            if key is None or key in made:
                continue
            here = (*path, str(key))
            self.tree.lines[here] = key_node.start_mark.line + 1
            made[str(key)] = self.value(value_node, here)
        return made

    def _merged(self, node: Node, path: Path, depth: int = 0) -> Iterator[tuple[Node, Node]]:
        """Own entries first, then those of `<<: *anchor`, which give way to them."""
        seen: dict[str, int] = {}
        merges: list[Node] = []
        if depth > DEEPEST:
            raise UnreadableError(node.start_mark.line + 1, "a mapping merged into itself")
        for key, value in node.value:
            self._values += 1
            if key.tag == f"{_PREFIX}merge":
                merges.extend(value.value if isinstance(value, SequenceNode) else [value])
                continue
            line = key.start_mark.line + 1
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if name and name in seen:
                shown = "key" if _SECRET_KEYS & set(path) else f"key {name!r}"
                self._problem(key, (*path, name), f"duplicate {shown}; it is also on line {seen[name]}")
                continue
            seen[name] = line
            yield key, value
        for merged in merges:
            if isinstance(merged, MappingNode):
                yield from self._merged(merged, path, depth + 1)
            else:
                self._problem(merged, path, "<<: expects a mapping")

    def _scalar(self, node: Node, path: Path) -> Any:
        tag, text = str(node.tag).removeprefix(_PREFIX), str(node.value)
        if tag in {"str", "timestamp", "merge", "value"}:
            return self._substituted(text, node, path)
        self.tree.absent.add(path)
        try:
            value = _CONVERTERS[tag](text)
        except KeyError:
            self._problem(node, path, _NO_TAGS)
        except ValueError:
            self._problem(node, path, f"cannot be read as {tag}")
        else:
            self.tree.absent.discard(path)
            return value
        return None

    def _substituted(self, text: str, node: Node, path: Path) -> str | None:
        """The text with its variables replaced; None when one of them is not set."""
        if "${" not in text:
            return text
        failed = False
        used = False

        def replace(found: re.Match[str]) -> str:
            nonlocal failed, used
            if found[0] == "$${":
                return "${"
            used = True
            name, default = found["name"], found["default"]
            if name is None or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                self._problem(node, path, "expected ${NAME} or ${NAME:-default}; write $${ for a plain ${")
            elif name in self._env and (self._env[name] or default is None):
                self.tree.hidden.add(self._env[name])
                return self._env[name]
            elif default is not None:
                return default
            else:
                hint = nearest(name, [known for known in self._env if known.isupper()])
                self._problem(node, path, f"environment variable {name} is not set{hint}")
            failed = True
            return ""

        replaced = _VARIABLE.sub(replace, text)
        if failed:
            self.tree.absent.add(path)
            return None
        if not used:
            return replaced
        self.tree.hidden.add(replaced)
        return FromEnvironment(replaced)


def _whole(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower(), 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def _real(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


_CONVERTERS: Final[dict[str, Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() in {"true", "yes", "on", "y"},
    "int": _whole,
    "float": _real,
}
