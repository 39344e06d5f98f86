"""How long a person waits: from the button to the first line, from a printed line to the page."""

from __future__ import annotations

import json
import shutil
import statistics
import time

from playwright.sync_api import Page, sync_playwright
from websockets.sync.client import connect

from bench.ground import Figure, inhabited, percentile, summary
from tests.e2e.conftest import QUIET
from tests.visitor import Visitor

JOBS = 100
LINES = 300


def submit_to_first_line() -> Figure:
    """From before the form is posted until its first line has come over the job page's socket; one after another."""
    seen, stamped = [], []
    with inhabited() as (_, visitor):
        for _number in range(JOBS):
            begun = time.time()
            job = visitor.submit("echo first", share=100)
            printed = _first_line(visitor, job)
            seen.append((time.time() - begun) * 1000)
            stamped.append((printed - begun) * 1000)
            _until_ended(visitor, job)
    detail = {"seen": summary(seen), "printed": summary(stamped), "p95_target": 800}
    return Figure(round(statistics.median(seen), 1), "ms", 300, detail, besides=percentile(seen, 95) < 800)


def _first_line(visitor: Visitor, job: str) -> float:
    """The moment on the first line's stamp, once it has arrived."""
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    headers = {"Cookie": cookies, "Origin": f"http://{visitor.host}"}
    with connect(f"ws://{visitor.host}/ws/jobs/{job}/", additional_headers=headers) as socket:
        socket.send(json.dumps({"type": "resume", "attempt": "", "log": None, "readings": None}))
        while True:
            message = json.loads(socket.recv(timeout=10))
            if message["type"] == "log" and message["lines"]:
                return float(message["lines"][0][0])


def _until_ended(visitor: Visitor, job: str) -> None:
    """The next one finds an idle machine."""
    deadline = time.monotonic() + 30
    while 'data-state="succeeded"' not in visitor.get(f"/jobs/{job}/")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Each line carries the moment before it was printed; the page notes the moment when its row is in the document.
PRINTER = """python -c '
import time
for n in range({lines}):
    print(f"at={{time.time():.4f}}", flush=True)
    time.sleep(0.1)
'"""
WATCH = """() => {
  window.delays = [];
  const note = (node) => {
    const found = /at=([0-9.]+)/.exec(node.textContent);
    if (found) window.delays.push(Date.now() - Number(found[1]) * 1000);
  };
  const rows = document.querySelector('#log [data-log=rows]');
  new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach(note)))
    .observe(rows, {childList: true});
}"""


def log_line_to_page() -> Figure:
    """From just before print() to the row in Chromium's document, both by this machine's clock."""
    chromium = shutil.which("chromium")
    with inhabited() as (_, visitor), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_context(base_url=f"http://{visitor.host}").new_page()
        page.context.add_cookies(
            [{"name": name, "value": value, "url": f"http://{visitor.host}"} for name, value in visitor.cookies.items()]
        )
        job = visitor.submit(PRINTER.format(lines=LINES))
        page.goto(f"/jobs/{job}/")
        page.evaluate(WATCH)
        delays = _delays(page)
        browser.close()
    return Figure(round(percentile(delays, 95), 1), "ms", 500, summary(delays))


def _delays(page: Page) -> list[float]:
    """Those of the lines that came while the page was open: the first ones were printed before it was."""
    page.wait_for_selector("#job-head [data-state=succeeded]", timeout=120_000)
    delays: list[float] = page.evaluate("window.delays")
    return delays[-(LINES - 50) :]
