"""What pages of a thousand and ten thousand devices cost: the server to answer and make frames, Chromium to draw.

Every device is held in one of a few ways, and a hundred thousand jobs lie in the database.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import time
from typing import Any

from playwright.sync_api import Page, sync_playwright
from psutil import Process

from bench.api import looks, shell
from bench.ground import Figure, inhabited, percentile, summary
from tests.e2e.conftest import QUIET
from tests.house import House, until
from tests.rows import Rows

PATHS = ("/cluster/", "/cluster/?sort=-free", "/cluster/nodes/sim-001/")
FRAMES = 20
PER_NODE = 8
OCCUPY = """
from django.db import connection
from haein.cluster.models import Device
from haein.tenants.models import User
from jobs.models import Allocation
from tests.cast import Person
from tests.dashboard import crowd
me = Person(User.objects.get())
crowd.gather(me, 1000)
crowd.multiply(115)
Allocation.objects.filter(ended_at=None).delete()
crowd.occupy(me)
with connection.cursor() as cursor:
    cursor.execute("VACUUM ANALYZE")
"""
FRAME = """
import json, time
from dashboard import heatmap
from jobs import occupancy
times = []
for _ in range(40):
    begun = time.perf_counter()
    picture = heatmap.picture(occupancy.now())
    times.append((time.perf_counter() - begun) * 1000)
print(json.dumps({"times": times, "frame": len(picture.frame), "layout": len(picture.layout)}))
"""
# Frees some devices and holds others, so that the next frame differs in about a tenth of its cells.
STIR = """
UPDATE jobs_allocation SET ended_at = CASE WHEN ended_at IS NULL THEN greatest(now(), billable_from) END
WHERE mod(id, 10) = {turn} AND start IS NULL RETURNING id
"""


def page() -> Figure:
    """From the request to the last byte of /cluster/, one reader after another, 1,032 devices."""
    return _page(129)


def page_10k() -> Figure:
    """The same with 10,240."""
    return _page(1280)


def _page(nodes: int) -> Figure:
    with inhabited(HAEIN_BACKEND="simulator", HAEIN_SIM_NODES=str(nodes)) as (house, visitor):
        jobs = _occupy(house, nodes)
        times = {path: looks(visitor, "", path) for path in PATHS}
        resident = _resident(house)
    worst = max(percentile(each, 95) for each in times.values())
    detail: dict[str, Any] = {"devices": nodes * PER_NODE, "jobs": jobs, "web_mb": resident}
    detail |= {path: summary(each) for path, each in times.items()}
    return Figure(round(worst, 1), "ms", 100, detail, besides=jobs >= 100_000)


def frame() -> Figure:
    """A look at the rows and the frame made of them, 10,240 devices; one such serves all the readers of a process."""
    with inhabited(HAEIN_BACKEND="simulator", HAEIN_SIM_NODES="1280") as (house, _):
        _occupy(house, 1280)
        told = json.loads(shell(house, FRAME).splitlines()[-1])
    detail = {"devices": 10_240, "frame_bytes": told["frame"], "layout_bytes": told["layout"]}
    return Figure(round(statistics.median(told["times"]), 1), "ms", 100, detail | summary(told["times"]))


def draw() -> Figure:
    """From a frame to its last cell drawn, in Chromium without a GPU; of 10,240 devices a tenth change."""
    chromium = shutil.which("chromium")
    with (
        inhabited(HAEIN_BACKEND="simulator", HAEIN_SIM_NODES="1280") as (house, visitor),
        sync_playwright() as playwright,
    ):
        _occupy(house, 1280)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        address = f"http://{visitor.host}"
        context = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})
        context.add_cookies([{"name": name, "value": value, "url": address} for name, value in visitor.cookies.items()])
        opened = context.new_page()
        begun = time.perf_counter()
        opened.goto("/cluster/")
        opened.wait_for_selector("#map[data-frames]")
        detail: dict[str, Any] = {"devices": 10_240, "first_map_s": round(time.perf_counter() - begun, 2)}
        times = [_drawn(opened, house, turn) for turn in range(FRAMES)]
        heap: float = opened.evaluate("performance.memory.usedJSHeapSize / 1e6")
        browser.close()
    return Figure(round(percentile(times, 95), 1), "ms", 50, {**detail, "heap_mb": round(heap, 1), **summary(times)})


def _drawn(opened: Page, house: House, turn: int) -> float:
    """Milliseconds that the next frame took."""
    before = opened.locator("#map").get_attribute("data-frames")
    Rows(house.var).ask(STIR.format(turn=turn % 10))
    opened.wait_for_function("before => document.getElementById('map').dataset.frames !== before", arg=before)
    return float(opened.locator("#map").get_attribute("data-draw-ms") or "nan")


def _occupy(house: House, nodes: int) -> int:
    """Fill the cluster; returns how many jobs there are."""
    rows = Rows(house.var)
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(nodes * PER_NODE,)], "the cluster has reported")
    os.kill(house.pid("worker"), signal.SIGSTOP)  # it would end what is written below
    shell(house, OCCUPY)
    ((count,),) = rows.ask("SELECT count(*) FROM jobs_job")
    return int(count)


def _resident(house: House) -> float:
    """Megabytes of the web processes."""
    web = Process(house.pid("web"))
    return round(sum(each.memory_info().rss for each in (web, *web.children(recursive=True))) / 1e6, 1)
