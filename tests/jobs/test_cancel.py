"""A job ends when somebody asks for it, wherever it is."""

from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from django.db import connection, transaction

from haein.cluster.backends.base import Phase
from haein.cluster.registry import backend
from haein.lib import clock
from haein.lib.errors import Problem
from haein.tenants.models import AuditEntry
from jobs import lifecycle, scheduling, services
from jobs.models import Allocation, Attempt, Job
from tests.cast import Person, until

pytestmark = pytest.mark.usefixtures("cluster")
Submit = Callable[..., Job]
READY = frozenset({"python"})


def test_a_waiting_job_is_cancelled_at_once(alice: Person, bob: Person, submit: Submit) -> None:
    job = submit(alice)
    services.cancel(job, scope=bob.scope)
    job.refresh_from_db()
    assert (job.state, services.why(job)) == ("cancelled", "Cancelled by Bob before it started.")
    assert job.ended_at is not None
    assert AuditEntry.objects.get(action="job.cancel").actor_name == bob.user.email


def test_one_that_has_a_place_but_no_process_never_runs(alice: Person, submit: Submit, finish: Any) -> None:
    job = submit(alice, command="touch ran")
    scheduling.run_pass(now=clock.now(), ready=READY)
    services.cancel(job, scope=alice.scope)
    finish(job)
    attempt = job.attempts.get()
    assert (job.state, services.why(job)) == ("cancelled", "Cancelled by Alice.")
    assert backend().observe([attempt.pk])[attempt.pk].phase is Phase.UNKNOWN
    assert Allocation.objects.get().billable_from is None


def test_one_whose_launch_may_be_under_way_is_seen_out(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    scheduling.run_pass(now=clock.now(), ready=READY)
    now = clock.now()
    Attempt.objects.update(launched_at=now)
    services.cancel(job, scope=alice.scope)
    lifecycle.observe(backend(), now=now + timedelta(seconds=20))
    job.refresh_from_db()
    assert job.state == "starting"
    lifecycle.observe(backend(), now=now + timedelta(seconds=31))
    job.refresh_from_db()
    assert job.state == "cancelled"


def test_a_running_one_is_ended_with_all_its_processes(alice: Person, submit: Submit, drive: Any, finish: Any) -> None:
    job = submit(alice, command="sleep 300 & sleep 300")
    drive(lambda: Attempt.objects.filter(state="running").exists())
    services.cancel(job, scope=alice.scope)
    job.refresh_from_db()
    assert services.why(job) == "Being cancelled: its processes were asked to end."
    finish(job)
    assert (job.state, services.why(job)) == ("cancelled", "Cancelled by Alice.")
    attempt = job.attempts.get()
    assert (attempt.state, attempt.cause) == ("ended", "stopped")
    allocation = Allocation.objects.get()
    assert allocation.ended_at == attempt.ended_at
    assert not allocation.waived


@pytest.mark.django_db(transaction=True)
def test_a_wish_that_comes_while_the_end_is_being_written_is_not_forgotten(
    alice: Person, submit: Submit, drive: Any
) -> None:
    """The run has failed, retries are left, and just then somebody cancels: it must not be queued again."""
    job = submit(alice, command="sleep 0.5; exit 3", retries=9)
    attempt = drive(lambda: Attempt.objects.filter(state="running").first())
    until(lambda: backend().observe([attempt.pk])[attempt.pk].phase is Phase.ENDED)

    def tick() -> None:
        lifecycle.observe(backend(), now=clock.now())
        connection.close()

    ticker = Thread(target=tick)
    with transaction.atomic():
        job.refresh_from_db()
        services.cancel(job, scope=alice.scope)
        ticker.start()
        until(somebody_waits_for_a_lock)
    ticker.join(20)
    job.refresh_from_db()
    assert (job.state, job.attempts_made) == ("cancelled", 1)


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_it_can_be_asked_for_only_once(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    services.cancel(job, scope=alice.scope)
    with pytest.raises(Problem, match="has ended already"):
        services.cancel(job, scope=alice.scope)
    assert AuditEntry.objects.filter(action="job.cancel").count() == 1


def test_a_viewer_may_not(alice: Person, vera: Person, submit: Submit) -> None:
    job = submit(alice)
    with pytest.raises(Problem, match="not change it"):
        services.cancel(job, scope=vera.scope)
    job.refresh_from_db()
    assert job.cancel_requested_at is None
