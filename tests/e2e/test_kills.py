"""Law 1 on the real processes: kill any part at any moment; no job is lost or run twice, no second billed twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor, timed

pytestmark = pytest.mark.long

JOBS = 20
# Thousandths of a device that each holds, and micro-units that an hour of the whole one costs.
SHARE, PRICE = 100, 4_000_000
PARTS = ("worker", "beat", "web", "valkey", "postgres", "supervisor")

# Each run writes itself down, then works until it is let go: what ends while a part is dead is for the test to say.
COMMAND = 'echo "$HAEIN_JOB_ID" >> "$HAEIN_TEAM_DIR/runs"; until [ -e "$HAEIN_TEAM_DIR/go-{n}" ]; do sleep 0.05; done'


def test_whatever_is_killed_no_job_is_lost_run_twice_or_billed_twice(
    house: House, visitor: Visitor, rows: Rows
) -> None:
    jobs = [visitor.submit(COMMAND.format(n=n), name=f"job-{n}") for n in range(JOBS)]
    until(lambda: Counter(rows.states().values())["running"] == JOBS, f"{JOBS} jobs run")
    team = next((house.var / "teams").iterdir())

    for turn, part in enumerate(PARTS):
        _kill(house, part)
        ended = range(turn * 3, turn * 3 + 3)
        _let_go(team, *ended)  # these end while the part is dead
        if part == "supervisor":
            house.up()
        until(lambda: all(rows.states().get(jobs[n]) == "succeeded" for n in ended), f"all is well after {part}")  # noqa: B023
    _let_go(team, *range(JOBS))
    until(lambda: set(rows.states().values()) == {"succeeded"}, "every job ends")

    assert sorted((team / "runs").read_text().split()) == sorted(jobs)
    attempts = rows.ask("SELECT id, job_id FROM jobs_attempt")
    assert len(attempts) == JOBS
    _bill_is_exact(rows, [attempt for attempt, _ in attempts])


def test_with_valkey_dead_a_submit_answers_and_the_job_runs_when_it_is_back(
    house: House, visitor: Visitor, rows: Rows
) -> None:
    assert house.process is not None
    missed = "The scheduler has not reported lately"
    until(lambda: missed not in visitor.get("/")[1], "the scheduler has begun")
    house.process.send_signal(signal.SIGSTOP)  # so that it stays dead
    _kill(house, "valkey")
    # A tick that had begun may still look at the queue; once the pages miss the scheduler, none does.
    early, seconds = timed(visitor, "echo done")
    assert seconds < 1
    assert visitor.get(f"/jobs/{early}/")[0] == 200
    until(lambda: missed in visitor.get("/")[1], "the pages say so")
    job, seconds = timed(visitor, "echo done")
    assert seconds < 1
    assert rows.states()[job] == "queued"
    status, page = visitor.get(f"/jobs/{job}/")
    assert status == 200
    assert "Queued" in page
    house.process.send_signal(signal.SIGCONT)
    until(lambda: {rows.states()[each] for each in (early, job)} == {"succeeded"}, "they run when Valkey is back")


def _kill(house: House, part: str) -> None:
    if part == "supervisor":
        assert house.process is not None
        house.process.kill()
        house.process.wait()
        return
    pid = house.pid(part)
    assert pid
    os.kill(pid, signal.SIGKILL)


def _let_go(team: Path, *numbers: int) -> None:
    for number in numbers:
        (team / f"go-{number}").touch()


def _bill_is_exact(rows: Rows, attempts: list[object]) -> None:
    """What is metered is, attempt by attempt, the whole seconds between the runner's own records."""
    until(lambda: rows.ask("SELECT count(*) FROM jobs_allocation WHERE NOT metered") == [(0,)], "all is metered")
    metered = {
        attempt: (seconds, Fraction(int(micro), 3_600_000))
        for attempt, seconds, micro in rows.ask(
            "SELECT a.attempt_id, sum(u.seconds), sum(u.seconds::numeric * u.units * p.per_hour)"
            " FROM billing_usage u JOIN jobs_allocation a ON a.id = u.allocation_id"
            " JOIN billing_price p ON p.id = u.price_id GROUP BY 1"
        )
    }
    for attempt in attempts:
        started, ended = rows.runner_records(attempt)
        seconds = int(ended) - int(started)
        # A run that begins and ends within one second of the clock has used none, and has no line.
        billed = metered.get(attempt, (0, Fraction(0)))
        assert billed == (seconds, Fraction(seconds * SHARE * PRICE, 3_600_000))
    assert sum(seconds for seconds, _ in metered.values()) > 0
