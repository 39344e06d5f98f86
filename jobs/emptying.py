"""When a node is empty if nothing new starts there."""

from __future__ import annotations

from datetime import datetime

from haein.placement import emptying
from haein.placement.emptying import Empty
from jobs import promises
from jobs.models import Attempt

# How many ended runs are looked back at.
RUNS = 500


def of_node(node_id: int, *, now: datetime) -> Empty | None:
    """By what runs there now, in three queries; None where nothing does."""
    running = Attempt.objects.exclude(state=Attempt.State.ENDED)
    columns = ("pk", "started_at", "placed_at", "job__time_limit_s")
    # Two questions: one with an OR across tables would read all that run.
    rows = {
        *running.filter(node=node_id).values_list(*columns),
        *running.filter(workers__node=node_id).values_list(*columns),
    }
    if not rows:
        return None
    runs = [emptying.Run((started_at or placed_at).timestamp(), limit) for _, started_at, placed_at, limit in rows]
    return emptying.when(runs, [part for _, part in promises.history(RUNS)], now.timestamp())
