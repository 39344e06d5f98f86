"""Whoever signs up owns an organization with a first team, and it is on record."""

import pytest
from django.test import Client

from haein.lib.errors import Invalid
from haein.tenants import scope, services
from haein.tenants.models import AuditEntry, Organization, OrganizationMember, Team, TeamMember, User
from tests.cast import PASSWORD, Person, person

FORM = {"name": "Dana", "organization": "Delta", "email": "Dana@Delta.example", "password1": PASSWORD}


def test_sign_up_makes_an_organization_with_a_team_and_signs_in(db: None, client: Client) -> None:
    answer = client.post("/accounts/signup/", FORM)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    dana = User.objects.get()
    assert (dana.email, dana.name, dana.is_operator) == ("dana@delta.example", "Dana", False)
    assert OrganizationMember.objects.get(user=dana).role == "owner"
    assert TeamMember.objects.get(user=dana).role == "admin"
    assert Team.objects.get().organization == Organization.objects.get(name="Delta")
    entry = AuditEntry.objects.get(action="organization.create")
    assert (entry.actor_id, entry.organization_id) == (dana.pk, Organization.objects.get().pk)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"password1": "short"}, "password1"),
        ({"password1": "password123"}, "password1"),
        ({"organization": ""}, "organization"),
        ({"organization": "   "}, "organization"),
        ({"name": ""}, "name"),
    ],
)
def test_a_form_that_is_wrong_names_the_field_and_makes_nothing(
    db: None, client: Client, change: dict[str, str], field: str
) -> None:
    answer = client.post("/accounts/signup/", {**FORM, **change})
    assert field in answer.context["form"].errors
    assert not User.objects.exists()
    assert not Organization.objects.exists()


def test_an_address_that_is_taken_is_refused_in_any_case(alice: Person, client: Client) -> None:
    answer = client.post("/accounts/signup/", {**FORM, "email": alice.user.email.upper()})
    assert "email" in answer.context["form"].errors
    assert User.objects.count() == 1
    assert not Organization.objects.filter(name="Delta").exists()


def test_an_organization_needs_a_name(db: None) -> None:
    with pytest.raises(Invalid, match="Name your organization"):
        services.create_organization(by=person("Dana"), name=" ")


def test_everybody_sees_the_teams_they_are_in(alice: Person, vera: Person, charlie: Person) -> None:
    assert alice.scope.team_ids == vera.scope.team_ids == {alice.team.pk}
    assert (alice.scope.owner, alice.scope.may_launch) == (True, True)
    assert (vera.scope.owner, vera.scope.may_launch, vera.scope.writable) == (False, False, frozenset())
    assert not charlie.scope.team_ids & alice.scope.team_ids


def test_a_member_who_was_removed_sees_nothing(bob: Person) -> None:
    bob.user.teams.all().delete()
    assert scope.of(bob.user) is None


def test_a_person_who_is_no_longer_active_sees_nothing(bob: Person) -> None:
    User.objects.filter(pk=bob.user.pk).update(is_active=False)
    assert scope.of(bob.user) is None
    assert bob.client.get("/").status_code == 302
