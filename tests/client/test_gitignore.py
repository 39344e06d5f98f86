"""What is left out of a folder is what git leaves out of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haein.client import BadFiles, archive

TREE = [
    "a",
    "b.txt",
    "c.log",
    "sub/a",
    "sub/b.txt",
    "sub/deep/a",
    "sub/deep/c.log",
    "other/sub/a",
    "other/x[1]",
    " sp ",
    "#h",
]
PATTERNS = [
    "a", "*.txt", "*.log", "/a", "sub", "sub/", "/sub/", "sub/*", "sub/**", "**/a", "**/deep/", "other/**/a",
    "!a", "!sub/a",
    "!*.txt", "!sub/", "!/sub/deep/a", "*", "!*/", "/*", "[ab]*", "[!a]", "[^b].txt", "x\\[1\\]", "x[[]1]",
    "a/", "b?txt",
    "\\#h", "#h", "\\ sp\\ ", " sp ", "a\\", "[", "sub/deep", "deep/a", "**", "/**", "a**", "[[:alpha:]]",
    "*.l[n-p]g", "",
    "!", "/", "//", "other/*/a", "[]-]", "***", "sub/***", "**/", "!**/", "**a", "sub/**/", "sub/d**p/a",
    "[a-]", "[z-a]", "[\\a]",
]  # fmt: skip


def by_git(folder: Path) -> set[str]:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", "init", "-q", str(folder)], check=True, env=environ)
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-coz", "--exclude-standard"],
        check=True,
        env=environ,
        capture_output=True,
    )
    return {name.decode() for name in listed.stdout.split(b"\0") if name}


def by_us(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in archive.entries(folder)}
    except BadFiles:
        return set()


def grow(folder: Path, ignored: dict[str, list[str]]) -> None:
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for where, lines in ignored.items():
        (folder / where / ".gitignore").write_text("\n".join(lines) + "\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["", "sub", "sub/deep", "other"]), st.lists(st.sampled_from(PATTERNS), max_size=5))
)
def test_it_is_what_git_says(ignored: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        grow(Path(name), ignored)
        assert by_us(Path(name)) == by_git(Path(name))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_alone(tmp_path: Path, pattern: str) -> None:
    grow(tmp_path, {"": [pattern]})
    assert by_us(tmp_path) == by_git(tmp_path)


def test_rules_above_the_folder_count_up_to_the_repositorys_top(tmp_path: Path) -> None:
    grow(tmp_path, {"": ["*.log", "/sub/b.txt", "other"]})
    by_git(tmp_path)
    assert by_us(tmp_path / "sub") == {"a", "deep/a"}
    # The folder itself was asked for, whatever is said about it.
    assert by_us(tmp_path / "other") == {"sub/a", "x[1]"}


def test_git_itself_is_always_out(tmp_path: Path) -> None:
    grow(tmp_path, {"": ["!.git"]})
    by_git(tmp_path)
    (tmp_path / "sub/.git").write_text("gitdir: elsewhere")
    assert not {name for name in by_us(tmp_path) if ".git" in name.split("/")}
