"""Whatever breaks in a Slurm below a running house: every job ends right, none runs twice, no second goes unbilled.

Each job writes down that it runs, holds a lock while it does, and ends when it is let go; so a run beside another of
the same job shows, and what ends while a part is dead is for the test to say.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haein.slurmlab import Lab
from tests.e2e.conftest import setup_link
from tests.house import House, made, until
from tests.rows import Rows
from tests.slurm.relay import Relay
from tests.slurmlab import started
from tests.visitor import Visitor

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

COMMAND = (
    'cd "$HAEIN_TEAM_DIR"; exec 9> lock-{name}; flock -n 9 || echo "beside another" >> ran-{name}; '
    'echo "$HAEIN_ATTEMPT" >> ran-{name}; until [ -e go-{name} ]; do sleep 0.1; done'
)
GPUS = 2
METERED = """
    SELECT coalesce(sum(usage.seconds * usage.units), 0) FROM billing_usage AS usage
    JOIN jobs_allocation AS allocation ON allocation.id = usage.allocation_id
    JOIN jobs_attempt AS attempt ON attempt.id = allocation.attempt_id WHERE attempt.id = %s
"""


class Ground:
    """A house on a Slurm that may be broken, and somebody in it."""

    def __init__(self, lab: Lab, relay: Relay, house: House) -> None:
        self.lab, self.relay, self.house, self.rows = lab, relay, house, Rows(house.var)
        self.token = house.var.parent / "token"
        self.renew_token(3600)
        house.up(
            HAEIN_BACKEND="slurm",
            HAEIN_SLURM_CONF=str(lab.conf),
            HAEIN_SLURM_REST_URL=relay.url,
            HAEIN_SLURM_TOKEN_FILE=str(self.token),
            HAEIN_SLURM_USER="nobody" if os.geteuid() == 0 else "",
            HAEIN_SLURM_EMULATED="1",
        )
        self.visitor = Visitor(f"http://localhost:{house.port}")
        self.visitor.come_in(setup_link(house))
        until(lambda: self.rows.ask("SELECT FROM cluster_device"), "the devices are known")

    def renew_token(self, seconds: int) -> None:
        self.token.write_text(self.lab.run("scontrol", "token", f"lifespan={seconds}"))

    def submit(self, name: str) -> str:
        command = COMMAND.format(name=name)
        return self.visitor.submit(command, name=name, gpus=GPUS, share=100, time_limit="1h")

    @property
    def team(self) -> Path:
        return until(lambda: next((self.house.var / "teams").iterdir(), None), "the team has a folder") or Path()

    def ran(self, name: str) -> list[str]:
        """The numbers of the attempts that have begun."""
        found = self.team / f"ran-{name}"
        return found.read_text().splitlines() if found.exists() else []

    def let_go(self, name: str) -> None:
        (self.team / f"go-{name}").touch()

    def wait_for(self, job: str, state: str, seconds: float = 60) -> None:
        until(lambda: self.rows.states().get(job) == state, f"the job is {state}", seconds)

    def attempts(self, job: str) -> list[tuple[str, str]]:
        """(id, cause) of each, in order."""
        asked = "SELECT id, cause FROM jobs_attempt WHERE job_id = %s ORDER BY number"
        return [(str(attempt), cause) for attempt, cause in self.rows.ask(asked, job)]

    def in_slurm(self, attempt: str) -> list[str]:
        """The ids of the jobs that slurmctld has of an attempt."""
        return self.lab.run("squeue", "-h", "-t", "all", "--name", f"haein-{attempt}", "-o", "%i").split()

    def wait_until_written_down(self, attempt: str) -> None:
        """A slurmctld that is killed now finds the job running."""
        (number,) = self.in_slurm(attempt)
        mark = f"seen-{attempt}"
        self.lab.run("scontrol", "update", f"jobid={number}", f"admincomment={mark}")
        written = self.lab.folder / "state" / "job_state"
        until(lambda: written.exists() and mark.encode() in written.read_bytes(), "slurmctld has written it down")

    def bill_is_exact(self, job: str) -> None:
        """Attempt by attempt the seconds that sacct has, times the GPUs; and none of those that a machine lost."""
        until(
            lambda: self.rows.ask("SELECT count(*) FROM jobs_allocation WHERE NOT metered") == [(0,)], "all is metered"
        )
        for attempt, cause in self.attempts(job):
            ((metered,),) = self.rows.ask(METERED, attempt)
            elapsed = 0 if cause == "lost" else self._elapsed(attempt)
            assert metered == elapsed * GPUS * 1000, (attempt, cause)

    def _elapsed(self, attempt: str) -> int:
        def look() -> list[list[str]]:
            fields = ["-o", "elapsedraw,end,alloctres", "--name", f"haein-{attempt}", "-S", "now-1hour"]
            lines = self.lab.run("sacct", "-nXPD", *fields).splitlines()
            return [line.split("|") for line in lines if "Unknown" not in line]

        held = [row for row in until(look, "sacct has the end") if f"gres/gpu={GPUS}" in row[2].split(",")]
        return sum(int(elapsed) for elapsed, *_ in held)


@contextmanager
def on_ground(**options: object) -> Iterator[Ground]:
    with started(nodes=3, gpus=GPUS, accounting=True, node_timeout_s=10, **options) as lab, made() as house:
        relay = Relay(lab.rest_url)
        try:
            yield Ground(lab, relay, house)
        finally:
            relay.shutdown()
            relay.server_close()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """One for all of them: each leaves it whole."""
    with on_ground() as made_ready:
        yield made_ready


def test_slurmctld_killed_and_started_again_goes_on_with_what_ran_and_what_came_meanwhile(ground: Ground) -> None:
    running = ground.submit("running")
    until(lambda: ground.ran("running"), "it runs")
    ((attempt, _),) = ground.attempts(running)
    ground.wait_until_written_down(attempt)
    ground.lab.kill_controller()
    ground.let_go("running")
    meanwhile = ground.submit("meanwhile")
    ground.let_go("meanwhile")
    until(lambda: ground.house.says("can't be asked"), "the house has noticed")
    ground.lab.start_controller()
    for job, name in ((running, "running"), (meanwhile, "meanwhile")):
        ground.wait_for(job, "succeeded", 180)
        assert ground.ran(name) == ["1"]
        ground.bill_is_exact(job)


def test_slurmctld_killed_a_moment_after_a_submit_runs_the_job_once(ground: Ground) -> None:
    job = ground.submit("forgotten")
    ((attempt, _),) = until(lambda: ground.attempts(job), "it is placed")
    until(lambda: ground.in_slurm(attempt), "slurmctld has taken it")
    ground.lab.kill_controller()
    ground.lab.start_controller()
    until(lambda: ground.ran("forgotten"), "it runs", 180)
    ground.let_go("forgotten")
    ground.wait_for(job, "succeeded", 300)
    # The run that slurmctld had forgotten may have been ended by it as a stranger: then the next one began after that.
    assert max(Counter(ground.ran("forgotten")).values()) == 1
    ground.bill_is_exact(job)


def test_a_job_that_ended_while_slurmctld_had_forgotten_it_has_ended_and_is_billed(ground: Ground) -> None:
    job = ground.submit("overlooked")
    until(lambda: ground.ran("overlooked"), "it runs")
    ((attempt, _),) = ground.attempts(job)
    ground.lab.kill_controller()  # its last state may have the job waiting, running, or not at all
    ground.let_go("overlooked")
    ended = ground.house.var / "attempts" / attempt / "exit"
    until(ended.exists, "it has ended")
    ground.lab.start_controller()
    ground.wait_for(job, "succeeded", 300)
    assert ground.ran("overlooked") == ["1"]
    until(lambda: ground.rows.ask("SELECT count(*) FROM jobs_allocation WHERE NOT metered") == [(0,)], "all is metered")
    started_at, ended_at = ground.rows.runner_records(attempt)
    # By Slurm's clock where it knows of the run: a second either way, and the outage besides.
    assert ground.rows.ask(METERED, attempt)[0][0] >= (int(ended_at) - int(started_at) - 1) * GPUS * 1000


def test_without_slurmdbd_jobs_run_and_are_billed_as_it_says_later(ground: Ground) -> None:
    ground.lab.stop_accounting()
    job = ground.submit("unrecorded")
    until(lambda: ground.ran("unrecorded"), "it runs")
    ground.let_go("unrecorded")
    ground.wait_for(job, "succeeded")
    ground.lab.start_accounting()
    assert ground.ran("unrecorded") == ["1"]
    ground.bill_is_exact(job)


def test_a_node_that_dies_gives_its_job_to_another_and_nobody_pays_for_the_loss(ground: Ground) -> None:
    job = ground.submit("unlucky")
    until(lambda: ground.ran("unlucky"), "it runs")
    ((attempt, _),) = ground.attempts(job)
    node = ground.lab.run("squeue", "-h", "--name", f"haein-{attempt}", "-o", "%N").strip()
    ground.lab.kill_node(node)
    until(lambda: ground.ran("unlucky") == ["1", "2"], "it runs again", 180)
    ground.let_go("unlucky")
    ground.wait_for(job, "succeeded")
    assert [cause for _, cause in ground.attempts(job)] == ["lost", "exited"]
    ground.bill_is_exact(job)
    problem = "SELECT problem FROM cluster_node WHERE name = %s"
    assert ground.rows.ask(problem, node)[0][0]
    ground.lab.start_node(node)
    until(lambda: ground.rows.ask(problem, node) == [("",)], "the node is well again")


def test_a_job_whose_slurmd_alone_dies_is_not_run_beside_itself(ground: Ground) -> None:
    job = ground.submit("orphan")
    until(lambda: ground.ran("orphan"), "it runs")
    ((attempt, _),) = ground.attempts(job)
    node = ground.lab.run("squeue", "-h", "--name", f"haein-{attempt}", "-o", "%N").strip()
    ground.lab.kill_slurmd(node)
    until(lambda: len(ground.ran("orphan")) > 1, "it runs again", 180)
    ground.let_go("orphan")
    ground.wait_for(job, "succeeded")
    assert ground.ran("orphan") == ["1", "2"]
    ground.bill_is_exact(job)
    ground.lab.start_node(node)


def test_a_job_cancelled_behind_our_back_ends_as_that_and_is_billed_until_then(ground: Ground) -> None:
    job = ground.submit("cancelled")
    until(lambda: ground.ran("cancelled"), "it runs")
    ((attempt, _),) = ground.attempts(job)
    ground.lab.run("scancel", *ground.in_slurm(attempt))
    ground.wait_for(job, "cancelled")
    assert [cause for _, cause in ground.attempts(job)] == ["ended outside"]
    ground.bill_is_exact(job)


def test_with_an_expired_token_jobs_wait_and_run_once_it_is_renewed(ground: Ground) -> None:
    ground.renew_token(1)
    until(lambda: ground.lab.run("date", "+%s") > str(int(ground.token.stat().st_mtime) + 1), "it has expired")
    job = ground.submit("late")
    ground.let_go("late")
    until(lambda: ground.house.says("expired at"), "the house says so")
    assert ground.rows.states()[job] in {"queued", "starting"}
    assert not ground.ran("late")
    ground.renew_token(3600)
    ground.wait_for(job, "succeeded")
    assert ground.ran("late") == ["1"]
    ground.bill_is_exact(job)


def test_while_slurms_spool_takes_nothing_jobs_wait_and_run_when_it_does(ground: Ground) -> None:
    # What a full disk does to it, for an ordinary user and for root alike: no folder for a script can be made.
    with _blocked([ground.lab.folder / "state" / f"hash.{digit}" for digit in range(10)]):
        job = ground.submit("spooled")
        ground.let_go("spooled")
        until(lambda: ground.house.says("I/O error writing script"), "the house says so")
        assert ground.rows.states()[job] in {"queued", "starting"}
    ground.wait_for(job, "succeeded", 120)
    assert ground.ran("spooled") == ["1"]
    ground.bill_is_exact(job)


@contextmanager
def _blocked(folders: list[Path]) -> Iterator[None]:
    aside = [
        (folder, folder.rename(folder.with_suffix(f"{folder.suffix}.aside"))) for folder in folders if folder.exists()
    ]
    for folder in folders:
        folder.touch()
    try:
        yield
    finally:
        for folder in folders:
            folder.unlink()
        for folder, kept in aside:
            kept.rename(folder)


def test_a_submit_whose_answer_was_lost_runs_once(ground: Ground) -> None:
    ground.relay.to_lose, before = 1, ground.relay.lost
    job = ground.submit("unanswered")
    until(lambda: ground.relay.lost > before, "the answer is lost")
    until(lambda: ground.ran("unanswered"), "it runs")
    ((attempt, _),) = ground.attempts(job)
    ground.let_go("unanswered")
    ground.wait_for(job, "succeeded")
    assert ground.ran("unanswered") == ["1"]
    assert len(ground.in_slurm(attempt)) == 1
    ground.bill_is_exact(job)
