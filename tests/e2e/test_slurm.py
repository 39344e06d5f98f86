"""A house on a real Slurm, used in a browser: what Slurm says of a job and what its page says are the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from haein.slurmlab import Lab
from haein.supervisor.layout import ROOT
from tests.contract.slurm_stage import JOBS_USER
from tests.e2e.conftest import setup_link
from tests.e2e.test_looks import judged
from tests.e2e.test_slices import HELD, ask, cancel, fill_in, runs
from tests.house import House, made, until
from tests.rows import Rows
from tests.slurmlab import house_settings
from tests.visitor import Visitor

pytestmark = pytest.mark.long

WIDE: Any = {"width": 1440, "height": 900}
AS_JOBS_USER = ("--uid=nobody", "--gid=nogroup") if JOBS_USER == "nobody" else ()
SMALL = {"CPU_cores": "0.5", "Memory": "0.25"}

# A second team of the only organization that there is room for where all jobs run as one user.
BORROWERS = """
from haein.tenants.models import Organization, OrganizationMember, Team, TeamMember, User
organization = Organization.objects.get()
charlie = User.objects.create_user("charlie@haein.test", "seven wooden blocks", name="Charlie")
team = Team.objects.create(organization=organization, name="Borrowers")
OrganizationMember.objects.create(organization=organization, user=charlie)
TeamMember.objects.create(team=team, user=charlie)
"""


OWNERS = "First team"
SAVES = """
trap 'touch saved; date > "$HAEIN_CHECKPOINT"' USR1
if [ -e saved ]; then echo "goes on from what it saved"; else echo "begins"; fi
while :; do sleep 0.1; done
"""

ATTEMPTS = "SELECT id FROM jobs_attempt WHERE job_id = %s ORDER BY number"
BILLED = """
    SELECT coalesce(sum(u.seconds), 0) FROM jobs_allocation a LEFT JOIN billing_usage u ON u.allocation_id = a.id
    WHERE a.attempt_id = %s
"""
COST = """
    SELECT sum(u.seconds * u.units * p.per_hour) / 3600000 FROM billing_usage u
    JOIN billing_price p ON p.id = u.price_id JOIN tenants_team t ON t.id = u.team_id WHERE t.name = 'First team'
"""


@pytest.fixture(scope="module")
def house(slurm: Lab) -> Iterator[House]:
    """One for all of these stories, because starting it takes longer than most of them."""
    with made() as mine:
        mine.up(**house_settings(slurm), HAEIN_PREEMPTION_NOTICE_SECONDS="5", HAEIN_PREEMPTION_MIN_RUN_SECONDS="0")
        yield mine
        mine.end()  # else it would hand over what waits
        slurm.run("scancel", f"--user={JOBS_USER}")
        until(lambda: not slurm.run("squeue", "--noheader") and not mine.processes(), "every job has ended")


@pytest.fixture(scope="module")
def visitor(house: House) -> Visitor:
    """The first operator, come in through the link."""
    first = Visitor(f"http://localhost:{house.port}")
    first.come_in(setup_link(house))
    rows = Rows(house.var)
    until(lambda: rows.ask("SELECT count(*) FROM cluster_device") == [(64,)], "the cluster reports")
    return first


@pytest.fixture
def page(visitor: Visitor, open_page: Callable[..., Page]) -> Page:
    opened = open_page(viewport=WIDE)
    bring_in(opened, visitor)
    return opened


def bring_in(page: Page, visitor: Visitor) -> None:
    address = f"http://{visitor.host}"
    cookies: Any = [{"name": name, "value": value, "url": address} for name, value in visitor.cookies.items()]
    page.context.add_cookies(cookies)


def come_in_as_borrower(house: House, page: Page) -> None:
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", BORROWERS]
    subprocess.run(command, cwd=ROOT, env=house.environ(), check=True)
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill("charlie@haein.test")
    page.get_by_label("Password", exact=True).fill("seven wooden blocks")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()


def set_quota(page: Page, rows: Rows, team: str, label: str, value: str) -> None:
    ((key,),) = rows.ask("SELECT id FROM tenants_team WHERE name = %s", team)
    page.goto("/operator/quotas/")
    page.locator(f"a[href*='team={key}']", has_text="Change").click()
    page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Set the quota").click()
    expect(page.get_by_text("Set: the quota of")).to_be_visible()


def is_(page: Page, wanted: str, seconds: float = 30) -> None:
    """The job's page says so, now or soon."""
    pill = page.locator("#job-head [data-state]")
    expect(pill).to_have_attribute("data-state", wanted, timeout=seconds * 1000)


