"""The verbs on jobs; every door (page, command, API, test) comes through here and says who is acting."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, OuterRef, Subquery
from django.utils.translation import gettext as _

from haein.cluster.backends.base import Backend, Capability
from haein.cluster.registry import backend
from haein.lib import clock, ids, live
from haein.lib.errors import Forbidden, Invalid, NotFound, Problem
from haein.placement.model import WHOLE
from haein.tenants import audit
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import arrays, explaining, indexes, limits, moves, preempting, wakeup, wording
from jobs.models import Attempt, Event, Job, Upload
from jobs.spec import Spec
from jobs.states import ENDED, OPEN, State
from jobs.states import Event as Kind


def get(job_id: UUID, *, scope: Scope) -> Job:
    """The job, if the reader may see it. Raises NotFound."""
    jobs = Job.objects.seen_by(scope).select_related("team__organization", "submitted_by", "upload")
    job: Job | None = jobs.filter(pk=job_id).first()
    if job is None:
        raise NotFound(_("There is no such job."))
    return job


def check(*, scope: Scope, spec: Spec) -> None:
    """Whether the spec would be accepted as things are now. Raises Invalid, Problem."""
    _may_change(scope.team.pk, scope)
    spec.check()
    _could_run(spec)
    limits.check(scope, spec)


def may_submit(scope: Scope) -> None:
    """Raises Forbidden for somebody who may only look."""
    _may_change(scope.team.pk, scope)


def submit(*, scope: Scope, spec: Spec, upload: Upload | None = None, cloned_from: Job | None = None) -> Job:
    """Write the wish down; everything after that is the queue's work. Of an array the first job is returned.

    Raises Invalid, Problem.
    """
    check(scope=scope, spec=spec)
    # Nothing in it is expected to fail, so a caller's own transaction needs no savepoint for it.
    with transaction.atomic(savepoint=False):
        return _submitted(scope, spec, upload, cloned_from)


def _submitted(scope: Scope, spec: Spec, upload: Upload | None, cloned_from: Job | None) -> Job:
    now = clock.now()
    columns = _columns(scope, spec, upload, cloned_from)
    jobs = [Job(**columns, **member, created_at=now, queued_at=now) for member in _members(spec)]
    Job.objects.bulk_create(jobs)
    who = str(scope.user)
    Event.objects.bulk_create(
        Event(job=job, at=now, kind="submit", new_state=State.QUEUED, reason="submitted", actor_name=who)
        for job in jobs
    )
    first = jobs[0]
    of_array = {"array": str(first.array), "jobs": len(jobs)} if first.array else {}
    _audited("job.submit", first, scope.user, name=first.name, **of_array)
    live.push(live.group("team", first.team_id))
    wakeup.soon()
    return first


def _members(spec: Spec) -> list[dict[str, Any]]:
    """What each job has of its own. Ids follow the indexes: jobs that were queued at once go by their ids."""
    every = indexes.read(spec.array)
    if not every:
        return [{"id": ids.new()}]
    array = ids.new()
    members = zip(sorted(ids.new() for _index in every), every, strict=True)
    return [{"id": pk, "array": array, "array_index": index} for pk, index in members]


def _columns(scope: Scope, spec: Spec, upload: Upload | None, cloned_from: Job | None) -> dict[str, Any]:
    """What all jobs of a spec have in common."""
    return {
        "team": scope.team,
        "submitted_by": scope.user,
        "cloned_from": cloned_from,
        "name": spec.name.strip(),
        "command": spec.command,
        "upload": upload,
        "variables": dict(spec.variables),
        "environment": spec.environment,
        "gpus": spec.gpus,
        "share": spec.share,
        "gpu_memory_mb": spec.gpu_memory_mb,
        "profile": spec.profile,
        "gpu_model": spec.gpu_model,
        "cpus": spec.cpus,
        "memory_mb": spec.memory_mb,
        "workers": spec.workers,
        "near": spec.near,
        "near_required": spec.near_required,
        "pool": spec.pool,
        "labels": sorted(set(spec.labels)),
        "time_limit_s": spec.time_limit_s,
        "retries": spec.retries,
        "priority": spec.priority,
        "preemption": spec.preemption,
        "checkpoints": spec.checkpoints,
        "requeue": spec.requeue,
        "tags": list(dict.fromkeys(spec.tags)),
        "reason": "new",
    }


@transaction.atomic
def cancel(job: Job, *, scope: Scope) -> None:
    """End it: at once while it waits, by a signal and a grace while it runs. Raises Problem when it has ended."""
    _may_change(job.team_id, scope)
    now, who = clock.now(), {"by": str(scope.user)}
    _audited("job.cancel", job, scope.user)
    if not Job.objects.filter(pk=job.pk, cancel_requested_at=None, state__in=["queued", "starting", "running"]).update(
        cancel_requested_at=now
    ):
        raise Problem(_("It has ended already, or somebody has asked for its end before."))
    # A queued job ends here and now; one that is starting or running ends when its process has (jobs/lifecycle.py).
    job.refresh_from_db(fields=["state"])
    if job.state == State.QUEUED:
        moves.apply(Kind.CANCEL, {job.pk: moves.Why("cancelled_queued", who)}, now=now, by=scope.user)
        return
    moves.note(job, moves.Why("cancel_asked", who), now=now, by=scope.user)
    wakeup.soon()


@transaction.atomic
def cancel_array(array_id: UUID, *, scope: Scope) -> int:
    """End all of its jobs that have not ended, each as `cancel` does; returns how many.

    Raises NotFound, Forbidden, and Problem when none is left.
    """
    array = arrays.get(array_id, scope=scope)
    _may_change(array.team_id, scope)
    jobs = _locked_open(array_id)
    if not jobs:
        raise Problem(_("All of its jobs have ended already, or somebody has asked for their end before."))
    now, who = clock.now(), {"by": str(scope.user)}
    told = {"name": array.name, "jobs": len(jobs)}
    audit.record("array.cancel", str(array_id), by=scope.user, organization_id=array.organization_id, **told)
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(cancel_requested_at=now)
    waiting = [job.pk for job in jobs if job.state == State.QUEUED]
    moves.apply(Kind.CANCEL, dict.fromkeys(waiting, moves.Why("cancelled_queued", who)), now=now, by=scope.user)
    asked = [(job, moves.Why("cancel_asked", who)) for job in jobs if job.state != State.QUEUED]
    moves.note_all(asked, now=now, by=scope.user)
    wakeup.soon()
    return len(jobs)


def _locked_open(array_id: UUID) -> list[Job]:
    """Those of its jobs that have not ended and were not asked to, whatever else is about to move them.

    What waits is locked in a pass's order, then what runs in the order of whoever observes it (jobs/lifecycle.py): two
    that lock many rows in different orders would stop each other.
    """
    run = Attempt.objects.filter(job=OuterRef("pk")).exclude(state=Attempt.State.ENDED)
    left = Job.objects.filter(array=array_id, cancel_requested_at=None, state__in=[str(state) for state in OPEN])
    ordered = left.annotate(run=Subquery(run.values("pk")[:1])).order_by(F("run").asc(nulls_first=True), "pk")
    return list(ordered.select_for_update(no_key=True).only("state", "team_id", "attempts_made"))


@transaction.atomic
def retry(job: Job, *, scope: Scope) -> None:
    """Run it again in the same folder, so that a checkpoint is found; what rests after a failure is tried at once.

    Raises Problem while it has not ended.
    """
    _may_change(job.team_id, scope)
    if job.imported_id:
        raise Problem(_("It was imported: what it ran is not on record. Clone it, and say what is to run."))
    if _hurry(job, scope.user):
        return
    why = moves.Why("retried", {"by": str(scope.user)})
    if not moves.apply(Kind.RETRY, {job.pk: why}, now=clock.now(), by=scope.user):
        raise Problem(_("It has not ended yet: cancel it first, or clone it."))
    Job.objects.filter(pk=job.pk).update(failures=0, not_before=None)
    _audited("job.retry", job, scope.user)
    wakeup.soon()


def _hurry(job: Job, by: User) -> bool:
    """End the rest that follows a failure, where there is one."""
    now = clock.now()
    if not Job.objects.filter(pk=job.pk, state=State.QUEUED, not_before__gt=now).update(not_before=None, reason="new"):
        return False
    job.refresh_from_db(fields=["state", "attempts_made"])
    moves.note(job, moves.Why("hurried", {"by": str(by)}), now=now, by=by)
    _audited("job.try_now", job, by)
    wakeup.soon()
    return True


def rests_until(job: Job) -> datetime | None:
    """Until when a failed job waits before it is tried again by itself; None for one that does not."""
    if job.state != State.QUEUED or job.not_before is None or job.not_before <= clock.now():
        return None
    return job.not_before


def spec_of(job: Job) -> Spec:
    """The spec that made the job, to begin another one with; of a member of an array, of it alone."""
    return Spec(
        name=job.name,
        command=job.command,
        environment=job.environment,
        variables=job.variables,
        gpus=job.gpus,
        share=job.share,
        gpu_memory_mb=job.gpu_memory_mb,
        profile=job.profile,
        gpu_model=job.gpu_model,
        cpus=job.cpus,
        memory_mb=job.memory_mb,
        workers=job.workers,
        near=job.near,
        near_required=job.near_required,
        pool=job.pool,
        labels=job.labels,
        time_limit_s=job.time_limit_s,
        retries=job.retries,
        priority=job.priority,
        preemption=job.preemption,
        checkpoints=job.checkpoints,
        requeue=job.requeue,
        tags=job.tags,
        array="" if job.array_index is None else str(job.array_index),
    )


def offers() -> explaining.Offers:
    """What a job may ask for by name here."""
    able = backend().capabilities
    return explaining.offers(instances=Capability.MIG in able, gangs=Capability.GANGS in able)


def why(job: Job) -> str:
    """Why the job is where it is, in the reader's language, with the numbers of this moment while it waits."""
    if job.reason == "resting" and (until := rests_until(job)):
        return wording.sentence("resting_until", {"at": preempting.said(until)})
    if job.state == State.QUEUED and job.reason in explaining.EXPLAINED:
        return explaining.explain(job)
    if job.is_active and job.cancel_requested_at:
        return _("Being cancelled: its processes were asked to end.")
    if job.state == State.STARTING and (says := _waits_for(job)):
        return wording.sentence("handed_over", {"says": says})
    return wording.sentence(job.reason, job.reason_values)


