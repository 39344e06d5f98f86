"""Law 4: Charlie visits every address that there is and meets nothing of Alice's.

A new route fails here until it says what a stranger finds there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from billing import metering
from dashboard.routes import sockets
from haein.cluster.models import Device
from haein.lib import clock
from jobs import replays, scheduling, uploads
from jobs.models import Allocation, Attempt, Event, Job, Quota, Repack, Replay, Window
from tests.cast import ASKED, Person, Program
from tests.sockets import Socket, run

Submit = Callable[..., Job]

# Names nobody: what it shows is the same for everyone, or is the visitor's own account.
OPEN = {
    "healthz",
    "setup",
    "job_schema",
    *("account_signup", "account_login", "account_logout", "account_change_password", "account_inactive"),
    *("account_reset_password", "account_reset_password_done"),
    *("account_reset_password_from_key", "account_reset_password_from_key_done"),
}
# For whoever is signed in: each sees what is their own there.
OWN = {"overview", "jobs", "job_new", "quote", "billing", "billing_csv", "cluster", "example", "keep_account"}
OWN |= {"tokens", "api_docs", "queue", "quota"}
# Of one token, which is its person's alone (tests/api/test_signing_in.py).
OF_A_TOKEN = {"token_revoke"}
# The API, for programs: nobody is told 401 there, and is not led to a page.
API_OPEN = {"api_schema", "api_nothing"}
API_OWN = {
    *("api_me", "api_token", "api_environments", "api_quote", "api_uploads", "api_jobs", "api_queue"),
    *("api_windows", "api_usage", "api_usage_summary", "api_prices", "api_nodes", "api_quotas", "api_repacks"),
}
# Of one quota: whoever may not see it is told that there is none.
API_OF_A_QUOTA = {"api_quota"}
API_OF_A_JOB = {
    *("api_job", "api_job_cancel", "api_job_retry", "api_job_attempts", "api_job_events", "api_job_logs"),
    *("api_job_files", "api_job_file", "api_job_metrics", "api_job_cost"),
}
# Of one array: whoever may not see its jobs is told that there is none.
OF_AN_ARRAY = {"array_cancel"}
API_OF_AN_ARRAY = {"api_array", "api_array_cancel"}
VERBS = {"api_job_cancel", "api_job_retry", "api_array_cancel"}
# For operators; others are told that there is no such page.
OPERATORS = {"prices", "quotas", "replays", "repack", "windows"}
# Of one node: its holders are named to their own team alone.
OF_A_NODE = {"node"}
# Verbs of operators on one node; others are told that there is no such page.
ON_A_NODE = {"node_drain", "node_undrain"}
# Of one replay, which is the operators' alone.
OF_A_REPLAY = {"replay", "replay_cancel", "replay_delete", "replay_csv", "replay_curves_csv"}
# Of one window: verbs of operators; others are told that there is no such window.
OF_A_WINDOW = {"window_cancel"}
API_OF_A_WINDOW = {"api_window_cancel"}
# Verbs of operators on one repack.
ON_A_REPACK = {"repack_approve", "repack_reject"}
API_ON_A_REPACK = {"api_repack_approve", "api_repack_reject"}
# Of one job: whoever may not see it is told that there is no such page.
OF_A_JOB = {
    *("job", "job_cancel", "job_retry", "job_clone", "job_log", "job_log_download", "job_files", "job_file"),
}
SOCKETS_OWN = {"ws/overview/", "ws/jobs/", "ws/queue/", "ws/cluster/"}
SOCKETS_OF_A_JOB = {"ws/jobs/<uuid:job_id>/"}
SOCKETS_OF_OPERATORS = {"ws/repack/", "ws/replays/", "ws/replays/<uuid:replay_id>/"}


def routes(patterns: list[Any] | None = None) -> Iterator[URLPattern]:
    for each in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(each, URLResolver):
            yield from routes(each.url_patterns)
        else:
            yield each


def test_every_route_says_what_a_stranger_finds_there() -> None:
    known = OPEN | OWN | OPERATORS | OF_A_REPLAY | OF_A_JOB | OF_A_NODE | ON_A_NODE | ON_A_REPACK | OF_A_TOKEN
    known |= API_OPEN | API_OWN | API_OF_A_JOB | API_OF_A_QUOTA | OF_A_WINDOW | API_OF_A_WINDOW | API_ON_A_REPACK
    known |= OF_AN_ARRAY | API_OF_AN_ARRAY
    assert {str(route.name) for route in routes()} == known
    assert {str(route.pattern) for route in sockets} == SOCKETS_OWN | SOCKETS_OF_A_JOB | SOCKETS_OF_OPERATORS


def test_a_route_that_takes_an_id_is_of_a_job_or_of_a_token() -> None:
    with_id = {str(route.name): set(route.pattern.converters) for route in routes() if route.pattern.converters}
    assert {name for name, ids in with_id.items() if "job_id" in ids} == OF_A_JOB | API_OF_A_JOB
    assert {name for name, ids in with_id.items() if "quota_id" in ids} == API_OF_A_QUOTA
    assert {name for name, ids in with_id.items() if "array_id" in ids} == OF_AN_ARRAY | API_OF_AN_ARRAY
    assert {name for name, ids in with_id.items() if "repack_id" in ids} == ON_A_REPACK | API_ON_A_REPACK
    others = set(with_id) - OF_A_JOB - API_OF_A_JOB - API_OF_A_QUOTA - OPEN
    others -= OF_AN_ARRAY | API_OF_AN_ARRAY | OF_A_WINDOW | API_OF_A_WINDOW | ON_A_REPACK | API_ON_A_REPACK
    assert others == OF_A_TOKEN | OF_A_NODE | ON_A_NODE | OF_A_REPLAY | {"example"}


@pytest.fixture
def secret(big: None, alice: Person, submit: Submit) -> Job:
    """A job of Alice's that has run and runs again: with a file, a bill, a log, and words that nobody else uses."""
    file = uploads.keep(BytesIO(b"x"), team=alice.team, name="xyzzy-file.py", size=1)
    words = {"name": "xyzzy-name", "command": "xyzzy-command", "tags": ["xyzzy-tag"], "variables": {"XYZZY": "xyzzy"}}
    job = submit(alice, upload=file, array="7", **words)
    other = submit(alice, **words)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    Allocation.objects.update(billable_from=now - timedelta(seconds=100))
    Allocation.objects.filter(attempt__job=other).update(ended_at=now)
    metering.pull()
    return job


