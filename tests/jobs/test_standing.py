"""Where a waiting job stands, and what its owner could change to start sooner."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from haein.lib import clock
from haein.tenants.models import Team, TeamMember
from haein.tenants.scope import Scope
from jobs import promises, scheduling, services, standing, waiting
from jobs.models import Claim, Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


def look() -> None:
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    promises.renew(now=now)


def sooner(job: Job) -> list[str]:
    job.refresh_from_db()
    return standing.sooner(job, now=clock.now())


def test_it_names_what_would_start_at_once(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=5, time_limit_s=3600)
    look()
    Claim.objects.all().delete()
    job = submit(alice, gpus=4, share=1000, time_limit_s=60)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    assert sooner(job)[0] == "with 3 GPUs"
    services.submit(scope=alice.scope, spec=replace(services.spec_of(job), gpus=3))
    look()
    assert set(Job.objects.filter(gpus=3).values_list("state", flat=True)) == {"starting"}


def test_a_shorter_limit_goes_before_who_has_his_turn(alice: Person, bob: Person, submit: Submit) -> None:
    """One GPU is free and kept: who is gone before the job whose turn it is may have it meanwhile, and does."""
    submit(alice, gpus=7, time_limit_s=3600)
    look()
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    assert Claim.objects.get().kind == Claim.Kind.TURN
    job = submit(bob, gpus=1, time_limit_s=86_400)
    look()
    job.refresh_from_db()
    assert job.state == "queued"
    (advice,) = sooner(job)
    assert advice.startswith("with a time limit of 5"), advice
    minutes = int(advice.split()[5])
    quick = submit(bob, gpus=1, time_limit_s=60 * minutes)
    look()
    quick.refresh_from_db()
    assert quick.state == "starting"


def test_who_waits_for_something_else_is_told_of_no_other_request(alice: Person, submit: Submit) -> None:
    job = submit(alice, environment="python")
    Job.objects.filter(pk=job.pk).update(reason="suspended")
    assert sooner(job) == []


def test_those_ahead_are_named_to_their_own_team_alone(alice: Person, charlie: Person, submit: Submit) -> None:
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    first = submit(alice, gpus=8, name="first")
    last = submit(alice, gpus=8, name="last")
    strange = submit(charlie, gpus=8, name="strange", priority=9)
    look()
    now = clock.now()
    seen = standing.of(last, alice.scope, now=now)
    assert (first.pk, "first") in seen.own
    assert strange.pk not in dict(seen.own)
    assert seen.own_count == 1
    assert seen.ahead == 2
    assert seen.when is not None
    assert standing.of(strange, charlie.scope, now=now).own == []


def test_everybody_sees_their_own_and_how_many_others(
    alice: Person, charlie: Person, oda: Person, submit: Submit
) -> None:
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    mine = [submit(alice, gpus=8, name=f"job {number}").pk for number in range(3)]
    strange = submit(charlie, gpus=8).pk
    look()
    now = clock.now()

    def order(scope: Scope, sort: str = waiting.DEFAULT_SORT) -> tuple[list[object], int]:
        found = waiting.of(scope, sort=sort, now=now)
        return [job.pk for job, _ in found.rows(list(found.order))], found.others

    assert order(alice.scope) == (mine, 1)
    assert order(alice.scope, "name") == (mine, 1)
    assert order(charlie.scope) == ([strange], 3)
    assert set(order(oda.scope)[0]) == {*mine, strange}
    held = waiting.of(alice.scope, now=now).held
    assert (held.all, held.held, held.free, held.borrowed) == (8000, 8000, 0, 8000)


def test_the_page_shows_it(alice: Person, charlie: Person, submit: Submit) -> None:
    assert "No job of yours waits." in alice.client.get("/queue/").content.decode()
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    job = submit(alice, gpus=8, name="mine waits")
    look()
    page = alice.client.get("/queue/").content.decode()
    assert "mine waits" in page
    assert page.count('data-format="moment"') == 2
    assert "mine waits" not in charlie.client.get("/queue/").content.decode()
    shown = alice.client.get(f"/jobs/{job.pk}/").content.decode()
    assert "It is next in the queue." in shown
    assert shown.count('data-format="moment"') == 2


def test_programs_are_told_the_same(alice: Person, charlie: Person, submit: Submit) -> None:
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    job = submit(alice, gpus=8, name="mine waits")
    look()
    told = alice.client.get("/api/v1/queue").json()
    assert (told["waiting"], told["others"], told["gpus"]) == (
        1,
        0,
        {"all": 8, "held": 8, "free": 0, "outside": 0, "lent": 8},
    )
    (row,) = told["results"]
    alone = alice.client.get(f"/api/v1/jobs/{job.pk}").json()
    assert row["expected_start"] == alone["expected_start"]
    assert (row["ahead"], alone["ahead"]) == (0, 0)
    assert row["expected_start"]["p50"] <= row["expected_start"]["p90"]
    assert alice.client.get("/api/v1/queue?limit=0").status_code == 422
    strange = charlie.client.get("/api/v1/queue").json()
    assert (strange["waiting"], strange["others"], strange["results"]) == (0, 1, [])


def test_the_quote_says_when(alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    asked = "?gpus=2&share=100&cpus=0.1&memory_gb=0.25&time_limit=1h"
    assert "with nine chances in ten in" in alice.client.get(f"/jobs/new/quote/{asked}").content.decode()


def test_a_member_of_two_teams_is_shown_whose_job_it_is(alice: Person, submit: Submit) -> None:
    other = Team.objects.create(organization=alice.scope.organization, name="Speech")
    TeamMember.objects.create(team=other, user=alice.user, role=TeamMember.Role.MEMBER)
    submit(alice, gpus=8, time_limit_s=3600)
    look()
    submit(alice, gpus=8)
    look()
    assert "Acme / Vision" in alice.client.get("/queue/").content.decode()
