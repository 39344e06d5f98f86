"""An operator is shown what to move, approves it with one click, and watches until all runs; on real processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor

# Saves its work when it is told to, says so, and goes on from there when it runs again.
SAVES = """
count=$(cat saved 2>/dev/null || echo 0)
echo "began at $count"
trap 'echo $count > saved; touch "$HAEIN_CHECKPOINT"' USR1
trap 'exit 143' TERM
while true; do sleep 0.2; count=$((count + 1)); done
"""
SOON = {"HAEIN_PREEMPTION_NOTICE_SECONDS": "4", "HAEIN_PREEMPTION_MIN_RUN_SECONDS": "1"}


@pytest.fixture
def visitor(house: House) -> Visitor:
    """The first operator, in a house where notice is short."""
    house.up(**SOON)
    first = Visitor(f"http://localhost:{house.port}")
    first.come_in(setup_link(house))
    return first


@pytest.fixture
def scattered(visitor: Visitor, rows: Rows) -> list[str]:
    """Two jobs on a part of a device each, and one that waits for as many whole devices as there would be."""
    ((devices,),) = rows.ask("SELECT count(*) FROM cluster_device WHERE present")
    big = [visitor.submit(SAVES, name=f"big-{n}", share=60, checkpoints="on", requeue="on") for n in (1, 2)]
    until(lambda: all(rows.states()[job] == "running" for job in big), "the large parts run")
    small = [visitor.submit(SAVES, name=f"small-{n}", share=40, checkpoints="on", requeue="on") for n in (1, 2)]
    until(lambda: all(rows.states()[job] == "running" for job in small), "the small parts run")
    where = dict(
        rows.ask(
            "SELECT attempt.job_id::text, held.device_id FROM jobs_allocation AS held"
            " JOIN jobs_attempt AS attempt ON attempt.id = held.attempt_id WHERE held.ended_at IS NULL"
        )
    )
    apart = next(job for job in small if where[job] != where[big[0]])
    for job in {*big[1:], *small} - {apart}:
        visitor.post(f"/jobs/{job}/cancel/")
    until(lambda: list(rows.states().values()).count("running") == 2, "two are left, apart")
    waits = visitor.submit("sleep 600", name="whole", gpus=devices - 1, share=100)
    return [big[0], apart, waits]


@pytest.mark.long
def test_a_repack_is_approved_and_watched_until_all_run(
    open_page: Callable[..., Page], house: House, visitor: Visitor, rows: Rows, scattered: list[str]
) -> None:
    _, mover, waits = scattered
    page = open_page()
    cookies: Any = [
        {"name": name, "value": value, "url": f"http://localhost:{house.port}"}
        for name, value in visitor.cookies.items()
    ]
    page.context.add_cookies(cookies)
    page.goto("/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Repack").click()
    # It comes by itself, within the minute.
    expect(page.get_by_role("heading", name="Room for whole")).to_be_visible(timeout=90_000)
    moves = page.get_by_role("table", name="What moves").get_by_role("row")
    expect(moves).to_have_count(2)
    expect(moves.nth(1)).to_contain_text("small-")
    page.get_by_role("button", name="Approve and move").click()
    expect(page.get_by_text("of 2 run", exact=False)).to_be_visible()
    expect(moves.nth(1)).to_contain_text("Saves its work")
    expect(page.get_by_text("Nothing to move now.")).to_be_visible(timeout=60_000)
    past = page.get_by_role("table", name="Repacks before, newest first").get_by_role("row")
    expect(past.nth(1)).to_contain_text("Done")
    states = rows.states()
    assert (states[mover], states[waits]) == ("running", "running")
    ((count, devices),) = rows.ask(
        "SELECT count(DISTINCT attempt.number), count(DISTINCT held.device_id) FROM jobs_allocation AS held"
        " JOIN jobs_attempt AS attempt ON attempt.id = held.attempt_id WHERE attempt.job_id = %s",
        mover,
    )
    assert (count, devices) == (2, 2)
    ((saved,),) = rows.ask("SELECT checkpoint_at IS NOT NULL FROM jobs_attempt WHERE job_id = %s AND number = 1", mover)
    assert saved
    for job in scattered:
        visitor.post(f"/jobs/{job}/cancel/")
    until(lambda: "running" not in rows.states().values(), "what runs has ended")