def no_word_of_it(body: str, job: Job) -> None:
    ids = [
        job.pk,
        job.array,
        job.team_id,
        job.submitted_by_id,
        *Attempt.objects.filter(job=job).values_list("pk", flat=True),
    ]
    # Four letters come about by chance within a form's token; as a word of their own they do not.
    acme = "(?<![a-z0-9])acme(?![a-z0-9])"
    found = re.search("|".join(["xyzzy", "alice", acme, "vision", job.short_id, *map(str, ids)]), body, re.IGNORECASE)
    assert not found, body[max(0, found.start() - 200) : found.end() + 200]


def a_replay(job: Job) -> Replay:
    """One that is there, and has an outcome; the operator who started it goes by a word of Alice's."""
    asked = replays.Asked(policies=("haein",)).as_json()
    ended = {"state": "done", "ended_at": clock.now(), "result": {"runs": []}}
    return Replay.objects.create(by=job.submitted_by, asked=asked, file_name="xyzzy-name", **ended)


def a_window(job: Job) -> Window:
    """A reservation of the job's team, made by whoever submitted it."""
    hour = timedelta(hours=1)
    window: Window = Window.objects.create(
        team=job.team,
        made_by=job.submitted_by,
        gpus=1,
        model="B200",
        reason="xyzzy-name",
        starts_at=clock.now() + hour,
        ends_at=clock.now() + 2 * hour,
    )
    window.devices.set(Device.objects.filter(index=0))
    return window


def a_repack(job: Job) -> Repack:
    """Proposed to make room for a job of Alice's."""
    found, _ = Repack.objects.get_or_create(
        job=job, defaults={"moves": {"where": "xyzzy", "places": [], "moves": []}, "lost_s": 1, "gained_s": 3}
    )
    return found


def api_address(name: str, job: Job) -> str:
    where = reverse(name, args=[job.array if name in API_OF_AN_ARRAY else job.pk])
    return f"{where}?path=x" if name == "api_job_file" else where


