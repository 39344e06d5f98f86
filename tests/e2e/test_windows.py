"""Windows planned by hand in a browser, on a cluster on paper: the queue drains toward them, and fills up again."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.e2e.test_slices import ask, runs
from tests.house import House, until
from tests.rows import Rows

HELD = """
    SELECT DISTINCT n.name FROM jobs_attempt t JOIN cluster_node n ON n.id = t.node_id
    WHERE t.job_id = %s AND t.state <> 'ended'
"""

OWN_TEAM = """
    SELECT m.team_id FROM tenants_teammember m JOIN tenants_user u ON u.id = m.user_id WHERE u.is_operator
"""


def up(house: House, rows: Rows, page: Page) -> None:
    house.up(HAEIN_BACKEND="simulator", HAEIN_SIM_NODES="2", HAEIN_PREEMPTION_NOTICE_SECONDS="4")
    page.goto(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(16,)], "the cluster reports")


def at(minutes: int) -> str:
    """So many minutes from the present one on, as it is typed into a field, in UTC."""
    return f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M}"


def confirm(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


@pytest.mark.long  # a window begins at a full minute
def test_a_node_that_goes_out_is_drained_toward_and_comes_back(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    page = open_page(viewport={"width": 1440, "height": 900})
    up(house, rows, page)
    job = ask(page, "long", "simulate 10h", GPUs="8", Time_limit="12h")
    runs(page)
    ((node,),) = rows.ask(HELD, job)
    other = ask(page, "other", "simulate 10h", GPUs="8", Time_limit="12h")
    runs(page)

    page.goto(f"/cluster/?node={node}")
    panel = page.locator("#node-detail")
    expect(panel).to_contain_text("If drained, empty at the latest by")
    panel.get_by_label("Why it is drained").fill("new firmware")
    panel.get_by_label("From (UTC)").fill(at(1))
    panel.get_by_label("To (UTC)").fill(at(60))
    panel.get_by_role("button", name="Drain it").click()
    expect(page.get_by_role("dialog")).to_contain_text("at the latest")
    confirm(page, "Drain it")
    expect(page.locator("#cluster-windows")).to_contain_text(f"1 node goes out for maintenance ({node}): new firmware")

    page.goto(f"/jobs/{job}/")
    expect(page.locator("#job-events")).to_contain_text(
        re.compile(rf"Its machine \({node}\) goes out for maintenance from"), timeout=90_000
    )
    expect(page.locator("#job-head [data-state]")).to_have_attribute("data-state", "queued", timeout=30_000)
    ended = rows.ask("SELECT preempt_code, cause, ended_at >= preempt_at FROM jobs_attempt WHERE state = 'ended'")
    assert ended == [("maintenance", "stopped", True)]
    assert rows.states()[other] == "running"
    expect(page.locator("#job-head")).to_contain_text(re.compile("set apart|Its turn"), timeout=20_000)
    assert rows.ask(HELD, job) == []

    page.goto("/operator/windows/")
    expect(page.locator("table").first).to_contain_text("Now")
    page.get_by_role("button", name="Cancel 1 node goes out").click()
    confirm(page, "Cancel it")
    expect(page.locator(".notices")).to_contain_text("Cancelled")
    page.goto(f"/jobs/{job}/")
    runs(page)
    assert rows.ask(HELD, job) == [(node,)]


def test_a_reservation_is_used_by_its_team_and_by_nobody_else(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    page = open_page(viewport={"width": 1440, "height": 900})
    up(house, rows, page)
    visitor = open_page()
    visitor.goto("/accounts/signup/")
    visitor.get_by_label("Your name").fill("Charlie")
    visitor.get_by_label("Organization").fill("Chaos")
    visitor.get_by_label("E-mail address").fill("charlie@chaos.test")
    visitor.locator("input[name=password1]").fill("seven wooden blocks")
    visitor.get_by_role("button", name="Make the account").click()
    expect(visitor.get_by_role("heading", level=1)).to_be_visible()

    page.goto("/operator/windows/")
    page.get_by_label("GPUs are reserved for a team").check()
    ((team,),) = rows.ask(OWN_TEAM)
    page.get_by_label("Team", exact=True).select_option(str(team))
    page.get_by_label("GPUs", exact=True).fill("12")
    page.get_by_label("GPU model").select_option(index=1)
    page.get_by_label("From (UTC)").fill(at(0))
    page.get_by_label("To (UTC)").fill(at(60))
    page.get_by_label("Why").fill("the course")
    page.get_by_role("button", name="Plan it").click()
    expect(page.locator("table").first).to_contain_text("12 ×")
    expect(page.locator("table").first).to_contain_text("the course")

    theirs = ask(visitor, "theirs", "simulate 1h", GPUs="8")
    expect(visitor.locator("#job-head")).to_contain_text("set apart", timeout=20_000)
    own = ask(page, "own", "simulate 1h", GPUs="8")
    runs(page)
    assert rows.states()[theirs] == "queued"
    reserved = "SELECT count(*) FROM jobs_allocation a JOIN jobs_window_devices w ON w.device_id = a.device_id"
    assert rows.ask(f"{reserved} JOIN jobs_attempt t ON t.id = a.attempt_id WHERE t.job_id = %s", own)[0][0] >= 4
    visitor.goto("/cluster/")
    expect(visitor.locator("#cluster-windows")).to_be_hidden()
    visitor.goto(f"/jobs/{theirs}/")

    page.goto("/operator/windows/")
    page.get_by_role("button", name=re.compile("^Cancel 12")).click()
    confirm(page, "Cancel it")
    expect(page.locator(".notices")).to_contain_text("Cancelled")
    runs(visitor)
