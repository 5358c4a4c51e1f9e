"""Reading a plant file: a typed configuration, or every error at once with file, line and key.

    plant.yaml:14: tags.temperature.rnage: unknown key; did you mean 'range'?

A first pass checks each key by itself. What fails is then left out, and the rest is checked for how it fits
together, so that one error does not hide another; findings that rest on a part left out are not reported.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from twinloop.config import checks as config_checks
from twinloop.config.models import PlantConfig
from twinloop.config.text import nearest, show
from twinloop.config.yamltree import Path as KeyPath
from twinloop.config.yamltree import Problem, Tree, UnreadableError, dotted, read_yaml
from twinloop.errors import ConfigError

__all__ = ["Loaded", "load", "read"]

MOST_SHOWN: Final = 50
ROUNDS: Final = 5
"""How often what failed is left out and the rest tried again."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plant file that can be run.

    Attributes:
        config: its content.
        warnings: what is hardly meant, one line each, as `file:line: key: text`.
    """

    config: PlantConfig
    warnings: tuple[str, ...] = ()


def load(path: Path, env: Mapping[str, str]) -> PlantConfig:
    """The configuration in a plant file, with `${NAME}` taken from `env`.

    Raises:
        ConfigError: it cannot be read or used; one line for each thing wrong, sorted by line, no secrets.
    """
    return read(path, env).config


def read(path: Path, env: Mapping[str, str]) -> Loaded:
    """As `load`, with the warnings.

    Raises:
        ConfigError: as for `load`.
    """
    tree = _tree(path, env)
    context = {"folder": path.resolve().parent}
    problems = list(tree.problems)
    config, broken = _validated(tree, context, problems)
    if config is not None:
        found = config_checks.errors(config)
        problems += _problems(tree, (one for one in found if not _rests_on(one, broken)))
    if problems or config is None:
        raise ConfigError(_listed(path, tree, problems))
    warnings = _problems(tree, config_checks.warnings(config))
    return Loaded(config, tuple(_line(path, tree, warning) for warning in sorted(warnings)))


def _tree(path: Path, env: Mapping[str, str]) -> Tree:
    """The file's content as plain data, a mapping."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_neighbour(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, not a plant file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        raise ConfigError(f"{path}: cannot be read: {reason.lower()}") from None
    try:
        tree = read_yaml(raw, env)
    except UnreadableError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise ConfigError(f"{where}: {error.text}") from None
    if tree.data is None and not tree.problems:
        raise ConfigError(f"{path}: the file is empty; a plant file begins with `plant: NAME`")
    if not isinstance(tree.data, dict):
        raise ConfigError(f"{path}:1: expected keys and values (`plant: NAME`), got {_kind(tree.data)}")
    return tree


def _neighbour(path: Path) -> str:
    """A file beside it with nearly the same name."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"}]
    except OSError:
        return ""
    return nearest(path.name, names)


def _kind(data: object) -> str:
    return "a list" if isinstance(data, list) else "a single value"


def _validated(
    tree: Tree, context: dict[str, Any], problems: list[Problem]
) -> tuple[PlantConfig | None, set[KeyPath]]:
    """The configuration of all that is right by itself, and the paths that were left out.

    What is wrong is added to `problems`. None when too much is wrong to make anything of the rest.
    """
    data = copy.deepcopy(tree.data)
    broken = set(tree.absent)
    for path in broken:
        _leave_out(data, path)
    for _ in range(ROUNDS):
        try:
            return PlantConfig.model_validate(data, context=context), broken
        except ValidationError as failure:
            details = failure.errors(include_url=False, include_input=False)
        for detail in details:
            path = _data_path(detail, data)
            if not any(_begins(path, known) or _begins(known, path) for known in broken):
                problems.append(Problem(tree.line(path), path, _in_words(detail, path)))
        for detail in details:
            path = _data_path(detail, data)
            broken.add(_leave_out(data, path))
    return None, broken


_TYPED: Final = {("store",), ("log",)}
"""Sections whose only error of their own is about their `type`."""


def _data_path(detail: ErrorDetails, data: object) -> KeyPath:
    """The keys of the file that an error is about; pydantic's own steps into unions are left out."""
    location = [part for part in detail["loc"] if part != "[key]"]
    path: list[str | int] = []
    node: Any = data
    for index, part in enumerate(location):
        inside = isinstance(node, dict) and part in node
        if inside or (isinstance(node, list) and isinstance(part, int)):
            path.append(part)
            node = node[part] if inside or part < len(node) else None  # type: ignore[operator]
        elif index == len(location) - 1 and detail["type"] == "missing":
            path.append(part)
    if detail["type"].startswith("union_tag") or (tuple(path) in _TYPED and isinstance(node, dict)):
        path.append("type")
    return tuple(path)