def address(name: str, job: Job) -> str:
    if name in OF_A_JOB:
        return reverse(name, args=[job.pk])
    if name in OF_AN_ARRAY | API_OF_AN_ARRAY:
        return reverse(name, args=[job.array])
    if name in OF_A_NODE | ON_A_NODE:
        return reverse(name, args=["node1"])
    if name in ON_A_REPACK:
        return reverse(name, args=[a_repack(job).pk])
    if name in OF_A_REPLAY:
        return reverse(name, args=[a_replay(job).pk])
    if name in OF_A_WINDOW | API_OF_A_WINDOW:
        return reverse(name, args=[a_window(job).pk])
    return reverse(name, args=["digits"] if name == "example" else [])


@pytest.mark.parametrize(
    "name", sorted(OF_A_JOB | OPERATORS | ON_A_NODE | OF_A_REPLAY | OF_A_WINDOW | ON_A_REPACK | OF_AN_ARRAY)
)
def test_charlie_is_told_that_there_is_no_such_page(charlie: Person, secret: Job, name: str) -> None:
    before = Event.objects.count()
    answers = [ask(address(name, secret)) for ask in (charlie.client.get, charlie.client.post)]
    assert {answer.status_code for answer in answers} <= {404, 405}
    assert 404 in {answer.status_code for answer in answers}
    for answer in answers:
        no_word_of_it(answer.content.decode(), secret)
    secret.refresh_from_db()
    assert (Event.objects.count(), secret.cancel_requested_at) == (before, None)


@pytest.mark.parametrize("way", ["token", "session"])
@pytest.mark.parametrize("name", sorted(API_OF_A_JOB | API_OF_AN_ARRAY))
def test_charlies_program_is_told_that_there_is_no_such_job(charlie: Person, secret: Job, name: str, way: str) -> None:
    before = Event.objects.count()
    client, headers = charlie.client, {}
    if way == "token":
        client, headers = Client(), {"Authorization": f"Bearer {Program(charlie).text}"}
    where = api_address(name, secret)
    answers = [ask(where, headers=headers) for ask in (client.get, client.post)]
    assert {answer.status_code for answer in answers} <= {404, 405}
    assert 404 in {answer.status_code for answer in answers}
    for answer in answers:
        no_word_of_it(answer.content.decode(), secret)
    secret.refresh_from_db()
    assert (Event.objects.count(), secret.cancel_requested_at) == (before, None)


@pytest.mark.parametrize("name", sorted(API_ON_A_REPACK))
def test_charlies_program_is_told_that_there_is_no_such_repack(charlie: Person, secret: Job, name: str) -> None:
    where = reverse(name, args=[a_repack(secret).pk])
    answer = Program(charlie).post(where)
    assert answer.status_code == 404
    no_word_of_it(answer.content.decode(), secret)
    assert Repack.objects.get().state == "proposed"
    assert Client().post(where).status_code == 401


@pytest.mark.parametrize("name", sorted(API_OWN - {"api_token", "api_quote", "api_uploads"}))
def test_charlies_program_reads_no_word_of_alice(charlie: Person, secret: Job, name: str) -> None:
    a_repack(secret)
    answer = Program(charlie).get(reverse(name))
    assert answer.status_code == 200
    no_word_of_it(answer.content.decode(), secret)


def test_charlies_program_meets_no_quota_of_alices(alice: Person, charlie: Person, secret: Job) -> None:
    quota = Quota.objects.create(organization=alice.team.organization, team=alice.team, guaranteed=7000)
    program = Program(charlie)
    where = reverse("api_quota", args=[quota.pk])
    sets = [{"team": str(alice.team.pk)}, {"team": alice.team.name}, {"organization": str(quota.organization_id)}]
    sets += [{"team": str(alice.team.pk), "member": alice.user.email}]
    answers = [program.get(where), program.ask("DELETE", where), program.get("quotas")]
    answers += [program.ask("PUT", "quotas", {**whose, "guaranteed": 1}) for whose in sets]
    assert [answer.status_code for answer in answers] == [404, 404, 200, 404, 404, 404, 404]
    for answer, said in zip(answers[3:], sets, strict=True):
        # The answer may say again what was sent.
        body = answer.content.decode()
        for word in said.values():
            body = body.replace(word, "")
        no_word_of_it(body, secret)
    assert answers[2].json()["results"] == []
    assert Quota.objects.get().guaranteed == 7000
    for method in ("GET", "DELETE"):
        assert Client().generic(method, where).status_code == 401


