"""An operator asks in the browser what another policy would have made of the month, and sees it side by side."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor

MURI = "job_id,num_gpu,submit_time,duration\n"


def signed_in(open_page: Callable[..., Page], visitor: Visitor, house: House) -> Page:
    page = open_page()
    cookies: Any = [
        {"name": name, "value": value, "url": f"http://localhost:{house.port}"}
        for name, value in visitor.cookies.items()
    ]
    page.context.add_cookies(cookies)
    return page


def test_the_own_month_on_two_policies_is_compared_and_taken_away_as_a_table(
    open_page: Callable[..., Page], house: House, visitor: Visitor, rows: Rows
) -> None:
    jobs = [visitor.submit(f"sleep {seconds}", gpus=gpus, share=100) for seconds, gpus in ((1, 1), (2, 8), (1, 2))]
    until(lambda: all(rows.states().get(job) == "succeeded" for job in jobs), "a month's jobs have run")
    page = signed_in(open_page, visitor, house)
    page.goto("/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Replay").click()
    expect(page.get_by_role("checkbox", name="packed")).not_to_be_checked()
    page.get_by_role("checkbox", name="packed").check()
    page.get_by_role("checkbox", name="haein").uncheck()
    page.get_by_label("And with other numbers of nodes").fill("2")
    page.get_by_role("button", name="Start the replay").click()
    expect(page.locator("#replay-head")).to_have_attribute("data-state", "done", timeout=30_000)
    expect(page.get_by_text("3 jobs replayed")).to_be_visible()
    runs = page.get_by_role("table").get_by_role("row")
    expect(runs).to_have_count(5)
    for chart in ("held", "stranded", "waiting", "waits", "costs"):
        expect(page.locator(f"#chart-{chart}.js-plotly-plot")).to_be_visible()
    expect(page.locator("[data-legend=chart-held] span")).to_have_count(4)
    for name, least in (("Runs as CSV", 4), ("Curves as CSV", 8)):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        with Path(download.value.path()).open() as table:
            found = list(csv.DictReader(table))
        assert len(found) >= least
        assert {line["policy"] for line in found} == {"bestfit", "packed"}
    page.get_by_role("button", name="Delete the replay").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("No replay yet.")).to_be_visible()


@pytest.mark.long
def test_one_that_runs_outlives_its_worker_and_is_cancelled(
    open_page: Callable[..., Page], house: House, visitor: Visitor, rows: Rows, tmp_path: Path
) -> None:
    trace = tmp_path / "long.csv"
    lines = [f"{number},{1 + number % 7},{number * 1000},{5_000_000 + number % 97}\n" for number in range(40_000)]
    trace.write_text(MURI + "".join(lines))
    page = signed_in(open_page, visitor, house)
    page.goto("/operator/replays/")
    page.get_by_label("A trace from a file").check()
    page.get_by_label("Trace", exact=True).set_input_files(trace)
    page.get_by_role("button", name="Start the replay").click()
    bar = page.get_by_role("progressbar")
    until(lambda: int(bar.get_attribute("value") or 0) > 0, "the bar moves by itself")
    os.kill(house.pid("replayer"), signal.SIGKILL)
    until(lambda: rows.ask("SELECT tries FROM jobs_replay") == [(2,)], "another worker takes it")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("It was cancelled.")).to_be_visible()
    job = visitor.submit("true")
    until(lambda: rows.states().get(job) == "succeeded", "jobs run all the while")
    page.get_by_role("link", name="All replays").click()
    page.get_by_label("A trace from a file").check()
    trace.write_text(MURI + "0,1,0,1000\n")
    page.get_by_label("Trace", exact=True).set_input_files(trace)
    page.get_by_role("button", name="Start the replay").click()
    # The worker that was busy with the first has stopped within a second or so.
    expect(page.locator("#replay-head")).to_have_attribute("data-state", "done", timeout=20_000)
