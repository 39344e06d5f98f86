"""Quotas by the API: decimal GPUs in and out, set by whoever may, in full each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from haein.lib import clock
from haein.tenants.models import AuditEntry, Team
from jobs import scheduling
from jobs.models import Job, Quota
from tests.cast import Person, Program, fields_of

pytestmark = pytest.mark.usefixtures("big")

Submit = Callable[..., Job]


@pytest.fixture
def odas(oda: Person) -> Program:
    return Program(oda)


def put(program: Program, **asked: Any) -> Any:
    return program.ask("PUT", "quotas", asked)


def test_an_operator_sets_a_teams_quota_in_decimal_gpus(alice: Person, odas: Program, alices: Program) -> None:
    asked = {"guaranteed": 1.5, "borrow": 4.25, "lends": False, "weight": 2.0, "gpus_per_job": 2.0}
    told = put(odas, organization="Acme", team="vision", **asked, running_jobs=3, time_limit_s=7200, gpu_hours=500)
    assert told.status_code == 200, told.content
    quota = told.json()
    assert {name: quota[name] for name in asked} == asked
    assert (quota["team"]["id"], quota["organization"]["name"], quota["member"]) == (str(alice.team.pk), "Acme", None)
    row = Quota.objects.get()
    assert (row.guaranteed, row.borrow, row.weight, row.gpus_per_job, row.gpu_hours) == (1500, 4250, 2000, 2000, 500)
    assert alices.get(f"quotas/{quota['id']}").json() == quota
    assert alices.get("quotas").json()["results"] == [quota]


def test_what_is_left_out_of_a_set_is_as_if_never_set(alice: Person, odas: Program) -> None:
    put(odas, team=str(alice.team.pk), guaranteed=8, running_jobs=1)
    told = put(odas, team=str(alice.team.pk), guaranteed=4).json()
    assert (told["guaranteed"], told["running_jobs"], told["lends"], told["weight"]) == (4.0, None, True, 1.0)
    kept = AuditEntry.objects.filter(action="quota.set").order_by("-id").first()
    assert kept is not None
    assert (kept.detail["before"]["guaranteed"], kept.detail["after"]["guaranteed"]) == (8000, 4000)
    assert kept.organization_id == alice.team.organization_id


def test_it_tells_what_is_used_and_waits(alice: Person, odas: Program, alices: Program, submit: Submit) -> None:
    put(odas, team=str(alice.team.pk), guaranteed=2, borrow=2.5)
    for gpus in (2, 1, 3):
        submit(alice, gpus=gpus)
    submit(alice, gpus=1, share=500)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    used = alices.get("quotas").json()["results"][0]["used"]
    assert used.pop("gpu_hours") < 0.1
    assert used == {"guaranteed": 2.0, "borrowed": 1.5, "waiting": 3.0, "jobs": 3}


def test_an_owner_sets_a_members_limit_and_a_member_nothing(alice: Person, bob: Person, alices: Program) -> None:
    limit = {"team": str(alice.team.pk), "member": bob.user.email, "borrow": 2, "gpu_hours": 100}
    told = put(alices, **limit)
    assert told.status_code == 200, told.content
    assert told.json()["member"] == {"id": str(bob.user.pk), "name": "Bob", "email": bob.user.email}
    bobs = Program(bob)
    assert put(bobs, **limit).status_code == 403
    assert bobs.ask("DELETE", f"quotas/{told.json()['id']}").status_code == 403
    assert bobs.get("quotas").json()["results"] == [told.json()]


def test_an_owner_shares_out_what_the_organization_is_guaranteed(alice: Person, odas: Program, alices: Program) -> None:
    other = Team.objects.create(organization=alice.team.organization, name="Speech")
    assert put(odas, organization="Acme", guaranteed=8).status_code == 200
    assert put(alices, team="Speech", guaranteed=6).status_code == 200
    refused = put(alices, team="Vision", guaranteed=2.5)
    assert fields_of(refused) == {"guaranteed"}
    assert "2 are left" in refused.json()["errors"][0]["detail"]
    assert put(alices, team="Vision", guaranteed=2).status_code == 200
    assert put(alices, organization="Acme", guaranteed=80).status_code == 403
    assert fields_of(put(alices, team=str(other.pk), guaranteed=6, weight=9)) == {"weight"}


def test_it_is_cleared_by_whoever_may_set_it(alice: Person, odas: Program, alices: Program) -> None:
    quota = put(odas, team=str(alice.team.pk), guaranteed=2).json()["id"]
    assert alices.ask("DELETE", f"quotas/{quota}").status_code == 204
    assert (alices.get(f"quotas/{quota}").status_code, Quota.objects.count()) == (404, 0)
    assert AuditEntry.objects.get(action="quota.clear").detail["before"]["guaranteed"] == 2000


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"guaranteed": "8"}, "guaranteed"),
        ({"guaranteed": -1}, "guaranteed"),
        ({"borrow": True}, "borrow"),
        ({"lends": 1}, "lends"),
        ({"weight": 0}, "weight"),
        ({"weight": None}, "weight"),
        ({"running_jobs": 1.5}, "running_jobs"),
        ({"gpus_per_job": 0}, "gpus_per_job"),
        ({"time_limit_s": 0}, "time_limit_s"),
        ({"gpu_hours": -1}, "gpu_hours"),
        ({"pool": "nowhere"}, "pool"),
        ({"member": "alice@alice.example", "guaranteed": 1}, "guaranteed"),
        ({"member": "alice@alice.example", "lends": False}, "lends"),
        ({"gpus": 1}, "gpus"),
    ],
)
def test_what_is_wrong_is_named(alice: Person, odas: Program, wrong: dict[str, Any], field: str) -> None:
    assert fields_of(put(odas, team=str(alice.team.pk), **wrong)) == {field}
    assert not Quota.objects.exists()


def test_a_name_that_several_have_is_not_guessed(alice: Person, charlie: Person, odas: Program) -> None:
    Team.objects.create(organization=charlie.scope.organization, name="Vision")
    refused = put(odas, team="Vision", guaranteed=1)
    assert (refused.status_code, "several" in refused.json()["detail"]) == (404, True)
    assert put(odas, organization="Acme", team="Vision", guaranteed=1).status_code == 200


def test_lists_are_narrowed_by_name_and_by_id(alice: Person, charlie: Person, odas: Program) -> None:
    put(odas, organization="Acme", guaranteed=8)
    put(odas, team=str(alice.team.pk), guaranteed=4)
    put(odas, team=str(charlie.team.pk), guaranteed=4)
    assert len(odas.get("quotas").json()["results"]) == 3
    assert len(odas.get("quotas?organization=acme").json()["results"]) == 2
    assert len(odas.get(f"quotas?team={alice.team.pk}").json()["results"]) == 1
    assert len(Program(charlie).get("quotas?organization=Acme").json()["results"]) == 0


def test_a_list_takes_as_many_queries_however_long_it_is(
    alice: Person, odas: Program, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        team = Team.objects.create(organization=alice.team.organization, name=f"Team {number}")
        Quota.objects.create(organization=team.organization, team=team, guaranteed=100)
    with django_assert_max_num_queries(12):
        assert len(odas.get("quotas").json()["results"]) == 30
