"""`make demo`, small: it says how to sign in, every page of it works and moves, and a second start adds no history."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.house import House, until
from tests.rows import Rows

pytestmark = pytest.mark.long
PAGES = ("/", "/jobs/", "/jobs/?state=failed", "/jobs/new/", "/billing/", "/cluster/", "/tokens/", "/api/")
OPERATORS = ("/operator/prices/", "/operator/replays/")
HISTORY = """
    WITH begun AS (SELECT at FROM tenants_auditentry WHERE action = 'demo.begin')
    SELECT (SELECT count(*) FROM tenants_organization), (SELECT count(*) FROM tenants_user),
           (SELECT count(*) FROM jobs_job WHERE created_at < (SELECT min(at) FROM begun)), (SELECT count(*) FROM begun)
"""
OF_DEVELOPER = """
    SELECT job.id FROM jobs_job AS job JOIN tenants_teammember AS member ON member.team_id = job.team_id
    JOIN tenants_user AS person ON person.id = member.user_id
    WHERE person.email = %s AND job.state = ANY(%s) ORDER BY job.created_at LIMIT 1
"""


def started(house: House) -> tuple[str, str, str]:
    """The password, the operator's and the developer's addresses, as a person reads them off the terminal."""
    elsewhere = {"HAEIN_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "HAEIN_REDIS_URL": "redis://127.0.0.1:1"}
    house.up("demo", HAEIN_SIM_NODES="12", HAEIN_SIM_SPEED="60", **elsewhere)

    def look() -> re.Match[str] | None:
        return re.search(
            rf"Sign in at http://localhost:{house.port}/accounts/login/ with the password (\w+)\n"
            r".*  as (\S+), the operator,\n.*  or as (\S+), a developer",
            house.output.read_text(errors="replace"),
        )

    found = until(look, "it says how to sign in", 120)
    assert found
    return found[1], found[2], found[3]


def signed_in(page: Page, email: str, password: str) -> Page:
    page.goto("/accounts/login/")
    expect(page.locator(".badge")).to_have_text("Simulation × 60")
    page.fill("input[name=login]", email)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/")
    return page


def visit(page: Page, path: str) -> None:
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 200, path
    expect(page.locator("header .badge")).to_have_text("Simulation × 60")
    expect(page.locator(".htmx-request")).to_have_count(0)


def test_the_demonstration_is_alive_and_begins_once(house: House, open_page: Callable[..., Page]) -> None:
    rows = Rows(house.var / "demo")
    password, operator, developer = started(house)
    ((organizations, _people, jobs, begun),) = before = rows.ask(HISTORY)
    assert (organizations, begun) == (13, 1)
    assert jobs > 1000
    until(lambda: list(rows.states().values()).count("running") > 10, "live work has begun")
    jobs_pages = [
        f"/jobs/{job}/"
        for states in (["succeeded"], ["failed"], ["cancelled"], ["running", "starting", "queued"])
        for (job,) in rows.ask(OF_DEVELOPER, developer, states)
    ]
    assert len(jobs_pages) >= 3
    page = signed_in(open_page(), developer, password)
    for path in (*PAGES, *jobs_pages, f"{jobs_pages[0]}files/"):
        visit(page, path)
    page.goto("about:blank")  # a page that is open would rightly complain of what comes
    page = signed_in(open_page(), operator, password)
    for path in (*PAGES, *OPERATORS):
        visit(page, path)
    page.goto("about:blank")

    house.end()
    until(lambda: not house.processes(), "everything is stopped")
    assert started(house) == (password, operator, developer)
    assert rows.ask(HISTORY) == before
    # Beside it nothing was touched: a real Haein in this folder would not notice.
    assert {entry.name for entry in house.var.iterdir()} == {"env", "demo"}
