"""Who comes in: tokens by their hash, within their scopes, until they are revoked or old; sessions with their CSRF."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from haein.lib import clock
from haein.tenants import tokens
from haein.tenants.models import AuditEntry, Token
from tests.cast import ASKED, Person, Program


def test_me_says_who_asks_and_what_they_may(alices: Program) -> None:
    told = alices.get("me").json()
    assert told["user"]["email"] == "alice@alice.example"
    assert told["organization"]["name"] == "Acme"
    assert told["teams"] == [{**told["team"], "writable": True}]
    assert told["token"]["name"] == "script"


def test_only_a_hash_of_a_token_is_kept(alices: Program) -> None:
    (row,) = Token.objects.values_list()
    assert alices.text not in str(row)
    assert alices.text not in str(list(AuditEntry.objects.values_list()))
    assert len(alices.text) == len("haein_") + 43


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer haein_wrong", "Basic YTpi", "Bearer  ", "Token haein_x"])
def test_nobody_is_told_to_sign_in(db: None, header: str) -> None:
    answer = Client().get("/api/v1/me", headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "unauthenticated"


def _revoke(program: Program) -> None:
    tokens.revoke(program.token.pk, by=program.token.user)


def _expire(program: Program) -> None:
    Token.objects.update(expires_at=clock.now() - timedelta(seconds=1))


def _deactivate(program: Program) -> None:
    program.token.user.is_active = False
    program.token.user.save()


@pytest.mark.parametrize("end", [_revoke, _expire, _deactivate])
def test_a_token_opens_nothing_any_more(alices: Program, end: Any) -> None:
    assert alices.get("me").status_code == 200
    end(alices)
    assert alices.get("me").status_code == 401


def test_a_token_revokes_itself(alices: Program) -> None:
    assert alices.ask("DELETE", "token").status_code == 204
    assert alices.get("me").status_code == 401
    assert AuditEntry.objects.filter(action="token.revoke").count() == 1


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("jobs:read", "GET", "jobs", 200),
        ("jobs:read", "POST", "jobs", 403),
        ("jobs:write", "GET", "jobs", 200),
        ("jobs:write", "POST", "jobs", 201),
        ("jobs:write", "GET", "prices", 403),
        ("billing:read", "GET", "usage", 200),
        ("billing:read", "GET", "jobs", 403),
        ("cluster:read", "GET", "nodes", 200),
        ("jobs:read", "GET", "nodes", 403),
        ("jobs:read", "GET", "quotas", 200),
        ("jobs:write", "PUT", "quotas", 403),
        ("quotas:write", "GET", "quotas", 200),
        ("quotas:write", "PUT", "quotas", 404),  # it gets as far as the body, which names nobody
    ],
)
def test_a_token_does_what_its_scopes_say(
    big: None, alice: Person, scope: str, method: str, path: str, status: int
) -> None:
    answer = Program(alice, scope).ask(method, path, {"POST": ASKED, "PUT": {}}.get(method))
    assert answer.status_code == status
    if status == 403:
        assert "scope" in answer.json()["detail"]


def test_a_viewer_reads_and_changes_nothing(big: None, vera: Person, submitted: Any) -> None:
    job = submitted()
    program = Program(vera)
    assert program.get(f"jobs/{job['id']}").status_code == 200
    for path in ("jobs", f"jobs/{job['id']}/cancel", f"jobs/{job['id']}/retry"):
        assert program.post(path, ASKED).status_code == 403


def test_a_session_reads_and_needs_its_csrf_token_to_write(big: None, alice: Person) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice.user, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert strict.get("/api/v1/me").status_code == 200
    refused = strict.post("/api/v1/jobs", ASKED, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_a_token_in_the_address_is_no_token(alices: Program) -> None:
    assert Client().get(f"/api/v1/me?token={alices.text}&access_token={alices.text}").status_code == 401


def test_use_is_noted(alices: Program) -> None:
    alices.get("me")
    first = Token.objects.get().last_used_at
    alices.get("me")
    assert first is not None
    assert Token.objects.get().last_used_at == first  # once a minute is enough


def test_the_page_shows_a_token_once(alice: Person) -> None:
    client = alice.client
    answer = client.post("/tokens/", {"name": "laptop", "scopes": ["jobs:read"], "days": "7"})
    text = answer.content.decode()
    shown = text[text.index("haein_") :][:49]
    assert tokens.find(shown) is not None
    assert answer["Cache-Control"] == "no-store"
    assert shown not in client.get("/tokens/").content.decode()
    client.post(f"/tokens/{Token.objects.get().pk}/revoke/")
    assert tokens.find(shown) is None


def test_the_page_names_what_is_missing(alice: Person) -> None:
    answer = alice.client.post("/tokens/", {"name": "", "days": "7"})
    assert answer.status_code == 422
    assert Token.objects.count() == 0


def test_a_token_of_another_is_not_there(alice: Person, bob: Person) -> None:
    token, _text = tokens.create(by=alice.user, name="hers", scopes=["jobs:read"], days=None)
    assert bob.client.post(f"/tokens/{token.pk}/revoke/").status_code == 404
    assert "hers" not in bob.client.get("/tokens/").content.decode()
    token.refresh_from_db()
    assert token.revoked_at is None
