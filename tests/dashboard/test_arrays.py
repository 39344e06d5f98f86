"""An array's pages: its form, its list with how far all are, and a member's place in it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.lib import clock
from jobs.models import Job
from tests.cast import Person
from tests.dashboard.test_new_job import FORM

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


def test_the_form_makes_an_array_and_leads_to_its_list(alice: Person) -> None:
    client = alice.client
    answer = client.post("/jobs/new/", {**FORM, "array": "0-2, 5"})
    array = Job.objects.values_list("array", flat=True).distinct().get()
    assert (answer.status_code, answer["Location"]) == (302, f"/jobs/?array={array}")
    page = client.get(answer["Location"])
    assert "Submitted: digits, 4 jobs." in page.content.decode()
    assert [row.index for row in page.context["page"].object_list] == [0, 1, 2, 5]


@pytest.mark.parametrize(("typed", "says"), [("0-", "write indexes"), ("0-1000", "at most 1000"), ("1%1", "quotas")])
def test_a_fault_is_beside_the_field(alice: Person, typed: str, says: str) -> None:
    answer = alice.client.post("/jobs/new/", {**FORM, "array": typed})
    assert answer.status_code == 422
    assert says in str(answer.context["form"].errors["array"])
    assert not Job.objects.exists()


def test_the_price_is_for_all_of_them(alice: Person) -> None:
    asked = {"gpus": "1", "share": "100", "cpus": "1", "memory_gb": "1", "time_limit": "1h", "array": "0-9"}
    page = alice.client.get("/jobs/new/quote/", asked)
    quote, one = page.context["quote"], alice.client.get("/jobs/new/quote/", {**asked, "array": ""}).context["quote"]
    assert (quote["jobs"], quote["per_hour"], one["at_most"]) == (10, one["per_hour"], "$4.00")
    assert quote["at_most"] == "$40.00"
    assert "for all 10 jobs, in 1h each, their time limit" in page.content.decode()
    half_typed = alice.client.get("/jobs/new/quote/", {**asked, "array": "0-"})
    assert half_typed.context["quote"]["jobs"] == 1


def test_its_list_says_how_far_all_are(alice: Person, vera: Person, submit: Submit) -> None:
    array = submit(alice, name="sweep", array="0-29").array
    submit(alice, array="0-1")
    Job.objects.filter(array=array, array_index__lt=12).update(state="failed", ended_at=clock.now())
    page = alice.client.get(f"/jobs/?array={array}&state=queued")
    told = page.context["array"]
    assert (told["name"], told["size"], told["ended"], told["cancellable"]) == ("sweep", 30, 12, 18)
    assert [(each["state"], each["count"]) for each in told["states"]] == [("queued", 18), ("failed", 12)]
    assert [row.index for row in page.context["page"].object_list] == list(range(12, 30))
    body = page.content.decode()
    assert "Cancel all" in body
    assert f'name="array" value="{array}"' in body
    assert "Cancel all" not in vera.client.get(f"/jobs/?array={array}").content.decode()


def test_its_further_pages_and_its_fragment_stay_within_it(alice: Person, submit: Submit) -> None:
    array = submit(alice, array="0-39").array
    fragment = alice.client.get(f"/jobs/?array={array}&page=2", headers={"HX-Request": "true"})
    assert [row.index for row in fragment.context["page"].object_list] == list(range(25, 40))
    assert f"?array={array}&amp;page=1" in fragment.content.decode()
    assert "0 of 40 jobs of the array have ended" in fragment.content.decode()


def test_the_list_of_all_jobs_leads_to_the_arrays(alice: Person, submit: Submit) -> None:
    array = submit(alice, array="7-8").array
    submit(alice, name="alone")
    for path in ("/jobs/", "/"):
        body = alice.client.get(path).content.decode()
        assert body.count(f'href="/jobs/?array={array}"') == 2
        assert "[7]" in body
    assert "[7]" in alice.client.get("/queue/").content.decode()


def test_all_are_cancelled_by_one_button(alice: Person, vera: Person, submit: Submit) -> None:
    array = submit(alice, array="0-4").array
    refused = vera.client.post(f"/jobs/arrays/{array}/cancel/", follow=True).content.decode()
    assert "not change it" in refused
    client = alice.client
    page = client.post(f"/jobs/arrays/{array}/cancel/", follow=True)
    assert "Cancelling 5 jobs" in page.content.decode()
    assert page.context["array"]["ended"] == 5
    assert "have ended already" in client.post(f"/jobs/arrays/{array}/cancel/", follow=True).content.decode()
    assert client.post(f"/jobs/arrays/{uuid4()}/cancel/").status_code == 404


def test_a_job_says_its_place_and_leads_to_those_beside_it(alice: Person, submit: Submit) -> None:
    first = submit(alice, name="sweep", array="1,3,7")
    one, three, seven = Job.objects.filter(array=first.array).order_by("array_index")
    page = alice.client.get(f"/jobs/{three.pk}/")
    body = page.content.decode()
    assert "sweep [3]" in body
    assert "2 of 3 of" in body
    assert f'rel="prev" href="/jobs/{one.pk}/"' in body
    assert f'rel="next" href="/jobs/{seven.pk}/"' in body
    assert 'rel="prev"' not in alice.client.get(f"/jobs/{one.pk}/").content.decode()
    assert alice.client.get(f"/jobs/{submit(alice).pk}/").context["member"] is None


def test_a_clone_of_a_member_begins_with_its_index(alice: Person, submit: Submit) -> None:
    first = submit(alice, array="4-6")
    form = alice.client.get(f"/jobs/{first.pk}/clone/").context["form"]
    assert form["array"].value() == "4"


def test_an_array_costs_its_list_a_fixed_number_of_queries(alice: Person, submit: Submit) -> None:
    client, counts = alice.client, []
    for indexes in ("0-1", "0-99"):
        array = submit(alice, array=indexes).array
        client.get(f"/jobs/?array={array}")  # what a process remembers for a moment is asked for once
        with CaptureQueriesContext(connection) as queries:
            client.get(f"/jobs/?array={array}")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 15
