"""The cluster as placement is shown it: nodes, devices and what is held of them, made from the rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast
from uuid import UUID

from django.db import connection
from django.db.models import Sum

from haein.cluster import inventory
from haein.cluster.models import Device, DeviceModel, Node
from haein.placement import mig
from haein.placement.model import WHOLE, DeviceState, Instance, NodeState, Snapshot
from jobs.models import Allocation, Attempt, Worker

CAPACITY_AGE_S = 5.0
_capacity: tuple[Snapshot | None, int, float] = (None, 0, 0.0)


class Slice(NamedTuple):
    """What an attempt's worker holds of one device."""

    attempt_id: UUID
    rank: int
    device_id: int
    units: int
    memory: int
    profile: str
    start: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """All that is held: slices, and (attempt, rank, node) of the further workers of gangs."""

    slices: Sequence[Slice]
    workers: Sequence[tuple[UUID, int, int]]


class Outside(NamedTuple):
    """What work that was not submitted here takes of one device; of none where `device_id` is None."""

    work_id: int
    node_id: int
    cpus: int
    memory_mb: int
    device_id: int | None
    units: int
    memory: int
    profile: str
    start: int


@dataclass(slots=True)
class _Taken:
    """What is held of one device: thousandths and MiB of it, or the instances it is carved into.

    `others` are instances of work that was not submitted here.
    """

    units: int = 0
    memory: int = 0
    instances: list[Instance] = field(default_factory=list)
    others: list[Instance] = field(default_factory=list)


def held() -> Held:
    workers = Worker.objects.exclude(attempt__state=Attempt.State.ENDED).order_by()
    return Held(_slices(), list(workers.values_list("attempt_id", "rank", "node_id")))


def _slices() -> list[Slice]:
    rows = Allocation.objects.filter(ended_at=None).order_by("id")
    return [Slice._make(row) for row in rows.values_list(*Slice._fields)]


def now() -> Snapshot:
    """As the rows say it is now, in eight queries."""
    return of(held())


def of(held: Held) -> Snapshot:
    """The same with what is held known already."""
    others = outside()
    return _snapshot(_taken(held.slices, others), used(others))


def glance() -> Snapshot:
    """The same in four queries, but its nodes and devices as capacity() remembers them: for whoever only asks.

    Of a thousand nodes most are as they are when nothing runs on them, and need not be made anew.
    """
    others = outside()
    taken, by_node = _taken(_slices(), others), used(others)
    return Snapshot(tuple(_filled(node, taken, by_node) for node in capacity().nodes))


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
    """A device of which nothing was held, with what is. One may be found with less memory than running work has.

    The rows and the engine may differ for a moment, and somebody may carve a device anew while it is held: one that is
    held in ways that exclude each other gives nothing until it is not.
    """
    instances, known = _together(device.model, taken)
    layout = device.layout
    if layout and (taken.units or not set(instances) <= set(layout)):
        device, known = replace(device, layout=(), capacity=WHOLE, free=WHOLE, free_memory_mb=device.memory_mb), False
    if not known or (instances and (taken.units or not device.carvable)):
        device = replace(device, usable=False)
    if instances and (taken.instances or not taken.units):
        return device.carved(instances)
    return replace(
        device,
        free=max(0, device.capacity - taken.units),
        free_memory_mb=max(0, device.free_memory_mb - taken.memory),
    )


def _together(model: str, taken: _Taken) -> tuple[list[Instance], bool]:
    """Our instances, with those of others that are beside them, and whether all of theirs can be on such a device."""
    instances = list(taken.instances)
    known = True
    for each in taken.others:
        known = known and mig.is_legal(model, ((each.profile, each.start),))
        if mig.is_legal(model, tuple((one.profile, one.start) for one in (*instances, each))):
            instances.append(each)
    return instances, known


