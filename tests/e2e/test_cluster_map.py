"""The map in a browser, on a thousand devices: it moves when a job starts, obeys keys, and shows and drains a node."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import setup_link
from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor


@pytest.fixture
def visitor(house: House, rows: Rows) -> Visitor:
    """The first operator, on the cluster on paper."""
    house.up(HAEIN_BACKEND="simulator")
    first = Visitor(f"http://localhost:{house.port}")
    first.come_in(setup_link(house))
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(1032,)], "the cluster reports")
    return first


@pytest.fixture
def page(visitor: Visitor, open_page: Callable[..., Page]) -> Page:
    opened = open_page(viewport={"width": 1440, "height": 900})
    address = f"http://{visitor.host}"
    cookies: Any = [{"name": name, "value": value, "url": address} for name, value in visitor.cookies.items()]
    opened.context.add_cookies(cookies)
    opened.goto("/cluster/")
    expect(opened.locator("#map[data-frames]")).to_be_visible()
    return opened


def pixels(page: Page) -> str:
    drawn: str = page.locator("#map").evaluate("(map) => map.toDataURL()")
    return drawn


def test_the_map_moves_when_a_job_starts_and_ends(page: Page, visitor: Visitor, rows: Rows) -> None:
    before = pixels(page)
    job = visitor.submit("simulate 600s", name="eight", gpus=8, share=100, time_limit="1h")
    until(lambda: rows.states().get(job) == "running", "it runs")
    expect(page.locator("#cluster-totals")).to_contain_text("on 8 devices")
    ((node,),) = rows.ask("SELECT n.name FROM jobs_attempt a JOIN cluster_node n ON n.id = a.node_id")
    page.locator("#filter-state").select_option("full")
    expect(page.locator("#map-shown")).to_have_text("8 of 1032 devices fit the filter")
    expect(page.locator("#nodes-list tbody tr")).to_have_count(1)
    expect(page.locator("#nodes-list")).to_contain_text(node)
    page.locator("#filter-state").select_option("")
    assert pixels(page) != before
    visitor.post(f"/jobs/{job}/cancel/")
    expect(page.locator("#cluster-totals")).to_contain_text("on 0 devices", timeout=15_000)
    until(lambda: pixels(page) == before, "the map is as it was")


def test_it_is_used_by_keys_alone(page: Page) -> None:
    page.locator("#filter-sort").focus()
    page.keyboard.press("Tab")
    said = page.locator("#map-said")
    expect(said).to_have_text("sim-001/gpu0, B200: free")
    page.keyboard.press("ArrowRight")
    expect(said).to_have_text("sim-001/gpu1, B200: free")
    page.keyboard.press("ArrowDown")
    expect(said).to_have_text("sim-002/gpu1, B200: free")
    page.keyboard.press("End")
    expect(said).to_have_text("sim-129/gpu7, B200: free")
    page.keyboard.press("Enter")
    expect(page.locator("#node-title")).to_have_text("sim-129")
    expect(page.locator("#node-title")).to_be_focused()
    assert page.url.endswith("?node=sim-129")
    page.get_by_role("button", name="Close").press("Enter")
    expect(page.locator("#node-detail")).to_be_hidden()
    expect(page.locator("#map")).to_be_focused()


def test_an_operator_drains_a_node_from_it_and_its_work_goes_on(page: Page, visitor: Visitor, rows: Rows) -> None:
    job = visitor.submit("simulate 600s", name="keeps on", gpus=1, share=100, time_limit="1h")
    until(lambda: rows.states().get(job) == "running", "it runs")
    ((node,),) = rows.ask("SELECT n.name FROM jobs_attempt a JOIN cluster_node n ON n.id = a.node_id")
    page.locator("#nodes-list").get_by_role("link", name=node).click()
    detail = page.locator("#node-detail")
    expect(detail.get_by_role("link", name="keeps on")).to_be_visible()
    detail.get_by_label("Why it is drained").fill("a new fan")
    detail.get_by_role("button", name="Drain it").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 job runs there and goes on.")
    page.get_by_role("dialog").get_by_role("button", name="Drain it").click()
    expect(detail).to_contain_text("Takes no new work: a new fan. 1 job runs there and goes on.")
    expect(page.locator("#cluster-totals")).to_contain_text("1 node")
    assert rows.states()[job] == "running"
    detail.get_by_role("button", name="Let it take new work again").click()
    expect(page.locator("#node-detail")).not_to_contain_text("Takes no new work")
    ((actions,),) = rows.ask("SELECT json_agg(action ORDER BY id)::text FROM tenants_auditentry WHERE action ~ '^node'")
    assert json.loads(actions) == ["node.drain", "node.undrain"]
    visitor.post(f"/jobs/{job}/cancel/")
