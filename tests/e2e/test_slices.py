"""Slices asked for by hand in a browser: instances, shares and gangs on paper; shares and whole devices for real."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows

# By rank: the worker's node, and the slices it holds there.
HELD = """
    SELECT a.rank, n.name, d.index, a.units, a.memory, a.profile, a.weight FROM jobs_allocation a
    JOIN cluster_device d ON d.id = a.device_id JOIN cluster_node n ON n.id = d.node_id
    JOIN jobs_attempt t ON t.id = a.attempt_id WHERE t.job_id = %s ORDER BY a.rank, d.index
"""


def ask(page: Page, name: str, command: str, **fields: str) -> str:
    """A job through the form; returns its id once its page is open."""
    fill_in(page, name, command, **fields)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}/$"))
    return page.url.strip("/").split("/")[-1]


def fill_in(page: Page, name: str, command: str, **fields: str) -> None:
    """The form of a new job, field by field as a person sees it."""
    page.goto("/jobs/new/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Command").fill(command)
    for label, value in fields.items():
        field = page.get_by_label(re.compile(f"^{label.replace('_', ' ')}"))
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    expect(page.locator("#quote .price")).to_be_visible()


def runs(page: Page) -> None:
    expect(page.locator("#job-head [data-state]")).to_have_attribute("data-state", "running", timeout=30_000)


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job-head [data-state]")).to_have_attribute("data-state", "cancelled", timeout=30_000)


def test_an_instance_a_share_and_a_gang_of_four_nodes_on_paper(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    house.up(HAEIN_BACKEND="simulator", HAEIN_SIM_SPEED="10", HAEIN_SIM_NODES="9")
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(72,)], "the cluster reports")

    job = ask(page, "instance", "simulate 1h", MIG_profile="2g.45gb")
    runs(page)
    assert [(units, memory, profile, weight) for *_, units, memory, profile, weight in rows.ask(HELD, job)] == [
        (16, 14, "2g.45gb", 250)
    ]
    expect(page.locator("#job-head")).to_contain_text("1 × 2g.45gb")
    expect(page.locator("#job-events")).to_contain_text(
        re.compile(r"carve sim-00\d/gpu\d into 2g.45gb: touches no running job, lets 1 waiting job start")
    )
    expect(page.locator("[data-legend=chart-utilization]")).to_contain_text("n/a", timeout=20_000)

    job = ask(page, "share", "simulate 1h", GPU_share="25")
    runs(page)
    assert [(units, profile, weight) for *_, units, _, profile, weight in rows.ask(HELD, job)] == [(250, "", 250)]

    job = ask(page, "gang", "simulate 1h util=80", GPUs="8", Workers="4", Near_each_other="rack")
    runs(page)
    held = rows.ask(HELD, job)
    assert [row[0] for row in held] == [rank for rank in range(4) for _ in range(8)]
    assert len({row[1] for row in held}) == 4, "four nodes"
    assert rows.ask("SELECT count(*) FROM jobs_worker") == [(3,)]
    expect(page.locator("#job-head")).to_contain_text("4 × (8 GPUs)")
    expect(page.locator("#job-head")).to_contain_text(", ".join(dict.fromkeys(row[1] for row in held)))
    expect(page.locator("#job-cost")).to_contain_text("× 32")
    cancel(page)
    assert rows.ask("SELECT count(*) FROM jobs_allocation a WHERE ended_at IS NULL") == [(2,)]


def test_what_never_fits_says_so_before_the_button_and_loses_nothing(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    house.up(HAEIN_BACKEND="simulator", HAEIN_SIM_NODES="2")
    page = open_page(forgiven="422")  # as a browser says of a form that comes back
    page.goto(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(16,)], "the cluster reports")
    page.goto("/jobs/new/")
    page.get_by_label("Name", exact=True).fill("too many")
    page.get_by_label("Command").fill("true")
    page.get_by_label("GPUs", exact=True).fill("8")
    page.get_by_label("Workers").fill("5")
    expect(page.locator("#quote")).to_contain_text("even an empty cluster has room for 2 at most")
    expect(page.locator("#quote")).to_contain_text("Nearest that fits: 2 workers")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.get_by_label("Workers"))).to_contain_text("even an empty cluster")
    expect(page.get_by_label("Workers")).to_have_value("5")


def test_a_share_and_two_whole_devices_with_real_processes(
    house: House, rows: Rows, open_page: Callable[..., Page]
) -> None:
    house.up()
    page = open_page()
    page.goto(setup_link(house))
    page.goto("/jobs/new/")
    expect(page.get_by_label("MIG profile")).to_have_count(0)  # this machine has none
    expect(page.get_by_label("Workers")).to_have_count(0)
    says = 'echo "devices=$CUDA_VISIBLE_DEVICES share=$HAEIN_GPU_SHARE memory=$HAEIN_GPU_MEMORY_MB"; sleep 600'
    small: dict[str, Any] = {"CPU_cores": "0.2", "Memory": "0.25"}

    share = ask(page, "share", says, GPU_share="25", **small)
    runs(page)
    expect(page.locator("#log")).to_contain_text(re.compile(r"devices=\d share=0.25 memory=45839"), timeout=20_000)

    two = ask(page, "two", says, GPUs="2", **small)
    runs(page)
    expect(page.locator("#log")).to_contain_text(re.compile(r"devices=\d,\d share=1 memory=183359"), timeout=20_000)
    held = {job: {row[2] for row in rows.ask(HELD, job)} for job in (share, two)}
    assert [len(held[job]) for job in (share, two)] == [1, 2]
    assert not held[share] & held[two]
    for job in (share, two):  # real processes outlive the house
        page.goto(f"/jobs/{job}/")
        cancel(page)
