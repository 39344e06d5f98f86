"""From a clone without any environment to one that runs, and nothing done twice."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haein.supervisor import bootstrap
from haein.supervisor.layout import ROOT

pytestmark = pytest.mark.long


class Clone:
    """The bootstrap with a small lock and a stand-in for the supervisor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        code = root / "haein" / "supervisor"
        code.mkdir(parents=True)
        (root / "requirements").mkdir()
        (root / "manage.py").touch()
        (root / "haein" / "__init__.py").touch()
        (code / "__init__.py").touch()
        (code / "__main__.py").write_text("import sqlparse; print('started')\n")
        shutil.copy(ROOT / "haein/supervisor/bootstrap.py", code)
        (root / "requirements/runtime.txt").write_text(locked("sqlparse") + locked("uv"))
        (root / "requirements/jobs.txt").write_text(locked("sqlparse"))

    def make(self, *command: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HAEIN_")}
        bare = [sys.executable, "haein/supervisor/bootstrap.py", *command]
        return subprocess.run(bare, cwd=self.root, env=environ, capture_output=True, text=True)


def locked(package: str) -> str:
    """The package's lines of the real lock."""
    lines = (ROOT / "requirements/runtime.txt").read_text().splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"{package}=="))
    end = next(number for number in range(begin, len(lines)) if not lines[number].endswith("\\\n"))
    return "".join(lines[begin : end + 1])


@pytest.fixture
def clone() -> Iterator[Clone]:
    top = Path(tempfile.mkdtemp(prefix="haein-clone-"))
    top.chmod(0o755)
    yield Clone(top)
    shutil.rmtree(top)


def test_a_bare_clone_starts_and_the_next_start_installs_nothing(clone: Clone) -> None:
    first = clone.make("up")
    assert first.stdout.endswith("started\n"), first.stderr
    assert "Installing the 2 packages of requirements/runtime.txt" in first.stdout
    assert clone.make("up").stdout == "started\n"


def test_an_interrupted_environment_is_made_anew(clone: Clone) -> None:
    clone.make("up")
    (clone.root / ".venv/complete").unlink()
    shutil.rmtree(next((clone.root / ".venv/lib").glob("python3.*/site-packages/pip")))
    again = clone.make("up")
    assert again.stdout.endswith("started\n"), again.stderr


def test_the_jobs_environment_is_apart_from_the_servers(clone: Clone) -> None:
    clone.make("up")
    made = clone.make("jobs")
    assert made.returncode == 0, made.stderr
    assert (clone.root / "var/env/python/.ready").exists()
    ask = [str(clone.root / "var/env/python/bin/python"), "-c", "import sqlparse, sys; print(sys.prefix)"]
    assert subprocess.run(ask, capture_output=True, text=True).stdout == f"{clone.root}/var/env/python\n"
    assert clone.make("jobs").stdout == ""


def test_a_package_that_is_not_the_locked_one_is_refused_in_a_sentence(clone: Clone) -> None:
    lock = clone.root / "requirements/runtime.txt"
    lock.write_text("\n".join(swapped(line) for line in locked("sqlparse").splitlines()) + "\n" + locked("uv"))
    refused = clone.make("up")
    assert refused.returncode == 1
    assert "Look at the network, the disk or the package mirror, then run make again." in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (clone.root / ".venv/complete").exists()


def swapped(line: str) -> str:
    before, found, digest = line.partition("sha256:")
    return before + found + digest[::-1].replace("\\", "").strip() + (" \\" if line.endswith("\\") else "")


def test_the_reason_shown_is_the_line_that_says_most() -> None:
    said = "Resolved 3 packages\nerror: Failed to fetch: `six`\n  Caused by: no route\n"
    assert bootstrap.reason_in(said) == "error: Failed to fetch: `six`"
    assert bootstrap.reason_in("one\ntwo\n") == "two"
    assert bootstrap.reason_in("") == "no word"


def test_an_engine_that_there_is_no_demonstration_on_is_refused_in_a_sentence(clone: Clone) -> None:
    refused = clone.make("demo", "kubernetes")
    assert (refused.returncode, refused.stderr) == (1, "haein: CLUSTER is kubernetes: it must be simulator or slurm.\n")
    assert not (clone.root / ".venv").exists()


def test_without_slurm_and_without_apt_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bootstrap, "SYSTEM_PROGRAMS", str(tmp_path))
    with pytest.raises(SystemExit, match="The tests run on a Slurm of their own: install slurmctld slurmd"):
        bootstrap.slurm("The tests run on a Slurm of their own")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account of its own for the service")
def test_as_root_a_clone_that_only_root_may_enter_is_refused(clone: Clone) -> None:
    clone.root.chmod(0o700)
    refused = clone.make("up")
    assert refused.returncode == 1
    assert "can't be read by other accounts" in refused.stderr
    assert "move the clone" in refused.stderr
