"""The demonstration's people go on: they submit and cancel by everybody's doors, and keep the cluster well filled."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from dashboard.demo import life
from dashboard.demo.life import Crowd, Life
from dashboard.demo.work import Shape, Wish
from haein.cluster.registry import backend
from haein.lib import clock
from haein.tenants.models import AuditEntry
from jobs import lifecycle, scheduling
from jobs.models import Attempt, Job
from tests.demo.conftest import NODES

READY = frozenset({"python"})
DEVICES = NODES * 8


def singles(like: Wish, *, gpus: int = 1) -> Iterator[Wish]:
    """One a simulated minute, for so many devices each."""
    for number in count(1):
        yield replace(
            like, number=number, at=number * 60.0, shape=Shape(gpus), name=f"one-{number}", cancelled_after_s=None
        )


def settled(them: Life, now: float) -> None:
    while them.look(now):
        pass


def test_what_ran_at_the_end_of_the_month_is_submitted_in_earnest(going_on: list[Wish]) -> None:
    assert going_on
    them = Life(singles(going_on[0]), deque(going_on), Crowd(60))
    settled(them, them.began)
    jobs = Job.objects.filter(state="queued")
    small = {wish.name for wish in going_on if life._size(wish) <= life.SMALL}
    assert small <= set(jobs.values_list("name", flat=True))
    # What is large goes on as far as it leaves some room.
    assert life.LEAST * DEVICES * 1000 <= life._asked_for() <= life.MOST * DEVICES * 1000 + len(small) * life.SMALL
    assert AuditEntry.objects.filter(action="job.submit").count() == jobs.count()
    scheduling.run_pass(now=clock.now(), ready=READY)
    lifecycle.launch(backend(), now=clock.now())
    assert Attempt.objects.exclude(launched_at=None).filter(state="starting").exists()


def test_people_come_early_to_an_empty_cluster_and_then_by_the_clock(going_on: list[Wish]) -> None:
    them = Life(singles(going_on[0]), deque(), Crowd(60))
    settled(them, them.began)
    assert Job.objects.filter(state="queued").count() == math.ceil(life.LEAST * DEVICES)
    assert them.look(them.began + 0.9) == 0
    assert them.look(them.began + 1.1) == 1


def test_only_small_jobs_come_to_a_full_cluster(going_on: list[Wish]) -> None:
    them = Life(singles(going_on[0], gpus=2), deque(), Crowd(60))
    later = them.began + 1000  # a thousand are due by then
    settled(them, later)
    full = Job.objects.filter(state="queued").count()
    assert full == math.floor(life.MOST * DEVICES / 2)
    assert them.look(later) == 0
    them.coming = singles(going_on[0])
    them._next = None
    assert them.look(later) == life.AT_ONCE
    assert Job.objects.filter(state="queued", gpus=1).count() == life.AT_ONCE


def test_some_of_them_cancel(going_on: list[Wish]) -> None:
    wish = replace(going_on[0], cancelled_after_s=600.0, name="not-for-long")
    them, now = Crowd(60), time.time()
    them.submit(wish, now)
    job = Job.objects.get(name="not-for-long")
    them.cancel(now + 9.9)
    assert Job.objects.get(pk=job.pk).state == "queued"
    them.cancel(now + 10)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("cancelled", "cancelled_queued")
    assert job.events.order_by("-id")[0].actor_name == wish.person.name


def test_who_would_cancel_what_has_ended_is_too_late(going_on: list[Wish]) -> None:
    them, now = Crowd(60), time.time()
    them.submit(replace(going_on[0], cancelled_after_s=600.0, name="over-already"), now)
    Job.objects.filter(name="over-already").update(state="succeeded", ended_at=clock.now())
    them.cancel(now + 10)
    assert Job.objects.get(name="over-already").state == "succeeded"
    assert not them.cancels
