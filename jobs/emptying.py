"""When a node is empty if nothing new starts there."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q

from haein.placement import emptying
from haein.placement.emptying import Empty
from jobs import promises
from jobs.models import Attempt

# How many ended runs are looked back at.
RUNS = 500


def of_node(node_id: int, *, now: datetime) -> Empty | None:
    """By what runs there now, in two queries; None where nothing does."""
    here = Q(node=node_id) | Q(workers__node=node_id)
    rows = Attempt.objects.exclude(state=Attempt.State.ENDED).filter(here).distinct()
    runs = [
        emptying.Run((started_at or placed_at).timestamp(), limit)
        for _, started_at, placed_at, limit in rows.values_list("pk", "started_at", "placed_at", "job__time_limit_s")
    ]
    if not runs:
        return None
    return emptying.when(runs, [part for _, part in promises.history(RUNS)], now.timestamp())
