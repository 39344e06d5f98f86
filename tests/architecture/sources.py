"""Our own files, as the tests of the architecture read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("haein", "jobs", "billing", "dashboard")
# What is not ours, or not source: a checkout has the first three, a place of work the others.
LEFT_OUT = {".git", ".venv", "var", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".hypothesis"}


def files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> Iterator[Path]:
    """Every file below the folders (by default the whole project)."""
    for folder in folders or (".",):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT).parts
            if path.is_file() and not LEFT_OUT & set(inside) and (not suffixes or path.suffix in suffixes):
                yield path


def trees(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """(path within the project, syntax tree) of every Python file."""
    for path in files(*folders):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(), str(path))
