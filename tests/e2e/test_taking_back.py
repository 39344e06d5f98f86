"""What was lent is taken back, seen by both sides in browsers and by a program, on a cluster on paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.e2e.test_slices import ask, runs
from tests.house import House, until
from tests.rows import Rows


@pytest.mark.long
def test_the_owner_asks_and_the_borrower_yields_saves_and_returns(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    page = open_page(viewport={"width": 1440, "height": 900})
    house.up(
        HAEIN_BACKEND="simulator",
        HAEIN_SIM_NODES="2",
        HAEIN_PREEMPTION_NOTICE_SECONDS="6",
        HAEIN_PREEMPTION_MIN_RUN_SECONDS="0",
    )
    page.goto(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(16,)], "the cluster reports")
    visitor = open_page(viewport={"width": 1440, "height": 900})
    visitor.goto("/accounts/signup/")
    visitor.get_by_label("Your name").fill("Charlie")
    visitor.get_by_label("Organization").fill("Chaos")
    visitor.get_by_label("E-mail address").fill("charlie@chaos.test")
    visitor.locator("input[name=password1]").fill("seven wooden blocks")
    visitor.get_by_role("button", name="Make the account").click()
    expect(visitor.get_by_role("heading", level=1)).to_be_visible()

    # The operator guarantees his own team half of the cluster.
    ((team,),) = rows.ask(
        "SELECT t.id FROM tenants_team t JOIN tenants_organization o ON o.id = t.organization_id"
        " WHERE o.name <> 'Chaos'"
    )
    page.goto("/operator/quotas/")
    page.locator(f"a[href*='team={team}']", has_text="Change").click()
    page.get_by_label("Guaranteed GPUs").fill("8")
    page.get_by_role("button", name="Set the quota").click()
    expect(page.get_by_text("Set: the quota of")).to_be_visible()

    # Charlie borrows all of it: the form says so before, his page afterwards.
    lent = [ask(visitor, f"lent-{at}", "simulate 2h", GPUs="8", Time_limit="4h") for at in range(2)]
    runs(visitor)
    until(lambda: set(rows.states().values()) == {"running"}, "both run")

    # The owner asks: one of the two is told, and only one.
    mine = ask(page, "mine", "simulate 20m", GPUs="8", Time_limit="1h")
    expect(page.locator("#job-head")).to_contain_text(re.compile("were asked to leave"), timeout=20_000)
    told = until(lambda: rows.ask("SELECT job_id FROM jobs_attempt WHERE preempt_at IS NOT NULL"), "one is told")
    ((victim,),) = told
    assert str(victim) in lent
    visitor.goto(f"/jobs/{victim}/")
    expect(visitor.locator("#job-events")).to_contain_text(
        "A team that is guaranteed the GPUs it runs on needs them back", timeout=20_000
    )
    runs(page)
    assert rows.states()[mine] == "running"
    expect(visitor.locator("#job-head [data-state]")).to_have_attribute("data-state", "queued", timeout=30_000)
    assert [state for job, state in rows.states().items() if job in lent and job != str(victim)] == ["running"]
    assert rows.ask("SELECT guaranteed FROM jobs_attempt WHERE job_id = %s", mine) == [(True,)]
    assert rows.ask("SELECT preemptions FROM jobs_job WHERE id = %s", victim) == [(1,)]
    assert rows.ask("SELECT count(*) FROM jobs_allocation WHERE credited_s > 0") == [(0,)]

    # He reads why, what is ahead and when; and a program reads the same.
    expect(visitor.locator("#job-head")).to_contain_text(re.compile("whole GPUs|Its turn"), timeout=20_000)
    visitor.goto("/queue/")
    expect(visitor.locator("main")).to_contain_text(re.compile("lent-[01]"))
    expect(visitor.locator("main")).not_to_contain_text("mine")
    visitor.goto("/tokens/")
    visitor.get_by_label("Name").fill("a program")
    visitor.get_by_role("button", name="Make the token").click()
    token = visitor.get_by_label("Token", exact=True).input_value()
    asked = Request(f"http://localhost:{house.port}/api/v1/queue", headers={"Authorization": f"Bearer {token}"})

    def waiting() -> list[dict[str, Any]]:
        with urlopen(asked) as answer:
            return list(json.load(answer)["results"])

    (row,) = until(lambda: [row for row in waiting() if row["expected_start"]], "a forecast is made", 60)
    assert row["job"]["id"] == str(victim)
    assert row["expected_start"]["p50"] <= row["expected_start"]["p90"]

    # The owner is done with it, and what was sent away comes back.
    page.goto(f"/jobs/{mine}/")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    until(lambda: rows.states()[str(victim)] == "running", "it is back", 40)
