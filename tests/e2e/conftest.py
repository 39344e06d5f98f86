"""A house on real processes, somebody in it, and a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.house import House, made, until
from tests.rows import Rows
from tests.visitor import Visitor

# Without these Chromium looks for its maker's servers at every start.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def setup_link(house: House) -> str:
    """The one-time link, as a person reads it off the terminal."""

    def look() -> str:
        found = re.search(r"http://\S+/setup/\S+", house.output.read_text(errors="replace"))
        return found[0] if found else ""

    return until(look, "the one-time link is printed")


@pytest.fixture
def house() -> Iterator[House]:
    with made() as mine:
        yield mine


@pytest.fixture
def visitor(house: House) -> Visitor:
    """The first operator, come in through the link."""
    house.up()
    first = Visitor(f"http://localhost:{house.port}")
    first.come_in(setup_link(house))
    return first


@pytest.fixture
def rows(house: House) -> Rows:
    return Rows(house.var)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "No Chromium is installed: apt-get install chromium"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=list(QUIET)) as launched,
    ):
        yield launched


@pytest.fixture
def open_page(house: House, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page of a fresh visitor; whatever leaves the machine, or fails in the page's scripts, fails the test."""
    contexts, strays, faults = [], list[str](), list[str]()

    def opened(*, forgiven: str = "", **options: object) -> Page:
        def note(fault: str) -> None:
            if not forgiven or forgiven not in fault:
                faults.append(fault)

        context = browser.new_context(base_url=f"http://localhost:{house.port}", **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: strays.extend(_strays(request.url, house)))
        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda said: note(said.text) if said.type == "error" else None)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not strays
    assert not faults


def _strays(url: str, house: House) -> list[str]:
    return [] if url.startswith((f"http://localhost:{house.port}/", "data:", "blob:")) else [url]
