"""What the docs tell a reader to type works as it stands, on a real house."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haein.client.answers import OPEN
from tests.house import House, until
from tests.rows import Rows
from tests.tokens import token_of

ROOT = Path(__file__).parents[2]
PAGES = ["docs/cli.md", "docs/sdk.md", "docs/api.md", "README.md"]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every block that a reader may type: console, python, and sh or bash with a curl in it."""
    place = ROOT / page
    found = re.findall(r"^```(\w+)\n(.*?)^```$", place.read_text(), re.M | re.S) if place.exists() else []
    return [
        (kind, text)
        for kind, text in found
        if kind in ("console", "python") or (kind in ("sh", "bash") and "curl" in text)
    ]


def typed(kind: str, text: str) -> list[str]:
    """The block as a program and its arguments; of a console the lines behind the prompt."""
    if kind == "python":
        return [sys.executable, "-c", text]
    if kind == "console":
        text = "".join(f"{more}\n" for more in re.findall(r"^[$>] (.*)$", text, re.M))
    return ["bash", "-euo", "pipefail", "-c", text]


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
@pytest.mark.usefixtures("visitor")
def test_every_block_runs_as_it_stands(page: str, house: House, rows: Rows, tmp_path: Path) -> None:
    ((email,),) = rows.ask("SELECT email FROM tenants_user")
    folder, bin = tmp_path / "examples", tmp_path / "bin"
    shutil.copytree(ROOT / "examples", folder)
    bin.mkdir()
    # As pip would put it there.
    (bin / "haein").write_text(f'#!/bin/sh\nexec {sys.executable} -m haein.client "$@"\n')
    (bin / "haein").chmod(0o755)
    environ = {
        **os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"), "HAEIN_URL": f"http://localhost:{house.port}",
        "HAEIN_TOKEN": token_of(house, email),
    }  # fmt: skip
    for kind, text in blocks(page):
        command = typed(kind, text)
        ran = subprocess.run(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
        )
        assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr
    until(lambda: not OPEN & set(rows.states().values()), "every job of the page has ended")