def _taken(slices: Iterable[Slice], others: Iterable[Outside]) -> dict[int, _Taken]:
    taken: dict[int, _Taken] = {}
    for each in slices:
        held = taken.setdefault(each.device_id, _Taken())
        if each.profile:
            assert each.start is not None  # a constraint of the table
            held.instances.append(Instance(each.profile, each.start))
        else:
            held.units += each.units
            held.memory += each.memory
    for other in others:
        if other.device_id is None:
            continue
        held = taken.setdefault(other.device_id, _Taken())
        if other.profile:
            held.others.append(Instance(other.profile, other.start))
        else:
            held.units += other.units
            held.memory += other.memory
    return taken


def _snapshot(taken: Mapping[int, _Taken], used: Mapping[int, tuple[int, int]]) -> Snapshot:
    nodes = list(Node.objects.of_the_cluster().order_by("name"))
    models = DeviceModel.objects.in_bulk()
    devices: dict[int, list[Device]] = {}
    all_of_them = list(Device.objects.order_by("node_id", "index"))
    carvable = not any(device.layout for device in all_of_them if device.present)
    for device in all_of_them:
        device.model = models[device.model_id]
        devices.setdefault(device.node_id, []).append(device)
    return Snapshot(tuple(_filled(_node(node, devices.get(node.pk, []), carvable), taken, used) for node in nodes))


_OUTSIDE = """
    SELECT work.id, work.node_id, work.cpus, work.memory_mb, device.id,
        coalesce((slice->>1)::int, 0), coalesce((slice->>2)::int, 0), coalesce(slice->>3, ''),
        coalesce((slice->>4)::int, -1)
    FROM cluster_outside AS work
    LEFT JOIN LATERAL jsonb_array_elements(work.slices) AS slice ON true
    LEFT JOIN cluster_device AS device ON device.uuid = slice->>0
    ORDER BY work.id
"""


def outside() -> list[Outside]:
    """A row for each slice that others hold, and one for work of theirs without any; one query."""
    with connection.cursor() as cursor:
        cursor.execute(_OUTSIDE)
        return [Outside._make(row) for row in cursor.fetchall()]


def used(others: Iterable[Outside]) -> dict[int, tuple[int, int]]:
    """CPUs (thousandths of a core) and memory (MiB) that we and others hold on each node."""
    found = used_by_node()
    for work in {other.work_id: other for other in others}.values():
        cpus, memory_mb = found.get(work.node_id, (0, 0))
        found[work.node_id] = cpus + work.cpus, memory_mb + work.memory_mb
    return found


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


def _node(node: Node, devices: list[Device], carvable: bool) -> NodeState:
    """The node with nothing held of it. Where somebody else carves the devices, no other is `carvable` here."""
    return NodeState(
        id=node.pk,
        name=node.name,
        cpus=node.cpus,
        memory_mb=node.memory_mb,
        free_cpus=node.cpus,
        free_memory_mb=node.memory_mb,
        usable=node.usable,
        devices=tuple(_device(device, node.name, carvable) for device in devices),
        pool=node.pool,
        labels=frozenset(node.labels),
        rack=node.rack,
        pod=node.pod,
    )


def _device(device: Device, node: str, carvable: bool) -> DeviceState:
    """The device with nothing held of it."""
    model, memory_mb = device.model.name, device.model.memory_mb
    whole = DeviceState(
        id=device.pk,
        node=node,
        model=model,
        usable=device.usable,
        free=WHOLE,
        memory_mb=memory_mb,
        free_memory_mb=memory_mb,
        carvable=carvable,
    )
    layout = tuple((profile, start) for profile, start in device.layout)
    # A layout that is not known here is the device's problem, and says so.
    if not layout or not mig.is_legal(model, layout):
        return whole
    instances = tuple(Instance(*each) for each in layout)
    return replace(whole, capacity=mig.UNITS, free=mig.UNITS, free_memory_mb=0, layout=instances, carvable=True)


def capacity() -> Snapshot:
    """The cluster as if nothing ran on it; up to a few seconds old, since many submits ask for nothing else."""
    global _capacity
    known, report, seen = _capacity
    if known is None or report != inventory.reports or time.monotonic() - seen > CAPACITY_AGE_S:
        known = _snapshot({}, {})
        _capacity = known, inventory.reports, time.monotonic()
    return known
