"""One decision pass: locks, takes a snapshot, asks placement for a plan, and writes it down by compare-and-swap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q, Sum
from django.utils.translation import gettext

from haein.cluster import inventory
from haein.cluster.models import Device, Node
from haein.lib import ids
from haein.placement import engine, sentences
from haein.placement.model import DeviceState, NodeState, Placement, Reason, Refusal, Request, Snapshot
from haein.tenants.models import Organization
from jobs import moves
from jobs.models import Allocation, Attempt, Job
from jobs.spec import Spec
from jobs.states import Event as Kind
from jobs.states import State

# How much of the queue one pass looks at; the rest waits its turn. A job that can't be placed costs about 10 us, or
# 0.3 ms when no other in the queue has its shape.
LOOK_AHEAD = 500
# All that a pass needs of a job: whole rows, commands and variables included, would take twice the time.
_LOOKED_AT = (
    *("gpus", "share", "cpus", "memory_mb", "environment", "reason", "attempts_made"),
    *("team__organization__standing",),
)
# Any number that nothing else in this database locks.
_PASS_LOCK = 0x4A0B5
CAPACITY_AGE_S = 2.0
_capacity: tuple[Snapshot | None, int, float] = (None, 0, 0.0)
# The classes of reason that explain() turns into the numbers of the moment.
EXPLAINED = frozenset({"no_capacity", "out_of_service", "never_fits"})


def snapshot() -> Snapshot:
    """The cluster as the rows say it is now, in four queries."""
    units: dict[int, int] = dict(
        Allocation.objects.filter(ended_at=None).values_list("device_id").annotate(Sum("units")).order_by()
    )
    return _snapshot(units, used_by_node())


def _snapshot(units: Mapping[int, int], used: Mapping[int, tuple[int, int]]) -> Snapshot:
    devices: dict[int, list[Device]] = {}
    for device in Device.objects.select_related("node", "model").order_by("node__name", "index"):
        devices.setdefault(device.node_id, []).append(device)
    nodes = Node.objects.order_by("name")
    return Snapshot(tuple(_node(node, devices.get(node.pk, []), units, *used.get(node.pk, (0, 0))) for node in nodes))


@dataclass(frozen=True, slots=True)
class Occupied:
    """A node as full as it is: CPUs (thousandths of a core) and memory (MiB) in use, and who holds its devices."""

    node: Node
    cpus: int
    memory_mb: int
    devices: list[tuple[Device, list[Allocation]]]


def occupied() -> list[Occupied]:
    """Every node with its present devices and all that is held of them, in four queries.

    It names the holders of all teams: whoever shows it says only to the holders' own teams who they are.
    """
    held: dict[int, list[Allocation]] = {}
    for allocation in Allocation.objects.filter(ended_at=None).select_related("attempt__job").order_by("id"):
        held.setdefault(allocation.device_id, []).append(allocation)
    devices: dict[int, list[tuple[Device, list[Allocation]]]] = {}
    for device in Device.objects.select_related("model").filter(present=True).order_by("index"):
        devices.setdefault(device.node_id, []).append((device, held.get(device.pk, [])))
    used = used_by_node()
    return [
        Occupied(node, *used.get(node.pk, (0, 0)), devices.get(node.pk, [])) for node in Node.objects.order_by("name")
    ]


def used_by_node() -> dict[int, tuple[int, int]]:
    """CPUs (thousandths of a core) and memory (MiB) that attempts hold on each node."""
    rows = Attempt.objects.exclude(state=Attempt.State.ENDED).values_list("node_id")
    return {node: (cpus, memory) for node, cpus, memory in rows.annotate(Sum("cpus"), Sum("memory_mb")).order_by()}


def _node(node: Node, devices: list[Device], units: Mapping[int, int], cpus: int, memory_mb: int) -> NodeState:
    # A machine may shrink under running work: what is free is never less than nothing.
    return NodeState(
        id=node.pk,
        name=node.name,
        cpus=node.cpus,
        memory_mb=node.memory_mb,
        free_cpus=max(0, node.cpus - cpus),
        free_memory_mb=max(0, node.memory_mb - memory_mb),
        usable=node.present,
        devices=tuple(
            DeviceState(
                id=device.pk,
                node=node.name,
                model=device.model.name,
                capacity=device.capacity,
                free=max(0, device.capacity - units.get(device.pk, 0)),
                usable=device.usable,
            )
            for device in devices
        ),
    )


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
    plan = engine.plan(snapshot(), [_request(job) for job in queue if job.pk not in held])
    placed = _start(plan.placements, jobs, now)
    _write_reasons({**held, **{_uuid(refusal): _class(refusal) for refusal in plan.refusals}}, jobs)
    return placed


def _gate(job: Job, ready: frozenset[str]) -> str:
    """Why the job may not be looked at yet, as a code of wording; "" when it may."""
    if job.team.organization.standing == Organization.Standing.SUSPENDED:
        return "suspended"
    if job.environment not in ready:
        return "environment"
    return ""


def _request(job: Job | Spec, id: UUID | None = None) -> Request:
    return Request(
        id=job.pk if isinstance(job, Job) else id or ids.new(),
        gpus=job.gpus,
        share=job.share,
        cpus=job.cpus,
        memory_mb=job.memory_mb,
    )


def _uuid(refusal: Refusal) -> UUID:
    assert isinstance(refusal.request_id, UUID)
    return refusal.request_id


def _class(refusal: Refusal) -> str:
    return {
        Reason.NO_CAPACITY_NOW: "no_capacity",
        Reason.OUT_OF_SERVICE: "out_of_service",
        Reason.NEVER_FITS: "never_fits",
    }[refusal.reason]


def _start(placements: Iterable[Placement], jobs: Mapping[UUID, Job], now: datetime) -> int:
    """Attempt and allocations are made with the move, in this transaction, only for the jobs that moved."""
    # Ids are opaque to placement; here they are those of our own rows.
    by_job: dict[Any, Placement] = {placement.request_id: placement for placement in placements}
    devices = Device.objects.select_related("node").in_bulk(
        [grant.device_id for placement in by_job.values() for grant in placement.grants]
    )
    nodes = Node.objects.in_bulk([placement.node_id for placement in by_job.values()])
    reasons = {
        jobs[job_id].pk: moves.Why(
            "placed",
            {"where": _where(nodes[placement.node_id], [devices[grant.device_id] for grant in placement.grants])},
            attempt=jobs[job_id].attempts_made + 1,
        )
        for job_id, placement in by_job.items()
    }
    winners = [row.id for row in moves.apply(Kind.PLACE, reasons, now=now)]
    attempts = {job_id: _attempt(jobs[job_id], by_job[job_id], now) for job_id in winners}
    Attempt.objects.bulk_create(attempts.values())
    Allocation.objects.bulk_create(
        Allocation(attempt=attempts[job_id], device_id=cast(int, grant.device_id), units=grant.units, held_from=now)
        for job_id in winners
        for grant in by_job[job_id].grants
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


def _where(node: Node, devices: list[Device]) -> str:
    return ", ".join(str(device) for device in devices) or node.name


def _write_reasons(codes: Mapping[UUID, str], jobs: Mapping[UUID, Job]) -> None:
    """Only when the class of reason changes: a thousand waiting jobs cost nothing while they wait."""
    changed: dict[str, list[UUID]] = {}
    for job_id, code in codes.items():
        if jobs[job_id].reason != code:
            changed.setdefault(code, []).append(job_id)
    for code, job_ids in changed.items():
        Job.objects.filter(pk__in=job_ids, state=State.QUEUED).update(reason=code, reason_values={})
    moves.announce((pk, jobs[pk].team_id) for job_ids in changed.values() for pk in job_ids)


def explain(job: Job) -> str:
    """Why a waiting job waits, with the numbers of this moment."""
    plan = engine.plan(snapshot(), [_request(job)])
    if plan.placements:
        return gettext("There is room for it: it starts with the next look at the queue.")
    return _sentence(plan.refusals[0])


def capacity() -> Snapshot:
    """The cluster as if nothing ran on it; up to a few seconds old, since many submits ask for nothing else."""
    global _capacity
    known, report, seen = _capacity
    if known is None or report != inventory.reports or time.monotonic() - seen > CAPACITY_AGE_S:
        known = _snapshot({}, {})
        _capacity = known, inventory.reports, time.monotonic()
    return known


def never_fits(spec: Spec) -> dict[str, str] | None:
    """The fields at fault, each with a sentence, when the cluster could never run the spec; else None."""
    now = capacity()
    if not now.nodes:
        return None  # nothing has reported yet: it waits, and says so
    refusal = engine.ever_fits(now, _request(spec))
    if refusal is None or refusal.reason is not Reason.NEVER_FITS:
        return None
    field = {
        sentences.Code.TOO_MANY_CPUS: "cpus",
        sentences.Code.TOO_MANY_CPUS_BESIDE_GPUS: "cpus",
        sentences.Code.TOO_MUCH_MEMORY: "memory_mb",
    }.get(refusal.code, "gpus")
    return {field: _sentence(refusal)}


def outlook(spec: Spec) -> tuple[str, str]:
    """When the spec would start as things are now, and why it would be refused at submit ("" if it would not)."""
    try:
        request = _request(spec)
    except ValueError as fault:
        return "", str(fault)
    now = snapshot()
    never = engine.ever_fits(now, request)
    if never and never.reason is Reason.NEVER_FITS and now.nodes:
        return "", _sentence(never)
    plan = engine.plan(now, [request])
    if plan.placements:
        return gettext("Room is free: it would start at once."), ""
    return gettext("It would wait. %(why)s") % {"why": _sentence(plan.refusals[0])}, ""


def ahead(job: Job) -> int:
    """How many waiting jobs are looked at before this one."""
    earlier = Q(priority__gt=job.priority) | Q(priority=job.priority, queued_at__lt=job.queued_at)
    return int(Job.objects.filter(earlier, state=State.QUEUED).count())


def _sentence(refusal: Refusal) -> str:
    return gettext(sentences.TEMPLATES[refusal.code]) % refusal.params
