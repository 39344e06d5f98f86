"""A cluster on paper where a repack is worth it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from haein.cluster import inventory
from haein.cluster.backends.base import Cause, Phase, Sight
from haein.lib import clock
from jobs import lifecycle, repacks, scheduling
from jobs.models import Attempt, Job
from tests.cast import Person, node_fact


def look(now: datetime) -> None:
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    repacks.follow(now=now)


def begin(now: datetime) -> None:
    """What was placed runs."""
    new = Attempt.objects.filter(state="starting").values_list("pk", flat=True)
    lifecycle._begin([Sight(pk, Phase.RUNNING, started_at=now.timestamp()) for pk in new], now)


def end(attempt: Attempt, now: datetime, cause: Cause = Cause.STOPPED, code: int | None = None) -> None:
    lifecycle._end([Sight(attempt.pk, Phase.ENDED, ended_at=now.timestamp(), cause=cause, exit_code=code)], now)


def scattered(by: Person, submit: Callable[..., Job]) -> Job:
    """Two GPUs of four are held on each of two nodes since an hour ago, and a job waits for four of one node."""
    inventory.refresh([node_fact("node1", devices=4), node_fact("node2", devices=4)], now=clock.now())
    now = clock.now()
    before = now - timedelta(hours=1)
    for name in ("old", "gone-1", "young", "gone-2"):
        submit(by, name=name, gpus=2, time_limit_s=86_400, checkpoints=True)
    look(before)
    begin(before)
    for attempt in Attempt.objects.filter(job__name__startswith="gone"):
        end(attempt, before, Cause.EXITED, 0)
    stays = Attempt.objects.filter(state="running")
    assert len(set(stays.values_list("node_id", flat=True))) == 2
    stays.filter(job__name="old").update(checkpoint_at=now - timedelta(seconds=60))
    job = submit(by, name="large", gpus=4, time_limit_s=3600)
    look(now)
    job.refresh_from_db()
    assert job.state == "queued"
    return job
