"""Quotas: who sets them, what they may say, what they mean for a job, and the month's GPU-hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from haein.cluster.backends.base import Cause
from haein.lib import clock
from haein.lib.errors import Forbidden, Invalid, NotFound
from haein.tenants.models import AuditEntry, Team, TeamMember
from jobs import limits, quotas, scheduling, services, spending
from jobs.models import Attempt, Job, Quota, Spent
from jobs.quotas import Owner, Values
from jobs.uses import Uses
from tests.cast import SPEC, Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]
READY = frozenset({"python"})


def give(oda: Person, alice: Person, *, member: Person | None = None, **values: Any) -> Quota:
    of_team = Owner(organization=alice.scope.organization, team=alice.team, member=member.user if member else None)
    return quotas.set_quota(by=oda.user, owner=of_team, values=Values(**values))


def give_organization(oda: Person, alice: Person, **values: Any) -> Quota:
    whole = Owner(organization=alice.scope.organization)
    return quotas.set_quota(by=oda.user, owner=whole, values=Values(**values))


def ran(alice: Person, submit: Submit, **asked: Any) -> Job:
    job = submit(alice, **asked)
    scheduling.run_pass(now=clock.now(), ready=READY)
    job.refresh_from_db()
    return job


def test_an_operator_sets_a_quota_and_the_audit_has_what_was_before(alice: Person, oda: Person) -> None:
    give(oda, alice, guaranteed=1500)
    give(oda, alice, guaranteed=2500, borrow=1000, weight=2000, lends=False)
    row = Quota.objects.get()
    assert (row.team, row.guaranteed, row.borrow, row.weight, row.lends) == (alice.team, 2500, 1000, 2000, False)
    entries = AuditEntry.objects.filter(action="quota.set").order_by("id")
    before, after = entries[1].detail["before"], entries[1].detail["after"]
    assert (before["guaranteed"], after["guaranteed"], entries[0].detail["before"]) == (1500, 2500, None)
    assert entries[1].organization_id == alice.scope.organization.pk


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"guaranteed": 200_000_000}, "guaranteed", "From 0 to 100,000 GPUs."),
        ({"weight": 0}, "weight", "From 1 to 1000000 thousandths."),
        ({"gpus_per_job": 0}, "gpus_per_job", "From 0.001 to 100,000 GPUs."),
        ({"time_limit_s": 0}, "time_limit_s", "seconds"),
        ({"running_jobs": -1}, "running_jobs", "From 0 to"),
        ({"gpu_hours": -1}, "gpu_hours", "GPU-hours"),
    ],
)
def test_it_refuses_nonsense_and_names_the_field(
    alice: Person, oda: Person, values: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(Invalid) as refused:
        give(oda, alice, **values)
    assert list(refused.value.fields) == [field]
    assert says in refused.value.message


def test_it_refuses_a_pool_that_there_is_not(alice: Person, oda: Person) -> None:
    with pytest.raises(Invalid) as refused:
        quotas.set_quota(by=oda.user, owner=Owner(organization=alice.scope.organization, pool="gold"), values=Values())
    assert list(refused.value.fields) == ["pool"]


def test_a_member_is_guaranteed_nothing_and_has_no_weight(alice: Person, bob: Person, oda: Person) -> None:
    with pytest.raises(Invalid) as refused:
        give(oda, alice, member=bob, guaranteed=1000, weight=2000, lends=False)
    assert set(refused.value.fields) == {"guaranteed", "weight", "lends"}


def test_an_owner_cuts_the_teams_guarantees_from_the_organizations(alice: Person, oda: Person) -> None:
    give_organization(oda, alice, guaranteed=8000)
    other = Team.objects.create(organization=alice.scope.organization, name="Speech")
    give(alice, alice, guaranteed=5000)
    second = Owner(organization=alice.scope.organization, team=other)
    with pytest.raises(Invalid) as refused:
        quotas.set_quota(by=alice.user, owner=second, values=Values(guaranteed=3500))
    assert refused.value.fields["guaranteed"] == (
        "The organization is guaranteed 8 GPUs, of which 5 are other teams’: 3 are left."
    )
    quotas.set_quota(by=alice.user, owner=second, values=Values(guaranteed=3000))
    assert Quota.objects.get(team=other).guaranteed == 3000


def test_an_owner_may_keep_or_lower_what_an_operator_gave_beyond_it(alice: Person, oda: Person) -> None:
    give(oda, alice, guaranteed=4000, weight=3000)
    give(alice, alice, guaranteed=4000, weight=3000, running_jobs=5)
    give(alice, alice, guaranteed=1000, weight=3000)
    with pytest.raises(Invalid) as refused:
        give(alice, alice, guaranteed=2000, weight=9000)
    assert set(refused.value.fields) == {"guaranteed", "weight"}


def test_only_owners_and_operators_set_quotas(
    alice: Person, bob: Person, charlie: Person, oda: Person, vera: Person
) -> None:
    for who in (bob, vera, charlie):
        with pytest.raises(Forbidden):
            give(who, alice, running_jobs=1)
    with pytest.raises(Forbidden):
        give_organization(alice, alice, guaranteed=1000)
    assert not Quota.objects.exists()


def test_charlie_is_told_of_no_such_team(alice: Person, charlie: Person, oda: Person) -> None:
    row = give(oda, alice, guaranteed=1000)
    with pytest.raises(NotFound):
        quotas.get(row.pk, scope=charlie.scope)
    with pytest.raises(NotFound):
        quotas.owner(scope=charlie.scope, team=alice.team.pk)
    with pytest.raises(NotFound):
        quotas.owner(scope=charlie.scope, organization=alice.scope.organization.pk)


def test_a_quota_is_taken_away(alice: Person, bob: Person, oda: Person) -> None:
    give(alice, alice, member=bob, running_jobs=1)
    theirs = Owner(organization=alice.scope.organization, team=alice.team, member=bob.user)
    quotas.clear(by=alice.user, owner=theirs)
    assert not Quota.objects.exists()
    assert AuditEntry.objects.get(action="quota.clear").detail["before"]["running_jobs"] == 1
    with pytest.raises(NotFound):
        quotas.clear(by=alice.user, owner=theirs)


@pytest.mark.parametrize(
    ("values", "asked", "field", "says"),
    [
        ({"gpus_per_job": 2000}, {"gpus": 4}, "gpus", "at most 2 GPUs, and this asks for 4"),
        ({"guaranteed": 1000, "borrow": 1500}, {"gpus": 3}, "gpus", "at most 2.5 GPUs may be held at once"),
        ({"time_limit_s": 3600}, {"time_limit_s": 7200}, "time_limit_s", "at most 1:00"),
        ({"gpu_hours": 75}, {"gpus": 4, "time_limit_s": 86_400}, "time_limit_s", "at most 18:45 would fit"),
    ],
)
def test_what_a_quota_never_allows_is_refused_at_the_door(
    alice: Person, oda: Person, submit: Submit, values: dict[str, Any], asked: dict[str, Any], field: str, says: str
) -> None:
    give(oda, alice, **values)
    with pytest.raises(Invalid) as refused:
        submit(alice, **asked)
    assert list(refused.value.fields) == [field]
    assert says in refused.value.message
    assert "Quota of the team Vision" in refused.value.message


def test_a_members_quota_is_the_members_alone(alice: Person, bob: Person, oda: Person, submit: Submit) -> None:
    give(oda, alice, member=bob, gpus_per_job=1000)
    submit(alice, gpus=2)
    with pytest.raises(Invalid, match="Quota of Bob"):
        submit(bob, gpus=2)


def test_a_job_over_the_most_waits_and_says_what_would_help(alice: Person, oda: Person, submit: Submit) -> None:
    give(oda, alice, guaranteed=2000, borrow=1000)
    ran(alice, submit, gpus=2)
    second = ran(alice, submit, gpus=2)
    assert (second.state, second.reason) == ("queued", "over_most")
    assert services.why(second) == (
        "Quota of the team Vision: 2 of at most 3 GPUs are held, and this asks for 2. It may start when 1 of them are "
        "given back."
    )


def test_a_job_over_the_number_of_jobs_waits_for_one_to_end(
    alice: Person, bob: Person, oda: Person, submit: Submit
) -> None:
    give(oda, alice, member=bob, running_jobs=1)
    ran(bob, submit)
    second = ran(bob, submit)
    assert (second.state, second.reason) == ("queued", "over_jobs")
    assert services.why(second).startswith("Quota of Bob: 1 jobs run, and at most 1 may.")


def test_a_job_over_the_months_hours_is_told_the_limit_that_would_fit(
    alice: Person, oda: Person, submit: Submit
) -> None:
    began, _next = quotas.month_of(clock.now())
    give_organization(oda, alice, gpu_hours=10)
    Spent.objects.create(team=alice.team, member=alice.user, month=began.date(), unit_seconds=int(9.5 * quotas.HOUR))
    job = ran(alice, submit, gpus=1, time_limit_s=7200)
    assert (job.state, job.reason) == ("queued", "over_hours")
    why = services.why(job)
    assert why.startswith("Quota of the organization Acme: of 10 GPU-hours this month 9.5 are used and 0 are kept")
    assert why.endswith("A time limit of at most 0:30 would fit.")
    shorter = ran(alice, submit, gpus=1, time_limit_s=1800)
    assert shorter.state == "starting"


def test_what_is_not_lent_and_what_is_promised_say_so(
    alice: Person, charlie: Person, oda: Person, submit: Submit
) -> None:
    give(oda, alice, guaranteed=8000, lends=False)
    job = ran(charlie, submit, gpus=1)
    assert job.reason == "not_lent"
    assert services.why(job) == (
        "What is idle is guaranteed to teams that do not lend it. The team has no guarantee of its own."
    )
    give(oda, alice, guaranteed=8000)
    never = ran(charlie, submit, gpus=1, preemption="never")
    assert never.reason == "promised"
    assert services.why(never).endswith("If it may be preempted, it may start sooner.")


def test_the_quote_says_where_the_team_stands(alice: Person, oda: Person, submit: Submit) -> None:
    give(oda, alice, guaranteed=4000)
    ran(alice, submit, gpus=2)

    def told(**asked: Any) -> str:
        return limits.outlook(alice.scope, replace(SPEC, **asked), now=clock.now())

    assert told(gpus=2) == "Inside the team’s guarantee: 2 of 4 GPUs are used."
    assert told(gpus=3) == (
        "Borrowed: of the team’s guarantee 2 of 4 GPUs are used, and this takes 3. It may be asked to leave, with 60 s "
        "notice."
    )
    assert told(gpus=1, preemption="spot").startswith("Borrowed, as spot work always is.")
    assert told(gpus=0) == ""


def test_what_is_held_is_inside_or_borrowed(alice: Person, bob: Person, oda: Person, submit: Submit) -> None:
    give(oda, alice, guaranteed=2000)
    ran(alice, submit, gpus=2)
    ran(bob, submit, gpus=3)
    submit(bob, gpus=4)
    uses = Uses([alice.team.pk], now=clock.now())
    team = uses.of(("team", alice.team.pk, ""))
    assert (team.inside, team.borrowed, team.jobs, team.waiting) == (2000, 3000, 2, 4000)
    theirs = uses.of(("member", alice.team.pk, bob.user.pk, ""))
    assert (theirs.inside, theirs.borrowed) == (0, 3000)


def test_an_ended_run_is_counted_once_in_each_of_its_months(alice: Person, submit: Submit) -> None:
    job = ran(alice, submit, gpus=2)
    attempt = Attempt.objects.select_related("job").get(job=job)
    attempt.placed_at = datetime(2026, 10, 31, 23, tzinfo=UTC)
    attempt.ended_at = datetime(2026, 11, 1, 2, tzinfo=UTC)
    spending.record([attempt])
    rows = dict(Spent.objects.values_list("month", "unit_seconds"))
    assert {month.month: seconds for month, seconds in rows.items()} == {10: 2 * quotas.HOUR, 11: 4 * quotas.HOUR}
    attempt.cause = Cause.LOST.value
    spending.record([attempt])
    assert dict(Spent.objects.values_list("month", "unit_seconds")) == rows


def test_a_real_run_is_counted_when_it_ends(
    cluster: None, alice: Person, submit: Submit, finish: Callable[[Job], Job]
) -> None:
    job = finish(submit(alice, gpus=1, command="true", share=500))
    attempt = Attempt.objects.get(job=job)
    assert attempt.ended_at is not None
    held = (attempt.ended_at - attempt.placed_at) / timedelta(seconds=1)
    spent = Spent.objects.get()
    assert (spent.team, spent.member) == (alice.team, alice.user)
    assert spent.unit_seconds == pytest.approx(500 * held, abs=500)


def test_a_viewer_sees_the_teams_quotas_and_no_other_teams(alice: Person, vera: Person, oda: Person) -> None:
    other = Team.objects.create(organization=alice.scope.organization, name="Speech")
    give_organization(oda, alice, guaranteed=8000)
    mine = give(oda, alice, guaranteed=1000)
    theirs = quotas.set_quota(
        by=oda.user, owner=Owner(organization=alice.scope.organization, team=other), values=Values(guaranteed=2000)
    )
    assert {row.team for row in quotas.seen_by(vera.scope)} == {None, alice.team}
    assert {row.pk for row in quotas.seen_by(alice.scope)} >= {mine.pk, theirs.pk}
    assert TeamMember.objects.filter(team=other).count() == 0
