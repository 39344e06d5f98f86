"""Every page in both themes, wide and narrow: nothing that axe objects to, nothing that needs scrolling sideways."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.house import House, until
from tests.rows import Rows
from tests.visitor import Visitor

SIZES = {"wide": {"width": 1440, "height": 900}, "narrow": {"width": 390, "height": 844}}
SIGNED_OUT = ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/setup/never-was/")
SIGNED_IN = (
    "/",
    "/jobs/",
    "/jobs/?q=nothing-is-called-so",
    "/jobs/new/",
    "/jobs/new/?example=digits",
    "/queue/",
    "/queue/?sort=name",
    "/billing/",
    "/cluster/",
    "/cluster/?state=unusable",
    "/tokens/",
    "/api/",
    "/quota/",
    "/quota/?edit=1",
    "/operator/quotas/",
    "/operator/quotas/?q=nothing-is-called-so",
    "/operator/prices/",
    "/operator/repack/",
    "/operator/windows/",
    "/operator/replays/",
    "/accounts/keep/",
    "/accounts/logout/",
    "/no-such-page/",
)
# What a page must have drawn before it is judged: charts and file lists come after the first paint.
READY = {
    "/jobs/new/": "#quote",
    "/cluster/": "#map[data-frames]",
    "/billing/": "#chart-days .js-plotly-plot, #chart-days.js-plotly-plot",
}


@pytest.fixture
def lived_in(visitor: Visitor, rows: Rows) -> Iterator[list[str]]:
    """A team with work of every kind; the addresses of its jobs' pages."""
    done = visitor.submit("for i in $(seq 30); do echo line $i; sleep 0.1; done; echo oops >&2", name="done")
    failed = visitor.submit("echo before; exit 3", name="a-job-with-quite-a-long-name-that-fails-at-once-every-time")
    running = visitor.submit("while true; do echo tick; sleep 0.2; done", name="running", tags="night, sweep")
    waiting = visitor.submit("true", name="waiting", gpus=8, share=100)
    array = visitor.submit("true", name="array", array="0-30:3")

    def settled() -> bool:
        states = rows.states()
        ended = states.get(done) == "succeeded" and states.get(failed) == "failed"
        return ended and states.get(running) == "running" and states.get(waiting) == "queued"

    until(settled, "there is work of every kind")
    today = datetime.now(UTC).date()
    own = {"source": "own", "since": today - timedelta(days=7), "until": today, "kind": "ours"}
    status, replay = visitor.post("/operator/replays/", policies="packed", own="on", nodes="2, 3", **own)
    assert status == 302, replay
    until(lambda: rows.ask("SELECT state FROM jobs_replay") == [("done",)], "a replay is done")
    READY[replay] = "#chart-costs.js-plotly-plot"
    until(lambda: rows.ask("SELECT count(*) > 0 FROM billing_usage") == [(True,)], "something is metered", 15)
    ((node,),) = rows.ask("SELECT name FROM cluster_node")
    tomorrow = {"starts_at": f"{today + timedelta(days=1)}T18:00", "ends_at": f"{today + timedelta(days=1)}T20:00"}
    status, said = visitor.post("/operator/windows/", kind="maintenance", nodes=node, reason="new disks", **tomorrow)
    assert status == 302, said
    visitor.post(f"/cluster/nodes/{node}/drain/", reason="it is looked at")
    # One that must yield shows its notice, as if an hour were left.
    rows.ask(
        "UPDATE jobs_attempt SET preempt_at = now() + interval '1 hour', preempt_code = 'reclaimed', "
        'preempt_values = \'{"gpus": "4"}\' WHERE job_id = %s RETURNING id',
        running,
    )
    addresses = [f"/jobs/{job}/" for job in (done, failed, running, waiting)]
    ((member,),) = rows.ask("SELECT id FROM jobs_job WHERE array_index = 3")
    addresses += [f"/jobs/{array}", f"/jobs/{member}/"]
    yield [*addresses, f"/jobs/{done}/files/", replay, f"/cluster/?node={node}"]
    for job in (waiting, running):
        visitor.post(f"/jobs/{job}/cancel/")
    until(lambda: rows.states().get(running) == "cancelled", "what runs has ended")


def test_every_page_is_usable(house: House, visitor: Visitor, lived_in: list[str], browser: Browser) -> None:
    address = f"http://localhost:{house.port}"
    cookies: Any = [{"name": name, "value": value, "url": address} for name, value in visitor.cookies.items()]
    faults: dict[tuple[str, str, str], list[str]] = {}
    for size, theme in product(SIZES, ("light", "dark")):
        look: Any = {"viewport": SIZES[size], "color_scheme": theme, "reduced_motion": "reduce"}
        context = browser.new_context(base_url=address, **look)
        page = context.new_page()
        faults |= {(size, theme, path): judged(page, path) for path in SIGNED_OUT}
        context.add_cookies(cookies)
        faults |= {(size, theme, path): judged(page, path) for path in (*SIGNED_IN, *lived_in)}
        context.close()
    assert {where: fault for where, fault in faults.items() if fault} == {}


def judged(page: Page, path: str) -> list[str]:
    page.goto(path)
    if path in READY:
        expect(page.locator(READY[path]).first).to_be_visible()
    expect(page.locator(".htmx-request")).to_have_count(0)
    faults = [_in_words(violation) for violation in Axe().run(page).response["violations"]]
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        faults.append("it is wider than its window")
    return faults


def _in_words(violation: dict[str, Any]) -> str:
    return f"{violation['id']}: {violation['nodes'][0]['html'][:200]}"
