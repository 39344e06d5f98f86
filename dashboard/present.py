"""Turns rows into what a page shows: words, shapes, amounts; no decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from billing import statements
from haein.lib import clock, money
from haein.placement.model import Request
from jobs import wording
from jobs.models import STATE_NAMES, Job
from jobs.spec import Near, Preemption
from jobs.states import State

TONES = {
    State.QUEUED: "waiting",
    State.STARTING: "active",
    State.RUNNING: "active",
    State.SUCCEEDED: "good",
    State.FAILED: "bad",
    State.CANCELLED: "quiet",
    State.TIMED_OUT: "bad",
}


NEARNESS = {
    Near.ANY: "",
    Near.NODE: gettext_lazy("on one node"),
    Near.RACK: gettext_lazy("in one rack"),
    Near.POD: gettext_lazy("in one pod"),
}


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as every list shows it."""

    id: UUID
    short: str
    name: str
    url: str
    state: str
    state_name: str
    tone: str
    by: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    shape: str
    cost: str
    reason: str
    tags: Sequence[str]
    priority: int
    index: int | None
    array_url: str


def job_row(job: Job, cost: int, *, reason: str | None = None) -> JobRow:
    return JobRow(
        id=job.pk,
        short=job.short_id,
        name=job.name,
        url=job_url(job.pk),
        state=job.state,
        state_name=str(STATE_NAMES[State(job.state)]),
        tone=TONES[State(job.state)],
        by=str(job.submitted_by),
        created=job.created_at,
        started=job.started_at,
        ended=job.ended_at,
        shape=shape(job),
        cost=amount(cost),
        reason=wording.sentence(job.reason, job.reason_values) if reason is None else reason,
        tags=job.tags,
        priority=job.priority,
        index=job.array_index,
        array_url=array_url(job.array) if job.array else "",
    )


def job_rows(jobs: Iterable[Job], *, now: datetime) -> list[JobRow]:
    """Rows for a list, their costs fetched together."""
    found = list(jobs)
    costs: Mapping[UUID, int] = statements.of_jobs([job.pk for job in found], now=now) if found else {}
    return [job_row(job, costs[job.pk]) for job in found]


def job_url(job_id: UUID) -> str:
    return reverse("job", args=[job_id])


def array_url(array_id: UUID) -> str:
    return f"{reverse('jobs')}?array={array_id}"


def shape(job: Job) -> str:
    """What it asks for in a few words: 4 × 8 GPUs, 2 × 1g.23gb, 1 × 25 % GPU."""
    each = slices(job)
    return each if job.workers == 1 else f"{job.workers} × ({each})"


def slices(asked: Job | Request) -> str:
    """What is asked for on one node."""
    if not asked.gpus:
        return _("CPU only")
    if asked.profile:
        return f"{asked.gpus} × {asked.profile}"
    if asked.share == 1000:
        return ngettext("%(gpus)d GPU", "%(gpus)d GPUs", asked.gpus) % {"gpus": asked.gpus}
    return _("%(gpus)d × %(share)s GPU") % {"gpus": asked.gpus, "share": percent(asked.share)}


def workers(job: Job) -> str:
    """How many start together and how near each other; "" for one."""
    if job.workers == 1:
        return ""
    count = ngettext("%(count)d worker", "%(count)d workers", job.workers) % {"count": job.workers}
    near = NEARNESS[Near(job.near)]
    if not near:
        return count
    needed = _("required") if job.near_required else _("if possible")
    return f"{count}, {near} ({needed})"


def yields(job: Job) -> str:
    """Whether others may take its place, and what then."""
    if job.preemption == Preemption.NEVER:
        when = _("never to others")
    elif job.preemption == Preemption.SPOT:
        when = _("first of all")
    else:
        when = _("borrowed GPUs")
    saves = _("saves its work when signalled") if job.checkpoints else _("is not signalled before")
    return ", ".join([when, saves, _("waits again") if job.requeue else _("then ends")])


def percent(thousandths: int) -> str:
    return f"{thousandths / 10:g} %"


def cores(thousandths: int) -> str:
    return f"{thousandths / 1000:g}"


def memory(mb: int) -> str:
    return f"{round(mb / 1024, 1):g} GiB" if mb >= 1024 else f"{mb} MiB"


def span(seconds: int) -> str:
    """Seconds as people say them, exact: 1 d 2 h 3 min 4 s."""
    units = [(86_400, _("d")), (3600, _("h")), (60, _("min")), (1, _("s"))]
    parts = []
    for size, name in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts) or f"0 {_('s')}"


def elapsed(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """Counted as the bill counts: from whole second to whole second."""
    if start is None:
        return ""
    return span(max(0, clock.whole_seconds(end or now) - clock.whole_seconds(start)))


def amount(micro: int, *, fine: bool = True) -> str:
    """Small amounts with two digits more than the currency has, so that a minute of a slice is not shown as nothing."""
    cent = money.MICRO // 10 ** money.digits(settings.HAEIN_CURRENCY)
    extra = 2 if fine and abs(micro) < 1000 * cent and micro % cent else 0
    return money.text(micro, settings.HAEIN_CURRENCY, extra=extra)
