"""Keeps the rows of nodes and devices in step with what the backend reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from haein.cluster.backends import base
from haein.cluster.backends.base import DeviceFact, NodeFact
from haein.cluster.models import Device, DeviceModel, Node, Outside
from haein.lib import clock
from haein.placement import mig

# How many reports this process has written down; whoever keeps something that follows from one looks here.
reports = 0

_NODE_FACTS = ("cpus", "memory_mb", "emulated", "present", "pool", "labels", "rack", "pod", "problem")
_DEVICE_FACTS = ("node_id", "index", "model_id", "emulated", "present", "problem", "layout")
_OUTSIDE_FACTS = ("owner", "cpus", "memory_mb", "slices", "since")
# Characters, the columns'; an engine's own words have no limit that is known here.
_MOST_PROBLEM, _MOST_NAME = 300, 120


@transaction.atomic
def refresh(facts: Sequence[NodeFact], outside: Sequence[base.Outside] = (), *, now: datetime) -> None:
    """Write the report down; what it no longer names is kept as absent, so that nothing new is placed there.

    `outside` is the work of others on these nodes; what it no longer names is gone. As many queries for a thousand
    devices as for one, and only what changed is written.
    """
    global reports
    reports += 1
    nodes = _nodes(facts, now)
    _devices(facts, nodes, _models(facts))
    _outside(outside, nodes)


def _nodes(facts: Sequence[NodeFact], now: datetime) -> dict[str, int]:
    """The key of every node by its name."""
    known = {node.name: node for node in Node.objects.all()}
    changed = []
    # In one order whoever writes, or two writers at once could wait for each other.
    for fact in sorted(facts, key=lambda fact: fact.name):
        told = Node(
            name=fact.name,
            cpus=fact.cpus,
            memory_mb=fact.memory_mb,
            emulated=fact.emulated,
            pool=fact.pool,
            labels=sorted(fact.labels),
            rack=fact.rack,
            pod=fact.pod,
            problem=fact.problem[:_MOST_PROBLEM],
            present=True,
            seen_at=now,
        )
        if not _is_as(known.get(fact.name), told, _NODE_FACTS):
            changed.append(told)
    if changed:
        written = Node.objects.bulk_create(
            changed, update_conflicts=True, unique_fields=["name"], update_fields=[*_NODE_FACTS, "seen_at"]
        )
        known |= {node.name: node for node in written}
    names = {fact.name for fact in facts}
    Node.objects.filter(name__in=names).update(seen_at=now)
    Node.objects.exclude(name__in=names).filter(present=True).update(present=False)
    return {name: node.pk for name, node in known.items()}


def _models(facts: Sequence[NodeFact]) -> dict[str, int]:
    told = {device.model: device.memory_mb for fact in facts for device in fact.devices}
    known = dict(DeviceModel.objects.values_list("name", "pk"))
    if missing := [DeviceModel(name=name, memory_mb=told[name]) for name in sorted(told.keys() - known.keys())]:
        DeviceModel.objects.bulk_create(missing, ignore_conflicts=True)
        known = dict(DeviceModel.objects.values_list("name", "pk"))
    return known


def _devices(facts: Sequence[NodeFact], nodes: dict[str, int], models: dict[str, int]) -> None:
    told = {
        device.uuid: Device(
            uuid=device.uuid,
            node_id=nodes[fact.name],
            index=device.index,
            model_id=models[device.model],
            emulated=device.emulated,
            present=True,
            problem=_problem(device),
            layout=[[cut.profile, cut.start] for cut in device.layout],
        )
        for fact in facts
        for device in fact.devices
    }
    known = {device.uuid: device for device in Device.objects.order_by()}
    changed = [told[uuid] for uuid in sorted(told) if not _is_as(known.get(uuid), told[uuid], _DEVICE_FACTS)]
    if changed:
        fields = [name.removesuffix("_id") for name in _DEVICE_FACTS]
        Device.objects.bulk_create(changed, update_conflicts=True, unique_fields=["uuid"], update_fields=fields)
    # Those of a node that is not named stay as they were last seen: the node itself is absent.
    named = {nodes[fact.name] for fact in facts}
    Device.objects.filter(node_id__in=named, present=True).exclude(uuid__in=told).update(present=False)


def _problem(device: DeviceFact) -> str:
    """What placement does not know it can't count: nothing is given of it, and the reason is told."""
    if device.problem or not device.layout:
        return device.problem
    layout = tuple((cut.profile, cut.start) for cut in device.layout)
    if mig.is_legal(device.model, layout):
        return ""
    profiles = ", ".join(sorted({profile for profile, _ in layout}))
    return f"It is carved into instances that are not known of a {device.model}: {profiles}."[:_MOST_PROBLEM]


def _outside(outside: Sequence[base.Outside], nodes: dict[str, int]) -> None:
    told = {
        (work.name[:_MOST_NAME], nodes[work.node]): Outside(
            name=work.name[:_MOST_NAME],
            node_id=nodes[work.node],
            owner=work.owner[:_MOST_NAME],
            cpus=work.cpus,
            memory_mb=work.memory_mb,
            slices=[[each.device_uuid, each.units, each.memory, each.profile, each.start] for each in work.slices],
            since=clock.from_epoch(work.since),
        )
        for work in outside
        if work.node in nodes
    }
    known = {(work.name, work.node_id): work for work in Outside.objects.all()}
    changed = [told[key] for key in sorted(told) if not _is_as(known.get(key), told[key], _OUTSIDE_FACTS)]
    if changed:
        Outside.objects.bulk_create(
            changed, update_conflicts=True, unique_fields=["name", "node"], update_fields=_OUTSIDE_FACTS
        )
    if gone := [known[key].pk for key in known.keys() - told.keys()]:
        Outside.objects.filter(pk__in=gone).delete()


def _is_as(row: Node | Device | Outside | None, told: Node | Device | Outside, names: Sequence[str]) -> bool:
    return row is not None and all(getattr(row, name) == getattr(told, name) for name in names)
