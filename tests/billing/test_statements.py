"""What a page says something cost is what adding up every single second gives, before and after metering."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import metering, statements
from billing.models import Price
from haein.cluster.models import DeviceModel
from haein.lib import clock
from jobs.models import Allocation, Job
from jobs.spec import Spec
from tests.cast import Person

Submit = Callable[..., Job]
Used = Callable[..., Allocation]
NOW = datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC)
NOVEMBER = date(2026, 11, 1)


@pytest.fixture
def year(alice: Person, bob: Person, charlie: Person, submit: Submit, used: Used) -> list[Allocation]:
    """Runs of three people over two months, some spoiled, some credited, some running, under three prices."""
    chance = random.Random(7)
    model = DeviceModel.objects.get()
    Price.objects.all().delete()
    edges = [datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 11, 1, 0, 0, 33, tzinfo=UTC), NOW - timedelta(minutes=1)]
    for start, end, per_hour in zip(edges, [*edges[1:], None], (3_333_333, 4_000_000, 777), strict=True):
        Price.objects.create(device_model=model, currency="USD", per_hour=per_hour, valid_from=start, valid_to=end)
    jobs = [submit(person) for person in (alice, alice, bob, bob, charlie)]
    turn = datetime(2026, 11, 1, tzinfo=UTC)
    held = []
    for number in range(60):
        start = chance.choice([turn, NOW - timedelta(seconds=300), NOW - timedelta(days=3)]) + timedelta(
            seconds=chance.uniform(-100, 100)
        )
        end = None if number % 9 == 0 else min(NOW, start + timedelta(seconds=chance.uniform(0, 150)))
        if end is None:
            start = NOW - timedelta(seconds=chance.uniform(0, 200))
        row = used(
            jobs[number % 5],
            start,
            end,
            units=chance.choice([1000, 500, 333, 1]),
            waived=number % 7 == 0,
            credited_s=chance.randint(0, int((end - start).total_seconds())) if end and number % 4 == 0 else 0,
        )
        if end is None:
            # one open run a job is all that the database allows; these are the newest
            jobs[number % 5] = submit(_person(row.attempt.job, alice, bob, charlie))
        held.append(row)
    return held


def _person(job: Job, *people: Person) -> Person:
    return next(person for person in people if person.user == job.submitted_by)


def second_by_second(held: list[Allocation], *, since: datetime, until: datetime) -> Fraction:
    """The slow way: every second looks up its price."""
    tariffs = [(p.valid_from, p.valid_to, p.per_hour) for p in Price.objects.all()]
    total = Fraction()
    for row in held:
        if row.waived or row.billable_from is None:
            continue
        until_second = clock.whole_seconds(row.ended_at or NOW) - row.credited_s
        for second in range(clock.whole_seconds(row.billable_from), until_second):
            at = clock.from_epoch(second)
            if since <= at < until:
                (per_hour,) = [p for a, b, p in tariffs if a <= at and (b is None or at < b)]
                total += Fraction(row.units * per_hour, 3_600_000)
    return total


def mine(held: list[Allocation], person: Person) -> list[Allocation]:
    return [row for row in held if row.attempt.job.team_id == person.team.pk]


@pytest.mark.parametrize("metered", [False, True])
def test_all_ways_to_ask_agree_with_the_slow_way(
    alice: Person, bob: Person, charlie: Person, year: list[Allocation], metered: bool
) -> None:
    if metered:
        metering.pull()
    jobs = list(Job.objects.all())
    ever = {"since": datetime(2000, 1, 1, tzinfo=UTC), "until": NOW}
    of_jobs = statements.of_jobs([job.pk for job in jobs], now=NOW)
    for job in jobs:
        slow = round(second_by_second([row for row in year if row.attempt.job_id == job.pk], **ever))
        assert slow == of_jobs[job.pk] == statements.of_job(job, now=NOW).total
    for person in (alice, charlie):
        start, end = statements.month_of(NOVEMBER)
        month = statements.month(person.scope, NOVEMBER, now=NOW)
        assert month.total == round(second_by_second(mine(year, person), since=start, until=end))
        october = statements.month(person.scope, date(2026, 10, 9), now=NOW)
        assert october.total == round(
            second_by_second(mine(year, person), since=datetime(2026, 10, 1, tzinfo=UTC), until=start)
        )
        today = NOW.replace(hour=0)
        assert statements.spent(person.scope, now=NOW) == (
            round(second_by_second(mine(year, person), since=today, until=NOW)),
            month.total,
        )
        assert abs(sum(amount for _, amount in month.by_day) - month.total) <= len(month.by_day)
        assert abs(sum(amount for *_, amount in month.by_person) - month.total) <= len(month.by_person)


def test_the_bill_names_who_used_what(alice: Person, bob: Person, charlie: Person, year: list[Allocation]) -> None:
    names = {name for name, _, _ in statements.month(bob.scope, NOVEMBER, now=NOW).by_person}
    assert names == {"Alice", "Bob"}


def test_the_rate_of_a_job_is_what_it_holds_now(alice: Person, submit: Submit, used: Used) -> None:
    job = submit(alice)
    used(job, NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    used(job, NOW - timedelta(minutes=30), None, units=250)
    cost = statements.of_job(job, now=NOW)
    assert (cost.total, cost.per_hour, cost.waived) == (4_500_000, 1_000_000, False)
    assert [(line.seconds, line.units, line.per_hour) for line in cost.lines] == [
        (3600, 1000, 4_000_000),
        (1800, 250, 4_000_000),
    ]
    assert statements.burning(alice.scope, now=NOW) == 1_000_000


def test_a_quote_is_what_an_hour_will_cost(big: None) -> None:
    assert statements.quote(Spec("", "", gpus=2, share=250), now=NOW).most == 2_000_000
    assert statements.quote(Spec("", "", gpus=0), now=NOW).most == 0


@pytest.mark.parametrize(("asked", "limit"), [("jobs", 3), ("month", 5)])
def test_the_number_of_queries_does_not_grow(alice: Person, year: list[Allocation], asked: str, limit: int) -> None:
    scope = alice.scope
    ask: Callable[[], object] = {
        "jobs": lambda: statements.of_jobs(list(Job.objects.values_list("pk", flat=True)), now=NOW),
        "month": lambda: statements.month(scope, NOVEMBER, now=NOW),
    }[asked]
    metering.pull()
    with CaptureQueriesContext(connection) as queries:
        ask()
    assert len(queries) <= limit + (asked == "jobs")


def test_what_has_not_begun_costs_nothing_an_hour(alice: Person, submit: Submit, used: Used) -> None:
    held = used(submit(alice), NOW, None)
    assert statements.burning(alice.scope, now=NOW) == statements.of_job(held.attempt.job, now=NOW).per_hour > 0
    Allocation.objects.filter(pk=held.pk).update(billable_from=None)
    assert statements.burning(alice.scope, now=NOW) == statements.of_job(held.attempt.job, now=NOW).per_hour == 0
