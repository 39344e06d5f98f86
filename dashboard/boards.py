"""The contexts of everything that moves: one function a fragment, used by the page at first and by its socket later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any

from django.conf import settings
from django.db.models import Count, Prefetch, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from billing import statements
from dashboard import present, queues
from haein.cluster.models import Device
from haein.lib import money
from haein.tenants.scope import Scope
from jobs import arrays, services, wording
from jobs.arrays import Array
from jobs.models import STATE_NAMES, Allocation, Attempt, Job, Worker
from jobs.spec import Spec
from jobs.states import ENDED, State

SHOWN = 8
# Of a gang; the others are counted.
NODES_NAMED = 4


def overview(scope: Scope, *, now: datetime) -> dict[str, Any]:
    """What the reader's teams run, wait for and spend at this moment."""
    # The jobs of an array were made at one moment: without their ids a list would be in another order each time.
    jobs = Job.objects.seen_by(scope).select_related("submitted_by")
    counts: dict[str, int] = dict(
        Job.objects.seen_by(scope)
        .filter(state__in=[State.QUEUED, State.STARTING, State.RUNNING])
        .values_list("state")
        .annotate(Count("id"))
        .order_by()
    )
    running = list(jobs.filter(state__in=[State.STARTING, State.RUNNING]).order_by("-created_at", "id")[:SHOWN])
    waiting = list(jobs.filter(state=State.QUEUED).order_by("-priority", "queued_at", "id")[:SHOWN])
    recent = list(jobs.filter(state__in=[s.value for s in ENDED]).order_by("-created_at", "-id")[:SHOWN])
    rows = {row.id: row for row in present.job_rows([*running, *waiting, *recent], now=now)}
    return {
        "figures": _figures(scope, counts, now),
        "running": [rows[job.pk] for job in running],
        "waiting": [rows[job.pk] for job in waiting],
        "recent": [rows[job.pk] for job in recent],
    }


def _figures(scope: Scope, counts: Mapping[str, int], now: datetime) -> list[dict[str, str]]:
    mine = Allocation.objects.seen_by(scope).filter(ended_at=None).aggregate(all=Sum("weight"))["all"] or 0
    devices = Device.objects.filter(present=True, problem="").count()
    today, month = statements.spent(scope, now=now)
    active = counts.get(State.RUNNING, 0) + counts.get(State.STARTING, 0)
    return [
        _figure(
            _("GPUs in use"),
            f"{mine / 1000:g}",
            _("of %(all)s in the cluster") % {"all": devices},
        ),
        _figure(_("Running"), str(active), _("jobs of your team")),
        _figure(_("Waiting"), str(counts.get(State.QUEUED, 0)), _("in the queue")),
        _figure(_("Per hour now"), present.amount(statements.burning(scope, now=now)), _("what runs costs")),
        _figure(_("Spent today"), present.amount(today), _("since midnight, UTC")),
        _figure(_("This month"), present.amount(month), _("since the first, UTC")),
    ]


