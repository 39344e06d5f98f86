"""Rows on a real Slurm: from the queue through its scheduler and back, and what is on record in the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from billing import metering, prices
from billing.models import Usage
from haein.cluster import inventory
from haein.cluster import services as cluster
from haein.cluster.backends.slurm.names import job_name
from haein.cluster.models import Node
from haein.lib import clock
from haein.slurmlab import Lab
from jobs import lifecycle, scheduling, services
from jobs.models import Allocation, Attempt, Job
from tests.cast import Person, until
from tests.contract.slurm_stage import SlurmStage

Submit = Callable[..., Job]
Drive = Callable[[Callable[[], Any]], Any]
AS_JOBS_USER = ("--uid=nobody", "--gid=nogroup") if os.geteuid() == 0 else ()


@pytest.fixture
def stage(db: None, slurm: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmStage]:
    """Slurm has four seconds to start what it was handed."""
    made = SlurmStage(slurm, patience_s=4)
    monkeypatch.setattr(services, "backend", lambda: made.backend)
    inventory.refresh(made.backend.inventory(), now=clock.now())
    prices.fill_gaps()
    yield made
    made.launched = list(Attempt.objects.values_list("pk", flat=True))
    made.close()


@pytest.fixture
def drive(stage: SlurmStage) -> Drive:
    """drive(look): passes, launches and looks, until look() is true."""

    def driven(look: Callable[[], Any]) -> Any:
        def ticked() -> Any:
            scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
            lifecycle.launch(stage.backend, now=clock.now())
            lifecycle.observe(stage.backend, now=clock.now())
            return look()

        return until(ticked)

    return driven


def seen(job: Job) -> str:
    job.refresh_from_db()
    return job.state


def running(count: int) -> Callable[[], bool]:
    return lambda: Attempt.objects.filter(state="running").count() == count


@contextmanager
def all_of(stage: SlurmStage, node: str) -> Iterator[None]:
    """Somebody else has the node's GPUs, and our rows do not know it yet."""
    number = stage.lab.run(
        "sbatch", "--parsable", f"--nodelist={node}", "--gres=gpu:b200:8", "--mem=10", "--output=/dev/null",
        "--chdir=/", *AS_JOBS_USER, "--wrap=sleep 600",
    ).strip()  # fmt: skip
    try:
        until(lambda: "RUNNING" in stage.lab.run("squeue", "-h", "-j", number, "-o", "%T"))
        Node.objects.exclude(name=node).update(present=False)
        yield
    finally:
        stage.lab.run("scancel", number)


def test_rows_say_which_devices_slurm_gave(stage: SlurmStage, drive: Drive, alice: Person, submit: Submit) -> None:
    """The middle one of three ends and Slurm gives its device away anew; instances all come from one board."""
    Node.objects.filter(name__in=["node003", "node004", "node005", "node006", "node007"]).update(present=False)
    first = [submit(alice, name=f"{n}", command="exec sleep 300") for n in range(3)]
    carved = submit(alice, name="carved", command="exec sleep 300", profile="1g.23gb", gpus=3)
    small = submit(alice, name="small", command="exec sleep 300", share=300)
    drive(running(5))
    services.cancel(first[1], scope=alice.scope)
    drive(running(4))
    pair = submit(alice, name="pair", command="exec sleep 300", gpus=2)
    drive(running(5))
    attempts = list(Attempt.objects.filter(state="running").select_related("node"))
    sights = stage.backend.observe([attempt.pk for attempt in attempts])
    for attempt in attempts:
        (place,) = sights[attempt.pk].places
        rows = attempt.allocations.select_related("device")
        assert attempt.node.name == place.node
        assert {(row.device.uuid, -1 if row.start is None else row.start, row.units) for row in rows} == {
            (each.device_uuid, each.start, each.units) for each in place.slices
        }
    held = {job.name: job.attempts.get().allocations.count() for job in (carved, small, pair)}
    assert held == {"carved": 3, "small": 1, "pair": 2}
    assert carved.attempts.get().allocations.values("device").distinct().count() == 1


def test_what_slurm_does_not_start_is_taken_back_and_waits_again(
    stage: SlurmStage, drive: Drive, alice: Person, submit: Submit
) -> None:
    with all_of(stage, "node001"):
        job = submit(alice, command="true")
        drive(lambda: seen(job) == "starting" and "cluster. Slurm says" in services.why(job))
        drive(lambda: seen(job) == "queued")
        attempt = job.attempts.get()
        assert (attempt.cause, attempt.started_at, job.failures) == ("not taken", None, 0)
        assert services.why(job).startswith("The cluster did not start it and it was taken back")
        assert "Slurm says" in services.why(job)
        assert Allocation.objects.get().billable_from is None
        assert job_name(attempt.pk) not in stage.lab.run("squeue", "-h", "-t", "PD,R", "-o", "%j")
    services.retry(job, scope=alice.scope)
    drive(lambda: seen(job) == "succeeded")
    assert job.attempts_made == 2


def test_one_that_waits_in_slurm_is_cancelled_there(
    stage: SlurmStage, drive: Drive, alice: Person, submit: Submit
) -> None:
    with all_of(stage, "node001"):
        job = submit(alice, command="true")
        drive(lambda: seen(job) == "starting" and "Slurm says" in services.why(job))
        services.cancel(job, scope=alice.scope)
        asked = clock.now()
        drive(lambda: seen(job) == "cancelled")
        assert (clock.now() - asked).total_seconds() < 10
        assert services.why(job) == "Cancelled by Alice."


def test_one_that_was_cancelled_behind_our_back_says_so_and_pays_what_sacct_says(
    stage: SlurmStage, drive: Drive, alice: Person, submit: Submit
) -> None:
    job = submit(alice, command="exec sleep 300", gpus=2, retries=3)
    drive(running(1))
    attempt = job.attempts.get()
    stage.lab.run("scancel", f"--name={job_name(attempt.pk)}")
    drive(lambda: seen(job) == "cancelled")
    assert "cancelled in Slurm" in services.why(job)
    metering.pull()
    elapsed = until(
        lambda: stage.lab.run("sacct", "-nXP", "-S", "now-1hour", f"--name={job_name(attempt.pk)}", "-o", "ElapsedRaw")
    )
    assert sum(Usage.objects.values_list("seconds", flat=True)) == 2 * int(elapsed)


def test_a_drain_of_ours_is_slurms_until_it_is_taken_back(stage: SlurmStage, oda: Person) -> None:
    def state() -> str:
        return stage.lab.run("sinfo", "-h", "-n", "node003", "-o", "%T")

    def tell() -> None:
        cluster.hand_over(stage.backend, stage.backend.inventory())

    cluster.drain(by=oda.user, node="node003", reason="a fan", now=clock.now())
    tell()
    try:
        assert "drain" in state()
        cluster.undrain(by=oda.user, node="node003")
    finally:
        Node.objects.update(drained_at=None)
        tell()
    assert "drain" not in state()
