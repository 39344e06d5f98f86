"""Several schedulers at once, and one that is killed at each of its statements: real processes on PostgreSQL."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection, transaction

from haein.lib import clock
from jobs import moves
from jobs.models import Allocation, Attempt, Claim, Job, Quota
from jobs.states import Event as Kind
from tests.cast import Person, until

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]
Submit = Callable[..., Job]
ROOT = Path(__file__).resolve().parents[2]

# Looks at the queue for ever, and says so each time.
LOOPING = """
import django; django.setup()
from haein.lib import clock
from jobs import scheduling
while True:
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    print("looked", flush=True)
"""
# For each line that it reads, a child of it looks once and is killed at that statement; says whether it got through.
DYING = """
import os, signal, sys
import django; django.setup()
from django.db import connection
from haein.lib import clock
from jobs import scheduling

def look(left):
    def die(execute, sql, params, many, context):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return execute(sql, params, many, context)
    with connection.execute_wrapper(die):
        scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    os._exit(0)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        look(int(line))
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "through", flush=True)
"""


@contextmanager
def process(script: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own on the database of the test."""
    known = connection.settings_dict
    host = quote(str(known["HOST"]), safe="")
    url = f"postgresql://{known['USER']}:{quote(str(known['PASSWORD']))}@{host}:{known['PORT'] or 5432}/{known['NAME']}"
    environ = {**os.environ, "HAEIN_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "haein.settings"}
    environ |= {"HAEIN_SECRET_KEY": settings.SECRET_KEY, "HAEIN_VAR": str(settings.HAEIN_VAR)}
    environ |= {"HAEIN_PREEMPTION_MIN_RUN_SECONDS": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def balance() -> None:
    """No device and no quota is over-committed, and rows agree with each other; at one instant."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        held: Counter[int] = Counter()
        teams: Counter[object] = Counter()
        inside: Counter[object] = Counter()
        for row in Allocation.objects.filter(ended_at=None).select_related("attempt__job"):
            assert row.attempt.state != "ended"
            held[row.device_id] += row.units
            teams[row.attempt.job.team_id] += row.units
            if row.attempt.guaranteed:
                inside[row.attempt.job.team_id] += row.units
        assert all(units <= 1000 for units in held.values())
        for quota in Quota.objects.all():
            assert inside[quota.team_id] <= quota.guaranteed
            assert quota.borrow is None or teams[quota.team_id] <= quota.guaranteed + quota.borrow
        made = Counter(Attempt.objects.values_list("job_id", flat=True))
        active = set(Attempt.objects.exclude(state="ended").values_list("job_id", flat=True))
        for job in Job.objects.all():
            assert job.attempts_made == made[job.pk]
            assert (job.pk in active) == (job.state in {"starting", "running"})
        assert not Claim.objects.exclude(job__state="queued").exists()


def finish(attempt: Attempt) -> None:
    """As lifecycle does it: the rows and the move in one transaction."""
    with transaction.atomic():
        now = clock.now()
        if Attempt.objects.filter(pk=attempt.pk).exclude(state="ended").update(state="ended", ended_at=now):
            Allocation.objects.filter(attempt=attempt).update(ended_at=now)
            kind = Kind.PREEMPT if attempt.preempt_at else Kind.SUCCEED
            moves.apply(kind, {attempt.job_id: moves.Why("succeeded")}, now=now)


@pytest.fixture
def quotas(big: None, alice: Person, charlie: Person) -> None:
    for person, guaranteed, borrow in ((alice, 4000, None), (charlie, 1000, 4000)):
        Quota.objects.create(
            organization_id=person.team.organization_id, team=person.team, guaranteed=guaranteed, borrow=borrow
        )


def fill(alice: Person, charlie: Person, submit: Submit, rng: random.Random, jobs: int) -> None:
    for _ in range(jobs):
        gpus, share = rng.choice([(1, 1000), (2, 1000), (4, 1000), (1, 500), (1, 250)])
        submit(
            rng.choice([alice, charlie]), gpus=gpus, share=share, preemption=rng.choice(["allowed", "spot", "never"])
        )


def test_three_at_once_and_killed_at_random_never_give_more_than_there_is(
    quotas: None, alice: Person, charlie: Person, submit: Submit
) -> None:
    rng = random.Random(5)
    fill(alice, charlie, submit, rng, 40)
    with process(LOOPING) as one, process(LOOPING) as two:
        for child in (one, two):
            assert child.stdout is not None
            assert child.stdout.readline() == "looked\n"
        for round_ in range(12):
            with process(LOOPING) as third:
                assert third.stdout is not None
                for _ in range(rng.randrange(1, 4)):
                    third.stdout.readline()
                third.send_signal(signal.SIGKILL)
                balance()
                for attempt in rng.sample(sorted(Attempt.objects.exclude(state="ended"), key=lambda a: a.pk), 2):
                    finish(attempt)
                balance()
                fill(alice, charlie, submit, rng, 2 if round_ < 8 else 0)
        assert one.poll() is None
        assert two.poll() is None

        def done() -> bool:
            balance()
            for attempt in Attempt.objects.exclude(state="ended"):
                finish(attempt)
            return not Job.objects.exclude(state="succeeded").exists()

        until(done, "all of them have run", 120)


def test_killed_at_any_statement_it_has_done_all_of_a_pass_or_nothing(
    quotas: None, alice: Person, charlie: Person, submit: Submit
) -> None:
    """With starts, notices, claims and reasons in the same pass; what was not done is done by the next."""
    for _ in range(4):
        submit(charlie, gpus=1)
    with process(DYING) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def look(statements: int) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{statements}\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        assert look(10_000) == "through"
        Attempt.objects.update(state="running", started_at=clock.now())
        Job.objects.filter(state="starting").update(state="running", started_at=clock.now())
        submit(alice, gpus=4)
        submit(alice, gpus=4, preemption="never")
        submit(charlie, gpus=1)

        def rows() -> tuple[object, ...]:
            return (
                sorted(Attempt.objects.values_list("pk", "preempt_at")),
                sorted(Claim.objects.values_list("job_id", "kind")),
                sorted(Job.objects.values_list("pk", "state", "reason")),
            )

        before, killed = rows(), 0
        while look(killed) == "killed":
            assert rows() == before
            balance()
            killed += 1
        assert killed > 15
        assert rows() != before
        balance()
