"""A page moves by itself: what changed, the log without a gap or a double line, and for members alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session

from dashboard import hub
from haein.lib import clock
from haein.telemetry import series
from haein.tenants.models import TeamMember
from jobs import promises, services
from jobs.models import Attempt, Job
from tests.cast import Person
from tests.sockets import Socket, fragment, run

pytestmark = pytest.mark.django_db(transaction=True)
Submit = Callable[..., Job]


def test_a_page_begins_with_what_is_and_says_how_fresh_it_is(big: None, alice: Person, submit: Submit) -> None:
    submit(alice, name="digits")
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/overview/") as page:
            assert page.opened
            assert "digits" in (await page.until(fragment("overview-live")))["html"]
            fresh = await page.until(lambda told: told["type"] == "fresh")
            assert abs(fresh["at"] - time.time()) < 5

    run(story)


def test_a_change_is_there_at_once_and_what_did_not_change_is_not_sent(
    big: None, alice: Person, submit: Submit
) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/overview/") as page:
            await page.until(fragment("overview-live"))
            begun = time.monotonic()
            await sync_to_async(submit)(alice, name="digits")
            await page.until(fragment("overview-live", "digits"))
            assert time.monotonic() - begun < 2  # by the hint: without one it would look every four seconds
            told = [await page.receive() for _ in range(2)]
            assert {message["type"] for message in told} == {"fresh"}

    run(story)


def test_the_queue_moves_when_starts_were_worked_out_anew(big: None, alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    client = alice.client
    promises.renew(now=clock.now() - timedelta(minutes=2))

    async def story() -> None:
        async with Socket(client, "/ws/queue/") as page:
            await page.until(fragment("queue-head", "Waiting"))
            await page.until(lambda told: told["type"] == "refresh")
            await sync_to_async(promises.renew)(now=clock.now())
            await page.until(fragment("queue-head"))
            await page.until(lambda told: told["type"] == "refresh")

    run(story)


def test_the_list_is_told_to_fetch_itself_again(big: None, alice: Person, submit: Submit) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/jobs/?q=digits") as page:
            await page.until(lambda told: told["type"] == "fresh")
            await asyncio.sleep(0.3)  # so that the subscription stands
            await sync_to_async(submit)(alice)
            await page.until(lambda told: told["type"] == "refresh", seconds=3)

    run(story)


def test_a_jobs_page_hears_of_its_state(big: None, alice: Person, submit: Submit) -> None:
    job, client = submit(alice), alice.client

    async def story() -> None:
        async with Socket(client, f"/ws/jobs/{job.pk}/") as page:
            for part in ("job-head", "job-cost", "job-events"):
                await page.until(fragment(part))
            await sync_to_async(services.cancel)(job, scope=await sync_to_async(lambda: alice.scope)())
            await page.until(fragment("job-head", "Cancelled by Alice"))

    run(story)


def test_the_log_goes_on_where_the_page_was_without_a_gap_or_a_double_line(
    alice: Person, submit: Submit, drive: Any, finish: Any
) -> None:
    job = submit(alice, command="for i in $(seq 600); do echo line $i; sleep 0.002; done", cpus=500)
    attempt = drive(lambda: Attempt.objects.filter(state="running").first())
    client = alice.client
    lines: list[str] = []
    place: dict[str, Any] = {"attempt": "", "log": None}

    async def look(enough: int) -> None:
        async with Socket(client, f"/ws/jobs/{job.pk}/") as page:
            await page.send(type="resume", readings=None, **place)
            while len(lines) < enough:
                told = await page.until(lambda told: told["type"] == "log")
                assert told["attempt"] == str(attempt.pk)
                if told["reset"]:
                    lines.clear()
                else:
                    assert told["start"] == place["log"]
                assert told["skipped"] == 0
                lines.extend(text for _, stream, text in told["lines"] if stream == "out")
                place.update(attempt=told["attempt"], log=told["next"])

    for enough in (50, 200, 400, 600):
        run(partial(look, enough))
    assert lines == [f"line {number}" for number in range(1, 601)]
    finish(job)


def test_readings_go_on_after_the_last_that_the_page_has(alice: Person, submit: Submit, drive: Any) -> None:
    job = submit(alice, command="sleep 60")
    attempt = drive(lambda: Attempt.objects.filter(state="running").first())
    samples = drive(lambda: (found := series.hot(attempt.pk)) and len(found) >= 2 and found)
    client = alice.client

    async def look(after: int | None) -> dict[str, Any]:
        async with Socket(client, f"/ws/jobs/{job.pk}/") as page:
            await page.send(type="resume", attempt=str(attempt.pk), log=None, readings=after)
            return await page.until(lambda told: told["type"] == "readings")

    first = run(lambda: look(None))
    assert first["reset"]
    assert first["t"][: len(samples)] == [sample.at for sample in samples]
    assert {len(first[column]) for column in ("cpu", "memory", "utilization", "device_memory")} == {len(first["t"])}
    second = run(lambda: look(samples[0].at))
    assert not second["reset"]
    assert second["t"][0] == samples[1].at


def test_words_that_mean_nothing_are_let_pass(big: None, alice: Person, submit: Submit) -> None:
    job, client = submit(alice), alice.client

    async def story() -> None:
        async with Socket(client, f"/ws/jobs/{job.pk}/") as page:
            for strange in (
                {"type": "dance"},
                {"type": "resume", "attempt": 7, "log": "x", "readings": -1},
                {"x": None},
            ):
                await page.send(**strange)
            await page._wire.send_input({"type": "websocket.receive", "text": "[1, 2]"})
            await page._wire.send_input({"type": "websocket.receive", "text": "{no json"})
            await page._wire.send_input({"type": "websocket.receive", "bytes": b"\x00"})
            await page.until(fragment("job-head"))
            await page.until(lambda told: told["type"] == "fresh")

    run(story)


def test_a_member_who_was_removed_is_sent_away_from_every_page_within_five_seconds(
    big: None, alice: Person, bob: Person, submit: Submit
) -> None:
    job, client = submit(alice), bob.client
    paths = ["/ws/overview/", "/ws/jobs/", "/ws/cluster/", f"/ws/jobs/{job.pk}/"]

    async def story() -> None:
        async with AsyncExitStack() as stack:
            pages = [await stack.enter_async_context(Socket(client, path)) for path in paths]
            for page in pages:
                await page.until(lambda told: told["type"] == "fresh")
            await sync_to_async(TeamMember.objects.filter(user=bob.user).delete)()
            begun = time.monotonic()
            await asyncio.gather(*(page.until(lambda told: told["type"] == "gone") for page in pages))
            assert time.monotonic() - begun < 5
            for page in pages:
                assert await page.receive() == {"closed": 4404}

    run(story)


def test_a_session_that_was_ended_ends_the_socket(big: None, alice: Person) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/cluster/") as page:
            await page.until(lambda told: told["type"] == "fresh")
            await sync_to_async(Session.objects.all().delete)()
            await page.until(lambda told: told["type"] == "gone", seconds=6)

    run(story)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9999", "null", ""])
def test_a_page_of_another_server_opens_no_socket(big: None, alice: Person, origin: str) -> None:
    client = alice.client

    async def story() -> None:
        page = Socket(client, "/ws/overview/", origin=origin)
        async with page:
            assert not page.opened

    run(story)


def test_a_job_of_another_team_is_gone_even_by_its_own_id(big: None, charlie: Person, submit: Submit) -> None:
    client = charlie.client

    async def story() -> None:
        async with Socket(client, "/ws/jobs/00000000-0000-7000-8000-000000000000/") as page:
            assert await page.receive() == {"closed": 4404}

    run(story)


def test_nothing_of_a_socket_is_left_when_its_page_is_closed(big: None, alice: Person) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/overview/") as page:
            await page.until(fragment("overview-live"))
        assert hub.current()._waiting == {}
        assert len(asyncio.all_tasks()) <= 2  # this one, and the process's one subscription

    run(story)
