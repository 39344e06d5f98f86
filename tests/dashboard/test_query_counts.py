"""A page asks the database the same few questions, whether there are three jobs or three hundred."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.lib import clock
from haein.tenants.models import User
from jobs import repacks, replays, tasks
from jobs.models import Attempt, Claim, Job, Repack
from tests.cast import Person
from tests.dashboard import crowd
from tests.jobs.repacking import scattered

pytestmark = pytest.mark.usefixtures("big")

# Page and how many queries it may take at most, session and reader's reach included.
MOST = {
    "/": 24,
    "/jobs/": 14,
    "/jobs/{running}/": 24,
    "/jobs/{queued}/": 24,
    "/queue/": 13,
    "/queue/?sort=name": 13,
    "/quota/": 26,
    "/billing/": 16,
    "/cluster/": 18,
    "/cluster/?node=node1": 26,
    "/cluster/nodes/node1/": 15,
    "/jobs/new/": 10,
    "/tokens/": 9,
    "/api/v1/windows": 7,
    "/api/": 8,
    "/api/v1/jobs": 6,
    "/api/v1/jobs?state=open": 6,
    "/api/v1/jobs/{running}": 6,
    "/api/v1/jobs/{queued}": 16,
    "/api/v1/queue": 9,
    "/api/v1/jobs/{running}/events": 6,
    "/api/v1/jobs/{running}/attempts": 9,
    "/api/v1/usage": 5,
    "/api/v1/usage/summary": 10,
    "/api/v1/nodes": 13,
    "/jobs/new/quote/?gpus=1&share=50&cpus=1&memory_gb=1&time_limit=1h": 27,
}


def count(person: Person, path: str) -> int:
    client = person.client
    for state in ("running", "queued"):
        if f"{{{state}}}" in path:
            path = path.replace(f"{{{state}}}", str(Job.objects.filter(state=state).first().pk))  # type: ignore[union-attr]
    client.get(path)  # what a process remembers for a moment is asked for once
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return len(queries)


@pytest.mark.parametrize(("path", "most"), MOST.items())
def test_the_number_of_queries_does_not_grow(alice: Person, bob: Person, path: str, most: int) -> None:
    crowd.gather(alice, 3)
    few = count(alice, path)
    Person(User.objects.get(pk=bob.user.pk))
    crowd.gather(bob, 297)
    assert count(alice, path) == few <= most


@pytest.mark.parametrize(("path", "most"), [("/operator/replays/", 12), ("/operator/replays/{replay}/", 9)])
def test_the_number_of_queries_does_not_grow_with_replays(alice: Person, oda: Person, path: str, most: int) -> None:
    crowd.gather(alice, 20)
    now = clock.now()
    asked = replays.Asked(policies=("packed", "bestfit"), since=now - timedelta(days=30), until=now)
    counts = []
    for sizes in ((2,), (2, 3)):
        started = replays.start(by=oda.user, asked=replace(asked, nodes=sizes))
        tasks.replay()
        counts.append(count(oda, path.replace("{replay}", str(started.pk))))
    assert counts[0] == counts[1] <= most


def test_the_number_of_queries_does_not_grow_with_repacks(
    oda: Person, alice: Person, submit: Callable[..., Job]
) -> None:
    job = scattered(alice, submit)
    counts = []
    for _ in range(2):
        found = repacks.look(now=clock.now())
        assert found
        repacks.approve(found.pk, by=oda.user, now=clock.now())
        counts.append(count(oda, "/operator/repack/"))
        Repack.objects.filter(pk=found.pk).update(state="done", ended_at=clock.now())
        Attempt.objects.update(preempt_at=None)
        Claim.objects.all().delete()
        Job.objects.filter(pk=job.pk).update(reason="no_capacity")
    assert counts[0] == counts[1] <= 15
