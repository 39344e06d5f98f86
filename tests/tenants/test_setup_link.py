"""The first operator comes in by a link that works once."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django.test import Client

from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants import services
from haein.tenants.models import AuditEntry, Organization, SetupLink, TeamMember, User
from tests.cast import PASSWORD, Person, together

pytestmark = pytest.mark.django_db


def link() -> str:
    token = services.setup_link()
    assert token
    return f"/setup/{token}/"


def test_it_makes_the_operator_with_an_organization_and_signs_in(client: Client) -> None:
    assert client.get(link())["Location"] == "/"
    operator = User.objects.get()
    assert operator.is_operator
    assert TeamMember.objects.get(user=operator).role == "admin"
    page = client.get("/")
    assert page.context["unsaved_account"] is True
    assert AuditEntry.objects.filter(action="operator.setup", actor_id=operator.pk).exists()


def test_it_works_once(client: Client) -> None:
    address = link()
    client.get(address)
    again = Client().get(address)
    assert again.status_code == 404
    assert "has been used or is too old" in again.content.decode()


@pytest.mark.django_db(transaction=True)
def test_of_many_who_open_it_at_once_one_comes_in() -> None:
    address = link()
    answers = together(lambda _: Client().get(address).status_code, 5)
    assert sorted(answers) == [302, 404, 404, 404, 404]
    assert User.objects.count() == Organization.objects.count() == 1


def test_it_gets_too_old(client: Client) -> None:
    address = link()
    SetupLink.objects.update(expires_at=clock.now() - timedelta(seconds=1))
    assert client.get(address).status_code == 404
    assert not User.objects.exists()


@pytest.mark.parametrize("token", ["x", "a" * 32, "%00", "ü"])
def test_a_wrong_one_is_not_found(client: Client, token: str) -> None:
    link()
    assert client.get(f"/setup/{token}/").status_code == 404


def test_guessing_is_slowed_down(client: Client) -> None:
    address = link()
    for number in range(40):
        client.get(f"/setup/guess{number}/")
    assert client.get(address).status_code == 404
    cache.clear()
    assert client.get(address).status_code == 302


def test_a_new_link_ends_the_one_before(client: Client) -> None:
    first, second = link(), link()
    assert client.get(first).status_code == 404
    assert client.get(second).status_code == 302


def test_only_a_hash_of_it_is_kept() -> None:
    token = link().split("/")[2]
    assert token not in str(list(SetupLink.objects.values()))


def test_there_is_none_once_there_is_an_operator_unless_it_is_asked_for(client: Client) -> None:
    client.get(link())
    operator = User.objects.get()
    assert services.setup_link() is None
    token = services.setup_link(renew=True)
    assert token
    assert services.open_setup_link(token) == operator


def test_the_command_prints_the_whole_address() -> None:
    out = StringIO()
    call_command("setup_link", base_url="http://here:8000/", stdout=out)
    assert out.getvalue().startswith("http://here:8000/setup/")
    call_command("setup_link", stdout=out)
    assert len(out.getvalue().split()) == 2


def test_the_account_is_kept_with_an_address_and_a_password(client: Client) -> None:
    client.get(link())
    answer = client.post("/accounts/keep/", {"email": "Oda@Ops.example", "password": PASSWORD})
    assert answer["Location"] == "/"
    assert client.get("/").context["unsaved_account"] is False
    assert Client().post("/accounts/login/", {"login": "oda@ops.example", "password": PASSWORD}).status_code == 302
    assert client.post("/accounts/keep/", {"email": "x@x.example", "password": PASSWORD}).status_code == 404


def test_an_address_that_somebody_has_is_refused(client: Client, alice: Person) -> None:
    client.get(link())
    answer = client.post("/accounts/keep/", {"email": alice.user.email, "password": PASSWORD})
    assert (answer.status_code, answer.context["form"].errors["email"]) == (422, ["Another account has this address."])
    assert answer.context["form"]["email"].value() == alice.user.email
    with pytest.raises(Invalid), transaction.atomic():
        services.keep_account(by=User.objects.get(is_operator=True), email=alice.user.email.upper(), password=PASSWORD)


def test_a_short_password_is_refused_beside_its_field(client: Client) -> None:
    client.get(link())
    answer = client.post("/accounts/keep/", {"email": "a@b.example", "password": "short"})
    assert answer.status_code == 422
    assert "password" in answer.context["form"].errors


def test_an_account_with_a_password_is_not_taken_over(alice: Person) -> None:
    with pytest.raises(NotFound):
        services.keep_account(by=alice.user, email="new@new.example", password=PASSWORD)
