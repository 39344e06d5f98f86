"""Git's own rules for what is left out, one entry at a time from the top of a tree down.

Written by gitignore(5) and compared with git itself in the tests. Asking git would need git where jobs are submitted,
and a repository; asking entry by entry keeps "a file can't be taken back in when its folder is out".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": r" \t", "digit": "0-9", "lower": "a-z", "upper": "A-Z",
    "space": r"\s", "xdigit": "0-9a-fA-F", "punct": r"!-/:-@\[-`{-~", "cntrl": r"\x00-\x1f\x7f", "print": r"\x20-\x7e",
    "graph": r"\x21-\x7e",
}  # fmt: skip
_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .gitignore."""

    matches: re.Pattern[str]
    only_folders: bool
    takes_in: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """One .gitignore; paths are relative to its folder, with / between their parts."""

    rules: tuple[Rule, ...]

    @staticmethod
    def read(text: str) -> Rules:
        return Rules(tuple(_rules(text)))

    def out(self, path: str, *, folder: bool) -> bool | None:
        """Whether this entry is left out; None when no line says anything about it."""
        for rule in reversed(self.rules):
            if (folder or not rule.only_folders) and rule.matches.fullmatch(path):
                return not rule.takes_in
        return None


def _rules(text: str) -> Iterator[Rule]:
    for written in text.removeprefix("\ufeff").split("\n"):
        line = re.sub(r"(?<!\\)((?:\\\\)*) +$", r"\1", written.removesuffix("\r"))
        takes_in = line.startswith("!")
        line = line[takes_in:]
        if not line or (line.startswith("#") and not takes_in):
            continue
        only_folders = line.endswith("/")
        line = line[:-1] if only_folders else line
        if not line:
            continue
        anchored = "/" in line
        expression = _expression(line.removeprefix("/"))
        if expression is None:
            matches = _NEVER
        else:
            matches = re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)
        yield Rule(matches, only_folders, takes_in)


def _expression(pattern: str) -> str | None:
    """The pattern as a regular expression; None when it can match nothing (an unfinished escape or bracket)."""
    parts, at = [], 0
    while at < len(pattern):
        stars = re.compile(r"\*+").match(pattern, at)
        if stars:
            part, at = _stars(pattern, at, stars.end())
        elif pattern[at] == "[":
            found = _bracket(pattern, at)
            if found is None:
                return None
            part, at = found
        elif pattern[at] == "\\":
            if at + 1 == len(pattern):
                return None
            part, at = re.escape(pattern[at + 1]), at + 2
        else:
            part, at = "[^/]" if pattern[at] == "?" else re.escape(pattern[at]), at + 1
        parts.append(part)
    return "".join(parts)


def _stars(pattern: str, start: int, end: int) -> tuple[str, int]:
    alone = (start == 0 or pattern[start - 1] == "/") and (end == len(pattern) or pattern[end] == "/")
    if end - start < 2 or not alone:
        return "[^/]*", end
    # "**/" is any number of folders, none included; a last "**" is everything below.
    return (".*", end) if end == len(pattern) else ("(?:.*/)?", end + 1)


def _bracket(pattern: str, start: int) -> tuple[str, int] | None:
    """The bracket expression that begins at `start`, and where it ends."""
    at = start + 1
    negated = pattern[at : at + 1] in ("!", "^") and at < len(pattern)
    at += negated
    first = at
    inside: list[str] = []
    while at < len(pattern):
        if pattern[at] == "]" and at > first:
            body = "".join(inside)
            # A bracket never stands for the / between two folders.
            within = f"[^{body}]" if negated and body else "." if negated else f"[{body}]" if body else "(?!)"
            return f"(?!/){within}", at + 1
        named = re.compile(r"\[:([a-z]+):\]").match(pattern, at)
        if named:
            if named[1] not in _CLASSES:
                return None
            inside.append(_CLASSES[named[1]])
            at = named.end()
            continue
        low, at = _one(pattern, at)
        if low is None:
            return None
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _one(pattern, at + 1)
            if high is None:
                return None
            inside += [f"{re.escape(low)}-{re.escape(high)}"] if low <= high else []
        else:
            inside.append(re.escape(low))
    return None


def _one(pattern: str, at: int) -> tuple[str | None, int]:
    if pattern[at] != "\\":
        return pattern[at], at + 1
    return (pattern[at + 1], at + 2) if at + 1 < len(pattern) else (None, at)
