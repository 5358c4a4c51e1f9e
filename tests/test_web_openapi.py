"""The API's own description is true: schemathesis asks whatever it allows, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from support.looking import recorded_look, served
from twinloop.web.api.current import LINKS

OPERATIONS = sorted(
    [("GET", f"/{path}") for path in LINKS if path not in {"docs", "openapi.json"}]
    + [("GET", "/"), ("GET", "/assets/{asset}"), ("POST", "/samples")]
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> BaseSchema:
    app = served(recorded_look(tmp_path_factory.mktemp("plant"), writable=True))
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


def ask(described: BaseSchema, method: str, path: str, examples: int, *, again: bool = False) -> None:
    """Ask an operation what it allows, and then what it does not; `again` asks the same each time."""
    operation = described[path][method]
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        refused = [negative_data_rejection] if mode is GenerationMode.NEGATIVE else []

        def answers(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=[*CHECKS, *refused])  # noqa: B023 - it is called here

        some = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=again,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        try:
            some(given(case=operation.as_strategy(generation_mode=mode))(answers))()
        except Unsatisfiable:
            assert not refused or not operation.definition.raw.get("parameters")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_what_the_description_says(described: BaseSchema, method: str, path: str) -> None:
    ask(described, method, path, 3, again=True)


@pytest.mark.long
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_what_the_description_says_at_length(
    described: BaseSchema, method: str, path: str
) -> None:
    ask(described, method, path, 500)


def test_every_operation_is_asked(described: BaseSchema) -> None:
    made = [each.ok() for each in described.get_all_operations() if isinstance(each, Ok)]
    found = [(each.method.upper(), each.path) for each in made]
    assert sorted(found) == OPERATIONS
