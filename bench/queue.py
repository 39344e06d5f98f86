"""The pass over the queue on PostgreSQL, within a process that has Django: each function prints a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from bench.ground import Figure, summary
from haein.supervisor.layout import ROOT

READY = frozenset({"python"})


def admissions() -> Figure:
    told = _within("admit")
    return Figure(round(told["admitted"] / told["seconds"]), "jobs/s", 400, told, more_is_better=True)


def deep_pass() -> Figure:
    told = _within("deep")
    return Figure(told["ms"]["median"], "ms", 1000, told)


def full_pass() -> Figure:
    told = _within("wide")
    return Figure(told["ms"]["median"], "ms", 200, told)


def reclaim() -> Figure:
    told = _within("take_back")
    return Figure(told["decided_ms"], "ms", 500, told, besides=told["told"] == 512)


def reclaim_commit() -> Figure:
    told = _within("take_back")
    return Figure(told["committed_ms"], "ms", 1500, told, besides=told["told"] == 512)


def _within(part: str) -> dict[str, Any]:
    """What one of the parts below tells, from a process of its own on services of its own."""
    services = [sys.executable, "-m", "haein.supervisor", "services", "--"]
    run = [sys.executable, "manage.py", "shell", "--no-imports", "-c", f"from bench import queue; queue.{part}()"]
    environ = {**os.environ, "HAEIN_BACKEND": "simulator"}
    ran = subprocess.run([*services, *run], cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


# From here on within the process.


def admit() -> None:
    """15,000 jobs in 30 queues, from queued to admitted with a place, as Kueue's own test has them."""
    from jobs import scheduling
    from jobs.models import Allocation, Attempt, Job

    stage = _stage(nodes=129)
    _submit(stage, teams=30, each=500, shapes=[{"gpus": 1, "share": 62, "cpus": 500, "memory_mb": 512}])
    began = time.perf_counter()
    passes = 0
    while scheduling.run_pass(now=stage["now"], ready=READY):
        passes += 1
    took = time.perf_counter() - began
    admitted = Job.objects.filter(state="starting").count()
    assert Attempt.objects.count() == Allocation.objects.count() == admitted
    print(json.dumps({"admitted": admitted, "seconds": round(took, 2), "passes": passes, "queues": 30}))


def deep() -> None:
    """50,000 wait in 1,000 queues on a cluster that is full: the next passes look at them all."""
    from jobs import scheduling
    from jobs.models import Job

    stage = _stage(nodes=129)
    _submit(stage, teams=1000, each=52, shapes=_SHAPES)
    scheduling.run_pass(now=stage["now"], ready=READY)
    waiting = Job.objects.filter(state="queued").count()
    print(json.dumps({"waiting": waiting, "queues": 1000, "ms": summary(_passes(stage["now"], 5))}))


def wide() -> None:
    """2,000 wait on 129 x 8 devices that are all held."""
    from jobs import scheduling
    from jobs.models import Attempt, Job

    stage = _stage(nodes=129)
    _submit(stage, teams=40, each=75, shapes=_SHAPES)
    scheduling.run_pass(now=stage["now"], ready=READY)
    detail = {"waiting": Job.objects.filter(state="queued").count(), "running": Attempt.objects.count()}
    print(json.dumps({**detail, "ms": summary(_passes(stage["now"], 10))}))


def take_back() -> None:
    """A team wants 512 of the GPUs that it is guaranteed, and 8,000 jobs of others hold all of 1,000 nodes."""
    from haein.placement import turns
    from jobs import scenes, scheduling
    from jobs.models import Attempt, Claim, Quota

    stage = _stage(nodes=1000)
    _submit(stage, teams=20, each=400, shapes=[{"gpus": 1, "cpus": 8000, "memory_mb": 65_536}])
    scheduling.run_pass(now=stage["now"], ready=READY)
    Attempt.objects.update(state="running", started_at=stage["now"])
    owner = stage["teams"](1)[0]
    Quota.objects.create(organization_id=owner.organization_id, team=owner, guaranteed=512_000)
    gang = {"gpus": 8, "workers": 64, "cpus": 64_000, "memory_mb": 524_288}
    _submit(stage, teams=0, each=1, shapes=[gang], of=[owner])
    now = stage["now"] + timedelta(minutes=10)
    decided = []
    for _ in range(5):
        scene = scenes.scene(scenes.queue(), scenes.shares(now), now=now)
        began = time.perf_counter()
        orders = turns.decide(scene, scenes.rules()).orders
        decided.append(1000 * (time.perf_counter() - began))
    began = time.perf_counter()
    scheduling.run_pass(now=now, ready=READY)
    committed = 1000 * (time.perf_counter() - began)
    told = Attempt.objects.filter(preempt_at__isnull=False).count()
    assert told == len(orders)
    assert Claim.objects.count() == 1
    detail = {"running": Attempt.objects.count(), "told": told, "decisions_ms": summary(decided)}
    print(json.dumps({**detail, "decided_ms": summary(decided)["median"], "committed_ms": round(committed)}))


_SHAPES = [
    {"gpus": gpus, "cpus": 4000 * gpus, "memory_mb": 16_384 * gpus, "time_limit_s": limit}
    for gpus in (1, 2, 4, 8)
    for limit in (3600, 14_400)
]


def _passes(now: datetime, times: int) -> list[float]:
    """Milliseconds of further passes, in which nothing can start."""
    from jobs import scheduling

    took = []
    for _ in range(times):
        began = time.perf_counter()
        scheduling.run_pass(now=now, ready=READY)
        took.append(1000 * (time.perf_counter() - began))
    return took


def _stage(*, nodes: int) -> dict[str, Any]:
    """A migrated database with so many nodes of eight, and what makes teams in it."""
    from django.core.management import call_command

    from haein.cluster import inventory
    from haein.cluster.backends.base import DeviceFact, NodeFact
    from haein.lib import clock
    from haein.tenants.models import Organization, Team, User

    call_command("migrate", verbosity=0)
    now = clock.now()
    facts = [
        NodeFact(
            name=f"n{at:04}",
            cpus=208_000,
            memory_mb=2 << 20,
            emulated=True,
            devices=tuple(DeviceFact(i, f"u{at}-{i}", "B200", 183_359, True) for i in range(8)),
            rack=f"r{at // 8}",
            pod="p0",
        )
        for at in range(nodes)
    ]
    inventory.refresh(facts, now=now)
    user = User.objects.create(email="bench@haein.example")
    organization = Organization.objects.create(name="bench")
    made = 0

    def teams(count: int) -> list[Team]:
        nonlocal made
        made += count
        return Team.objects.bulk_create(
            Team(organization=organization, name=f"team {at}") for at in range(made - count, made)
        )

    return {"now": now, "user": user, "teams": teams}


def _submit(
    stage: dict[str, Any], *, teams: int, each: int, shapes: Sequence[dict[str, int]], of: Sequence[Any] = ()
) -> None:
    from jobs.models import Job

    owners = [*of, *stage["teams"](teams)]
    Job.objects.bulk_create(
        (
            Job(
                team=team,
                submitted_by=stage["user"],
                name=f"job {at}",
                command="true",
                environment="python",
                reason="new",
                queued_at=stage["now"] + timedelta(milliseconds=at),
                **{"share": 1000, "time_limit_s": 3600, **shapes[at % len(shapes)]},
            )
            for team in owners
            for at in range(each)
        ),
        batch_size=2000,
    )
