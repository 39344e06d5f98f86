"""What root's jobs go through, an ordinary user's go through as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SOME_USER = "65534"  # nobody: PostgreSQL wants one that has a name
SUITES = ("once", "lost", "trees", "endings", "confinement", "isolation", "uploads", "files")


@pytest.mark.skipif(os.geteuid() != 0, reason="everything runs as an ordinary user already")
def test_all_of_it_holds_for_an_ordinary_user(tmp_path: Path) -> None:
    become = ["setpriv", f"--reuid={SOME_USER}", f"--regid={SOME_USER}", "--clear-groups"]
    if subprocess.run([*become, sys.executable, "-c", "import haein"], cwd=REPOSITORY, check=False).returncode:
        pytest.skip("another user can't reach this checkout or its interpreter")
    files = [str(HERE / f"test_local_{suite}.py") for suite in SUITES]
    quietly = ["-q", "-p", "no:django", "-p", "no:cacheprovider", "-c", os.devnull]
    run = subprocess.run(
        [*become, sys.executable, "-m", "pytest", *quietly, f"--rootdir={HERE}", f"--confcutdir={HERE}", *files],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
