"""The API's document as a page shows it: operations by subject, each with what it takes and what it answers.

The usual viewers of OpenAPI documents need styles that our pages forbid, and fail the checks of accessibility.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drf_spectacular.generators import SchemaGenerator

DEPTH = 3


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a property; `depth` is how far it is within others."""

    name: str
    kind: str
    required: bool
    text: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    text: str
    parameters: Sequence[Field]
    body: Sequence[Field]
    body_kind: str
    answers: Sequence[tuple[str, str]]
    result: Sequence[Field]
    sample: str


@functools.cache
def document() -> Mapping[str, Any]:
    """OpenAPI, in the language of the code: it is made once a process."""
    made: Mapping[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return made


def subjects(address: str) -> dict[str, list[Operation]]:
    """Operations by their tag, in the document's order; samples name the server's address."""
    found: dict[str, list[Operation]] = {}
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append(_operation(method, path, operation, address))
    return found


def _operation(method: str, path: str, operation: Mapping[str, Any], address: str) -> Operation:
    content = operation.get("requestBody", {}).get("content", {})
    kind = next(iter(content), "")
    good = {number: answer for number, answer in operation["responses"].items() if number.startswith("2")}
    schemas = [each.get("schema", {}) for answer in good.values() for each in answer.get("content", {}).values()]
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        text=operation.get("description", ""),
        parameters=[_parameter(each) for each in operation.get("parameters", []) if each["in"] != "path"],
        body=list(_fields(content[kind]["schema"])) if kind == "application/json" else [],
        body_kind=kind,
        answers=[(number, _told(answer)) for number, answer in sorted(operation["responses"].items())],
        result=list(_fields(schemas[-1])) if schemas else [],
        sample=_sample(method, path, kind, address),
    )


def _told(answer: Mapping[str, Any]) -> str:
    kinds = ", ".join(answer.get("content", {}))
    return " · ".join(part for part in (str(answer.get("description", "")), kinds) if part)


def _parameter(given: Mapping[str, Any]) -> Field:
    where = "" if given["in"] == "query" else given["in"]
    kind = " ".join(part for part in (where, _kind(given["schema"])) if part)
    return Field(given["name"], kind, given.get("required", False), given.get("description", ""))


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference, alone or within allOf or oneOf, stands for."""
    for choice in ("allOf", "oneOf", "anyOf"):
        if parts := [part for part in schema.get(choice, []) if part.get("type") != "null"]:
            return {**_resolved(parts[0]), **{name: value for name, value in schema.items() if name != choice}}
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        found: Mapping[str, Any] = document()["components"]["schemas"][name]
        return {**_resolved(found), **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _fields(schema: Mapping[str, Any], depth: int = 0) -> Iterator[Field]:
    schema = _resolved(schema)
    if schema.get("type") == "array":
        yield from _fields(schema["items"], depth)
        return
    needed = set(schema.get("required", []))
    for name, inner in schema.get("properties", {}).items():
        whole = _resolved(inner)
        default = f" ({json.dumps(whole['default'])})" if whole.get("default") not in (None, {}, []) else ""
        yield Field(name, _kind(inner), name in needed, str(whole.get("description", "")) + default, depth)
        if depth + 1 < DEPTH:
            yield from _fields(whole, depth + 1)


def _kind(schema: Mapping[str, Any]) -> str:
    whole = _resolved(schema)
    kind = whole.get("type", "")
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if whole.get("enum"):
        return " | ".join(str(value) for value in whole["enum"] if value is not None)
    if "array" in kinds:
        return f"[{_kind(whole.get('items', {}))}]"
    shown = [whole["format"] if each == "string" and "format" in whole else each for each in kinds if each]
    bounds = [f"{sign} {whole[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in whole]
    return ", ".join([" | ".join(shown), *bounds])


_SUBMIT = {"name": "hello", "command": "echo hello", "gpus": 1, "share": 500}


def _sample(method: str, path: str, kind: str, address: str) -> str:
    shown = path.replace("{job_id}", "$JOB")
    words = ["curl", "-H", '"Authorization: Bearer $HAEIN_TOKEN"']
    if method != "get":
        words += ["-X", method.upper()]
    if kind == "application/json":
        words += ["-H", "'Content-Type: application/json'", "-d", f"'{json.dumps(_SUBMIT)}'"]
    if kind == "application/octet-stream":
        words += ["-H", f"'Content-Type: {kind}'", "--data-binary", "@train.py"]
        shown += "?name=train.py"
    return " ".join([*words, f'"{address}{shown}"'])
