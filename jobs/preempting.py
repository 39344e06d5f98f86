"""Tells runs that they must yield, and takes it back: whoever needs their room (queue, window, repack) asks here.

Nothing is ended here. An attempt with `preempt_at` is signalled to save its work and asked for its end by
jobs/lifecycle.py, which also decides what becomes of its job.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg.types.json import Jsonb

from jobs import moves
from jobs.models import Attempt


@dataclass(frozen=True, slots=True)
class Yield:
    """Why one attempt must yield, and when it is asked to end.

    `code` is a reason of jobs/wording.py and `values` what its sentence names: they are shown to the team that yields,
    so they never name another tenant. `for_job` is the job whose start this makes room for, where there is one.
    """

    code: str
    values: Mapping[str, object]
    at: datetime
    for_job: UUID | None = None


# One statement, as in jobs/moves.py: of two passes that choose the same attempt one wins, and the other is told.
_WARN = """
    WITH chosen AS (
        SELECT attempt.id, given.code, given.reason_values, given.at, given.for_job
        FROM jobs_attempt AS attempt
        JOIN unnest(%(ids)s::uuid[], %(codes)s::text[], %(values)s::jsonb[], %(ats)s::timestamptz[], %(jobs)s::uuid[])
            AS given(id, code, reason_values, at, for_job) ON given.id = attempt.id
        WHERE attempt.state <> 'ended' AND attempt.preempt_at IS NULL
        ORDER BY attempt.id
        FOR UPDATE OF attempt
    )
    UPDATE jobs_attempt AS attempt SET
        preempt_at = chosen.at,
        preempt_code = chosen.code,
        preempt_values = chosen.reason_values,
        preempted_for_id = chosen.for_job
    FROM chosen WHERE attempt.id = chosen.id
    RETURNING attempt.id
"""


@transaction.atomic
def warn(attempts: Mapping[UUID, Yield], *, now: datetime) -> list[UUID]:
    """Give each of the attempts notice; returns those that are open and had none yet, the others are left alone."""
    values: dict[str, Any] = {
        "ids": list(attempts),
        "codes": [each.code for each in attempts.values()],
        "values": [Jsonb(dict(each.values)) for each in attempts.values()],
        "ats": [each.at for each in attempts.values()],
        "jobs": [each.for_job for each in attempts.values()],
    }
    with connection.cursor() as cursor:
        cursor.execute(_WARN, values)
        won = [row[0] for row in cursor.fetchall()]
    _note(won, "warned", now)
    return won


@transaction.atomic
def withdraw(attempts: Collection[UUID], *, now: datetime) -> list[UUID]:
    """Call the notice off for those whose end was not asked for yet; returns them."""
    mine = list(
        Attempt.objects.select_for_update(of=("self",))
        .exclude(state=Attempt.State.ENDED)
        .filter(pk__in=list(attempts), preempt_at__gt=now)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    _note(mine, "notice_withdrawn", now)
    Attempt.objects.filter(pk__in=mine).update(
        preempt_at=None, preempt_code="", preempt_values={}, preempted_for=None, warned_at=None
    )
    return mine


def _note(attempts: Collection[UUID], code: str, now: datetime) -> None:
    rows = list(Attempt.objects.filter(pk__in=list(attempts)).select_related("job").order_by("pk"))
    moves.note_all([(row.job, moves.Why(code, reason(row), attempt=row.number)) for row in rows], now=now)


def reason(attempt: Attempt) -> dict[str, object]:
    """What wording's sentences about an attempt that has notice name: when its end is asked for (UTC), and why."""
    assert attempt.preempt_at is not None
    return {"at": said(attempt.preempt_at), "why": cause(attempt)}


def cause(attempt: Attempt) -> dict[str, object]:
    """Why it must yield, as a reason inside another (jobs/wording.py)."""
    return {"code": attempt.preempt_code, "values": attempt.preempt_values}


def said(moment: datetime) -> str:
    """A moment inside a sentence."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
