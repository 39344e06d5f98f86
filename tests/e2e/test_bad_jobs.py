"""Jobs that misbehave, on the real processes: each ends in the right state, says why, and leaves no process behind."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor

pytestmark = pytest.mark.long

# What is run, what it is allowed, where it must end, and what its page must say.
JOBS: dict[str, tuple[str, dict[str, object], str, str]] = {
    "forks": (
        "for i in 1 2 3 4 5; do (setsid sh -c 'sleep 600 & sleep 600' &) ; done; sleep 0.5",
        {},
        "succeeded",
        "exit code 0",
    ),
    "floods": (
        "head -c 200000000 /dev/zero | tr '\\0' 'x' | fold -w 99",
        {"memory_gb": 0.5},
        "succeeded",
        "exit code 0",
    ),
    "eats memory": (
        "python -c 'x = bytearray(600 << 20); input()' < /dev/zero",
        {},
        "failed",
        "its limit is 128 MiB",
    ),
    "speaks no UTF-8": ("printf 'a\\377\\376b\\n'; exit 4", {}, "failed", "exit code 4"),
    "dies by a signal": ("kill -SEGV $$", {}, "failed", "SIGSEGV"),
    "does not exist": ("no-such-program --fast", {}, "failed", "not found"),
    "runs too long": ("sleep 600", {"time_limit": "2s"}, "timed_out", "time limit of 0:00:02"),
}
STUBBORN = "trap '' TERM; while true; do sleep 0.1; done"


def test_each_ends_as_it_should_and_leaves_nothing(house: House, visitor: Visitor, rows: Rows) -> None:
    jobs = {name: visitor.submit(command, name=name, **fields) for name, (command, fields, _, _) in JOBS.items()}
    stubborn = visitor.submit(STUBBORN, name="ignores SIGTERM")
    until(lambda: rows.states().get(stubborn) == "running", "the stubborn one runs")
    visitor.post(f"/jobs/{stubborn}/cancel/")

    wanted = {jobs[name]: state for name, (_, _, state, _) in JOBS.items()} | {stubborn: "cancelled"}
    until(lambda: not set(rows.states().values()) & {"queued", "starting", "running"}, "all have ended", 120)
    assert rows.states() == wanted
    for name, job in jobs.items():
        assert JOBS[name][3] in _reason(visitor, job), (name, _reason(visitor, job))
    assert "Cancelled by Operator" in _reason(visitor, stubborn)
    assert [job for job in wanted if _processes_of(job)] == []


def _reason(visitor: Visitor, job: str) -> str:
    found = re.search(r'<p class="why"[^>]*>(.*?)</p>', visitor.get(f"/jobs/{job}/")[1], re.DOTALL)
    return html.unescape(found[1]) if found else ""


def _processes_of(job: str) -> list[str]:
    """Whatever still has the job's id in its environment or command."""
    mark, found = job.encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in told:
            found.append(entry.name)
    return found