@contextmanager
def theirs(lab: Lab, *, nodes: int) -> Iterator[None]:
    """Work that somebody has given to Slurm without Haein: all GPUs of so many nodes."""
    what = [f"--nodes={nodes}", "--gres=gpu:b200:8", "--output=/dev/null", "--chdir=/", "--wrap=sleep 600"]
    number = lab.run("sbatch", "--parsable", *AS_JOBS_USER, *what).strip()
    try:
        yield
    finally:
        lab.run("scancel", number)


def node_state(lab: Lab, node: str) -> str:
    return lab.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T").strip()


@dataclass(frozen=True)
class Run:
    """Of an attempt's job in Slurm, as it was accounted for; each instance and each share counts as one GPU."""

    number: str
    elapsed_s: int
    gpus: int


def in_accounting(lab: Lab, attempt: object) -> Run:
    """Once accounting knows that it has ended, which is a moment after the controller does."""
    columns = "--format=JobID,ElapsedRaw,AllocTRES,End"
    command = ["sacct", "-X", "-P", "-n", f"--name=haein-{attempt}", "--starttime=now-1days", columns]

    def look() -> list[str]:
        lines = lab.run(*command).splitlines()
        return [] if any(line.endswith("|Unknown") for line in lines) else lines

    (line,) = until(look, "it is accounted for")
    number, elapsed, tres, _end = line.split("|")
    gpus = re.search(r"gres/gpu=(\d+)", tres)
    return Run(number, int(elapsed), int(gpus[1]) if gpus else 1)


def attempt_of(rows: Rows, job: str) -> str:
    """The attempt that has not ended, or the last."""
    return str(rows.ask("SELECT id FROM jobs_attempt WHERE job_id = %s ORDER BY number DESC LIMIT 1", job)[0][0])


def in_slurm(lab: Lab, attempt: str) -> str:
    """What Slurm itself says of the job that runs the attempt."""
    number = lab.run("squeue", "--noheader", f"--name=haein-{attempt}", "--format=%i").strip()
    return lab.run("scontrol", "show", "job", "-d", number)


def devices_in_slurm(lab: Lab, attempt: str) -> set[tuple[str, int]]:
    """Node and index of every device that Slurm gave to the attempt's job."""
    found = re.findall(r"Nodes=(\S+).*GRES=gpu:\w+:\d+\(IDX:([\d,-]+)\)", in_slurm(lab, attempt))
    return {(node, index) for nodes, ranges in found for node in hosts(lab, nodes) for index in numbers(ranges)}


def hosts(lab: Lab, nodes: str) -> list[str]:
    return lab.run("scontrol", "show", "hostnames", nodes).split()


def numbers(ranges: str) -> Iterator[int]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def test_a_training_is_followed_from_the_queue_to_its_end(page: Page, house: House, slurm: Lab) -> None:
    page.goto("/jobs/")
    page.get_by_role("link", name="Begin with the digits training").click()
    page.get_by_label("Command").fill("python digits_train.py --epochs 6")
    # So that there is time to see it wait, here and then in Slurm.
    os.kill(house.pid("worker"), signal.SIGSTOP)
    slurm.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        page.get_by_role("button", name="Submit the job").click()
        is_(page, "queued")
        page.evaluate("window.neverReloaded = true")
        os.kill(house.pid("worker"), signal.SIGCONT)
        is_(page, "starting")
        expect(page.locator("#job-head")).to_contain_text("Slurm says PartitionDown: the partition is down.")
    finally:
        os.kill(house.pid("worker"), signal.SIGCONT)
        slurm.run("scontrol", "update", "PartitionName=main", "State=UP")
    is_(page, "running")
    expect(page.locator("#log")).to_contain_text("epoch   1/6", timeout=40_000)
    is_(page, "succeeded", 60)
    expect(page.locator("#log")).to_contain_text("epoch   6/6")
    assert page.evaluate("window.neverReloaded")


