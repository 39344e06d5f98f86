"""What a machine spoils is run again, and nobody pays for it."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest

from billing import metering
from billing.models import Usage
from haein.cluster.registry import backend
from haein.lib import clock
from jobs import lifecycle, scheduling, services, wording
from jobs.models import Allocation, Attempt, Job
from jobs.states import MOST_LOST
from tests.cast import Person, records, until

pytestmark = pytest.mark.usefixtures("cluster")
Submit = Callable[..., Job]
_HERE = PurePosixPath(".")


def test_a_run_whose_runner_was_killed_is_queued_again_and_not_charged(
    alice: Person, submit: Submit, drive: Any, finish: Any
) -> None:
    job = submit(alice, command="test -e again && exec sleep 1.1; touch again; sleep 300")
    attempt = drive(lambda: Attempt.objects.filter(state="running").first())
    until(lambda: any(row.path.name == "again" for row in backend().list_files(job.pk, _HERE)))
    os.kill(int(records(attempt, "start")["runner"]), signal.SIGKILL)
    finish(job)
    first, second = job.attempts.order_by("number")
    assert (first.cause, second.cause, job.state, job.failures) == ("lost", "exited", "succeeded", 0)
    assert "not charged" in wording.sentence("lost", {"detail": ""})
    assert job.events.filter(kind="requeue", reason="lost").count() == 1
    assert first.allocations.get().waived
    metering.pull()
    assert set(Usage.objects.values_list("allocation__attempt", flat=True)) == {second.pk}


def test_a_launch_that_a_dead_worker_had_leased_is_made_when_the_lease_is_over(
    alice: Person, submit: Submit, finish: Any
) -> None:
    job = submit(alice, command="echo ran >> ran; wc -l < ran")
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    assert len(lifecycle._lease(now)) == 1  # and then that worker died
    assert lifecycle.launch(backend(), now=now + timedelta(seconds=9)) == 0
    assert lifecycle.launch(backend(), now=now + timedelta(seconds=11)) == 1
    assert lifecycle.launch(backend(), now=now + timedelta(seconds=23)) == 1  # again: it runs already
    finish(job)
    assert [line.text for line in backend().log_stream(job.attempts.get().pk) if line.stream == "out"] == ["1"]


def test_a_job_that_is_lost_again_and_again_is_given_up(alice: Person, submit: Submit, drive: Any) -> None:
    job = submit(alice, command="sleep 300")
    for _ in range(MOST_LOST + 1):
        attempt = drive(lambda: Attempt.objects.filter(state="running").first())
        os.kill(int(records(attempt, "start")["runner"]), signal.SIGKILL)
        drive(lambda attempt=attempt: Attempt.objects.get(pk=attempt.pk).state == "ended")
    job.refresh_from_db()
    assert (job.state, job.attempts_made) == ("failed", 4)
    assert "went away 4 times" in services.why(job)
    assert not Allocation.objects.filter(waived=False).exists()
