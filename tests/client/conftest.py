"""A place of one's own for what the command keeps, and pauses that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from haein.client import transport
from haein.client.cli import app


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("HAEIN_URL", raising=False)
    monkeypatch.delenv("HAEIN_TOKEN", raising=False)
    monkeypatch.setattr(transport, "_FIRST_PAUSE_S", 0.001)


@dataclass
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, as somebody who is signed in to the server at `url` (if any) types it."""

    def run(*words: str, url: str = "", typed: str = "") -> Ran:
        if url:
            monkeypatch.setenv("HAEIN_URL", url)
            monkeypatch.setenv("HAEIN_TOKEN", "haein_test")
        result = CliRunner().invoke(app, list(words), input=typed)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
