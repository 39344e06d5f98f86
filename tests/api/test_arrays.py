"""An array by the API: one request makes its jobs, one lists them, one counts them, one ends them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.tenants.models import Token
from jobs.models import Job
from tests.cast import ASKED, Person, Program, fields_of

pytestmark = pytest.mark.usefixtures("big")
Submitted = Callable[..., dict[str, Any]]


def test_the_answer_names_the_array_and_how_many_jobs_it_has(alices: Program) -> None:
    answer = alices.post("jobs", {**ASKED, "array": "1-10"})
    told = answer.json()
    assert answer.status_code == 201
    assert (told["array"]["index"], told["array"]["size"]) == (1, 10)
    assert answer["Location"] == f"/api/v1/jobs/{told['id']}"
    assert alices.get(answer["Location"]).json()["array"] == told["array"]
    assert Job.objects.filter(array=told["array"]["id"]).count() == 10


def test_a_job_alone_is_of_no_array(submitted: Submitted) -> None:
    assert submitted()["array"] is None


@pytest.mark.parametrize("wrong", ["0-", "a", "0-1000", "1%2", 5, None, "0-9" * 3000])
def test_what_is_no_array_is_a_fault_of_the_field(alices: Program, wrong: Any) -> None:
    assert fields_of(alices.post("jobs", {**ASKED, "array": wrong})) == {"array"}
    assert not Job.objects.exists()


def test_a_list_of_its_jobs_alone(alices: Program, submitted: Submitted) -> None:
    array = submitted(array="0-4")["array"]
    submitted(array="0-1")
    submitted()
    told = alices.get(f"jobs?array={array['id']}&limit=3").json()
    assert [job["array"] for job in told["results"]] == [
        {"id": array["id"], "index": index, "size": None} for index in (4, 3, 2)
    ]
    more = alices.get(told["next"].removeprefix("http://testserver")).json()["results"]
    assert [job["array"]["index"] for job in more] == [1, 0]
    assert alices.get(f"jobs?array={uuid4()}").json()["results"] == []
    assert fields_of(alices.get("jobs?array=mine")) == {"array"}


def test_its_states_are_counted(alices: Program, submitted: Submitted) -> None:
    array = submitted(name="sweep", array="0-4")["array"]["id"]
    told = alices.get(f"arrays/{array}").json()
    assert (told["id"], told["name"], told["size"]) == (array, "sweep", 5)
    assert told["states"] == {
        **dict.fromkeys(["starting", "running", "succeeded", "failed", "cancelled", "timed_out"], 0),
        "queued": 5,
    }
    assert told["url"].endswith(f"/jobs/?array={array}")
    assert alices.get(f"arrays/{uuid4()}").status_code == 404


def test_all_are_cancelled_by_one_request(alices: Program, submitted: Submitted) -> None:
    array = submitted(array="0-4")["array"]["id"]
    told = alices.post(f"arrays/{array}/cancel").json()
    assert told["states"]["cancelled"] == 5
    again = alices.post(f"arrays/{array}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_a_token_that_only_reads_cancels_none(alice: Person, submitted: Submitted) -> None:
    array = submitted(array="0-4")["array"]["id"]
    reading = Program(alice, Token.Scope.JOBS_READ)
    assert reading.get(f"arrays/{array}").status_code == 200
    assert reading.post(f"arrays/{array}/cancel").status_code == 403
    assert set(Job.objects.values_list("state", flat=True)) == {"queued"}


def test_a_submit_that_comes_twice_makes_one_array(alices: Program) -> None:
    asked, key = {**ASKED, "array": "0-9"}, {"Idempotency-Key": "nightly"}
    first, second = alices.post("jobs", asked, **key), alices.post("jobs", asked, **key)
    assert (first.json(), second["Idempotency-Replayed"]) == (second.json(), "true")
    assert Job.objects.count() == 10
    other = alices.post("jobs", {**asked, "array": "0-8"}, **key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_quote_is_for_all_of_them(alices: Program) -> None:
    one = alices.post("quote", {**ASKED, "time_limit_s": 3600}).json()
    all_of_them = alices.post("quote", {**ASKED, "time_limit_s": 3600, "array": "0-9"}).json()
    assert (one["jobs"], all_of_them["jobs"]) == (1, 10)
    assert float(all_of_them["at_most"]) == 10 * float(one["at_most"]) > 0
    assert all_of_them["per_hour"] == one["per_hour"]


def test_a_list_asks_no_more_for_arrays(alices: Program, submitted: Submitted) -> None:
    submitted()
    alices.get("jobs")  # what a process remembers for a moment is asked for once
    counts = []
    for array in ("0", "1-30"):
        submitted(array=array)
        with CaptureQueriesContext(connection) as queries:
            alices.get("jobs?limit=200")
        counts.append(len(queries))
    assert counts[0] == counts[1]
