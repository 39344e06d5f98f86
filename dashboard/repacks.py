"""What the page of repacks shows: the proposal or the one under way, with its moves, and those before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard import present
from haein.tenants.models import User
from jobs import repacks
from jobs.models import Attempt, Job, Repack
from jobs.repacks import Plan, Step

PAST = 10
OPEN = (Repack.State.PROPOSED, Repack.State.MOVING)
# The icon of a job's state that says the same, and the tone.
LOOKS = {
    Repack.State.PROPOSED: ("queued", "waiting"),
    Repack.State.MOVING: ("running", "active"),
    Repack.State.DONE: ("succeeded", "good"),
    Repack.State.FAILED: ("failed", "bad"),
    Repack.State.REJECTED: ("cancelled", "quiet"),
    Repack.State.OUTDATED: ("cancelled", "quiet"),
}
STEPS = {
    Step.LEAVES: ("running", "waiting", gettext_lazy("Saves its work")),
    Step.WAITS: ("queued", "waiting", gettext_lazy("Waits for its place")),
    Step.STARTS: ("starting", "active", gettext_lazy("Starts")),
    Step.RUNS: ("succeeded", "good", gettext_lazy("Runs")),
    Step.ENDED: ("succeeded", "good", gettext_lazy("Ended by itself")),
    Step.STOPPED: ("failed", "bad", gettext_lazy("Ended")),
    Step.LOST: ("failed", "bad", gettext_lazy("Lost its place")),
}


def page(by: User, *, now: datetime) -> dict[str, Any]:
    """Nine queries or so; `by` is an operator."""
    found = repacks.newest(by=by)
    current = found.filter(state__in=OPEN).first()
    past = [_past(row) for row in found.exclude(state__in=OPEN)[:PAST]]
    return {"repack": _open(current, now) if current else None, "past": past}


def _open(row: Repack, now: datetime) -> dict[str, Any]:
    plan = Plan.of(row)
    moving = row.state == Repack.State.MOVING
    steps = repacks.steps(row) if moving else {}
    rows = repacks.moving(plan)
    moves = [_move(move, rows[pk], steps) for pk, move in plan.by_attempt.items()]
    return {
        "id": row.pk,
        **_head(row),
        "moving": moving,
        "where": plan.where,
        "step": _pill(steps.get(row.job_id)),
        "figures": _figures(row, len(moves)),
        "moves": moves,
        "made": row.made_at,
        "by": str(row.decided_by or ""),
        "decided": row.decided_at,
        "notice": present.span(settings.HAEIN_PREEMPTION_NOTICE_SECONDS),
        "done": sum(step.done for step in steps.values()),
        "all": len(steps),
    }


def _head(row: Repack) -> dict[str, Any]:
    icon, tone = LOOKS[Repack.State(row.state)]
    return {
        "pill": {"state": icon, "tone": tone, "state_name": Repack.State(row.state).label},
        "state": row.state,
        "job": _named(row.job),
        "shape": present.shape(row.job),
        "queued": row.job.queued_at,
    }


def _named(job: Job) -> dict[str, Any]:
    """An operator may know of every job; its page is its own team's."""
    return {"name": job.name, "short": job.short_id, "team": job.team.name}


def _move(move: repacks.Move, attempt: Attempt, steps: Mapping[UUID, Step]) -> dict[str, Any]:
    return {
        "job": _named(attempt.job),
        "shape": present.shape(attempt.job),
        "old": move.old,
        "new": move.new,
        "saved": attempt.checkpoint_at,
        "lost": _minutes(move.lost_s),
        "ends": attempt.preempt_at if steps.get(attempt.job_id) is Step.LEAVES else None,
        "step": _pill(steps.get(attempt.job_id)),
    }


def _pill(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    icon, tone, name = STEPS[step]
    return {"state": icon, "tone": tone, "state_name": name}


def _figures(row: Repack, moves: int) -> list[tuple[str, str, str]]:
    lost, gained = _minutes(row.lost_s), f"{row.gained_s / 3600:,.1f}"
    return [
        (_("Jobs that move"), str(moves), ngettext("it restarts", "they restart", moves)),
        (_("GPU-minutes lost"), lost, _("work since the last checkpoints, and restarts")),
        (_("GPU-hours gained"), gained, _("GPUs of the waiting job × the wait it is spared")),
    ]


def _minutes(seconds: int) -> str:
    return f"{seconds / 60:,.1f}"


def _past(row: Repack) -> dict[str, Any]:
    return {
        **_head(row),
        "id": row.pk,
        "moves": len(Plan.of(row).moves),
        "lost": _minutes(row.lost_s),
        "gained": f"{row.gained_s / 3600:,.1f}",
        "ended": row.ended_at,
        "by": str(row.decided_by or ""),
        "problem": row.problem,
    }
