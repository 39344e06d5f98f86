"""The only code that changes a job's state: by compare-and-swap, many at a time, each with its event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg.types.json import Jsonb

from haein.lib import live
from haein.tenants.models import User
from jobs.models import Event, Job
from jobs.states import ENDED, TABLE, State
from jobs.states import Event as Kind


@dataclass(frozen=True, slots=True)
class Why:
    """The reason for one job's move: a code of jobs/wording.py and its values; `at` when it happened if not now."""

    code: str
    values: Mapping[str, object] = field(default_factory=dict)
    attempt: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A job that this call has moved."""

    id: UUID
    team_id: UUID
    old: State
    new: State


# One statement: the check that goes with a state (an ended job has an end) never sees half of a move.
_MOVE = """
    WITH old AS (
        SELECT job.id, job.state, given.reason, given.reason_values, given.at
        FROM jobs_job AS job
        JOIN unnest(%(ids)s::uuid[], %(codes)s::text[], %(values)s::jsonb[], %(ats)s::timestamptz[])
            AS given(id, reason, reason_values, at) ON given.id = job.id
        WHERE job.state = ANY(%(sources)s)
        ORDER BY job.id
        FOR UPDATE OF job
    )
    UPDATE jobs_job AS job SET
        state = %(table)s::jsonb ->> old.state,
        reason = old.reason,
        reason_values = old.reason_values,
        started_at = CASE WHEN %(again)s THEN NULL WHEN %(runs)s THEN old.at ELSE job.started_at END,
        queued_at = CASE WHEN %(anew)s THEN %(now)s ELSE job.queued_at END,
        cancel_requested_at = CASE WHEN %(again)s THEN NULL ELSE job.cancel_requested_at END,
        ended_at = CASE WHEN %(table)s::jsonb ->> old.state = ANY(%(ended)s) THEN old.at END
    FROM old WHERE job.id = old.id
    RETURNING job.id, job.team_id, old.state, job.state
"""


@transaction.atomic
def apply(kind: Kind, reasons: Mapping[UUID, Why], *, now: datetime, by: User | None = None) -> list[Moved]:
    """Move each job from where the table allows; those found elsewhere are left alone and not returned."""
    moved = _swap(kind, reasons, now)
    Event.objects.bulk_create([_event(row, kind, reasons[row.id], now, by) for row in moved])
    announce((row.id, row.team_id) for row in moved)
    if moved:
        live.push(live.CLUSTER)
    return moved


def announce(jobs: Iterable[tuple[UUID, UUID]]) -> None:
    """Tell the pages that show these jobs (id, team's id), after the commit."""
    changed = list(jobs)
    if changed:
        teams = {team_id for _, team_id in changed}
        live.push(*(live.group("job", job_id) for job_id, _ in changed), *(live.group("team", pk) for pk in teams))


def note(job: Job, why: Why, *, now: datetime, by: User | None = None) -> None:
    """An event that moves nothing."""
    note_all([(job, why)], now=now, by=by)


def note_all(notes: Sequence[tuple[Job, Why]], *, now: datetime, by: User | None = None) -> None:
    """Events that move nothing, in one statement."""
    Event.objects.bulk_create(
        Event(
            job=job,
            at=why.at or now,
            kind="note",
            old_state=job.state,
            new_state=job.state,
            attempt=why.attempt or job.attempts_made or None,
            reason=why.code,
            reason_values=dict(why.values),
            actor_name=str(by or ""),
        )
        for job, why in notes
    )
    announce((job.pk, job.team_id) for job, _ in notes)


def _swap(kind: Kind, reasons: Mapping[UUID, Why], now: datetime) -> list[Moved]:
    table = {str(old): str(new) for old, new in TABLE[kind].items()}
    values: dict[str, Any] = {
        "ids": list(reasons),
        "codes": [why.code for why in reasons.values()],
        "values": [Jsonb(dict(why.values)) for why in reasons.values()],
        "ats": [why.at or now for why in reasons.values()],
        "sources": list(table),
        "table": Jsonb(table),
        "again": kind in {Kind.RETRY, Kind.REQUEUE, Kind.PREEMPT, Kind.TAKE_BACK},
        # Whoever had to yield, or was not started by no fault of its own, keeps its place in the queue.
        "anew": kind in {Kind.RETRY, Kind.REQUEUE},
        "runs": kind is Kind.RUN,
        "ended": [str(state) for state in ENDED],
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, values)
        return [Moved(row[0], row[1], State(row[2]), State(row[3])) for row in cursor.fetchall()]


def _event(row: Moved, kind: Kind, why: Why, now: datetime, by: User | None) -> Event:
    return Event(
        job_id=row.id,
        at=why.at or now,
        kind=kind,
        old_state=row.old,
        new_state=row.new,
        attempt=why.attempt,
        reason=why.code,
        reason_values=dict(why.values),
        actor_name=str(by or ""),
    )
