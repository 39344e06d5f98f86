"""Signing in and out, and a new password by e-mail, through the pages themselves."""

import re

import pytest
from django.core import mail
from django.test import Client

from haein.tenants.models import AuditEntry
from tests.cast import PASSWORD, Person

LOGIN = "/accounts/login/"


def sign_in(client: Client, email: str, password: str = PASSWORD) -> bool:
    answer = client.post(LOGIN, {"login": email, "password": password})
    return answer.status_code == 302


def test_an_address_is_known_in_any_case(alice: Person, client: Client) -> None:
    assert sign_in(client, "ALICE@Alice.example")
    assert client.get("/").status_code == 200
    assert AuditEntry.objects.get(action="account.sign_in").actor_id == alice.user.pk


def test_a_wrong_password_and_an_unknown_address_are_answered_alike(alice: Person, client: Client) -> None:
    said = []
    for email in (alice.user.email, "nobody@nowhere.example"):
        answer = client.post(LOGIN, {"login": email, "password": "wrong wrong wrong"})
        assert answer.status_code == 200
        said.append(answer.context["form"].non_field_errors())
    assert said[0] == said[1]
    assert said[0]
    assert not AuditEntry.objects.filter(action="account.sign_in").exists()


def test_whoever_was_on_the_way_somewhere_arrives_there(alice: Person, client: Client) -> None:
    asked = client.get("/billing/")
    assert asked["Location"] == f"{LOGIN}?next=/billing/"
    answer = client.post(asked["Location"], {"login": alice.user.email, "password": PASSWORD, "next": "/billing/"})
    assert answer["Location"] == "/billing/"


def test_no_link_leads_away_after_signing_in(alice: Person, client: Client) -> None:
    there = "https://evil.example/"
    answer = client.post(LOGIN, {"login": alice.user.email, "password": PASSWORD, "next": there})
    assert answer["Location"] == "/"


def test_signing_out_takes_a_press_and_ends_the_session(alice: Person) -> None:
    client = alice.client
    assert client.get("/accounts/logout/").status_code == 200
    assert client.get("/").status_code == 200
    assert client.post("/accounts/logout/")["Location"] == LOGIN
    assert client.get("/").status_code == 302


def test_a_forgotten_password_is_replaced_by_the_link_in_an_email(alice: Person, client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": alice.user.email})
    (letter,) = mail.outbox
    link = re.search(r"https?://[^/]+(/accounts/password/reset/key/\S+)", str(letter.body))
    assert link, letter.body
    page = client.get(link[1], follow=True)
    address = page.redirect_chain[-1][0]
    answer = client.post(address, {"password1": "another long password", "password2": "another long password"})
    assert answer.status_code == 302, answer.context["form"].errors
    assert not sign_in(Client(), alice.user.email)
    assert sign_in(Client(), alice.user.email, "another long password")
    used = Client().get(link[1], follow=True)
    assert used.context["token_fail"]


def test_an_unknown_address_is_answered_alike(alice: Person, client: Client) -> None:
    answers = [client.post("/accounts/password/reset/", {"email": e}) for e in (alice.user.email, "no@no.example")]
    assert {(answer.status_code, answer["Location"]) for answer in answers} == {(302, "/accounts/password/reset/done/")}
    assert [letter.to for letter in mail.outbox] == [[alice.user.email], ["no@no.example"]]


def test_a_password_is_changed_by_whoever_knows_the_old_one(alice: Person) -> None:
    client, new = alice.client, "another long password"
    wrong = client.post("/accounts/password/change/", {"oldpassword": "x", "password1": new, "password2": new})
    assert "oldpassword" in wrong.context["form"].errors
    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})
    assert sign_in(Client(), alice.user.email, new)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["signup/", "login/", "password/reset/", "password/reset/done/", "password/reset/key/done/", "inactive/"],
)
def test_the_pages_of_accounts_are_there_for_everyone(db: None, client: Client, path: str) -> None:
    page = client.get(f"/accounts/{path}")
    assert page.status_code == 200
    assert "Haein" in page.content.decode()


def test_an_old_link_says_so(db: None, client: Client) -> None:
    page = client.get("/accounts/password/reset/key/1-abc/")
    assert page.status_code == 200
    assert page.context["token_fail"]