def test_a_gang_runs_where_slurm_has_put_it_and_is_cancelled_there(page: Page, slurm: Lab, rows: Rows) -> None:
    says = 'echo "rank $HAEIN_RANK of $HAEIN_WORKERS on $SLURMD_NODENAME"; sleep 600'
    job = ask(page, "gang", says, GPUs="5", Workers="2", **SMALL)
    runs(page)
    held = rows.ask(HELD, job)
    nodes = {node for _rank, node, *_ in held}
    assert len(nodes) == 2
    attempt = attempt_of(rows, job)
    assert {(node, index) for _rank, node, index, *_ in held} == devices_in_slurm(slurm, attempt)
    for node in nodes:
        expect(page.locator("#job-head")).to_contain_text(node)
    for rank in range(2):
        expect(page.locator("#log")).to_contain_text(re.compile(rf"rank {rank} of 2 on node00\d"), timeout=20_000)
    cancel(page)
    assert slurm.run("squeue", "--noheader", f"--name=haein-{attempt}") == ""


def test_instances_shares_and_an_array_run_to_their_end(page: Page, rows: Rows) -> None:
    job = ask(page, "instance", "sleep 1", MIG_profile="1g.23gb", **SMALL)
    is_(page, "succeeded")
    assert [row[1:] for row in rows.ask(HELD, job)] == [("node008", 0, 8, 7, "1g.23gb", 125)]
    job = ask(page, "share", "sleep 1", GPU_share="30", **SMALL)
    is_(page, "succeeded")
    assert [row[3] for row in rows.ask(HELD, job)] == [300]

    fill_in(page, "sweep", 'echo "number $HAEIN_ARRAY_INDEX"', Array="1-3", **SMALL)
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("#jobs-list")).to_contain_text("3 of 3 jobs of the array have ended", timeout=30_000)
    expect(page.locator("#jobs-list .array-head")).to_contain_text("3 Succeeded")
    page.locator("#jobs-list tbody tr", has_text="[2]").get_by_role("link", name="sweep").click()
    expect(page.locator("#log")).to_contain_text("number 2")


def test_a_quota_refuses_with_its_own_sentence_and_slurm_hears_of_nothing(
    open_page: Callable[..., Page], visitor: Visitor, slurm: Lab, rows: Rows
) -> None:
    page = open_page(viewport=WIDE, forgiven="422")  # as a browser says of a form that comes back
    bring_in(page, visitor)
    before = rows.ask("SELECT count(*) FROM jobs_job")
    set_quota(page, rows, OWNERS, "GPUs of one job", "4")
    fill_in(page, "greedy", "true", GPUs="5", **SMALL)
    said = "one job may take at most 4 GPUs, and this asks for 5."
    expect(page.locator("#quote")).to_contain_text(said)
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("main")).to_contain_text(said)
    expect(page.locator("main")).not_to_contain_text("Slurm")
    assert rows.ask("SELECT count(*) FROM jobs_job") == before
    assert slurm.run("squeue", "--noheader") == ""
    page.goto("/operator/quotas/")
    page.get_by_role("button", name="Undo your last change").click()
    expect(page.get_by_text("As before: the quota of")).to_be_visible()