def _waits_for(job: Job) -> str:
    """What the engine that it was handed to says it waits for; "" where it says nothing."""
    waiting = job.attempts.filter(state=Attempt.State.STARTING).values_list("waits_for", flat=True)
    return waiting.first() or ""


def outlook(spec: Spec) -> tuple[str, str]:
    """For a job not yet submitted: when it would start as things are now, and why it would be refused ("" if not).

    Only what the spec asks of the cluster counts; it may have no name and no command yet.
    """
    faults = {**spec.slice_faults(), **_beyond(spec)}
    return ("", next(iter(faults.values()))) if faults else explaining.outlook(spec)


def quota_outlook(scope: Scope, spec: Spec) -> tuple[str, str]:
    """For a job not yet submitted: where its team would stand with it, and why a quota would refuse it ("" if none)."""
    try:
        limits.check(scope, spec)
    except Invalid as invalid:
        return "", invalid.message
    return limits.outlook(scope, spec, now=clock.now()), ""


def may_retry(job: Job, scope: Scope) -> bool:
    again = (job.state in ENDED and not job.imported_id) or rests_until(job) is not None
    return again and job.team_id in scope.writable


def _may_change(team_id: UUID, scope: Scope) -> None:
    if team_id not in scope.writable:
        raise Forbidden(_("You may look at this team's work but not change it. Ask a team admin for the member role."))


