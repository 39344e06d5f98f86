"""A cluster that can't keep organizations apart has room for one; whoever comes second is told the way out."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from haein.cluster import isolation, registry
from haein.cluster.backends.base import BackendDown, Isolation
from haein.cluster.backends.local.locks import Locks
from haein.lib.errors import Invalid
from haein.tenants import scope, services
from haein.tenants.models import Organization, Team, User
from tests.cast import PASSWORD, Person, person, together

FORM = {"name": "Dana", "organization": "Delta", "email": "dana@delta.example", "password1": PASSWORD}
REFUSED = {"obstacle": "Operation not permitted", "remedy": "sudo sysctl"}
ALONE = Locks(users=False, namespaces=False, landlock=7, **REFUSED).isolation()

WIRED = list(services._gates)  # before the cast takes them away for every other story


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """answers(isolation): the cluster says so, as on a machine that this one is not."""

    def set_to(found: Isolation | Exception) -> None:
        def isolation_now(_: object) -> Isolation:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(type(registry.backend()), "isolation", isolation_now)
        monkeypatch.setattr(services, "_gates", [isolation.refusal])

    return set_to


def test_the_cluster_is_asked() -> None:
    assert isolation.refusal in WIRED


def test_the_first_is_let_in(db: None, answers: Any, client: Client) -> None:
    answers(ALONE)
    assert client.post("/accounts/signup/", FORM).status_code == 302
    assert Organization.objects.get().name == "Delta"


def test_a_second_is_refused_with_the_way_out_and_nothing_is_made(alice: Person, answers: Any, client: Client) -> None:
    answers(ALONE)
    answer = client.post("/accounts/signup/", FORM)
    (said,) = answer.context["form"].errors["organization"]
    assert "room for one organization" in said
    assert "run Haein as root, or allow user namespaces: sudo sysctl." in said
    assert (User.objects.count(), Organization.objects.count(), Team.objects.count()) == (1, 1, 1)


def test_the_door_itself_refuses_it(alice: Person, answers: Any) -> None:
    answers(ALONE)
    with pytest.raises(Invalid, match="room for one organization"):
        services.create_organization(by=person("Dana"), name="Delta")
    assert Organization.objects.count() == 1


def test_where_they_are_kept_apart_there_is_room(alice: Person, answers: Any, client: Client) -> None:
    answers(Locks(users=True, namespaces=False, landlock=0, **REFUSED).isolation())
    assert client.post("/accounts/signup/", FORM).status_code == 302
    assert Organization.objects.count() == 2


def test_while_the_cluster_can_not_say_nobody_comes_second(alice: Person, answers: Any, client: Client) -> None:
    answers(BackendDown("no answer from slurmctld"))
    (said,) = client.post("/accounts/signup/", FORM).context["form"].errors["organization"]
    assert "slurmctld" in said
    assert "later" in said


@pytest.mark.django_db(transaction=True)
def test_of_two_that_come_at_once_one_is_the_second(answers: Any) -> None:
    answers(ALONE)
    people = [person("Dana"), person("Eve")]

    def come(number: int) -> bool:
        try:
            services.create_organization(by=people[number], name=f"Number {number}")
        except Invalid:
            return False
        return True

    assert sorted(together(come, 2)) == [False, True]
    assert Organization.objects.count() == 1


def test_an_operator_who_comes_later_joins_the_one_there_is(alice: Person, answers: Any) -> None:
    answers(ALONE)
    token = services.setup_link()
    assert token
    operator = services.open_setup_link(token)
    found = scope.of(operator)
    assert found is not None
    assert (found.organization, found.team, found.owner) == (alice.scope.organization, alice.team, False)
    assert Organization.objects.count() == 1
