"""docs/settings.md lists what is read, all of it and nothing else, with the defaults that hold."""

from __future__ import annotations

import ast
import re

from tests.architecture.sources import ROOT, trees

PAGE = (ROOT / "docs/settings.md").read_text()
ROWS = dict(re.findall(r"^\| `(HAEIN_\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
READERS = {"text", "number", "flag", "words", "get", "getenv"}


def reads() -> dict[str, str | None]:
    """Name and default of each variable that the settings or the supervisor ask the environment for."""
    found: dict[str, str | None] = {}
    for path, tree in trees("haein/supervisor", "haein/lib", "haein/cluster"):
        found |= _reads(path, tree)
    settings = {path: tree for path, tree in trees("haein") if path == "haein/settings.py"}
    return found | _reads("haein/settings.py", settings["haein/settings.py"])


def _reads(path: str, tree: ast.Module) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
            match node.args:
                case [ast.Constant(value=str(name)), *rest] if name.startswith("HAEIN_"):
                    default = rest[0] if rest else None
                    found[name] = str(default.value) if isinstance(default, ast.Constant) else found.get(name)
    return found


def test_every_variable_that_is_read_is_on_the_page_and_no_other() -> None:
    # The supervisor asks for two through a table of names.
    assert set(ROWS) == set(reads()) | {"HAEIN_DATABASE_URL", "HAEIN_REDIS_URL"}


def test_the_defaults_are_those_of_the_settings() -> None:
    for name, default in reads().items():
        if default and name not in {"HAEIN_DATABASE_URL", "HAEIN_REDIS_URL"}:
            shown = {"True": "1", "False": "0"}.get(
                default, default.replace("_", "") if default[0].isdigit() else default
            )
            assert f"`{shown}`" in ROWS[name], name


def test_each_variable_is_there_once() -> None:
    names = re.findall(r"^\| `(HAEIN_\w+)`", PAGE, re.MULTILINE)
    assert sorted(names) == sorted(set(names))