def test_work_of_others_is_shown_and_counted(page: Page, slurm: Lab) -> None:
    with theirs(slurm, nodes=7):
        page.goto("/cluster/?node=node003")
        totals = page.locator("#cluster-totals")
        expect(totals.locator("div", has_text="Outside")).to_contain_text("56", timeout=20_000)
        expect(page.locator("#node-detail")).to_contain_text("Work not submitted through Haein")
        expect(page.locator("#node-detail .device").first).to_contain_text("Slurm job")
        assert judged(page, page.url) == []
        page.goto("/queue/")
        expect(page.locator("div", has=page.get_by_text("GPUs free", exact=True)).last).to_contain_text("8")
        assert judged(page, "/queue/") == []
        ask(page, "waits", "sleep 600", **SMALL)
        expect(page.locator("#job-head")).to_contain_text("No whole GPU is free", timeout=20_000)
        is_(page, "queued")
    runs(page)
    cancel(page)


def test_a_drained_node_is_drained_in_slurm_and_comes_back(
    page: Page, visitor: Visitor, slurm: Lab, rows: Rows
) -> None:
    job = ask(page, "last", "sleep 600", GPUs="8", **SMALL)
    runs(page)
    node = rows.ask(HELD, job)[0][1]
    page.goto(f"/cluster/?node={node}")
    panel = page.locator("#node-detail")
    panel.get_by_label("Why it is drained").fill("new firmware")
    panel.get_by_role("button", name="Drain it").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain it").click()
    expect(panel).to_contain_text("1 job runs there and goes on.")
    until(lambda: node_state(slurm, node) == "draining", "Slurm drains it")
    visitor.post(f"/jobs/{job}/cancel/")
    expect(panel).to_contain_text("0 jobs run there and go on.", timeout=20_000)
    until(lambda: node_state(slurm, node) == "drained", "Slurm sees it empty")
    panel.get_by_role("button", name="Let it take new work again").click()
    until(lambda: node_state(slurm, node) == "idle", "Slurm gives it work again")
    expect(panel).not_to_contain_text("Takes no new work")


def test_what_was_lent_comes_back_and_its_borrower_goes_on_later(
    house: House, page: Page, open_page: Callable[..., Page], slurm: Lab, rows: Rows
) -> None:
    borrower = open_page(viewport=WIDE)
    come_in_as_borrower(house, borrower)
    set_quota(page, rows, OWNERS, "Guaranteed GPUs", "8")
    fill_in(borrower, "lent", SAVES, GPUs="8", Workers="7", **SMALL)
    borrower.locator("summary", has_text="More:").click()
    borrower.get_by_label("It saves its work").check()
    borrower.get_by_role("button", name="Submit the job").click()
    runs(borrower)
    expect(borrower.locator("#log")).to_contain_text("begins", timeout=20_000)

    mine = ask(page, "mine", "sleep 600", GPUs="8", **SMALL)
    events = borrower.locator("#job-events")
    expect(events).to_contain_text("A team that is guaranteed the GPUs it runs on needs them back", timeout=20_000)
    is_(borrower, "queued")
    expect(events).to_contain_text("Its work was last saved at")
    runs(page)
    assert rows.states()[mine] == "running"
    cancel(page)
    runs(borrower)
    expect(borrower.locator("#log")).to_contain_text("goes on from what it saved", timeout=20_000)
    lent = borrower.url.strip("/").split("/")[-1]
    cancel(borrower)
    ended = [in_accounting(slurm, attempt) for (attempt,) in rows.ask(ATTEMPTS, lent)]
    assert len({run.number for run in ended}) == 2


def test_the_bill_is_what_slurm_accounted_for(page: Page, slurm: Lab, rows: Rows) -> None:
    """Last of all: of every attempt that these stories have seen."""
    attempts = [str(attempt) for (attempt,) in rows.ask("SELECT id FROM jobs_attempt WHERE started_at IS NOT NULL")]
    assert len(attempts) >= 10
    until(lambda: rows.ask("SELECT count(*) FROM jobs_allocation WHERE NOT metered") == [(0,)], "all is metered")
    for attempt in attempts:
        run = in_accounting(slurm, attempt)
        assert rows.ask(BILLED, attempt) == [(run.elapsed_s * run.gpus,)]
    ((exact,),) = rows.ask(COST)
    page.goto("/billing/")
    shown = int(page.locator("[data-micro]").first.get_attribute("data-micro") or 0)
    assert abs(shown - exact) <= 1
