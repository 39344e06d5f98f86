"""A page needs nothing but this server, and the project names no place that packages come from."""

from __future__ import annotations

import re

import pytest

from tests.architecture.sources import ROOT, files

# What makes a browser fetch: an attribute, a style, a script. Namespaces (xmlns) and comments are no fetches.
FETCHES = re.compile(
    r"""(?:\b(?:src|href|action|poster|srcset|hx-get|hx-post|data-\w+)\s*=\s*["']?\s*"""
    r"""|url\(\s*["']?|@import\s+["']?|\bimport\s*(?:\(|[\w{},*\s]+from)?\s*["']"""
    r"""|\b(?:fetch|WebSocket|EventSource|importScripts)\(\s*["'`])\s*((?:https?:|wss?:)?//[^\s"'`)>]+)"""
)
OURS = [
    path
    for path in files("templates", "static", suffixes=(".html", ".css", ".js", ".svg", ".txt"))
    if "vendor" not in path.parts
]


def test_no_page_fetches_anything_from_outside() -> None:
    assert OURS
    found = [(path.name, hit) for path in OURS for hit in FETCHES.findall(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://cdn.example/x.js">',
        "<link href=//fonts.example/css>",
        "background: url(http://x.example/a.png)",
        '@import "https://x.example/a.css";',
        "import x from 'https://x.example/a.js'",
        "fetch('https://x.example/')",
    ],
)
def test_the_search_sees_what_it_looks_for(line: str) -> None:
    assert FETCHES.search(line)


def test_a_namespace_is_no_fetch() -> None:
    assert not FETCHES.search('<svg xmlns="http://www.w3.org/2000/svg">')


def test_no_file_names_a_package_registry() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [
        ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
    ]
    hosts += [".".join(parts) for parts in (("unpkg", "com"), ("jsdelivr", "net"), ("cdnjs", "com"))]
    pattern = re.compile("|".join(map(re.escape, hosts)), re.IGNORECASE)
    found = []
    for path in files(suffixes=()):
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [(str(path.relative_to(ROOT)), hit) for hit in pattern.findall(text)]
    assert found == []
