"""An operator sets a quota in the sheet in the browser, meets a job that it forbids, and takes the change back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.house import House
from tests.rows import Rows
from tests.visitor import Visitor


def test_a_quota_is_set_in_place_and_undone(
    open_page: Callable[..., Page], house: House, visitor: Visitor, rows: Rows
) -> None:
    page = open_page()
    cookies: Any = [
        {"name": name, "value": value, "url": f"http://localhost:{house.port}"}
        for name, value in visitor.cookies.items()
    ]
    page.context.add_cookies(cookies)
    ((team,),) = rows.ask("SELECT name FROM tenants_team")
    page.goto("/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="All quotas").click()
    page.get_by_role("link", name=f"Change the quota of {team}", exact=True).click()
    expect(page.locator("#quota-edit-title")).to_contain_text(team)
    page.get_by_label("Guaranteed GPUs").fill("1.5")
    page.get_by_label("Time limit of one job").fill("20m")
    page.get_by_role("button", name="Set the quota").click()
    expect(page.get_by_text("Set: the quota of")).to_be_visible()
    stored = "SELECT guaranteed, time_limit_s, borrow FROM jobs_quota"
    assert rows.ask(stored) == [(1500, 1200, None)]

    page.goto("/jobs/new/")
    page.get_by_label("Time limit").fill("1h")
    expect(page.locator("#quote")).to_contain_text("a job’s time limit is at most 0:20")
    page.get_by_label("Time limit").fill("10m")
    expect(page.locator("#quote")).to_contain_text("Inside the team’s guarantee: 0 of 1.5 GPUs are used.")

    page.goto("/operator/quotas/")
    page.get_by_role("button", name="Undo your last change").click()
    expect(page.get_by_text("As before: the quota of")).to_be_visible()
    assert rows.ask(stored) == []