_STAND_INS: Final = {
    "plant": "unnamed",
    "mqtt": "mqtt://unknown",
    "opcua": "opc.tcp://unknown",
    "influxdb": "http://unknown",
}
"""For required keys that are wrong or missing, so that what stands beside them is still checked."""


def _leave_out(data: Any, path: KeyPath) -> KeyPath:
    """Remove what is at a path; where it is missing, what it is missing from. Returns what was removed."""
    *parents, last = path or ("",)
    for depth, part in enumerate(parents):
        container, data = data, _child(data, part)
        if data is None or (depth == len(parents) - 1 and not _has(data, last)):
            container.pop(part, None) if isinstance(container, dict) else container.clear()
            return path[: depth + 1]
    if isinstance(data, list):
        data.clear()
        return path[:-1]
    data.pop(last, None)
    stand_in = _STAND_INS.get(str(data.get("type") if last == "url" else last))
    if stand_in:
        data[last] = stand_in
    return path


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    return node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None


def _has(node: Any, part: str | int) -> bool:
    return isinstance(node, list) or (isinstance(node, dict) and (part in node or part == "url"))


def _begins(path: KeyPath, start: KeyPath) -> bool:
    return path[: len(start)] == start


def _rests_on(finding: config_checks.Finding, broken: set[KeyPath]) -> bool:
    return any(_begins(need, path) for need in (finding.path, *finding.needs) for path in broken)


_WORDS: Final = {
    "missing": "missing; it must be given",
    "too_short": "expected at least one",
    "greater_than": "must be more than 0",
    "greater_than_equal": "too small; the least is {ge}",
    "less_than_equal": "too large; the most is {le}",
    "dict_type": "expected a mapping (key: value)",
}


def _in_words(detail: ErrorDetails, path: KeyPath) -> str:
    """What pydantic found, as one phrase; never with the value of a key that may be secret."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        hint = nearest(str(path[-1]), known) or (f"; known are {', '.join(known)}" if known else "")
        return f"unknown key{hint}"
    if kind.startswith("union_tag"):
        expected = [word.strip(" '") for word in str(context.get("expected_tags", "mqtt, opcua")).split(",")]
        if "tag" not in context:
            return f"missing; it must be {' or '.join(expected)}"
        return (
            f"expected {' or '.join(expected)}, got {show(context['tag'])}{nearest(context['tag'], expected)}"
        )
    if kind == "value_error":
        return str(context["error"])
    if kind in {"less_than_equal", "greater_than_equal"} and max(map(float, context.values())) > 10**9:
        return "too small" if kind == "greater_than_equal" else "longer than the protocol allows"
    return _WORDS[kind].format(**context) if kind in _WORDS else detail["msg"].lower()


def _known_keys(location: Iterable[str | int]) -> list[str]:
    """The keys of the section at one of pydantic's locations."""
    kind: Any = PlantConfig
    for part in location:
        kind = _step(kind, part)
    return list(getattr(kind, "model_fields", {}))


def _step(kind: Any, part: str | int) -> Any:
    """The type behind a key; a union (of which pydantic's location names the member) counts as a step."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    if typing.get_origin(kind) is dict:
        return _bare(typing.get_args(kind)[1])
    members = [_bare(member) for member in typing.get_args(kind)]
    return next((member for member in members if _member_name(member) == part), None)


def _bare(kind: Any) -> Any:
    """A type without `Annotated` and without `| None`."""
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        members = [_bare(member) for member in typing.get_args(kind) if member is not type(None)]
        return members[0] if len(members) == 1 else kind
    return kind


def _member_name(member: Any) -> str | None:
    """The `type` by which a member of a union is chosen."""
    field = getattr(member, "model_fields", {}).get("type")
    return typing.get_args(field.annotation)[0] if field else None


def _problems(tree: Tree, findings: Iterable[config_checks.Finding]) -> list[Problem]:
    made = []
    for finding in findings:
        path = _as_written(tree.data, finding.path)
        made.append(Problem(tree.line(path), finding.path, finding.text))
    return made


def _as_written(data: Any, path: KeyPath) -> KeyPath:
    """A path with list positions where the file lists names that the models keep as keys."""
    written: list[str | int] = []
    for part in path:
        step = data.index(part) if isinstance(data, list) and part in data else part
        written.append(step)
        data = _child(data, step)
    return tuple(written)


def _listed(path: Path, tree: Tree, problems: Iterable[Problem]) -> str:
    lines = list(dict.fromkeys(_line(path, tree, problem) for problem in sorted(problems)))
    if len(lines) > MOST_SHOWN:
        lines = [*lines[:MOST_SHOWN], f"{path}: and {len(lines) - MOST_SHOWN} more"]
    return "\n".join(lines)


def _line(path: Path, tree: Tree, problem: Problem) -> str:
    where = f"{dotted(problem.path)}: " if problem.path else ""
    return f"{path}:{problem.line}: {tree.masked(where + problem.text)}"
