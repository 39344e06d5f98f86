"""The job file as a JSON Schema for editors; docs/job.schema.json is a copy, and a test holds the two together."""

from __future__ import annotations

from typing import Any

import yaml

from haein.client import fields


def schema() -> dict[str, Any]:
    """Draft 2020-12. What it accepts the parser may still refuse (a size out of range), never the other way round."""
    properties: dict[str, Any] = {
        name: {
            "description": says,
            "type": "object",
            "additionalProperties": False,
            "properties": {field.name: _described(field) for field in fields.FIELDS if field.within == name},
        }
        for name, says in fields.GROUPS.items()
    }
    properties |= {field.name: _described(field) for field in fields.FIELDS if not field.within}
    properties["files"] = {
        "description": fields.FILES_SAYS,
        "anyOf": [
            {"type": ["string", "number"], "minLength": 1},
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["git", "commit"],
                "properties": {
                    name: {"description": says, "type": ["string", "number"], "minLength": 1}
                    | ({"pattern": fields.COMMIT_PATTERN} if name == "commit" else {})
                    for name, says in fields.GIT_SAYS.items()
                },
            },
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job for Haein",
        "description": "What `haein submit FILE` takes.",
        "type": "object",
        "additionalProperties": False,
        # `haein submit FILE -- COMMAND` does without, but a file that stands alone needs one.
        "required": ["command"],
        "properties": properties,
    }


def _described(field: fields.Field) -> dict[str, Any]:
    return {"description": field.says, "examples": [_example(field)], **field.schema}


def _example(field: fields.Field) -> Any:
    return yaml.safe_load(field.example)[field.name]
