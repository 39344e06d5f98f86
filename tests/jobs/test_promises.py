"""What a waiting job is promised, and what becomes of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.lib import clock
from haein.placement.turns import LATE_S
from haein.telemetry import series
from jobs import promises, scheduling, services
from jobs.models import Claim, Job, Promise
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]
READY = frozenset({"python"})
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    series.client().delete(promises.KEY)


def look(now: datetime) -> None:
    scheduling.run_pass(now=now, ready=READY)


def test_a_job_that_waits_is_promised_a_start_before_the_limit_of_what_runs(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8, time_limit_s=3600)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    assert promises.renew(now=now) == 1
    place = promises.known([job.pk], now=now).places[job.pk]
    assert place.ahead == 0
    assert place.when is not None
    assert now < place.when.p50 <= place.when.p90
    assert place.when.p50 < now + HOUR
    made = Promise.objects.get()
    assert (made.job, made.closed_at, made.p90_at - place.when.p90 < timedelta(seconds=1)) == (job, None, True)


def test_it_is_promised_once_while_it_waits(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    look(clock.now())
    submit(alice, gpus=8)
    for minutes in range(3):
        promises.renew(now=clock.now() + timedelta(minutes=minutes))
    assert Promise.objects.count() == 1


def test_those_behind_are_promised_later_starts(alice: Person, bob: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    jobs = [submit(each, gpus=8) for each in (alice, bob, alice)]
    promises.renew(now=now)
    places = promises.known([job.pk for job in jobs], now=now).places
    assert [places[job.pk].ahead for job in jobs] == [0, 1, 2]
    starts = [when.p50 for job in jobs if (when := places[job.pk].when)]
    assert starts == sorted(starts)
    assert len(set(starts)) == 3


def test_a_promise_is_closed_by_the_start(alice: Person, submit: Submit) -> None:
    first = submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    promises.renew(now=now)
    services.cancel(first, scope=alice.scope)
    Job.objects.filter(pk=first.pk).update(state="cancelled", ended_at=now)
    first.attempts.update(state="ended", ended_at=now)
    first.attempts.get().allocations.update(ended_at=now)
    later = now + timedelta(seconds=30)
    look(later)
    promises.renew(now=later)
    made = Promise.objects.get()
    assert (made.job, made.started_at, made.closed_at) == (job, later, later)
    assert promises.score(now=later).p90_percent == 100


def test_whose_turn_it_is_is_promised_no_later_than_the_room_is_free(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    look(now)
    starts_at = Claim.objects.get(job=job).starts_at
    assert starts_at is not None
    promises.renew(now=now)
    made = Promise.objects.get()
    assert made.p50_at <= made.p90_at <= starts_at + timedelta(seconds=LATE_S + 1)


def test_a_job_that_is_withdrawn_was_promised_nothing(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    promises.renew(now=now)
    services.cancel(job, scope=alice.scope)
    promises.renew(now=now)
    made = Promise.objects.get()
    assert (made.started_at, made.closed_at) == (None, now)
    assert promises.score(now=now).all == 0


def test_a_job_that_is_queued_again_is_promised_anew(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    promises.renew(now=now)
    services.cancel(job, scope=alice.scope)
    job.refresh_from_db()
    services.retry(job, scope=alice.scope)
    promises.renew(now=clock.now())
    assert [made.closed_at is None for made in job.promises.order_by("id")] == [False, True]


def test_a_promise_that_was_broken_counts_at_once(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    submit(alice, gpus=8)
    promises.renew(now=now)
    assert promises.score(now=now).all == 0
    late = Promise.objects.get().p90_at + timedelta(seconds=1)
    score = promises.score(now=late)
    assert (score.all, score.p90_percent, score.p50_percent) == (1, 0, 0)
    assert [day.on for day in score.days] == [(late - timedelta(days=back)).date() for back in range(6, -1, -1)]


def test_what_is_old_is_not_known(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    promises.renew(now=now)
    assert promises.known([job.pk], now=now + promises.FRESH + timedelta(seconds=1)).as_of is None


def test_who_is_held_back_by_something_else_is_promised_nothing(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    Job.objects.filter(pk=job.pk).update(not_before=clock.now() + HOUR)
    now = clock.now()
    assert promises.renew(now=now) == 1
    known = promises.known([job.pk], now=now)
    assert known.as_of is not None
    assert known.places == {}
    assert not Promise.objects.exists()


def test_old_promises_are_forgotten(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    now = clock.now()
    look(now)
    job = submit(alice, gpus=8)
    promises.renew(now=now)
    services.cancel(job, scope=alice.scope)
    promises.renew(now=now)
    promises.forget(now=now + promises.KEPT - HOUR)
    assert Promise.objects.count() == 1
    promises.forget(now=now + promises.KEPT + HOUR)
    assert Promise.objects.count() == 0


def test_the_number_of_queries_does_not_grow_with_the_queue(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    look(clock.now())
    counts = []
    for more in (1, 20):
        for _ in range(more):
            submit(alice, gpus=8)
        with CaptureQueriesContext(connection) as queries:
            promises.renew(now=clock.now())
        # The settled policy is read every ten seconds, whoever asks.
        counts.append(len([query for query in queries if "jobs_settled" not in query["sql"]]))
    assert counts[0] == counts[1]
