"""A part that is away costs no more than it must: pages say so and heal, work is taken on without hints."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, close_old_connections, connection
from django.test import Client
from psycopg_pool import PoolTimeout

from jobs.models import Job
from tests.cast import LOGIN, Person, until
from tests.dashboard.test_new_job import FORM

pytestmark = pytest.mark.django_db(transaction=True)


def pid(part: str) -> int:
    """The process of a part, as the supervisor that runs this test has written it down; 0 while there is none."""
    try:
        return int((Path(settings.HAEIN_VAR) / "run" / f"{part}.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return 0


def database_answers() -> bool:
    close_old_connections()
    with suppress(OperationalError, PoolTimeout), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return True
    return False


@pytest.fixture
def reader(alice: Person) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(alice.user, backend=LOGIN)
    return client


def ask(reader: Client, path: str) -> Any:
    close_old_connections()  # as a server does before each request, and the test client does not
    return reader.get(path)


@pytest.fixture
def unreachable_database() -> Iterator[Path]:
    """Its door is gone and everybody has been put out; it comes back when the door is put back in its place."""
    door = Path(connection.settings_dict["HOST"]) / ".s.PGSQL.5432"
    away = door.with_name("away")
    with suppress(OperationalError), connection.cursor() as cursor:
        door.rename(away)
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        cursor.execute(f"SELECT pg_terminate_backend(pid) {others}")
        until(lambda: cursor.execute(f"SELECT count(*) {others}") or cursor.fetchone()[0] == 0)
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    yield away
    if away.exists():
        away.rename(door)
    until(database_answers)


@pytest.mark.long
def test_without_the_database_pages_ask_for_patience_and_heal_by_themselves(
    big: None, reader: Client, unreachable_database: Path
) -> None:
    for path in ("/", "/jobs/"):
        begun = time.monotonic()
        answer = ask(reader, path)
        assert time.monotonic() - begun < 7  # five are what a short absence is waited for
        assert answer.status_code == 503, answer.content
        assert (answer["Retry-After"], answer["Cache-Control"]) == ("3", "no-store")
    assert ask(reader, "/healthz").status_code == 200
    unreachable_database.rename(unreachable_database.with_name(".s.PGSQL.5432"))
    assert until(lambda: ask(reader, "/jobs/").status_code == 200)


@pytest.mark.long
def test_a_restart_of_the_database_is_waited_for(big: None, reader: Client) -> None:
    assert ask(reader, "/").status_code == 200
    before = pid("postgres")
    os.kill(before, signal.SIGINT)
    assert until(lambda: pid("postgres") not in {0, before})
    assert ask(reader, "/").status_code == 200


@pytest.fixture
def hung_valkey() -> Iterator[None]:
    """It takes connections and answers none of them: the worst way to be away."""
    process = pid("valkey")
    os.kill(process, signal.SIGSTOP)
    yield
    os.kill(process, signal.SIGCONT)


def quickly(ask: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    answer = ask()
    assert time.monotonic() - begun < 1
    return answer


def test_with_valkey_hung_a_job_is_taken_on_in_time_and_runs_later(
    reader: Client, drive: Any, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("hung_valkey")
    form = {**FORM, "gpus": "1", "share": "50", "cpus": "0.5", "command": "sleep 1"}
    assert quickly(lambda: reader.post("/jobs/new/", form)).status_code == 302
    job = Job.objects.get()
    for path in ("/", "/jobs/", "/cluster/", "/billing/", f"/jobs/{job.pk}/"):
        assert quickly(partial(reader.get, path)).status_code == 200


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_with_valkey_hung_the_page_of_a_job_that_has_run_is_there_in_time(
    alice: Person, reader: Client, drive: Any, submit: Any, state: str, request: pytest.FixtureRequest
) -> None:
    job = submit(alice, command="sleep 60" if state == "running" else "true")
    drive(lambda: Job.objects.filter(pk=job.pk, state=state).exists())
    request.getfixturevalue("hung_valkey")
    assert quickly(lambda: reader.get(f"/jobs/{job.pk}/")).status_code == 200


def test_without_valkey_the_queue_is_worked_off_all_the_same(
    alice: Person, finish: Any, submit: Any, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("hung_valkey")
    assert finish(submit(alice)).state == "succeeded"
