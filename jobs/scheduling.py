"""One decision pass: locks, takes a snapshot, asks placement for a plan, and writes it down by compare-and-swap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any, cast
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q, Sum
from django.utils.translation import gettext

from haein.cluster import inventory
from haein.cluster.models import Device, DeviceModel, Node
from haein.lib import ids
from haein.placement import engine, mig, sentences, weights
from haein.placement.model import (
    WHOLE,
    Carving,
    DeviceState,
    Gang,
    Grant,
    Instance,
    Near,
    NodeState,
    Placement,
    Reason,
    Refusal,
    Request,
    Snapshot,
)
from haein.tenants.models import Organization
from jobs import moves, settling
from jobs.models import Allocation, Attempt, Job, Worker
from jobs.spec import Near as Nearness
from jobs.spec import Spec
from jobs.states import Event as Kind
from jobs.states import State

# How much of the queue one pass looks at; the rest waits its turn. A job that can't be placed costs about 10 us, or
# 0.3 ms when no other in the queue has its shape.
LOOK_AHEAD = 500
# All that a pass needs of a job: whole rows, commands and variables included, would take twice the time.
_LOOKED_AT = (
    *("gpus", "share", "gpu_memory_mb", "profile", "gpu_model", "cpus", "memory_mb"),
    *("workers", "near", "near_required", "pool", "labels", "environment", "reason", "attempts_made"),
    *("team__organization__standing",),
)
# Any number that nothing else in this database locks.
_PASS_LOCK = 0x4A0B5
# How many workers of a gang, and carved devices, an event names one by one.
MOST_NAMED = 8
CAPACITY_AGE_S = 2.0
_capacity: tuple[Snapshot | None, int, float] = (None, 0, 0.0)
# The classes of reason that explain() turns into the numbers of the moment.
EXPLAINED = frozenset({"no_capacity", "out_of_service", "never_fits"})


_NEAR = {
    Nearness.NODE: Near.NODE,
    Nearness.RACK: Near.RACK,
    Nearness.POD: Near.POD,
    Nearness.ANY: Near.ANYWHERE,
}


@dataclass(slots=True)
class _Taken:
    """What is held of one device: thousandths and MiB of it, or the instances it is carved into."""

    units: int = 0
    memory: int = 0
    instances: list[Instance] = field(default_factory=list)


def snapshot() -> Snapshot:
    """The cluster as the rows say it is now, in six queries."""
    return _snapshot(_taken(), used_by_node())


def glance() -> Snapshot:
    """The same in three queries, but its nodes and devices as capacity() remembers them: for whoever only asks.

    Of a thousand nodes most are as they are when nothing runs on them, and need not be made anew.
    """
    taken, used = _taken(), used_by_node()
    return Snapshot(tuple(_filled(node, taken, used) for node in capacity().nodes))


def _filled(node: NodeState, taken: Mapping[int, _Taken], used: Mapping[int, tuple[int, int]]) -> NodeState:
    """A node of which nothing was held, with what is."""
    touched = [cast(int, device.id) in taken for device in node.devices]
    cpus, memory_mb = used.get(cast(int, node.id), (0, 0))
    if not (cpus or memory_mb or any(touched)):
        return node
    return replace(
        node,
        free_cpus=max(0, node.cpus - cpus),
        free_memory_mb=max(0, node.memory_mb - memory_mb),
        devices=tuple(
            _less(device, taken[cast(int, device.id)]) if held else device
            for device, held in zip(node.devices, touched, strict=True)
        ),
    )


def _less(device: DeviceState, taken: _Taken) -> DeviceState:
    """A device of which nothing was held, with what is. One may be found with less memory than running work has."""
    if taken.instances:
        return device.carved(taken.instances)
    return replace(
        device,
        free=max(0, device.capacity - taken.units),
        free_memory_mb=max(0, device.memory_mb - taken.memory),
    )


def _taken() -> dict[int, _Taken]:
    taken: dict[int, _Taken] = {}
    rows = Allocation.objects.filter(ended_at=None).values_list("device_id", "units", "memory", "profile", "start")
    for device_id, units, memory, profile, start in rows.order_by():
        held = taken.setdefault(device_id, _Taken())
        if profile:
            held.instances.append(Instance(profile, start))
        else:
            held.units += units
            held.memory += memory
    return taken


def _snapshot(taken: Mapping[int, _Taken], used: Mapping[int, tuple[int, int]]) -> Snapshot:
    nodes = list(Node.objects.order_by("name"))
    models = DeviceModel.objects.in_bulk()
    devices: dict[int, list[Device]] = {}
    for device in Device.objects.order_by("node_id", "index"):
        device.model = models[device.model_id]
        devices.setdefault(device.node_id, []).append(device)
    return Snapshot(tuple(_filled(_node(node, devices.get(node.pk, [])), taken, used) for node in nodes))


def used_by_node() -> dict[int, tuple[int, int]]:
    """CPUs (thousandths of a core) and memory (MiB) that attempts hold on each node, further workers too."""
    attempts = Attempt.objects.exclude(state=Attempt.State.ENDED).values_list("node_id")
    first = attempts.annotate(Sum("cpus"), Sum("memory_mb")).order_by()
    workers = Worker.objects.exclude(attempt__state=Attempt.State.ENDED).values_list("node_id")
    others = workers.annotate(Sum("attempt__cpus"), Sum("attempt__memory_mb")).order_by()
    used: dict[int, tuple[int, int]] = {}
    for node, cpus, memory in (*first, *others):
        before = used.get(node, (0, 0))
        used[node] = before[0] + cpus, before[1] + memory
    return used


def _node(node: Node, devices: list[Device]) -> NodeState:
    """The node with nothing held of it."""
    return NodeState(
        id=node.pk,
        name=node.name,
        cpus=node.cpus,
        memory_mb=node.memory_mb,
        free_cpus=node.cpus,
        free_memory_mb=node.memory_mb,
        usable=node.usable,
        devices=tuple(
            DeviceState(
                id=device.pk,
                node=node.name,
                model=device.model.name,
                usable=device.usable,
                free=WHOLE,
                memory_mb=device.model.memory_mb,
                free_memory_mb=device.model.memory_mb,
            )
            for device in devices
        ),
        pool=node.pool,
        labels=frozenset(node.labels),
        rack=node.rack,
        pod=node.pod,
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
    policy, mix = settling.current()
    requests = [request_of(job) for job in queue if job.pk not in held]
    plan = engine.plan(snapshot(), requests, policy, mix, explained=False)
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


def request_of(job: Job | Spec) -> Request | Gang:
    """What placement is asked for the job's sake."""
    each = Request(
        id=job.pk if isinstance(job, Job) else ids.new(),
        gpus=job.gpus,
        share=job.share,
        cpus=job.cpus,
        memory_mb=job.memory_mb,
        model=job.gpu_model,
        gpu_memory_mb=job.gpu_memory_mb,
        profile=job.profile,
        pool=job.pool,
        labels=frozenset(job.labels),
    )
    if job.workers == 1:
        return each
    return Gang(each=each, members=job.workers, near=_NEAR[Nearness(job.near)], required=job.near_required)


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


