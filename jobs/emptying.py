"""When a node is empty if nothing new starts there."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db.models import Q

from haein.placement import emptying
from haein.placement.emptying import Empty, Run
from jobs import promises
from jobs.models import Attempt
from jobs.scenes import START_S

# How many ended runs are looked back at.
RUNS = 500


def of_node(node_id: int, *, now: datetime) -> Empty | None:
    """By what runs there now, in two queries; None where nothing does."""
    here = Q(node=node_id) | Q(workers__node=node_id)
    rows = Attempt.objects.exclude(state=Attempt.State.ENDED).filter(here).distinct()
    # With the key: two that are alike in all else are two.
    columns = ("pk", "placed_at", "started_at", "preempt_at", "job__time_limit_s")
    runs = [_run(*row) for _, *row in rows.values_list(*columns)]
    if not runs:
        return None
    return emptying.when(runs, [part for _, part in promises.history(RUNS)], now.timestamp())


def _run(placed: datetime, started: datetime | None, told: datetime | None, limit_s: int) -> Run:
    began = started.timestamp() if started else placed.timestamp() + START_S
    asked = began + limit_s if told is None else min(began + limit_s, told.timestamp())
    return Run(began, limit_s, asked + settings.HAEIN_GRACE_SECONDS)
