"""`make demo CLUSTER=slurm`, small: its first jobs run on a Slurm of its own, and a second start goes on with them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from haein.slurmlab import processes
from tests.house import House, until
from tests.rows import Rows

pytestmark = pytest.mark.long
PAGES = ("/", "/jobs/", "/jobs/new/", "/billing/", "/cluster/", "/quota/")
GOING_ON = ("pretrain-2x8", "score-checkpoints", "tokenizer")


def started(house: House) -> tuple[str, str]:
    """The password and the operator's address, as a person reads them off the terminal."""
    house.up("demo slurm", HAEIN_SLURM_NODES="4", HAEIN_SLURM_CONF="/nowhere/slurm.conf")

    def look() -> re.Match[str] | None:
        return re.search(
            r"/accounts/login/ with the password (\w+)\n.*  as (\S+), the operator,",
            house.output.read_text(errors="replace"),
        )

    found = until(look, "it says how to sign in", 120)
    assert found
    return found[1], found[2]


def runs(rows: Rows, number: int) -> set[str]:
    """The names of the jobs whose run with this number goes on."""
    running = "SELECT job.name FROM jobs_job AS job JOIN jobs_attempt AS attempt ON attempt.job_id = job.id"
    return {name for (name,) in rows.ask(f"{running} WHERE job.state = 'running' AND attempt.number = %s", number)}


def test_its_jobs_run_on_a_slurm_and_are_run_again_by_the_next_start(
    house: House, open_page: Callable[..., Page]
) -> None:
    folder = house.var / "demo-slurm"
    rows = Rows(folder)
    password, operator = started(house)
    until(lambda: set(GOING_ON) <= runs(rows, 1), "its long jobs run")
    ended = "SELECT state FROM jobs_job WHERE name IN ('digits-warm-up', 'wrong-path') ORDER BY name"
    until(lambda: rows.ask(ended) == [("succeeded",), ("failed",)], "its short jobs have ended", 120)

    page = open_page()
    page.goto("/accounts/login/")
    page.fill("input[name=login]", operator)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/")
    for path in PAGES:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        expect(page.locator("header .badge")).to_have_text("Emulated GPUs")
    page.goto("about:blank")

    house.end()
    until(lambda: not house.processes(), "everything is stopped")
    assert not processes.work(folder / "slurm")
    assert started(house) == (password, operator)
    until(lambda: set(GOING_ON) <= runs(rows, 2), "what the stop has ended runs again")
    assert {entry.name for entry in house.var.iterdir()} == {"env", "demo-slurm"}