def weight_asked(spec: Spec, model: DeviceModel) -> int | None:
    """The weight that a slice as asked for would have on a device of this model; None where it can't be on one."""
    if spec.gpu_model and model.name not in spec.gpu_model.split("|"):
        return None
    if spec.profile:
        profile = mig.profiles(model.name).get(spec.profile)
        return weights.of_instance(profile) if profile else None
    memory_mb = spec.gpu_memory_mb or model.memory_mb * spec.share // WHOLE
    return weights.of_share(spec.share, memory_mb, model.memory_mb)


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


def explain(job: Job) -> str:
    """Why a waiting job waits, with the numbers of this moment."""
    plan = engine.plan(glance(), [request_of(job)])
    if plan.placements:
        return gettext("There is room for it: it starts with the next look at the queue.")
    return _with_nearest(plan.refusals[0], request_of(job))


def capacity() -> Snapshot:
    """The cluster as if nothing ran on it; up to a few seconds old, since many submits ask for nothing else."""
    global _capacity
    known, report, seen = _capacity
    if known is None or report != inventory.reports or time.monotonic() - seen > CAPACITY_AGE_S:
        known = _snapshot({}, {})
        _capacity = known, inventory.reports, time.monotonic()
    return known


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be asked for by name on this cluster, each sorted; empty where it has none."""

    models: Sequence[str]
    profiles: Sequence[str]
    pools: Sequence[str]
    labels: Sequence[str]
    gangs: bool


def offers(*, carves: bool, gangs: bool) -> Offers:
    """By the nodes and devices there are; `carves` and `gangs` say what the backend is able to do."""
    nodes = capacity().nodes
    models = sorted({device.model for node in nodes for device in node.devices})
    profiles = {name: profile for model in models for name, profile in mig.profiles(model).items()}
    return Offers(
        models=models,
        profiles=sorted(profiles, key=lambda name: (profiles[name].compute, profiles[name].memory)) if carves else [],
        pools=sorted({node.pool for node in nodes if node.pool}),
        labels=sorted({label for node in nodes for label in node.labels}),
        gangs=gangs,
    )


def never_fits(spec: Spec) -> dict[str, str] | None:
    """The fields at fault, each with a sentence, when the cluster could never run the spec; else None."""
    now = capacity()
    if not now.nodes:
        return None  # nothing has reported yet: it waits, and says so
    request = request_of(spec)
    refusal = engine.ever_fits(now, request)
    if refusal is None or refusal.reason is not Reason.NEVER_FITS:
        return None
    field = _AT_FAULT.get(refusal.code, "gpus")
    if refusal.code is sentences.Code.NOT_THERE:
        field = "pool" if spec.pool else "labels"
    return {field: _with_nearest(refusal, request)}


_AT_FAULT = {
    sentences.Code.TOO_MANY_CPUS: "cpus",
    sentences.Code.TOO_MANY_CPUS_BESIDE_GPUS: "cpus",
    sentences.Code.TOO_MUCH_MEMORY: "memory_mb",
    sentences.Code.NO_MODEL: "gpu_model",
    sentences.Code.NO_PROFILE: "profile",
    sentences.Code.NO_GPU_MEMORY: "gpu_memory_mb",
    sentences.Code.GANG_NEVER: "workers",
}


def outlook(spec: Spec) -> tuple[str, str]:
    """When the spec would start as things are now, and why it would be refused at submit ("" if it would not)."""
    request = request_of(spec)
    now = glance()
    never = engine.ever_fits(now, request)
    if never and never.reason is Reason.NEVER_FITS and now.nodes:
        return "", _with_nearest(never, request)
    plan = engine.plan(now, [request])
    if plan.carvings:
        carved = "; ".join(carving.sentence for carving in plan.carvings[:MOST_NAMED])
        return gettext("Room is free: it would start at once (%(carved)s).") % {"carved": carved}, ""
    if plan.placements:
        return gettext("Room is free: it would start at once."), ""
    return gettext("It would wait. %(why)s") % {"why": _with_nearest(plan.refusals[0], request)}, ""


def ahead(job: Job) -> int:
    """How many waiting jobs are looked at before this one."""
    earlier = Q(priority__gt=job.priority) | Q(priority=job.priority, queued_at__lt=job.queued_at)
    return int(Job.objects.filter(earlier, state=State.QUEUED).count())


def _sentence(refusal: Refusal) -> str:
    return gettext(sentences.TEMPLATES[refusal.code]) % refusal.params


def _with_nearest(refusal: Refusal, asked: Request | Gang) -> str:
    """The refusal's sentence, and the nearest request that would fit where there is one: only what differs of it."""
    differs = _differences(refusal.nearest, asked) if refusal.nearest else []
    if not differs:
        return _sentence(refusal)
    return f"{_sentence(refusal)} " + gettext("Nearest that fits: %(nearest)s.") % {"nearest": ", ".join(differs)}


