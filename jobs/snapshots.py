"""The cluster as placement is shown it: nodes, devices and what is held of them, made from the rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast
from uuid import UUID

from django.db.models import Sum

from haein.cluster import inventory
from haein.cluster.models import Device, DeviceModel, Node
from haein.placement.model import WHOLE, DeviceState, Instance, NodeState, Snapshot
from jobs.models import Allocation, Attempt, Worker

CAPACITY_AGE_S = 2.0
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


@dataclass(slots=True)
class _Taken:
    """What is held of one device: thousandths and MiB of it, or the instances it is carved into."""

    units: int = 0
    memory: int = 0
    instances: list[Instance] = field(default_factory=list)


def held() -> Held:
    workers = Worker.objects.exclude(attempt__state=Attempt.State.ENDED).order_by()
    return Held(_slices(), list(workers.values_list("attempt_id", "rank", "node_id")))


def _slices() -> list[Slice]:
    rows = Allocation.objects.filter(ended_at=None).order_by("id")
    return [Slice._make(row) for row in rows.values_list(*Slice._fields)]


def now() -> Snapshot:
    """As the rows say it is now, in seven queries."""
    return of(held())


def of(held: Held) -> Snapshot:
    """The same with what is held known already."""
    return _snapshot(_taken(held.slices), used_by_node())


def glance() -> Snapshot:
    """The same in three queries, but its nodes and devices as capacity() remembers them: for whoever only asks.

    Of a thousand nodes most are as they are when nothing runs on them, and need not be made anew.
    """
    taken, used = _taken(_slices()), used_by_node()
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


def _taken(slices: Iterable[Slice]) -> dict[int, _Taken]:
    taken: dict[int, _Taken] = {}
    for each in slices:
        held = taken.setdefault(each.device_id, _Taken())
        if each.profile:
            assert each.start is not None  # a constraint of the table
            held.instances.append(Instance(each.profile, each.start))
        else:
            held.units += each.units
            held.memory += each.memory
    return taken


def _snapshot(taken: Mapping[int, _Taken], used: Mapping[int, tuple[int, int]]) -> Snapshot:
    nodes = list(Node.objects.of_the_cluster().order_by("name"))
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


def capacity() -> Snapshot:
    """The cluster as if nothing ran on it; up to a few seconds old, since many submits ask for nothing else."""
    global _capacity
    known, report, seen = _capacity
    if known is None or report != inventory.reports or time.monotonic() - seen > CAPACITY_AGE_S:
        known = _snapshot({}, {})
        _capacity = known, inventory.reports, time.monotonic()
    return known
