"""With a hundred thousand jobs, two thousand of them waiting, no page takes longer: as many queries, under 100 ms."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import prices
from haein.cluster import inventory
from haein.lib import clock
from haein.tenants import services as tenants
from haein.tenants.models import Organization, User
from jobs import promises
from jobs.indexes import MOST_MEMBERS
from jobs.models import Job
from tests.cast import LOGIN, Person, node_fact, person
from tests.dashboard import crowd

pytestmark = pytest.mark.long
COUNT, WAITING = 100_000, 2000
PAGES = [
    "/",
    "/jobs/",
    "/jobs/?page=100",
    "/jobs/?state=failed",
    "/jobs/?state=open&sort=-priority",
    "/jobs/?tag=t3",
    "/jobs/?q=job+4711",
    "/jobs/?sort=name",
    "/jobs/?array={array}",
    "/jobs/?array={array}&page=40",
    "/jobs/new/",
    "/queue/",
    "/queue/?sort=name&page=2",
    "/quota/",
    "/jobs/new/quote/?gpus=1&share=50&cpus=1&memory_gb=1&time_limit=1h",
    "/billing/",
    "/billing/?page=200",
    "/cluster/",
    "/jobs/{running}/",
    "/jobs/{queued}/",
    "/jobs/{succeeded}/",
    "/jobs/{member}/",
    "/api/v1/jobs",
    "/api/v1/jobs?state=failed&limit=200",
    "/api/v1/jobs?q=job+4711",
    "/api/v1/jobs/{running}",
    "/api/v1/jobs/{queued}",
    "/api/v1/arrays/{array}",
    "/api/v1/jobs?array={array}&limit=200",
    "/api/v1/queue",
    "/api/v1/usage?limit=200",
    "/api/v1/usage/summary",
]


@pytest.fixture(scope="module")
def crowded(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> Iterator[Client]:
    """Made once for all these tests."""
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        user = person("Alice")
        tenants.create_organization(by=user, name="Acme", team="Vision")
        inventory.refresh([node_fact()], now=clock.now())
        prices.fill_gaps()
        client = Client()
        client.force_login(user, backend=LOGIN)
        crowd.gather(Person(user), COUNT // 100)
        crowd.multiply(115)  # of nine jobs one waits, and is not copied
        crowd.queue_up(Person(user), WAITING)
        crowd.number_off(Person(user), MOST_MEMBERS)
        assert Job.objects.count() >= COUNT
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")  # what autovacuum does within a minute
        yield client
        _empty()


def _empty() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE tenants_user, tenants_organization, tenants_auditentry, cluster_node, cluster_devicemodel CASCADE"
        )
    assert not User.objects.exists()
    assert not Organization.objects.exists()


def address(path: str) -> str:
    if "{array}" in path or "{member}" in path:
        member = Job.objects.exclude(array=None).order_by("array_index")[500]
        path = path.replace("{array}", str(member.array)).replace("{member}", str(member.pk))
    for state in ("running", "queued", "succeeded"):
        if f"{{{state}}}" in path:
            job = Job.objects.filter(state=state).order_by("-created_at").first()
            assert job
            return path.replace(f"{{{state}}}", str(job.pk))
    return path


def median_of_seven(client: Client, path: str) -> float:
    """Milliseconds."""
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        assert client.get(path).status_code == 200
        times.append((time.perf_counter() - begun) * 1000)
    return median(times)


@pytest.mark.django_db
@pytest.mark.parametrize("path", PAGES)
def test_a_page_takes_less_than_a_tenth_of_a_second(crowded: Client, path: str) -> None:
    asked = address(path)
    if "queue" in path:
        assert promises.renew(now=clock.now()) >= WAITING
    # The best of three looks: others may be at work on this machine.
    took = min(median_of_seven(crowded, asked) for _ in range(3))
    with CaptureQueriesContext(connection) as queries:
        crowded.get(asked)
    slow = sorted(queries.captured_queries, key=lambda query: -float(query["time"]))[:3]
    print(f"{path}: {took:.0f} ms, {len(queries)} queries")
    assert took < 100, [(query["time"], query["sql"][:600]) for query in slow]
