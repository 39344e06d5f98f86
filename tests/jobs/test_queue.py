"""Who goes first, and what a job that waits says."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.lib import clock
from haein.tenants.models import Organization
from jobs import lifecycle, scheduling, services, standing
from jobs.models import Attempt, Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]
READY = frozenset({"python"})


def look() -> int:
    return scheduling.run_pass(now=clock.now(), ready=READY)


def started() -> list[str]:
    return list(Attempt.objects.order_by("job__name").values_list("job__name", flat=True))


def test_the_higher_priority_goes_first_and_then_the_older(alice: Person, bob: Person, submit: Submit) -> None:
    first, second = submit(alice, name="first", gpus=4), submit(bob, name="second", gpus=4)
    late, urgent = submit(alice, name="late", gpus=4), submit(bob, name="urgent", gpus=4, priority=1)
    assert [standing.ahead(job) for job in (urgent, first, second, late)] == [0, 1, 2, 3]
    assert look() == 2
    assert started() == ["first", "urgent"]


def test_a_job_that_is_queued_again_is_behind_those_that_wait(alice: Person, submit: Submit) -> None:
    early, later = submit(alice, name="early"), submit(alice, name="later")
    services.cancel(early, scope=alice.scope)
    early.refresh_from_db()
    services.retry(early, scope=alice.scope)
    early.refresh_from_db()
    assert (standing.ahead(later), standing.ahead(early)) == (0, 1)


def test_a_job_that_waits_says_what_is_short_in_numbers(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=6)
    job = submit(alice, gpus=3)
    look()
    look()
    job.refresh_from_db()
    assert (job.state, job.reason) == ("queued", "its_turn")
    said = services.why(job)
    assert "3" in said
    assert "2" in said


def test_its_reason_is_written_only_when_its_class_changes(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    for _ in range(3):
        submit(alice, gpus=1)
    look()
    look()  # whose turn it is, is known from the pass after the one that filled the cluster
    with CaptureQueriesContext(
        connection,
    ) as queries:
        look()
    assert not [query["sql"] for query in queries if query["sql"].startswith(("UPDATE", "INSERT"))]
    assert set(Job.objects.filter(state="queued").values_list("reason", flat=True)) == {"its_turn", "no_capacity"}


def test_a_pass_costs_the_same_number_of_queries_for_one_and_for_forty(alice: Person, submit: Submit) -> None:
    counts = []
    for jobs in (1, 1, 40):
        for _ in range(jobs):
            submit(alice, gpus=1, share=10)
        with CaptureQueriesContext(connection) as queries:
            assert look() == jobs
        counts.append(len(queries))
    # The first has to read what is asked for; what is known once is not read again.
    assert counts[1] == counts[2]


def test_a_small_job_goes_while_a_large_one_waits(alice: Person, submit: Submit) -> None:
    submit(alice, name="a-large", gpus=5)
    submit(alice, name="b-waits", gpus=5)
    submit(alice, name="c-small", gpus=2)
    assert look() == 2
    assert started() == ["a-large", "c-small"]


def test_nothing_of_a_suspended_organization_starts(alice: Person, charlie: Person, submit: Submit) -> None:
    mine, theirs = submit(alice), submit(charlie)
    Organization.objects.filter(name="Acme").update(standing="suspended")
    look()
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert (mine.state, theirs.state) == ("queued", "starting")
    assert "suspended" in services.why(mine)
    Organization.objects.update(standing="active")
    assert look() == 1


def test_an_environment_that_is_being_made_is_waited_for(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    assert scheduling.run_pass(now=clock.now(), ready=frozenset()) == 0
    job.refresh_from_db()
    assert services.why(job) == "Its environment is still being prepared."
    assert look() == 1


def test_a_device_that_went_away_is_not_used(alice: Person, submit: Submit) -> None:
    from haein.cluster import inventory
    from tests.cast import node_fact

    job = submit(alice, gpus=8)
    inventory.refresh([node_fact(devices=4)], now=clock.now())
    assert look() == 0
    job.refresh_from_db()
    assert "4" in services.why(job)


def test_a_launch_is_leased_by_one(alice: Person, submit: Submit) -> None:
    submit(alice)
    look()
    now = clock.now()
    assert len(lifecycle._lease(now)) == 1
    assert lifecycle._lease(now + timedelta(seconds=1)) == []
    assert len(lifecycle._lease(now + lifecycle.LAUNCH_LEASE + timedelta(seconds=1))) == 1
