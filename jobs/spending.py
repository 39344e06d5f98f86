"""Writes down what ended runs used of the months' GPU-hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from uuid import UUID

from django.db import connection

from haein.cluster.backends.base import Cause
from jobs import quotas
from jobs.models import Attempt, Job

Key = tuple[UUID, UUID, str, date]
_NOBODYS = frozenset({Cause.LOST.value, Cause.NOT_TAKEN.value})


def record(ended: Iterable[Attempt]) -> None:
    """Count these, from being placed to their end; called once for each, by whoever wins its end, in that transaction.

    What the operator's machines spoiled, or the cluster never started, is on nobody's account.
    """
    used: Counter[Key] = Counter()
    for attempt in ended:
        if attempt.cause not in _NOBODYS and attempt.ended_at:
            for month, seconds in months(attempt.placed_at, attempt.ended_at):
                used[_key(attempt.job, month)] += int(seconds * _units(attempt.job))
    _add({key: seconds for key, seconds in used.items() if seconds})


def months(began: datetime, ended: datetime) -> Iterator[tuple[date, float]]:
    """The calendar months (UTC) that the interval touches, each by its first day, with its seconds."""
    while began < ended:
        first, after = quotas.month_of(began)
        yield first.date(), (min(after, ended) - began).total_seconds()
        began = after


def _key(job: Job, month: date) -> Key:
    return job.team_id, job.submitted_by_id, job.pool, month


def _units(job: Job) -> int:
    return quotas.units(job.gpus, job.share, job.profile, job.workers)


def _add(used: dict[Key, int]) -> None:
    """One statement; in one order, so that two that add to the same rows can't wait for each other."""
    if not used:
        return
    keys = sorted(used)
    columns = [list(column) for column in zip(*keys, strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO jobs_spent (team_id, member_id, pool, month, unit_seconds)"
            " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::date[], %s::bigint[])"
            " ON CONFLICT (team_id, member_id, pool, month)"
            " DO UPDATE SET unit_seconds = jobs_spent.unit_seconds + excluded.unit_seconds",
            [*columns, [used[key] for key in keys]],
        )
