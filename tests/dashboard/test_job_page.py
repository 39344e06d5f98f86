"""A job's page, its buttons, its log and its files, on a job that really ran."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from haein.cluster.registry import backend
from haein.lib import clock
from jobs import preempting, scheduling
from jobs.models import Allocation, Attempt, Job
from jobs.preempting import Yield
from tests.cast import Person

Submit = Callable[..., Job]
COMMAND = """
echo first
echo wrong >&2
mkdir -p out/deep && echo data > out/deep/model.txt && ln -s /etc/passwd out/link && ln -s / out/root
for i in $(seq 500); do echo line $i; done
"""


@pytest.fixture
def ran(alice: Person, submit: Submit, finish: Any) -> Job:
    job: Job = finish(submit(alice, command=COMMAND))
    assert job.state == "succeeded"
    return job


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_the_page_says_what_ran_for_how_long_and_what_it_cost(alice: Person, ran: Job) -> None:
    page = alice.client.get(f"/jobs/{ran.pk}/")
    assert page.status_code == 200
    assert page.context["attempt_id"] == str(ran.attempts.get().pk)
    assert page.context["may_retry"]
    assert [event["kind"] for event in page.context["events"]] == ["submit", "place", "run", "succeed"]
    assert 'id="chart-utilization-data"' in page.content.decode()


def test_the_log_is_downloaded_with_its_times_and_streams(alice: Person, ran: Job) -> None:
    answer = alice.client.get(f"/jobs/{ran.pk}/log.txt")
    assert "attachment" in answer["Content-Disposition"]
    lines = [line.split(maxsplit=2) for line in body(answer).decode().splitlines()]
    assert [text for _, stream, text in lines if stream == "out"] == ["first", *(f"line {n}" for n in range(1, 501))]
    assert [text for _, stream, text in lines if stream == "err"] == ["wrong"]
    assert all(at.startswith("20") and at.endswith("+00:00") for at, _, _ in lines)


def test_earlier_lines_are_fetched_from_an_offset_backwards(alice: Person, ran: Job) -> None:
    client, attempt = alice.client, ran.attempts.get().pk
    end = backend().observe([attempt])[attempt].log_bytes
    whole = client.get(f"/jobs/{ran.pk}/log/", {"before": str(end)}).json()
    assert (whole["start"], whole["skipped"]) == (0, 0)
    texts = [text for _, _, text in whole["lines"]]
    half = client.get(f"/jobs/{ran.pk}/log/", {"before": str(end // 2)}).json()
    assert [text for _, _, text in half["lines"]] == texts[: len(half["lines"])]
    assert 0 < len(half["lines"]) < len(texts)


@pytest.mark.parametrize("before", ["", "-1", "x", "1e3", "²", "9" * 5000])
def test_an_offset_that_is_none_is_named(alice: Person, ran: Job, before: str) -> None:
    answer = alice.client.get(f"/jobs/{ran.pk}/log/", {"before": before})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("before:")


@pytest.mark.parametrize("attempt", ["x", "00000000-0000-0000-0000-000000000000"])
def test_an_attempt_that_is_none_of_the_jobs_is_not_found(alice: Person, ran: Job, attempt: str) -> None:
    assert alice.client.get(f"/jobs/{ran.pk}/log.txt", {"attempt": attempt}).status_code == 404


def test_a_job_that_never_ran_has_no_log_and_no_files(alice: Person, cluster: None, submit: Submit) -> None:
    job = submit(alice)
    client = alice.client
    assert client.get(f"/jobs/{job.pk}/log.txt").status_code == 404
    assert client.get(f"/jobs/{job.pk}/files/").context["files"] == []
    assert client.get(f"/jobs/{job.pk}/files/download/?path=x").status_code == 404


def test_its_folder_is_listed_and_a_file_is_downloaded(alice: Person, ran: Job) -> None:
    client = alice.client
    listed = client.get(f"/jobs/{ran.pk}/files/", {"path": "out/deep"}, headers={"HX-Request": "true"})
    assert [(file["name"], file["size"], file["is_folder"]) for file in listed.context["files"]] == [
        ("model.txt", 5, False)
    ]
    assert [name for name, _ in listed.context["crumbs"]] == ["out", "deep"]
    answer = client.get(listed.context["files"][0]["url"])
    assert body(answer) == b"data\n"
    assert (answer["Content-Length"], answer["Content-Type"]) == ("5", "application/octet-stream")
    assert 'attachment; filename="model.txt"' in answer["Content-Disposition"]


@pytest.mark.parametrize(
    "path",
    [
        "../",
        "/etc/passwd",
        "out/../../x",
        "out/link",
        "out/root/etc/passwd",
        "out/root",
        "a\0b",
        "..",
        "~root",
        "x" * 5000,
    ],
)
def test_no_path_leads_out_of_the_folder(alice: Person, ran: Job, path: str) -> None:
    client = alice.client
    assert client.get(f"/jobs/{ran.pk}/files/download/", {"path": path}).status_code == 404
    assert client.get(f"/jobs/{ran.pk}/files/", {"path": path}).status_code in {404, 200}
    assert "passwd" not in client.get(f"/jobs/{ran.pk}/files/", {"path": "out/root/etc"}).content.decode()


def test_a_press_cancels_and_another_runs_it_again(alice: Person, cluster: None, submit: Submit) -> None:
    job, client = submit(alice), alice.client
    page = client.post(f"/jobs/{job.pk}/cancel/", follow=True)
    assert "Cancelling" in page.content.decode()
    assert page.context["job"].state == "cancelled"
    page = client.post(f"/jobs/{job.pk}/cancel/", follow=True)
    assert "has ended already" in page.content.decode()
    page = client.post(f"/jobs/{job.pk}/retry/", follow=True)
    assert "Queued again" in page.content.decode()
    job.refresh_from_db()
    assert job.state == "queued"


def test_a_viewer_sees_no_button_and_gets_a_word_for_pressing_it(
    vera: Person, alice: Person, cluster: None, submit: Submit
) -> None:
    job, client = submit(alice), vera.client
    page = client.get(f"/jobs/{job.pk}/")
    assert not page.context["may_cancel"]
    assert f"/jobs/{job.pk}/cancel/" not in page.content.decode()
    assert "not change it" in client.post(f"/jobs/{job.pk}/cancel/", follow=True).content.decode()


def test_a_link_is_no_press(alice: Person, cluster: None, submit: Submit) -> None:
    job = submit(alice)
    for path in ("cancel", "retry"):
        assert alice.client.get(f"/jobs/{job.pk}/{path}/").status_code == 405


def test_a_half_written_id_is_not_found(alice: Person, client: Client) -> None:
    assert alice.client.get("/jobs/123/").status_code == 404
    assert not Attempt.objects.exists()


@pytest.fixture
def warned(big: None, alice: Person, submit: Submit) -> Job:
    """A job that holds a GPU and must leave it in a minute."""
    job = submit(alice, checkpoints=True)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    Attempt.objects.update(guaranteed=True, state="running", started_at=now, checkpoint_at=now)
    notice = Yield("maintenance", {"nodes": "node1", "at": "noon"}, now + timedelta(seconds=60))
    preempting.warn({job.attempts.get().pk: notice}, now=now)
    return job


def test_the_page_says_that_it_must_yield_when_and_why(alice: Person, charlie: Person, warned: Job) -> None:
    attempt = warned.attempts.get()
    assert attempt.preempt_at is not None
    page = alice.client.get(f"/jobs/{warned.pk}/").content.decode()
    assert "It must make room" in page
    assert f'datetime="{attempt.preempt_at:%Y-%m-%dT%H:%M}' in page
    assert "(node1) goes out for maintenance from noon" in page
    assert "It last saved its work:" in page
    assert "Then it waits again, with its old place in the queue." in page
    assert "what it loses is not charged" in page
    assert charlie.client.get(f"/jobs/{warned.pk}/").status_code == 404
    preempting.withdraw([attempt.pk], now=clock.now())
    page = alice.client.get(f"/jobs/{warned.pk}/").content.decode()
    assert "It must make room" not in page
    assert "It need not end at" in page


def test_what_is_credited_is_said_beside_the_cost(alice: Person, warned: Job) -> None:
    Allocation.objects.update(credited_s=90, billable_from=F("held_from"), ended_at=F("held_from") + timedelta(hours=1))
    page = alice.client.get(f"/jobs/{warned.pk}/")
    assert "Not charged: 1 min 30 s of work that it lost" in page.content.decode()
    assert page.context["cost"]["seconds"] == 3510


def test_one_that_rests_after_a_failure_can_be_tried_now(
    alice: Person, vera: Person, big: None, submit: Submit
) -> None:
    job = submit(alice)
    Job.objects.update(not_before=clock.now() + timedelta(seconds=60), reason="resting")
    page = alice.client.get(f"/jobs/{job.pk}/").content.decode()
    assert "It rests after a failure until" in page
    assert "Try now" in page
    assert f"/jobs/{job.pk}/retry/" not in vera.client.get(f"/jobs/{job.pk}/").content.decode()
    assert alice.client.post(f"/jobs/{job.pk}/retry/").status_code == 302
    assert Job.objects.get().not_before is None
    assert "Try now" not in alice.client.get(f"/jobs/{job.pk}/").content.decode()