def _differences(nearest: Request | Gang, asked: Request | Gang) -> list[str]:
    found = []
    if isinstance(nearest, Gang) and isinstance(asked, Gang) and nearest.members != asked.members:
        found.append(gettext("%(count)d workers") % {"count": nearest.members})
    near, wanted = (each.each if isinstance(each, Gang) else each for each in (nearest, asked))
    if isinstance(asked, Gang) and not isinstance(nearest, Gang):
        found.append(gettext("1 worker"))
    if near.gpus != wanted.gpus:
        found.append(gettext("%(count)d of the GPUs") % {"count": near.gpus})
    if near.share != wanted.share:
        found.append(gettext("a share of %(share)d of 1000") % {"share": near.share})
    if near.profile != wanted.profile:
        found.append(gettext("profile %(profile)s") % {"profile": near.profile})
    if near.gpu_memory_mb != wanted.gpu_memory_mb:
        found.append(gettext("%(memory)s of GPU memory") % {"memory": sentences.memory(near.gpu_memory_mb)})
    if near.cpus != wanted.cpus:
        found.append(gettext("%(cpus)s CPU cores") % {"cpus": sentences.cores(near.cpus)})
    if near.memory_mb != wanted.memory_mb:
        found.append(gettext("%(memory)s of memory") % {"memory": sentences.memory(near.memory_mb)})
    if near.model != wanted.model:
        found.append(gettext("another GPU model"))
    if (near.pool, near.labels) != (wanted.pool, wanted.labels):
        found.append(gettext("another pool or other labels"))
    return found
