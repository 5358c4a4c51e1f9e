"""The JSON Schema of the plant file, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from twinloop.config.models import PlantConfig

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """The schema as plain data (draft 2020-12); every key has a description.

    Editors read it from a first line such as `# yaml-language-server: $schema=plant.schema.json`.
    """
    schema = PlantConfig.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "twinloop plant file",
        **{key: value for key, value in schema.items() if key != "title"},
    }
