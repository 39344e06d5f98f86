"""A whole house on the cluster on paper: a job goes its way to the end, and its pages show what it did."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor


@pytest.mark.long
def test_a_job_is_rehearsed_from_the_queue_to_its_log_and_files(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    house.up(HAEIN_BACKEND="simulator", HAEIN_SIM_SPEED="10")
    visitor = Visitor(f"http://localhost:{house.port}")
    visitor.come_in(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device WHERE emulated") == [(1032,)], "the cluster reports")

    os.kill(house.pid("worker"), signal.SIGSTOP)  # so that there is time to see it queued
    job = visitor.submit("echo hello; simulate 40s util=85", name="rehearsed", gpus=8, share=100)
    page = open_page(storage_state=_as_kept_by_a_browser(visitor))
    page.goto(f"/jobs/{job}/")
    state = page.locator("#job-head [data-state]")
    expect(state).to_have_attribute("data-state", "queued")
    expect(page.locator("header .badge")).to_have_text("Simulation × 10")
    os.kill(house.pid("worker"), signal.SIGCONT)

    expect(state).to_have_attribute("data-state", "running", timeout=20_000)
    expect(page.locator("#log")).to_contain_text("This run is simulated", timeout=20_000)
    expect(page.locator("#log")).to_contain_text("samples/s")
    expect(state).to_have_attribute("data-state", "succeeded", timeout=20_000)
    ((node, seconds),) = rows.ask(
        "SELECT n.name, extract(epoch FROM a.ended_at - a.started_at) FROM jobs_attempt a"
        " JOIN cluster_node n ON n.id = a.node_id"
    )
    assert node.startswith("sim-")
    assert 3.9 < seconds < 4.1  # forty seconds at ten times the speed

    log = visitor.get(f"/jobs/{job}/log.txt")[1]
    assert (log.count("hello"), log.count("samples/s")) == (1, 8)
    assert "simulated-checkpoint-1.json" in visitor.get(f"/jobs/{job}/files/")[1]
    assert visitor.get(f"/cluster/nodes/{node}/")[1].count("· emulated") == 8


def _as_kept_by_a_browser(visitor: Visitor) -> dict[str, object]:
    common = {"domain": "localhost", "path": "/", "expires": -1, "httpOnly": True, "secure": False, "sameSite": "Lax"}
    return {"cookies": [{"name": name, "value": value, **common} for name, value in visitor.cookies.items()]}