def _could_run(spec: Spec) -> None:
    """Refuse at the door what could never start, with the nearest that could."""
    here = backend()
    known = [environment.name for environment in here.environments()]
    is_image = "/" in spec.environment or ":" in spec.environment
    if is_image and Capability.CONTAINER_IMAGES not in here.capabilities:
        raise Invalid(
            {
                "environment": _("This cluster runs no container images. Choose one of its environments: %(known)s.")
                % {"known": ", ".join(known)}
            }
        )
    if not is_image and spec.environment not in known:
        fault = _("There is no such environment. Choose one of: %(known)s.") % {"known": ", ".join(known)}
        raise Invalid({"environment": fault})
    faults = _beyond(spec) or explaining.never_fits(spec)
    if faults:
        raise Invalid(faults)


def _beyond(spec: Spec) -> dict[str, str]:
    """What this cluster's backend can't do at all, by field."""
    able = backend().capabilities
    if spec.workers > 1 and Capability.GANGS not in able:
        return {"workers": _("This cluster starts one worker of a job. Ask for 1, or for more GPUs on it.")}
    if spec.profile and Capability.MIG not in able:
        return {"profile": _("This cluster gives no MIG instances. Ask for whole GPUs or a share of one.")}
    return {} if spec.share == WHOLE or not spec.gpus else _odd_share(spec, backend())


def _odd_share(spec: Spec, here: Backend) -> dict[str, str]:
    """A share that can't be had here: some clusters share no GPU, some only in so many parts."""
    step = here.share_step
    if Capability.FRACTIONS not in here.capabilities:
        return {"share": _("This cluster shares no GPUs among jobs. Ask for whole ones.")}
    if step == 1:
        return {}
    if spec.gpus > 1:
        return {"gpus": _("This cluster gives a worker a share of one GPU. Ask for 1, or for whole GPUs.")}
    if not spec.share % step:
        return {}
    below = spec.share // step * step
    nearest = [str(share) for share in (below, min(below + step, WHOLE)) if share]
    fault = _(
        "This cluster shares a GPU in parts of %(step)d of 1000. Nearest that fits: a share of %(nearest)s of 1000."
    )
    return {"share": fault % {"step": step, "nearest": _(" or ").join(nearest)}}


def _audited(action: str, job: Job, by: User, **detail: object) -> None:
    audit.record(action, str(job.pk), by=by, organization_id=job.team.organization_id, **detail)
