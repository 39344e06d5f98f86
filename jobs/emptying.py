"""When a node is empty if nothing new starts there."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings

from haein.placement import emptying
from haein.placement.emptying import Empty, Run
from jobs import promises
from jobs.models import Attempt
from jobs.scenes import START_S

# How many ended runs are looked back at.
RUNS = 500


def of_node(node_id: int, *, now: datetime) -> Empty | None:
    """By what runs there now, in three queries; None where nothing does."""
    running = Attempt.objects.exclude(state=Attempt.State.ENDED)
    # With the key: two that are alike in all else are two.
    columns = ("pk", "placed_at", "started_at", "preempt_at", "job__time_limit_s")
    # Two questions: one with an OR across tables would read all that run.
    rows = {
        *running.filter(node=node_id).values_list(*columns),
        *running.filter(workers__node=node_id).values_list(*columns),
    }
    if not rows:
        return None
    runs = [_run(*row) for _, *row in rows]
    return emptying.when(runs, [part for _, part in promises.history(RUNS)], now.timestamp())


def _run(placed: datetime, started: datetime | None, told: datetime | None, limit_s: int) -> Run:
    began = started.timestamp() if started else placed.timestamp() + START_S
    asked = began + limit_s if told is None else min(began + limit_s, told.timestamp())
    return Run(began, limit_s, asked + settings.HAEIN_GRACE_SECONDS)