def test_charlies_program_can_use_nothing_of_alices(charlie: Person, secret: Job) -> None:
    program = Program(charlie)
    for theirs in ({"upload": str(secret.upload_id)}, {"cloned_from": str(secret.pk)}):
        answer = program.post("jobs", {**ASKED, **theirs})
        assert answer.status_code == 422
        no_word_of_it(answer.content.decode().replace(str(secret.pk), ""), secret)
    assert Job.objects.filter(team=charlie.team).count() == 0


@pytest.mark.parametrize("name", sorted(API_OWN | API_OF_A_JOB | API_OF_AN_ARRAY))
def test_nobodys_program_is_told_to_sign_in(secret: Job, name: str) -> None:
    where = reverse(name) if name in API_OWN else api_address(name, secret)
    for ask in (Client().get, Client().post, Client().delete, Client().put, Client().options):
        answer = ask(where)
        assert answer.status_code == 401
        no_word_of_it(answer.content.decode(), secret)


def test_charlies_program_is_told_that_there_is_no_such_window(charlie: Person, secret: Job) -> None:
    program, where = Program(charlie), address("api_window_cancel", secret)
    answer = program.post(where)
    assert answer.status_code == 404
    no_word_of_it(answer.content.decode(), secret)
    assert program.get("windows").json() == {"results": []}
    assert Window.objects.get().cancelled_at is None


@pytest.mark.parametrize("name", sorted((API_OF_A_JOB | API_OF_AN_ARRAY) - VERBS))
def test_bobs_program_is_told_more(bob: Person, secret: Job, name: str) -> None:
    answer = Program(bob).get(api_address(name, secret))
    assert answer.status_code == (404 if name == "api_job_file" else 200)
    if answer.status_code == 404:
        assert "file" in answer.json()["detail"]


@pytest.mark.parametrize("name", sorted(OF_A_JOB - {"job_log", "job_log_download", "job_file"}))
def test_bob_is_told_more(bob: Person, secret: Job, name: str) -> None:
    asked = bob.client.get(address(name, secret))
    assert asked.status_code in {200, 405}


@pytest.mark.parametrize("name", sorted((OWN | OF_A_NODE) - {"example"}))
def test_charlie_reads_no_word_of_alice(charlie: Person, secret: Job, name: str) -> None:
    words = {"q": "xyzzy"}, {"tag": "xyzzy-tag"}, {"q": str(secret.pk)}, {"state": "starting"}, {"node": "node1"}
    for asked in ({}, *words):
        page: Any = charlie.client.get(address(name, secret), asked)
        body = b"".join(page.streaming_content) if page.streaming else page.content
        assert page.status_code == 200
        # A page may say again what was typed into it.
        no_word_of_it(body.decode().replace(next(iter(asked.values()), "\0"), ""), secret)


def test_only_an_operator_and_the_holders_team_are_told_who_holds_a_node(
    bob: Person, charlie: Person, oda: Person, secret: Job
) -> None:
    where = reverse("node", args=["node1"])
    assert "xyzzy-name" in bob.client.get(where).content.decode()
    told = oda.client.get(where).content.decode()
    assert "xyzzy-name" in told
    assert str(secret.pk) not in told  # its page is its own team's
    assert "another team" in charlie.client.get(where).content.decode()


def test_a_reservation_is_shown_to_its_team_and_to_operators(
    bob: Person, charlie: Person, oda: Person, secret: Job
) -> None:
    window = a_window(secret)
    for path in ("/cluster/", "/cluster/nodes/node1/"):
        assert "xyzzy-name" in bob.client.get(path).content.decode()
        assert "xyzzy-name" in oda.client.get(path).content.decode()
        no_word_of_it(charlie.client.get(path).content.decode(), secret)
    for program, by in ((Program(bob), None), (Program(oda), secret.submitted_by.email)):
        (seen,) = program.get("windows").json()["results"]
        assert (seen["id"], seen["made_by"]) == (str(window.pk), by)


