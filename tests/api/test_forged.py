"""What a client says of itself changes nothing: no header of a proxy is believed, only our own host and origin are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from haein.tenants.models import AuditEntry
from tests.architecture.sources import ROOT
from tests.cast import PASSWORD, Person, Program

FORGED = {
    "X-Forwarded-For": "10.1.2.3",
    "X-Real-IP": "10.1.2.3",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "Forwarded": "for=10.1.2.3;host=evil.example;proto=https",
    "X-Original-URL": "/operator/prices/",
    "X-Rewrite-URL": "/operator/prices/",
    "X-HTTP-Method-Override": "DELETE",
}


def test_headers_of_a_proxy_change_no_answer(alices: Program, submitted: Any) -> None:
    submitted()
    plain, forged = alices.get("jobs?limit=1"), alices.get("jobs?limit=1", **FORGED)
    assert plain.json() == forged.json()
    submitted()
    addresses = alices.get("jobs?limit=1", **FORGED).json()
    assert addresses["next"].startswith("http://testserver/api/v1/jobs?")
    assert "evil" not in str(addresses)


def test_another_address_in_a_header_is_no_new_reader(alice: Person, settings: Any) -> None:
    """Limits count the socket's own address: nobody gets a fresh one by a header."""
    settings.HAEIN_API_RATE = 2
    answers = [Client().get("/api/v1/me", headers={"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 401]
    program = Program(alice)
    answers = [program.get("me", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(4)]
    assert [answer.status_code for answer in answers][-1] == 429


def test_tries_to_sign_in_are_counted_by_the_sockets_address(alice: Person) -> None:
    cache.clear()
    told = []
    for number in range(12):
        answer = Client().post(
            "/accounts/login/",
            {"login": alice.user.email, "password": "wrong"},
            headers={"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.0.{number}"},
        )
        told.append(answer.status_code == 429 or "Too many" in answer.content.decode())
    assert told[-1], "a dozen wrong passwords were let pass, each from an address that a header made up"
    late = Client().post("/accounts/login/", {"login": alice.user.email, "password": PASSWORD})
    assert late.status_code != 302


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "localhost@evil.example", "evil.example:80"]
)
def test_a_host_that_is_not_ours_gets_nothing(alices: Program, host: str) -> None:
    for path in ("/api/v1/me", "/accounts/password/reset/", "/"):
        answer = alices.ask("GET", path, Host=host)
        assert answer.status_code == 400
        assert "evil" not in answer.content.decode()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver.evil.example"])
def test_a_form_of_another_origin_is_refused(alice: Person, origin: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice.user, backend="allauth.account.auth_backends.AuthenticationBackend")
    strict.get("/jobs/new/")
    token = strict.cookies["csrftoken"].value
    before = AuditEntry.objects.count()
    for path in ("/tokens/", "/jobs/new/", "/api/v1/jobs"):
        answer = strict.post(path, {"name": "x"}, headers={"Origin": origin, "X-CSRFToken": token})
        assert answer.status_code == 403
    assert AuditEntry.objects.count() == before


def test_no_answer_lets_another_origin_read_it(alices: Program) -> None:
    answer = alices.get("me", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_pages_allow_neither_inline_nor_evaluated_script(alice: Person) -> None:
    policy = alice.client.get("/")["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert "script-src" not in directives  # what default-src says holds
    assert directives["default-src"] == "'self'"
    assert "unsafe-eval" not in policy


def test_the_deployment_list_has_nothing_to_say() -> None:
    """Behind HTTPS, as docs/running.md has it, Django's own list of what to look at is empty."""
    looked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**os.environ, "HAEIN_URL": "https://localhost"},
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
