"""A job by the API is the job of the page: same verbs, same faults; a create that comes twice makes one."""

from __future__ import annotations

from typing import Any

import pytest

from haein.lib import clock
from haein.tenants.api import KEYS_LIVE, forget_old_keys
from haein.tenants.models import IdempotencyKey
from jobs.models import Event, Job
from tests.cast import ASKED, Person, Program, fields_of, together

pytestmark = pytest.mark.usefixtures("big")


def test_it_is_the_job_that_was_asked_for(alices: Program) -> None:
    asked = {
        **ASKED,
        "gpus": 2,
        "share": 250,
        "tags": ["a", "b"],
        "variables": {"X": "1"},
        "priority": -3,
        "retries": 2,
    }
    answer = alices.post("jobs", asked)
    assert answer.status_code == 201
    told = answer.json()
    assert {name: told[name] for name in asked} == asked
    assert answer["Location"] == f"/api/v1/jobs/{told['id']}"
    assert alices.get(answer["Location"]).json()["ahead"] == 0
    assert Event.objects.get().actor_name == "Alice"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"gpus": "1"}, "gpus"),
        ({"gpus": True}, "gpus"),
        ({"gpus": 1.5}, "gpus"),
        ({"gpus": 65}, "gpus"),
        ({"gpus": 9}, "gpus"),  # the cluster could never
        ({"cpus": "a"}, "cpus"),
        ({"cpus": 0}, "cpus"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"command": None}, "command"),
        ({"tags": ["no spaces"]}, "tags"),
        ({"tags": "a"}, "tags"),
        ({"variables": {"HAEIN_X": "1"}}, "variables"),
        ({"variables": {"X": 1}}, "variables.X"),
        ({"environment": "none"}, "environment"),
        ({"environment": "docker.io/x:y"}, "environment"),
        ({"upload": "x"}, "upload"),
        ({"upload": "01a21004-caeb-7cc7-a689-9ea5210c11e8"}, "upload"),
        ({"cloned_from": 5}, "cloned_from"),
        ({"nmae": "x"}, "nmae"),
        ({"time_limit_s": 10**30}, "time_limit_s"),
    ],
)
def test_it_names_the_field_and_makes_nothing(alices: Program, wrong: dict[str, Any], field: str) -> None:
    assert fields_of(alices.post("jobs", {**ASKED, **wrong})) == {field}
    assert not Job.objects.exists()


def test_it_names_every_field(alices: Program) -> None:
    assert fields_of(alices.post("jobs", {"gpus": -1, "share": 0})) == {"name", "command", "gpus", "share"}


@pytest.mark.parametrize("body", ["", "{", "[1]", '"x"', "null", "\xff"])
def test_what_is_no_json_object_is_malformed(alices: Program, body: str) -> None:
    headers = {"Authorization": f"Bearer {alices.text}"}
    answer = alices.client.generic("POST", "/api/v1/jobs", body, content_type="application/json", headers=headers)
    assert answer.status_code in {400, 422}
    assert answer.json()["code"] in {"malformed", "invalid"}


def test_another_kind_of_body_is_not_read(alices: Program) -> None:
    headers = {"Authorization": f"Bearer {alices.text}"}
    answer = alices.client.post("/api/v1/jobs", {"name": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_the_same_key_twice_is_one_job(alices: Program) -> None:
    first = alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    again = alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert Job.objects.count() == 1


def test_the_same_key_with_another_request_is_refused(alices: Program) -> None:
    alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    other = alices.post("jobs", {**ASKED, "name": "other"}, **{"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert Job.objects.count() == 1


def test_a_key_is_each_persons_own(alices: Program, bob: Person) -> None:
    alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    Program(bob).post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    assert Job.objects.count() == 2


def test_a_request_that_was_refused_leaves_its_key_free(alices: Program) -> None:
    assert alices.post("jobs", {**ASKED, "gpus": 9}, **{"Idempotency-Key": "k1"}).status_code == 422
    assert not IdempotencyKey.objects.exists()
    assert alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"}).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 201])
def test_a_key_that_can_be_none_is_named(alices: Program, key: str) -> None:
    assert fields_of(alices.post("jobs", ASKED, **{"Idempotency-Key": key})) == {"Idempotency-Key"}


def test_keys_are_forgotten_after_a_day(alices: Program) -> None:
    alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"})
    assert forget_old_keys() == 0
    IdempotencyKey.objects.update(created_at=clock.now() - KEYS_LIVE)
    assert forget_old_keys() == 1


@pytest.mark.django_db(transaction=True)
def test_fifty_clients_at_once_with_one_key_make_one_job(alices: Program) -> None:
    answers = together(lambda _: alices.post("jobs", ASKED, **{"Idempotency-Key": "k1"}), 50)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer for answer in answers) == 1
    assert Job.objects.count() == 1


def test_cancel_and_retry_say_what_they_found(alices: Program, submitted: Any) -> None:
    job = submitted()
    assert alices.post(f"jobs/{job['id']}/retry").status_code == 409
    assert alices.post(f"jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    again = alices.post(f"jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert alices.post(f"jobs/{job['id']}/retry").json()["state"] == "queued"


def test_a_quote_submits_nothing_and_refuses_as_a_submit_would(alices: Program) -> None:
    told = alices.post("quote", {**ASKED, "share": 500}).json()
    assert told["per_hour"] == {"least": "2.000000", "most": "2.000000"}
    assert told["at_most"] == "0.066667"
    assert told["models"] == ["B200"]
    assert fields_of(alices.post("quote", {**ASKED, "gpus": 9})) == {"gpus"}
    assert not Job.objects.exists()
