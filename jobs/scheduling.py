"""One decision pass: locks, takes a snapshot, asks placement for a plan, and writes it down by compare-and-swap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, cast
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F

from haein.cluster.models import Device, Node
from haein.placement import engine, weights
from haein.placement.model import Carving, Grant, Placement, Reason, Refusal
from haein.tenants.models import Organization
from jobs import moves, requests, settling, snapshots
from jobs.models import Allocation, Attempt, Job, Worker
from jobs.states import Event as Kind
from jobs.states import State

# How much of the queue one pass looks at; the rest waits its turn. A job that can't be placed costs about 10 us,
# more where no other in the queue has its shape.
LOOK_AHEAD = 500
# All that a pass needs of a job: whole rows, commands and variables included, would take twice the time.
_LOOKED_AT = (*requests.COLUMNS, "environment", "reason", "attempts_made", "team__organization__standing")
# Any number that nothing else in this database locks.
_PASS_LOCK = 0x4A0B5
# How many workers of a gang, and carved devices, an event names one by one.
MOST_NAMED = 8


@transaction.atomic
def run_pass(*, now: datetime, ready: frozenset[str]) -> int:
    """Place what can be placed; returns how many. `ready` are the environments that can be used now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PASS_LOCK])
    queue = list(
        Job.objects.filter(state=State.QUEUED)
        .select_related("team__organization")
        .only(*_LOOKED_AT)
        .order_by(F("priority").desc(), "queued_at", "id")[:LOOK_AHEAD]
    )
    if not queue:
        return 0
    held = {job.pk: code for job in queue if (code := _gate(job, ready))}
    jobs = {job.pk: job for job in queue}
    policy, mix = settling.current()
    asked = [requests.of(requests.columns(job), job.pk) for job in queue if job.pk not in held]
    plan = engine.plan(snapshots.now(), asked, policy, mix, explained=False)
    placed = _start(plan.placements, plan.carvings, jobs, now)
    _write_reasons({**held, **{_uuid(refusal): _class(refusal) for refusal in plan.refusals}}, jobs)
    return placed


def _gate(job: Job, ready: frozenset[str]) -> str:
    """Why the job may not be looked at yet, as a code of wording; "" when it may."""
    if job.team.organization.standing == Organization.Standing.SUSPENDED:
        return "suspended"
    if job.environment not in ready:
        return "environment"
    return ""


def _uuid(refusal: Refusal) -> UUID:
    assert isinstance(refusal.request_id, UUID)
    return refusal.request_id


def _class(refusal: Refusal) -> str:
    return {
        Reason.NO_CAPACITY_NOW: "no_capacity",
        Reason.OUT_OF_SERVICE: "out_of_service",
        Reason.NEVER_FITS: "never_fits",
    }[refusal.reason]


def _start(
    placements: Iterable[Placement], carvings: Iterable[Carving], jobs: Mapping[UUID, Job], now: datetime
) -> int:
    """Attempt and allocations are made with the move, in this transaction, only for the jobs that moved."""
    # Ids are opaque to placement; here they are those of our own rows.
    by_job: dict[Any, list[Placement]] = {}
    for placement in placements:
        by_job.setdefault(placement.request_id, []).append(placement)
    placed = [placement for workers in by_job.values() for placement in workers]
    devices = Device.objects.select_related("node", "model").in_bulk(
        [grant.device_id for placement in placed for grant in placement.grants]
    )
    nodes = Node.objects.in_bulk([placement.node_id for placement in placed])
    carved = {carving.device_id: carving for carving in carvings}
    reasons = {
        job_id: _why_placed(workers, nodes, devices, carved, attempt=jobs[job_id].attempts_made + 1)
        for job_id, workers in by_job.items()
    }
    winners = [row.id for row in moves.apply(Kind.PLACE, reasons, now=now)]
    attempts = {job_id: _attempt(jobs[job_id], by_job[job_id][0], now) for job_id in winners}
    won = [(attempts[job_id], placement) for job_id in winners for placement in by_job[job_id]]
    Attempt.objects.bulk_create(attempts.values())
    Worker.objects.bulk_create(
        Worker(attempt=attempt, rank=placement.member, node_id=cast(int, placement.node_id))
        for attempt, placement in won
        if placement.member
    )
    Allocation.objects.bulk_create(
        allocation(attempt, placement, grant, devices[cast(int, grant.device_id)], now)
        for attempt, placement in won
        for grant in placement.grants
    )
    Job.objects.filter(pk__in=winners).update(attempts_made=F("attempts_made") + 1)
    return len(winners)


