"""Settles the default policy to what is asked for here: rehearsed when the week's mix or the cluster has changed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum

from haein.placement import rehearsal
from haein.placement.mix import Mix, shape_of
from haein.placement.model import Request, Snapshot
from haein.placement.policies import HAEIN, Policy
from jobs import requests
from jobs.models import Job, Settled

WEEK = timedelta(days=7)
# Of fewer the mix is a guess, and the policy's own weighing is as good.
LEAST_JOBS = 50
# A pass scores every device's state for each shape of the mix, so it is told the most frequent only.
MOST_SHAPES = 40
# The part of the jobs that is of other shapes than it was.
CHANGED = 0.1
READ_EVERY_S = 10.0
_read: tuple[float, tuple[Policy, Mix | None]] | None = None


def current() -> tuple[Policy, Mix | None]:
    """The policy as it was settled and the mix to expect (None: what the queue shows); a query every ten seconds."""
    global _read
    if _read is None or time.monotonic() - _read[0] > READ_EVERY_S:
        row = Settled.objects.first()
        known = (rehearsal.settled(row.candidate), _mix(row.mix)) if row else (HAEIN, None)
        _read = time.monotonic(), known
    return _read[1]


def settle(snapshot: Snapshot, *, now: datetime) -> bool:
    """Rehearse on the cluster, emptied, with the last week's mix; whether there was a reason to."""
    rows = _asked_since(now - WEEK)
    if sum(row["weight"] for row in rows) < LEAST_JOBS:
        return False
    mix, cluster = _mix(rows), _kinds(snapshot)
    last = Settled.objects.first()
    if last and last.cluster == cluster and _moved(_mix(last.mix), mix) <= CHANGED:
        return False
    found = {"candidate": rehearsal.best(snapshot, mix), "mix": rows, "cluster": cluster, "at": now}
    Settled.objects.update_or_create(pk=1, defaults=found)
    return True


def _asked_since(moment: datetime) -> list[dict[str, Any]]:
    """The most frequent shapes, each worker of a gang counting as one."""
    shapes = Job.objects.filter(created_at__gte=moment).values(*requests.WORKER).annotate(weight=Sum("workers"))
    return list(shapes.order_by("-weight", *requests.WORKER)[:MOST_SHAPES])


def _mix(rows: list[dict[str, Any]]) -> Mix:
    """With a twentieth of whole devices besides: in a week of fractions alone nobody would keep one free for whom next
    week brings.
    """
    weights = Counter({shape_of(requests.worker(row)): row["weight"] for row in rows})
    whole = shape_of(Request(id=None, gpus=1, cpus=0, memory_mb=0))
    return Mix(weights + Counter({whole: sum(weights.values()) // 20}))


def _kinds(snapshot: Snapshot) -> list[list[Any]]:
    kinds = Counter(
        (node.cpus, node.memory_mb, node.pool, *sorted(node.labels), "|", *(each.model for each in node.devices))
        for node in snapshot.nodes
        if node.usable
    )
    return sorted([count, *kind] for kind, count in kinds.items())


def _moved(before: Mix, after: Mix) -> float:
    """Half the sum of the differences of the shapes' parts: 0 is the same mix, 1 has nothing in common."""
    sums = [max(1, sum(mix.weights.values())) for mix in (before, after)]
    shapes = before.weights.keys() | after.weights.keys()
    return sum(abs(before.weights.get(s, 0) / sums[0] - after.weights.get(s, 0) / sums[1]) for s in shapes) / 2
