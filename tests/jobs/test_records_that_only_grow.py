"""What happened to a job can't be rewritten, and a job can't run twice: the database itself refuses."""

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, transaction

from haein.cluster.models import Node
from haein.lib import clock
from jobs.models import Attempt, Event, Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


def test_an_event_can_not_be_changed(alice: Person, submit: Submit) -> None:
    submit(alice)
    with pytest.raises(IntegrityError, match="jobs_event is append-only"), transaction.atomic():
        Event.objects.update(reason="else")


def test_an_event_can_not_be_deleted(alice: Person, submit: Submit) -> None:
    submit(alice)
    with pytest.raises(IntegrityError, match="jobs_event is append-only"), transaction.atomic():
        Event.objects.all().delete()


def _attempt(job: Job, number: int, **fields: object) -> Attempt:
    return Attempt.objects.create(
        job=job, number=number, node=Node.objects.get(), cpus=1, memory_mb=1, placed_at=clock.now(), **fields
    )


def test_a_job_has_one_open_attempt_at_most(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    _attempt(job, 1, state="ended")
    _attempt(job, 2, state="running")
    with pytest.raises(IntegrityError, match="attempt_one_at_a_time"), transaction.atomic():
        _attempt(job, 3)


def test_two_attempts_never_have_one_number(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    _attempt(job, 1, state="ended")
    with pytest.raises(IntegrityError, match="attempt_number_once"), transaction.atomic():
        _attempt(job, 1)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'paused'", "job_(state|ended_at)"),
        ("state = 'succeeded'", "job_ended_at"),
        ("ended_at = now()", "job_ended_at"),
        ("share = 0", "job_share"),
        ("share = 1001", "job_share"),
    ],
)
def test_a_job_that_contradicts_itself_is_refused(alice: Person, submit: Submit, change: str, constraint: str) -> None:
    submit(alice)
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE jobs_job SET {change}")