def _attempt(job: Job, placement: Placement, now: datetime) -> Attempt:
    return Attempt(
        job=job,
        number=job.attempts_made + 1,
        node_id=cast(int, placement.node_id),
        cpus=job.cpus,
        memory_mb=job.memory_mb,
        placed_at=now,
    )


def allocation(attempt: Attempt, placement: Placement, grant: Grant, device: Device, now: datetime) -> Allocation:
    """What was granted of the device, as it is written down."""
    return Allocation(
        attempt=attempt,
        rank=placement.member,
        device=device,
        units=grant.units,
        memory=grant.memory,
        profile=grant.profile,
        start=grant.start if grant.profile else None,
        weight=weights.of_grant(grant, device.model.name, device.model.memory_mb),
        held_from=now,
    )


def _why_placed(
    workers: list[Placement],
    nodes: Mapping[int, Node],
    devices: Mapping[int, Device],
    carved: Mapping[Any, Carving],
    *,
    attempt: int,
) -> moves.Why:
    """Where it goes, and what is carved for it."""
    values = {"where": where(workers, nodes, devices)}
    # A device that is carved for two of its workers is said once.
    held = dict.fromkeys(grant.device_id for placement in workers for grant in placement.grants)
    touched = [device_id for device_id in held if device_id in carved]
    if not touched:
        return moves.Why("placed", values, attempt=attempt)
    sentences_of = [carved[device_id].sentence for device_id in touched[:MOST_NAMED]]
    return moves.Why("placed_carving", {**values, "carved": "; ".join(sentences_of)}, attempt=attempt)


def where(workers: Sequence[Placement], nodes: Mapping[Any, Node], devices: Mapping[Any, Device]) -> str:
    """The nodes and slices that the workers were given; of a large gang only the first few."""
    named = [_where(nodes, devices, placement) for placement in workers[:MOST_NAMED]]
    more = [f"(+{len(workers) - MOST_NAMED})"] if len(workers) > MOST_NAMED else []
    return "; ".join([*named, *more])


def _where(nodes: Mapping[Any, Node], devices: Mapping[Any, Device], placement: Placement) -> str:
    """n017, n017/gpu3, n017/gpu0-7, or n017/gpu3 (3g.90gb)."""
    node = nodes[placement.node_id].name
    profile = next((grant.profile for grant in placement.grants), "")
    indexes = sorted(devices[grant.device_id].index for grant in placement.grants)
    if not indexes:
        return node
    where = f"{node}/gpu{','.join(_spans(indexes))}"
    return f"{where} ({profile})" if profile else where


def _spans(numbers: Sequence[int]) -> list[str]:
    """0-2, 5 for 0, 1, 2, 5: `numbers` sorted, each once."""
    # Numbers that follow each other are all as far from their places in the list.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def _write_reasons(codes: Mapping[UUID, str], jobs: Mapping[UUID, Job]) -> None:
    """Only when the class of reason changes: a thousand waiting jobs cost nothing while they wait."""
    changed: dict[str, list[UUID]] = {}
    for job_id, code in codes.items():
        if jobs[job_id].reason != code:
            changed.setdefault(code, []).append(job_id)
    for code, job_ids in changed.items():
        Job.objects.filter(pk__in=job_ids, state=State.QUEUED).update(reason=code, reason_values={})
    moves.announce((pk, jobs[pk].team_id) for job_ids in changed.values() for pk in job_ids)
