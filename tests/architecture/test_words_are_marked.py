"""Every word that a person reads in a template is marked for translation. (A rough look: text between tags.)"""

from __future__ import annotations

import re

from tests.architecture.sources import files

MARKED = re.compile(
    r"{%\s*(blocktranslate|comment|verbatim)\b.*?{%\s*end\1\s*%}|{%.*?%}|{{.*?}}|{#.*?#}|<(script|style)\b.*?</\2>|<!--.*?-->"
    r"|<!doctype[^>]*>",
    re.DOTALL | re.IGNORECASE,
)
TAGS = re.compile(r"<[^>]*>", re.DOTALL)
SPOKEN = re.compile(r"""\s(?:title|alt|placeholder|aria-label)\s*=\s*"([^"]*[A-Za-z]{2}[^"]*)\"""")
# Names, signs and addresses that are the same in every language.
NAMES = re.compile(
    r"/ws/\S*|\b(Haein|haein login|CSV|OpenAPI|GPU|MiB|GiB|UTC|KEY=value|nbsp|middot|times|hellip|amp|laquo|raquo)\b"
    r"|해인"
)


def bare(text: str) -> list[str]:
    plain = MARKED.sub("", text)
    words = [*TAGS.sub("\n", plain).splitlines(), *SPOKEN.findall(plain)]
    return [word.strip() for word in words if re.search(r"[A-Za-z]{2,}", NAMES.sub("", word))]


def test_no_template_has_a_word_that_is_not_marked() -> None:
    found = {path.name: words for path in files("templates", suffixes=(".html",)) if (words := bare(path.read_text()))}
    assert found == {}


def test_the_look_sees_what_it_looks_for() -> None:
    assert bare('<p class="big">Hello there</p>') == ["Hello there"]
    assert bare('<a title="Go home">{% translate "Home" %}</a>') == ["Go home"]
    assert bare("<p>{% blocktranslate %}Hello{% endblocktranslate %} {{ name }} — Haein</p>") == []
