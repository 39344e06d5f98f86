"""`pip install` of the project in an empty environment is the command and the SDK, and nothing of the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_it_installs_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin = tmp_path / "venv" / "bin"
    subprocess.run([bin / "pip", "install", "--quiet", str(ROOT)], check=True, cwd=tmp_path)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HAEIN_", "PYTHON", "DJANGO"))}

    def said(*words: str | Path) -> str:
        ran = subprocess.run(words, check=True, cwd=tmp_path, env=environ, capture_output=True, text=True)
        return ran.stdout

    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert said(bin / "haein", "--version") == f"haein {newest.split()[1]}\n"
    assert "--time-limit" in said(bin / "haein", "submit", "--help")
    assert (
        said(bin / "python", "-c", "from haein.client import Client, JobSpec; print(JobSpec('a', 'b').share)")
        == "1000\n"
    )
    files = said(bin / "pip", "show", "--files", "haein")
    ours = {
        line.strip() for line in files.splitlines() if line.strip().startswith("haein/") and "__pycache__" not in line
    }
    assert "haein/client/cli.py" in ours
    assert {line for line in ours if not line.startswith("haein/client/")} == {"haein/__init__.py"}
    assert "django" not in said(bin / "pip", "list").lower()