def test_a_list_of_an_array_of_alices_is_no_page_for_charlie(bob: Person, charlie: Person, secret: Job) -> None:
    where = f"/jobs/?array={secret.array}"
    assert "xyzzy-name" in bob.client.get(where).content.decode()
    told = charlie.client.get(where)
    assert told.status_code == 404
    no_word_of_it(told.content.decode(), secret)
    assert charlie.client.get("/jobs/?array=none").status_code == 404
    assert Program(charlie).get(f"jobs?array={secret.array}").json()["results"] == []


def test_bob_reads_them(bob: Person, secret: Job) -> None:
    for name in ("overview", "jobs", "billing"):
        assert "xyzzy-name" in bob.client.get(reverse(name)).content.decode()


@pytest.mark.parametrize(
    "name",
    sorted(OWN | OPERATORS | OF_A_REPLAY | OF_A_WINDOW | OF_A_JOB | OF_A_NODE | ON_A_NODE | ON_A_REPACK | OF_AN_ARRAY),
)
def test_nobody_is_asked_to_sign_in(client: Any, secret: Job, name: str) -> None:
    for ask in (client.get, client.post):
        answer = ask(address(name, secret))
        assert answer.status_code == 302
        assert answer["Location"].startswith(reverse("account_login"))


def test_somebody_who_was_removed_from_every_team_sees_nothing(bob: Person, secret: Job) -> None:
    client = bob.client
    bob.user.teams.all().delete()
    for name in sorted((OWN | OF_A_JOB | OF_A_NODE | ON_A_NODE) - {"keep_account"}):
        assert client.get(address(name, secret)).status_code in {403, 405}


def test_an_attempt_of_alices_is_not_reached_through_a_job_of_charlies(
    charlie: Person, secret: Job, submit: Submit
) -> None:
    own = submit(charlie)
    theirs = Attempt.objects.get(job=secret)
    for name in ("job_log", "job_log_download"):
        asked = {"attempt": str(theirs.pk), "before": "100"}
        assert charlie.client.get(reverse(name, args=[own.pk]), asked).status_code == 404


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", sorted(SOCKETS_OF_A_JOB | SOCKETS_OF_OPERATORS))
def test_a_socket_of_a_job_or_of_operators_is_closed_to_charlie(charlie: Person, secret: Job, path: str) -> None:
    where = path.replace("<uuid:job_id>", str(secret.pk)).replace("<uuid:replay_id>", str(a_replay(secret).pk))

    async def story(client: Any) -> None:
        async with Socket(client, f"/{where}") as page:
            assert await page.receive() == {"closed": 4404}

    client = charlie.client
    run(lambda: story(client))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", sorted(SOCKETS_OWN | SOCKETS_OF_A_JOB | SOCKETS_OF_OPERATORS))
def test_a_socket_is_closed_to_nobody(secret: Job, path: str) -> None:
    where = path.replace("<uuid:job_id>", str(secret.pk)).replace("<uuid:replay_id>", str(a_replay(secret).pk))

    async def story() -> None:
        async with Socket(None, f"/{where}") as page:
            assert await page.receive() == {"closed": 4401}

    run(story)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", sorted(SOCKETS_OWN))
def test_charlies_own_sockets_say_no_word_of_alice(charlie: Person, secret: Job, path: str) -> None:
    async def story(client: Any) -> list[dict[str, Any]]:
        async with Socket(client, f"/{path}") as page:
            told = [await page.receive()]
            while told[-1]["type"] != "fresh":
                told.append(await page.receive())
            return told

    client = charlie.client
    for message in run(lambda: story(client)):
        no_word_of_it(str(message), secret)


@pytest.mark.django_db(transaction=True)
def test_charlies_hello_on_a_socket_of_his_own_job_reaches_no_log_of_alices(
    charlie: Person, secret: Job, submit: Submit
) -> None:
    own = submit(charlie)
    theirs = Attempt.objects.get(job=secret).pk

    async def story(client: Any) -> dict[str, Any]:
        async with Socket(client, f"/ws/jobs/{own.pk}/") as page:
            await page.send(type="resume", attempt=str(theirs), log=0, readings=0)
            await page.send(type="follow", attempt=str(theirs))
            for _ in range(4):
                told = await page.receive()
                assert told["type"] not in {"log", "readings"}
            return told

    client = charlie.client
    run(lambda: story(client))
