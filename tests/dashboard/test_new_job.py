"""A job by the form: what was typed is kept, a fault is beside its field, the price comes before the button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from billing.models import Price
from jobs import services, uploads
from jobs.models import Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]

FORM: dict[str, Any] = {
    "name": "digits",
    "command": "python train.py\r\necho done",
    "environment": "python",
    "gpus": "2",
    "share": "12.5",
    "cpus": "1.5",
    "memory_gb": "0.5",
    "time_limit": "1h 30m",
    "retries": "1",
    "priority": "-3",
    "preemption": "spot",
    "checkpoints": "on",
    "tags": "vision, nightly,",
    "variables": "LR=0.1\r\nNOTE=a=b",
}


def test_what_was_typed_is_what_is_run(alice: Person) -> None:
    file = SimpleUploadedFile("train.py", b"print(1)")
    answer = alice.client.post("/jobs/new/", {**FORM, "upload": file})
    job = Job.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/jobs/{job.pk}/")
    assert (job.command, job.gpus, job.share, job.cpus, job.memory_mb) == (
        "python train.py\necho done",
        2,
        125,
        1500,
        512,
    )
    assert (job.time_limit_s, job.retries, job.priority) == (5400, 1, -3)
    assert (job.preemption, job.checkpoints, job.requeue) == ("spot", True, False)
    assert (job.tags, job.variables) == (["vision", "nightly"], {"LR": "0.1", "NOTE": "a=b"})
    assert job.upload is not None
    assert uploads.path(job.upload).read_bytes() == b"print(1)"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "", "required"),
        ("command", "", "required"),
        ("gpus", "9", "8"),
        ("gpus", "many", "whole number"),
        ("share", "0", "greater than or equal"),
        ("share", "101", "less than or equal"),
        ("cpus", "65", "64"),
        ("memory_gb", "1000", "500"),
        ("time_limit", "soon", "Write a time such as 30m"),
        ("time_limit", "91d", "From 1 to"),
        ("environment", "conda", "There is no such environment"),
        ("environment", "docker.io/x:1", "runs no container images"),
        ("tags", "a b", "“a b”"),
        ("variables", "LR", "has no = in it"),
        ("variables", "HAEIN_X=1", "are set by Haein"),
        ("retries", "99", "less than or equal"),
    ],
)
def test_a_fault_is_beside_its_field_and_what_was_typed_stays(alice: Person, field: str, value: str, says: str) -> None:
    answer = alice.client.post("/jobs/new/", {**FORM, field: value})
    assert answer.status_code == 422
    form = answer.context["form"]
    assert list(form.errors) == [field]
    assert says in str(form.errors[field])
    assert form[field].value() == value
    assert form["tags"].value() == (value if field == "tags" else FORM["tags"])
    assert not Job.objects.exists()


def test_a_viewer_is_told_why_not(vera: Person) -> None:
    answer = vera.client.post("/jobs/new/", FORM)
    assert answer.status_code == 422
    assert "Ask a team admin for the member role" in answer.content.decode()
    assert not Job.objects.exists()


def test_a_file_that_is_refused_is_named(alice: Person, settings: Any) -> None:
    settings.HAEIN_UPLOAD_BYTES = 3
    answer = alice.client.post("/jobs/new/", {**FORM, "upload": SimpleUploadedFile("a.py", b"1234")})
    assert list(answer.context["form"].errors) == ["upload"]


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("90", 5400), ("30m", 1800), ("2h", 7200), ("1d 12h", 129_600), ("45 s", 45), ("1.5h", 5400), ("10min", 600)],
)
def test_a_span_is_read_as_people_write_it(alice: Person, typed: str, seconds: int) -> None:
    alice.client.post("/jobs/new/", {**FORM, "time_limit": typed})
    assert Job.objects.get().time_limit_s == seconds


def quote(person: Person, **typed: str) -> Any:
    asked = {"gpus": "2", "share": "50", "cpus": "1", "memory_gb": "1", "time_limit": "30m", **typed}
    return person.client.get("/jobs/new/quote/", asked)


def test_the_price_stands_before_the_button(alice: Person) -> None:
    told = quote(alice).context["quote"]
    assert (told["per_hour"], told["at_most"], told["fault"]) == ("$4.00", "$2.00", "")
    assert "at once" in told["start"]
    Price.objects.update(per_hour=1_000_000)
    assert quote(alice).context["quote"]["per_hour"] == "$1.00"


def test_it_says_when_it_would_wait_and_when_it_would_be_refused(alice: Person, submit: Submit) -> None:
    from haein.lib import clock
    from jobs import scheduling

    submit(alice, gpus=8)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    assert "It would wait" in quote(alice).context["quote"]["start"]
    told = quote(alice, gpus="9").context["quote"]
    assert "8" in told["fault"]


@pytest.mark.parametrize(
    "typed", [{"gpus": ""}, {"gpus": "x"}, {"share": "x"}, {"cpus": "x"}, {"time_limit": "?"}, {"memory_gb": "-1"}]
)
def test_a_form_that_is_half_filled_in_has_a_quote_or_a_word(alice: Person, typed: dict[str, str]) -> None:
    assert quote(alice, **typed).status_code == 200


@pytest.mark.parametrize("name", ["digits", "fails", "ignores_sigterm"])
def test_an_example_fills_the_form_in_and_brings_its_file(alice: Person, name: str) -> None:
    client = alice.client
    page = client.get(f"/jobs/new/?example={name}")
    form = page.context["form"]
    typed = {field.name: field.value() for field in form if field.name != "upload"}
    answer = client.post("/jobs/new/", {**typed, "example": name, "time_limit": "10m"})
    assert answer.status_code == 302, answer.context["form"].errors
    job = Job.objects.get()
    assert job.upload is not None
    assert job.upload.name in job.command


def test_an_example_runs_with_one_press(alice: Person) -> None:
    answer = alice.client.post("/examples/digits/run/")
    assert answer["Location"] == f"/jobs/{Job.objects.get().pk}/"
    assert alice.client.post("/examples/none/run/").status_code == 404
    assert alice.client.get("/jobs/new/?example=none").status_code == 404


def test_a_clone_begins_as_the_original_was(alice: Person, bob: Person) -> None:
    alice.client.post("/jobs/new/", {**FORM, "upload": SimpleUploadedFile("train.py", b"print(1)")})
    first = Job.objects.get()
    client = bob.client
    form = client.get(f"/jobs/{first.pk}/clone/").context["form"]
    typed = {field.name: field.value() for field in form if field.name != "upload"}
    assert client.post(f"/jobs/{first.pk}/clone/", typed).status_code == 302
    second = Job.objects.exclude(pk=first.pk).get()
    assert services.spec_of(second) == services.spec_of(first)
    assert (second.upload, second.cloned_from, second.submitted_by) == (first.upload, first, bob.user)
