"""The month that is written down is as good as one that was lived: by the constraints, by Law 2 and by the bill."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import date, datetime, timedelta
from fractions import Fraction

import pytest
from django.db import connection
from django.db.models import Count, Exists, Max, Min, OuterRef, Sum
from django.test import Client

from billing import metering, prices, rating, statements
from billing.models import Price, Usage
from dashboard.demo import founding, people
from dashboard.demo.work import Wish
from haein.cluster.models import Device
from haein.cluster.registry import backend
from haein.lib import clock
from haein.lib.errors import Problem
from haein.placement import mig
from haein.tenants import scope as scopes
from haein.tenants.models import AuditEntry, Organization, Team, TeamMember, User
from jobs import quotas, spending
from jobs.models import Allocation, Attempt, Event, Job, Spent, Worker
from jobs.states import TABLE, State
from jobs.states import Event as Kind
from tests.cast import LOGIN

pytestmark = pytest.mark.usefixtures("going_on")


def test_its_rows_satisfy_the_database() -> None:
    connection.check_constraints()
    assert Job.objects.count() > 500
    assert {state for (state,) in Job.objects.values_list("state").distinct()} >= {"succeeded", "failed", "cancelled"}
    assert not Job.objects.filter(ended_at=None).exists()
    assert not Attempt.objects.exclude(state="ended").exists()


def test_it_ends_now_and_begins_a_month_ago() -> None:
    now = clock.now()
    span = Job.objects.aggregate(first=Min("created_at"), last=Max("ended_at"))
    assert now - timedelta(days=founding.DAYS + 1) < span["first"] < now - timedelta(days=founding.DAYS - 1)
    assert now - timedelta(days=1) < span["last"] < now
    assert not Event.objects.filter(at__gt=now).exists()


def test_what_succeeded_ran_for_as_long_as_its_command_says() -> None:
    ended = Attempt.objects.filter(job__state="succeeded", exit_code=0).select_related("job")
    assert len(ended) > 300
    for attempt in ended:
        assert attempt.started_at
        assert attempt.ended_at
        told = re.search(r"simulate (\d+)s", attempt.job.command)
        assert told
        assert abs((attempt.ended_at - attempt.started_at).total_seconds() - int(told[1])) <= 1


def test_a_gang_is_told_of_as_one() -> None:
    runs = Event.objects.filter(kind="run").values_list("reason", "reason_values", "job__workers")
    assert {workers > 1 for _, _, workers in runs} == {True, False}
    for reason, values, workers in runs:
        assert reason == ("runs_on_several" if workers > 1 else "runs")
        assert values.get("others", 0) == workers - 1


def test_law_2_held_at_every_instant_of_it() -> None:
    """Whenever something was given away: of no device more than there is, and no two instances in one place."""
    whole = {device.pk: device.model.memory_mb for device in Device.objects.select_related("model")}
    held: defaultdict[int, list[Allocation]] = defaultdict(list)
    for row in Allocation.objects.order_by("held_from"):
        assert row.ended_at is not None
        held[row.device_id].append(row)
    instants = 0
    for device, rows in held.items():
        for now in {row.held_from for row in rows}:
            present = [row for row in rows if row.ended_at and row.held_from <= now < row.ended_at]
            _balance(present, whole[device])
            instants += 1
    assert instants > 500


def _balance(present: list[Allocation], memory_mb: int) -> None:
    assert sum(row.weight for row in present) <= 1000
    instances = [row for row in present if row.profile]
    if instances:
        assert len(instances) == len(present)
        taken = [mig.profiles("B200")[row.profile].bits(row.start or 0) for row in instances]
        assert sum(taken) == _union(taken)
        assert sum(row.units for row in present) <= mig.UNITS
    else:
        assert sum(row.units for row in present) <= 1000
        assert sum(row.memory for row in present) <= memory_mb


def _union(masks: list[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def test_its_bill_is_the_sum_of_its_allocations() -> None:
    assert metering.pull() == 0  # nothing is left to be metered
    tariffs = prices.tariffs(Price.objects.values_list("device_model_id", flat=True))
    exact: defaultdict[tuple[object, datetime], Fraction] = defaultdict(Fraction)
    for row in Allocation.objects.select_related("attempt__job__team", "device"):
        for line in metering.lines(row, tariffs[row.device.model_id], until=None):
            month = statements.month_of(clock.from_epoch(line.start).date())[0]
            exact[row.attempt.job.team.organization_id, month] += line.exact
    assert exact
    for organization in Organization.objects.exclude(name=people.OPERATIONS):
        owner = User.objects.get(organizations__organization=organization, organizations__role="owner")
        scope = scopes.of(owner)
        assert scope
        for month in {month for _, month in exact}:
            stated = statements.month(scope, month.date(), now=clock.now())
            assert stated.total == rating.total([exact[organization.pk, month]])
            assert stated.running == 0
    assert sum(exact.values()) == rating.add(
        rating.amount(seconds * units, per_hour)
        for seconds, units, per_hour in Usage.objects.values_list("seconds", "units", "price__per_hour")
    )


def test_both_of_its_prices_are_on_the_bill() -> None:
    first, second = Price.objects.order_by("valid_from")
    assert first.valid_to == second.valid_from
    assert second.valid_to is None
    assert second.usage.exists()
    assert first.usage.exists()
    assert not first.usage.filter(ends__gt=second.valid_from).exists()
    assert not second.usage.filter(starts__lt=second.valid_from).exists()


def test_its_events_tell_only_what_the_table_allows() -> None:
    moves = {(kind.value, old.value, new.value) for kind, each in TABLE.items() for old, new in each.items()}
    told = Event.objects.exclude(kind__in=("submit", "note")).values_list("kind", "old_state", "new_state").distinct()
    assert set(told) <= moves
    assert {kind for kind, _, _ in told} >= {Kind.PLACE.value, Kind.RUN.value, Kind.SUCCEED.value, Kind.REQUEUE.value}
    for job in Job.objects.order_by("?")[:100]:
        states = list(job.events.order_by("id").values_list("old_state", "new_state"))
        assert states[0] == ("", State.QUEUED)
        assert [new for _, new in states[:-1]] == [old for old, _ in states[1:]]
        assert states[-1][1] == job.state
        assert job.attempts.count() == job.attempts_made


def test_its_gangs_have_a_worker_for_each_rank() -> None:
    gangs = Attempt.objects.filter(job__workers__gt=1).annotate(others=Count("workers")).select_related("job")
    assert gangs
    for attempt in gangs:
        assert attempt.others == attempt.job.workers - 1
        nodes = set(Worker.objects.filter(attempt=attempt).values_list("node_id", flat=True)) | {attempt.node_id}
        assert len(nodes) == attempt.job.workers
        assert attempt.allocations.values("rank").distinct().count() == attempt.job.workers


def test_its_people_belong_to_what_they_work_for() -> None:
    assert Organization.objects.count() == len(people.ORGANIZATIONS) + 1
    assert Team.objects.count() == len(people.TEAMS) + 1
    theirs = TeamMember.objects.filter(team=OuterRef("team"), user=OuterRef("submitted_by"))
    assert not Job.objects.exclude(Exists(theirs)).exists()
    assert User.objects.filter(is_operator=True).count() == 1
    assert AuditEntry.objects.filter(action="organization.create").count() == Organization.objects.count()


def test_it_is_written_once_and_never_beside_somebody_elses(going_on: list[Wish]) -> None:
    before = Job.objects.count(), User.objects.count()
    with pytest.raises(Problem, match="people here already"):
        founding.begin(backend().inventory(), password="another", seed=1, now=clock.now())
    assert (Job.objects.count(), User.objects.count()) == before
    assert founding.begun()


def test_a_page_says_that_a_log_is_gone() -> None:
    owner = User.objects.get(email=people.DEVELOPER.email)
    client = Client()
    client.force_login(owner, backend=LOGIN)
    job = Job.objects.filter(team__members__user=owner, attempts_made__gt=0).order_by("created_at").first()
    assert job
    page = client.get(f"/jobs/{job.pk}/")
    assert page.status_code == 200
    assert "No log is kept of it" in page.content.decode()
    assert "Simulation × 3600" in page.content.decode()
    assert client.get(f"/jobs/{job.pk}/log.txt").status_code == 200
    assert client.get(f"/jobs/{job.pk}/files/").status_code == 200


def test_the_months_hours_are_those_of_its_runs() -> None:
    months: defaultdict[date, float] = defaultdict(float)
    for attempt in Attempt.objects.exclude(cause="lost").select_related("job"):
        assert attempt.ended_at
        job = attempt.job
        for month, seconds in spending.months(attempt.placed_at, attempt.ended_at):
            months[month] += seconds * quotas.units(job.gpus, job.share, job.profile, job.workers)
    counted = dict(Spent.objects.values_list("month").annotate(Sum("unit_seconds")).order_by())
    assert counted.keys() == months.keys()
    for month, seconds in counted.items():
        assert seconds == pytest.approx(months[month], rel=1e-6)