def _figure(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def job_head(job: Job, scope: Scope, *, now: datetime) -> dict[str, Any]:
    attempts = _attempts(job, scope)
    return {
        "job": present.job_row(job, 0, reason=services.why(job)),
        "member": _member(job),
        "elapsed": present.elapsed(job.started_at, job.ended_at, now),
        "standing": queues.of_job(job, scope, now=now) if job.state == State.QUEUED else None,
        "cancelling": bool(job.is_open and job.cancel_requested_at),
        "may_change": job.team_id in scope.writable,
        "may_cancel": job.team_id in scope.writable and job.is_open and not job.cancel_requested_at,
        "may_retry": services.may_retry(job, scope),
        "attempts": [_attempt(row, now) for row in attempts],
        "notice": _notice(job, attempts[0]) if attempts else None,
    }


def _member(job: Job) -> dict[str, Any] | None:
    """Where it stands in its array, and the jobs beside it."""
    place = arrays.place(job)
    if place is None:
        return None
    return {
        "number": place.number,
        "size": place.size,
        "index": place.index,
        "url": present.array_url(place.id),
        "previous": present.job_url(place.previous) if place.previous else "",
        "next": present.job_url(place.next) if place.next else "",
    }


def array(found: Array, scope: Scope) -> dict[str, Any]:
    """The head of an array's list."""
    return {
        "id": found.id,
        "short": found.short_id,
        "name": found.name,
        "size": found.size,
        "ended": found.ended,
        "created": found.created_at,
        "states": [
            {"state": state.value, "state_name": STATE_NAMES[state], "tone": present.TONES[state], "count": count}
            for state, count in found.states.items()
        ],
        "cancellable": found.cancellable if found.team_id in scope.writable else 0,
    }


def _notice(job: Job, newest: Attempt) -> dict[str, Any] | None:
    """That it must yield, while it has not ended; without a word on who needs its room."""
    if not job.is_active or newest.preempt_at is None:
        return None
    return {
        "at": newest.preempt_at,
        "why": wording.sentence(newest.preempt_code, newest.preempt_values),
        "checkpoints": job.checkpoints,
        "requeue": job.requeue,
        "saved": newest.checkpoint_at,
        "told": newest.warned_at is not None,
        "guaranteed": newest.guaranteed,
    }


def _attempts(job: Job, scope: Scope) -> list[Any]:
    rows = Attempt.objects.seen_by(scope).filter(job=job).select_related("node").order_by("-number")[:50]
    return list(rows.prefetch_related(Prefetch("workers", Worker.objects.seen_by(scope).select_related("node"))))


def _attempt(row: Any, now: datetime) -> dict[str, Any]:
    nodes = list(dict.fromkeys([row.node.name, *(worker.node.name for worker in row.workers.all())]))
    return {
        "id": str(row.pk),
        "number": row.number,
        "state": Attempt.State(row.state).label,
        "nodes": nodes[:NODES_NAMED],
        "others": len(nodes) - len(nodes[:NODES_NAMED]),
        "placed": row.placed_at,
        "started": row.started_at,
        "ended": row.ended_at,
        "elapsed": present.elapsed(row.started_at, row.ended_at, now),
        "outcome": row.detail or row.cause,
    }


def job_cost(job: Job, *, now: datetime) -> dict[str, Any]:
    """Seconds x share x price, line by line, so that anyone can check the sum."""
    cost = statements.of_job(job, now=now)
    return {
        "cost": {
            "total": present.amount(cost.total),
            "micro": cost.total,
            "rate": present.amount(cost.per_hour) if cost.per_hour else "",
            "seconds": sum(line.seconds for line in cost.lines),
            "notes": _borne(cost),
            "lines": [_cost_line(alike) for alike in _alike(cost.lines)],
        }
    }


def _borne(cost: statements.Cost) -> list[str]:
    """What the operator bears."""
    notes = [_("Not charged: the time that the operator's machine spoiled.")] if cost.waived else []
    if cost.credited_s:
        notes.append(
            _("Not charged: %(span)s of work that it lost as it had to yield inside its team's guarantee.")
            % {"span": present.span(cost.credited_s)}
        )
    return notes


def _alike(lines: Iterable[statements.CostLine]) -> Iterable[list[statements.CostLine]]:
    """The lines of a gang's slices, hundreds of them maybe, are one line where they say the same."""
    found: dict[tuple[object, ...], list[statements.CostLine]] = {}
    for line in lines:
        found.setdefault((line.model, line.profile, line.units, line.seconds, line.per_hour), []).append(line)
    return found.values()


def _cost_line(alike: list[statements.CostLine]) -> dict[str, Any]:
    first, more = alike[0], len(alike) - 1
    device = first.device
    if more:
        device = ngettext("%(device)s and %(more)d more", "%(device)s and %(more)d more", more) % {
            "device": device,
            "more": more,
        }
    return {
        "device": device,
        "model": " · ".join(part for part in (first.model, first.profile) if part),
        "times": len(alike),
        "share": present.percent(first.units),
        "seconds": first.seconds,
        "span": present.span(first.seconds),
        "price": present.amount(first.per_hour, fine=False),
        "amount": present.amount(round(sum(line.amount for line in alike))),
    }


def job_events(job: Job) -> dict[str, Any]:
    rows = reversed(job.events.order_by("-id")[:200])
    return {
        "events": [
            {
                "at": event.at,
                "kind": event.kind,
                "text": wording.sentence(event.reason, event.reason_values),
                "actor": event.actor_name,
                "attempt": event.attempt,
                "tone": present.TONES[State(event.new_state)],
            }
            for event in rows
        ]
    }


def quote(spec: Spec, *, now: datetime) -> dict[str, Any]:
    """The price before the button: of one job for an hour, and of all at most, should they run to their limit."""
    hour = statements.quote(spec, now=now)
    return {
        "per_hour": _range(hour.least, hour.most),
        "at_most": present.amount(money.round_half_even(Fraction(hour.most * spec.time_limit_s * spec.jobs, 3600))),
        "jobs": spec.jobs,
        "models": ", ".join(hour.models),
        "currency": settings.HAEIN_CURRENCY,
    }


def _range(least: int, most: int) -> str:
    if least == most:
        return present.amount(most)
    return _("%(least)s to %(most)s") % {"least": present.amount(least), "most": present.amount(most)}
