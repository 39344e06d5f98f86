"""The first day of somebody who has never seen Haein, in a real browser on real processes: from a click to a bill."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor

PLOT = "#chart-utilization .js-plotly-plot, #chart-utilization.js-plotly-plot"
POINTS = f"document.querySelector('{PLOT}')?.data[0].x.length ?? 0"


def test_from_sign_up_to_the_bill(house: House, rows: Rows, open_page: Callable[..., Page]) -> None:
    house.up()
    page = open_page(viewport={"width": 1440, "height": 900})
    _sign_up(page)

    os.kill(house.pid("worker"), signal.SIGSTOP)  # so that there is time to see it queued
    page.get_by_role("button", name="Run the digits training").click()
    state = page.locator("#job-head [data-state]")
    expect(state).to_have_attribute("data-state", "queued")
    page.evaluate("window.neverReloaded = true")
    os.kill(house.pid("worker"), signal.SIGCONT)

    expect(state).to_have_attribute("data-state", "running", timeout=20_000)
    expect(page.locator("#log")).to_contain_text("epoch", ignore_case=True, timeout=20_000)
    seen = _grown(page, 0)
    _grown(page, seen)
    expect(state).to_have_attribute("data-state", "succeeded", timeout=90_000)
    assert page.evaluate("window.neverReloaded")

    _bill_adds_up(page, rows)


def test_the_one_time_link_lands_in_a_ready_organization(house: House, open_page: Callable[..., Page]) -> None:
    house.up()
    link = setup_link(house)
    page = open_page()
    page.goto(link)
    page.get_by_role("button", name="Run the digits training").click()
    expect(page.locator("#job-head [data-state]")).to_have_attribute("data-state", "running", timeout=20_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job-head [data-state]")).to_have_attribute("data-state", "cancelled", timeout=30_000)

    second = Visitor(f"http://localhost:{house.port}")
    status, text = second.get(urlsplit(link).path)
    assert status == 404
    assert "has been used" in text


def test_a_dropped_socket_catches_up_without_a_gap_or_a_double_line(
    house: House, open_page: Callable[..., Page]
) -> None:
    house.up()
    page = open_page(forgiven="ERR_CONNECTION_REFUSED")  # that is what a browser says of a server that was killed
    page.goto(setup_link(house))
    page.goto("/jobs/new/")
    page.get_by_label("Name", exact=True).fill("counter")
    page.get_by_label("Command").fill("for i in $(seq 1 150); do echo line-$i; sleep 0.05; done")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("#log")).to_contain_text("line-20", timeout=20_000)
    os.kill(house.pid("web"), signal.SIGKILL)
    expect(page.locator("#log")).to_contain_text("line-150", timeout=60_000)
    # Every row of the document, those that are scrolled out of sight and not laid out included.
    rows = page.locator("#log .log-row").all_text_contents()
    assert [re.findall(r"line-(\d+)$", row) for row in rows] == [[str(number)] for number in range(1, 151)]


def _sign_up(page: Page) -> None:
    page.goto("/accounts/signup/")
    page.get_by_label("Your name").fill("Alice")
    page.get_by_label("Organization").fill("Acme Research")
    page.get_by_label("E-mail address").fill("alice@acme.test")
    page.locator("input[name=password1]").fill("seven wooden blocks")
    page.get_by_role("button", name="Make the account").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def _grown(page: Page, than: int) -> int:
    """The chart's number of points once there are more of them."""

    def look() -> int:
        points = int(page.evaluate(POINTS))
        return points if points > than else 0

    return until(look, "the chart grows", 30)


def _bill_adds_up(page: Page, rows: Rows) -> None:
    """The page's amount is seconds x share x price by the runner's own records, to the last shown digit."""
    (attempt, share, per_hour) = until(lambda: _metered(rows), "the run is metered")
    started, ended = rows.runner_records(attempt)
    exact = Decimal((int(ended) - int(started)) * share * per_hour) / (3_600_000 * 1_000_000)
    page.goto("/billing/")
    total = page.locator("[data-micro]").first
    assert abs(Decimal(total.get_attribute("data-micro") or "0") / 1_000_000 - exact) <= Decimal("0.0000005")
    shown = total.inner_text().lstrip("$")
    assert Decimal(shown) == exact.quantize(Decimal("0.0001"))
    expect(page.get_by_role("row", name=re.compile("digits"))).to_contain_text(shown)


def _metered(rows: Rows) -> Any:
    found = rows.ask(
        "SELECT a.attempt_id, u.units, p.per_hour FROM billing_usage u"
        " JOIN jobs_allocation a ON a.id = u.allocation_id JOIN billing_price p ON p.id = u.price_id"
    )
    return found[0] if found else None
