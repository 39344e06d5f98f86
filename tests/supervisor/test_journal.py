"""The one log stays readable and small whatever the parts write into it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from haein.supervisor import journal
from haein.supervisor.journal import Journal


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "haein.log", screen=False)
    yield made
    made.close()


def test_each_line_is_kept_with_its_time_and_part(kept: Journal, tmp_path: Path) -> None:
    kept.line("web", "GET /")
    (line,) = (tmp_path / "haein.log").read_text().splitlines()
    assert line[19:] == " web      | GET /"


def test_it_does_not_grow_without_end(kept: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LARGEST", 1000)
    for number in range(200):
        kept.line("web", f"line {number}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["haein.log", "haein.log.1"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2200
    assert "line 199\n" in (tmp_path / "haein.log").read_text() + (tmp_path / "haein.log.1").read_text()


def test_what_would_steer_a_terminal_is_taken_out(kept: Journal, tmp_path: Path) -> None:
    kept.line("web", "a\x1b[2Jb\rc\td")
    assert "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\td\n" in (tmp_path / "haein.log").read_text()


def test_only_its_owner_reads_it(kept: Journal, tmp_path: Path) -> None:
    kept.say("a link that works once")
    assert (tmp_path / "haein.log").stat().st_mode & 0o777 == 0o600
