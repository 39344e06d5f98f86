"""An array in a browser: asked for by its indexes, watched as one, each with its index, and ended by one button."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows


def ask(page: Page, name: str, command: str, array: str) -> None:
    """An array through the form; ends on the list of its jobs."""
    page.goto("/jobs/new/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Command").fill(command)
    page.get_by_label(re.compile("^GPU share")).fill("10")
    page.get_by_label(re.compile("^CPU cores")).fill("0.1")
    page.get_by_label(re.compile("^Memory, GiB")).fill("0.125")
    page.get_by_label(re.compile("^Array")).fill(array)
    expect(page.locator("#quote")).to_contain_text("an hour of each job")
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile(r"/jobs/\?array=[0-9a-f-]{36}$"))


def test_an_array_runs_and_is_watched_and_ended_as_one(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    house.up()
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) > 0 FROM cluster_device") == [(True,)], "the cluster reports")

    ask(page, "squares", 'echo "$HAEIN_ARRAY_INDEX squared is $((HAEIN_ARRAY_INDEX * HAEIN_ARRAY_INDEX))"', "1-3,9")
    expect(page.get_by_role("heading", level=1)).to_have_text("squares")
    expect(page.locator(".array-head")).to_contain_text("4 of 4 jobs of the array have ended", timeout=60_000)
    expect(page.locator(".array-head .pill")).to_contain_text("4 Succeeded")
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "4")
    expect(page.locator("#jobs-list tbody .index")).to_have_text(["[1]", "[2]", "[3]", "[9]"])
    expect(page.get_by_role("button", name="Cancel all")).to_have_count(0)

    page.locator("#jobs-list tbody tr").last.get_by_role("link", name="squares").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("squares [9]")
    expect(page.locator("#job-head")).to_contain_text("4 of 4 of its array")
    expect(page.get_by_role("log")).to_contain_text("9 squared is 81")
    expect(page.get_by_role("link", name="Next")).to_have_count(0)
    page.get_by_role("link", name="Previous").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("squares [3]")
    expect(page.get_by_role("log")).to_contain_text("3 squared is 9")

    ask(page, "endless", "sleep 600", "0-2")
    expect(page.locator(".array-head")).to_contain_text("3 Running", timeout=60_000)
    # The filter stays within the array.
    page.get_by_label("State").select_option("queued")
    expect(page.locator("#jobs-list")).to_contain_text("No job fits this filter.")
    expect(page.locator(".array-head")).to_contain_text("3 Running")
    page.get_by_role("button", name="Cancel all").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel all that have not ended").click()
    expect(page.get_by_text("Cancelling 3 jobs: what runs gets a moment to end by itself.")).to_be_visible()
    expect(page.locator(".array-head")).to_contain_text("3 Cancelled", timeout=60_000)
    states = "SELECT name, state, count(*) FROM jobs_job GROUP BY name, state ORDER BY name"
    assert rows.ask(states) == [("endless", "cancelled", 3), ("squares", "succeeded", 4)]

    page.goto("/jobs/")
    page.locator("tr", has_text="endless").first.get_by_role("link", name="[2]").click()
    page.wait_for_url(re.compile(r"/jobs/\?array="))
    expect(page.get_by_role("heading", level=1)).to_have_text("endless")
